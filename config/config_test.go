package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ws-gateway/config"
)

var update = flag.Bool("update", false, "rewrite the settings table in README.md")

func TestLoadDefaults(t *testing.T) {
	c, err := config.Load([]string{"HOME=/nowhere", "PATH=/bin"})
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	for _, v := range []struct {
		name      string
		got, want any
	}{
		{"Addr", c.Addr, ":5000"},
		{"StatAddr", strings.Join(c.StatAddr, " "), "127.0.0.1:6000 127.0.0.1:6001"},
		{"Auth", c.Auth, "demo"},
		{"AuthDeadline", c.AuthDeadline, 10 * time.Second},
		{"MaxText", c.MaxText, config.Bytes(65536)},
		{"MaxBody", c.MaxBody, config.Bytes(1 << 20)},
		{"HistoryMemory", c.HistoryMemory, config.Bytes(256 << 20)},
		{"MaxConnections", c.MaxConnections, (*int)(nil)},
		{"CommandRate", c.CommandRate, 50.0},
		{"Durability", c.Durability, "memory"},
		{"LogLevel", c.LogLevel, slog.LevelInfo},
		{"Node", c.Node, host},
	} {
		if v.got != v.want {
			t.Errorf("%s = %v, want %v", v.name, v.got, v.want)
		}
	}
}

func TestLoadReadsEveryKind(t *testing.T) {
	c, err := config.Load([]string{
		"WSGW_ADDR=[fe80::1%eth0]:5000", "WSGW_STAT_ADDR=[::1]:6000", "WSGW_PPROF=true", "WSGW_NODE=a",
		"WSGW_ORIGINS= https://a.example , https://b.example:8443,", "WSGW_TRUSTED_PROXIES=10.1.2.3/8,::1",
		"WSGW_MAX_CONNECTIONS=0", "WSGW_QUEUE_BYTES=2 MiB", "WSGW_PING_INTERVAL=1m30s", "WSGW_PUSH_RATE=0.5",
		"WSGW_PUSH_KEYS=one,two", "WSGW_LOG_LEVEL=WARN", "WSGW_DOORS=/a=x.lua,/b=y.lua",
		"WSGW_REDIS=main=redis://:secret@127.0.0.1:6379/0", "WSGW_AUTH=jwt", "WSGW_JWT_SECRET=" + strings.Repeat("k", 32),
		"WSGW_JWT_AUDIENCE=chat", "WSGW_JWT_ALGORITHMS=HS256, HS512", "WSGW_DRAIN_DELAY=", "WSGW_UNKNOWN=",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		name      string
		got, want any
	}{
		{"Addr", c.Addr, "[fe80::1%eth0]:5000"},
		{"PProf", c.PProf, true},
		{"Origins", c.Origins, []string{"https://a.example", "https://b.example:8443"}},
		{"TrustedProxies", c.TrustedProxies, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}},
		{"MaxConnections", *c.MaxConnections, 0},
		{"QueueBytes", c.QueueBytes, config.Bytes(2 << 20)},
		{"PingInterval", c.PingInterval, 90 * time.Second},
		{"PushRate", c.PushRate, 0.5},
		{"PushKeys", c.PushKeys, []config.Secret{"one", "two"}},
		{"LogLevel", c.LogLevel, slog.LevelWarn},
		{"Doors", c.Doors, map[string]string{"/a": "x.lua", "/b": "y.lua"}},
		{"Redis", c.Redis, map[string]config.Secret{"main": "redis://:secret@127.0.0.1:6379/0"}},
		{"JWTAlgorithms", c.JWTAlgorithms, []string{"HS256", "HS512"}},
		{"DrainDelay", c.DrainDelay, time.Duration(0)}, // empty is not set
	} {
		if !reflect.DeepEqual(v.got, v.want) {
			t.Errorf("%s = %#v, want %#v", v.name, v.got, v.want)
		}
	}
}

func TestC01LoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		env  string // variables separated by ;
		want string // the whole error
	}{
		{"WSGW_PING_INTERVALL=5s", "WSGW_PING_INTERVALL: is not a setting; the nearest is WSGW_PING_INTERVAL"},
		{"WSGW_MAX_CONNECTION=5", "WSGW_MAX_CONNECTION: is not a setting; the nearest is WSGW_MAX_CONNECTIONS"},
		{"WSGW_NATS=nats://:canary@a:4222", "WSGW_NATS: is for a cluster, and this build runs one node"},
		{"WSGW_CLUSTER=:6222;WSGW_CLUSTER_ROUTES=b:6222;WSGW_CLUSTER_SECRET=canary", "WSGW_CLUSTER: is for a cluster, and this build runs one node\n" +
			"WSGW_CLUSTER_ROUTES: is for a cluster, and this build runs one node\n" +
			"WSGW_CLUSTER_SECRET: is for a cluster, and this build runs one node"},
		{"WSGW_DURABILITY=disk", `WSGW_DURABILITY: "disk" is not memory; disk and quorum need a cluster, and this build runs one node`},
		{"WSGW_PING_INTERVAL=25", `WSGW_PING_INTERVAL: "25" is not a duration; write it like 500ms, 10s or 1m30s`},
		{"WSGW_PING_INTERVAL=1ns", "WSGW_PING_INTERVAL: 1ns is out of range; allowed is 100ms to 1h"},
		{"WSGW_MAX_TEXT=lots", `WSGW_MAX_TEXT: "lots" is not a size; write it like 4096, 64KiB or 1MiB`},
		{"WSGW_MAX_BODY=2GiB", "WSGW_MAX_BODY: 2.0GiB is out of range; allowed is 1KiB to 1GiB"},
		{"WSGW_MAX_BODY=1e300GiB", `WSGW_MAX_BODY: "1e300GiB" is not a size; write it like 4096, 64KiB or 1MiB`},
		{"WSGW_MAX_SUBSCRIPTIONS=1.5", `WSGW_MAX_SUBSCRIPTIONS: "1.5" is not a whole number`},
		{"WSGW_MAX_SUBSCRIPTIONS=0", "WSGW_MAX_SUBSCRIPTIONS: 0 is out of range; allowed is 1 to 1000000"},
		{"WSGW_MAX_CONNECTIONS=-1", "WSGW_MAX_CONNECTIONS: -1 is out of range; allowed is 0 or more"},
		{"WSGW_COMMAND_RATE=NaN", `WSGW_COMMAND_RATE: "NaN" is not a number`},
		{"WSGW_PPROF=perhaps", `WSGW_PPROF: "perhaps" is not one of true, false`},
		{"WSGW_LOG_LEVEL=loud", `WSGW_LOG_LEVEL: "loud" is not one of debug, info, warn, error`},
		{"WSGW_LOG_LEVEL=info+1", `WSGW_LOG_LEVEL: "info+1" is not one of debug, info, warn, error`},
		{"WSGW_FORBIDDEN_CODE=404", `WSGW_FORBIDDEN_CODE: "404" is not one of 403, 200`},
		{"WSGW_AUTH=ldap", `WSGW_AUTH: "ldap" is not one of demo, static, callback, jwt, none`},
		{"WSGW_ADDR=5000", `WSGW_ADDR: "5000" is not an address; write it like :5000, 127.0.0.1:5000 or [::1]:5000`},
		{"WSGW_ADDR=:65536", `WSGW_ADDR: ":65536" has no port between 0 and 65535`},
		{"WSGW_ADDR=[::zz]:1", `WSGW_ADDR: "[::zz]:1" has no valid IPv6 address`},
		{"WSGW_STAT_ADDR=:6000", "WSGW_STAT_KEY: is needed, because :6000 of WSGW_STAT_ADDR is not a loopback address"},
		{"WSGW_TLS_CERT=a.pem", "WSGW_TLS_KEY: is needed, because WSGW_TLS_CERT is set"},
		{"WSGW_TLS_KEY=a.pem", "WSGW_TLS_CERT: is needed, because WSGW_TLS_KEY is set"},
		{"WSGW_ORIGINS=example.com", `WSGW_ORIGINS: "example.com" is not an origin; write it like https://example.com or https://example.com:8443`},
		{"WSGW_ORIGINS=https://example.com/", `WSGW_ORIGINS: "https://example.com/" is not an origin; write it like https://example.com or https://example.com:8443`},
		{"WSGW_TRUSTED_PROXIES=10.0.0.0/8,proxy", `WSGW_TRUSTED_PROXIES: "10.0.0.0/8,proxy" has "proxy", which is neither a network like 10.0.0.0/8 nor an address`},
		{"WSGW_AUTH=static", "WSGW_MEMBERS_FILE: is needed for WSGW_AUTH=static"},
		{"WSGW_MEMBERS_FILE=m.yaml", "WSGW_MEMBERS_FILE: is set, but WSGW_AUTH is demo; set WSGW_AUTH=static to use it"},
		{"WSGW_AUTH=callback", "WSGW_AUTH_URL: is needed for WSGW_AUTH=callback"},
		{"WSGW_AUTH=callback;WSGW_AUTH_URL=file:///etc/passwd", "WSGW_AUTH_URL: is not a URL like https://example.com/path"},
		{"WSGW_AUTH=jwt;WSGW_JWT_AUDIENCE=x", "WSGW_AUTH: jwt needs one of WSGW_JWT_SECRET, WSGW_JWT_KEY_FILE and WSGW_JWT_JWKS_URL, and has 0"},
		{"WSGW_AUTH=jwt;WSGW_JWT_AUDIENCE=x;WSGW_JWT_SECRET=short", "WSGW_JWT_SECRET: has 5 bytes; at least 32 are needed"},
		{"WSGW_AUTH=jwt;WSGW_JWT_AUDIENCE=x;WSGW_JWT_JWKS_URL=http://idp.example/keys", "WSGW_JWT_JWKS_URL: is not https, and its host is not loopback"},
		{"WSGW_AUTH=jwt;WSGW_JWT_KEY_FILE=k.pem", "WSGW_JWT_AUDIENCE: is needed for WSGW_AUTH=jwt, so that tokens made for others are refused"},
		{"WSGW_AUTH=jwt;WSGW_JWT_AUDIENCE=x;WSGW_JWT_KEY_FILE=k.pem;WSGW_JWT_ALGORITHMS=HS256", "WSGW_JWT_ALGORITHMS: HS256 does not go with the kind of key that is set"},
		{"WSGW_AUTH=jwt;WSGW_JWT_AUDIENCE=x;WSGW_JWT_KEY_FILE=k.pem;WSGW_JWT_ALGORITHMS=none", `WSGW_JWT_ALGORITHMS: "none" is not one of HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA`},
		{"WSGW_MAX_TEXT=2MiB;WSGW_QUEUE_BYTES=4MiB", "WSGW_MAX_TEXT: is greater than WSGW_MAX_BODY, which would refuse it"},
		{"WSGW_QUEUE_BYTES=4KiB", "WSGW_QUEUE_BYTES: is less than WSGW_MAX_TEXT, so that one message would not fit"},
		{"WSGW_MAX_MESSAGE=1MiB;WSGW_PARTIAL_BYTES=512KiB", "WSGW_PARTIAL_BYTES: is less than WSGW_MAX_MESSAGE, so that one message would not fit"},
		{"WSGW_DOORS=chat.lua", `WSGW_DOORS: "chat.lua" has no name=value as element 1; it is for doors, as /path=script.lua`},
		{"WSGW_DOORS=/a=x.lua,/a=y.lua", `WSGW_DOORS: "/a=x.lua,/a=y.lua" has /a twice; it is for doors, as /path=script.lua`},
		{"WSGW_DOORS=a=x.lua", `WSGW_DOORS: "a" is not a path; write it like /chat=chat.lua`},
		{"WSGW_DOORS=/ws=x.lua", "WSGW_DOORS: /ws is an endpoint of the gateway itself"},
		{"WSGW_REDIS=canary", "WSGW_REDIS: has no name=value as element 1; it is for Redis servers for scripts, as name=redis://host:6379"},
		{"WSGW_REDIS=a=canary", "WSGW_REDIS: a has no URL like redis://host:6379"},
		{"WSGW_ADDR=x;WSGW_MAX_TEXT=y;WSGW_Z=1", "WSGW_Z: is not a setting; the nearest is WSGW_ADDR\n" +
			`WSGW_MAX_TEXT: "y" is not a size; write it like 4096, 64KiB or 1MiB`},
	} {
		t.Run(tt.env, func(t *testing.T) {
			c, err := config.Load(strings.Split(tt.env, ";"))
			if err == nil {
				t.Fatalf("accepted, want: %s", tt.want)
			}
			if c != nil {
				t.Error("a Config came with the error")
			}
			if err.Error() != tt.want {
				t.Errorf("\n got %s\nwant %s", err, tt.want)
			}
			var one *config.Error
			if !errors.As(err, &one) || !strings.HasPrefix(one.Setting, config.Prefix) {
				t.Errorf("%v does not wrap an Error that names the setting", err)
			}
		})
	}
}

func TestSecretsStayHidden(t *testing.T) {
	const canary = "canary-0123456789-0123456789-0123"
	c, err := config.Load([]string{
		"WSGW_PUSH_KEYS=" + canary + ",b", "WSGW_STAT_KEY=" + canary, "WSGW_REDIS=a=redis://:" + canary + "@h:1",
		"WSGW_AUTH=jwt", "WSGW_JWT_AUDIENCE=x", "WSGW_JWT_SECRET=" + canary, "WSGW_DOORS_OPTIONS=token=" + canary,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.AuthURL, c.JWTJWKSURL = "https://user:"+canary+"@host/", "https://host/?key="+canary // do not go with the rest
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s\n", c, *c, *c, c.StatKey)
	json.NewEncoder(&out).Encode(c)
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
		log.Info("x", "config", c, "key", c.StatKey, "keys", c.PushKeys, "redis", c.Redis, "options", c.DoorsOptions, "url", c.AuthURL)
	}
	if strings.Contains(out.String(), canary) {
		t.Errorf("a secret was printed:\n%s", out.String())
	}
	if string(c.StatKey) != canary {
		t.Errorf("the secret itself is %q", string(c.StatKey))
	}
}

// Whatever is wrong with a secret, the error does not show it.
func TestA09ErrorsHideSecrets(t *testing.T) {
	for _, s := range config.Settings() {
		if !s.Secret {
			continue
		}
		for _, value := range []string{
			"canary", "canary canary", "x=canary,x=canary", "x=canary,canary", "https://:canary@[::1/", "https://:can%ary@h/?canary#canary",
			"canary://user:canary@h", "http://user:canary@h:canary/", "x=redis://:canary@h:canary",
		} {
			for _, auth := range []string{"demo", "callback", "jwt"} {
				_, err := config.Load([]string{"WSGW_AUTH=" + auth, s.Name + "=" + value})
				if err != nil && strings.Contains(err.Error(), "canary") {
					t.Errorf("%s=%s: %v", s.Name, value, err)
				}
			}
		}
	}
}

// TestSettingsAreDescribed keeps the tags whole: every setting has a name and a sentence, and
// its default is allowed.
func TestSettingsAreDescribed(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range config.Settings() {
		if s.Name == config.Prefix || s.Doc == "" || seen[s.Name] {
			t.Errorf("setting %+v has no name or description of its own", s)
		}
		seen[s.Name] = true
		if !strings.Contains(config.Text(), s.Name) || !strings.Contains(config.Markdown(), "`"+s.Name+"`") {
			t.Errorf("%s is missing from the text or the table", s.Name)
		}
	}
	if !slices.ContainsFunc(config.Settings(), func(s config.Setting) bool { return s.Name == "WSGW_ADDR" && s.Default == ":5000" }) {
		t.Error("WSGW_ADDR with its default is missing")
	}
}

// TestReadmeTable compares the README's settings with the code's. To rewrite them:
//
//	go test ./config -run TestReadmeTable -update
func TestReadmeTable(t *testing.T) {
	for _, path := range []string{"../README.md", "../README.zh-CN.md"} {
		t.Run(filepath.Base(path), func(t *testing.T) { settingsTable(t, path) })
	}
}

// settingsTable compares the table in one file.
func settingsTable(t *testing.T, path string) {
	const begin, end = "<!-- settings: made from config by its test -->\n", "<!-- end of settings -->\n"
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(file), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", path, begin, end)
	}
	if table == config.Markdown() {
		return
	}
	if !*update {
		t.Fatalf("the settings table of %s is out of date; run this test with -update", path)
	}
	if err := os.WriteFile(path, []byte(head+begin+config.Markdown()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
