package stat_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ws-gateway/stat"
)

// everything is every route that numbers come from.
var everything = []string{"/stat", "/stat/stream", "/metrics", "/debug/pprof/", "/debug/pprof/heap", "/", "/nowhere"}

func options(key string) stat.HandlerOptions {
	return stat.HandlerOptions{
		Metrics: stat.New(stat.Options{}),
		Key:     key,
		Pprof:   true,
		Reload:  func() ([]string, error) { return nil, nil },
	}
}

func TestM02NothingFromOutsideWithoutAKey(t *testing.T) {
	o := options("")
	for _, address := range []string{"192.0.2.7:999", "[2001:db8::1]:999", "[::ffff:192.0.2.7]:999", "@", ""} {
		for _, path := range everything {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = "localhost:6000"
			if a := remote(o, address, r, t); a.status != 401 || strings.Contains(a.body, "goroutine") {
				t.Errorf("%s from %q answers %d", path, address, a.status)
			}
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			if a := remote(o, address, httptest.NewRequest(http.MethodGet, path, nil), t); a.status != 200 {
				t.Errorf("%s from %q answers %d", path, address, a.status)
			}
		}
	}
	if got := o.Metrics.Snapshot().Refused[stat.ReasonStatKey]; got != 5*uint64(len(everything)) {
		t.Errorf("%d refusals counted, want %d", got, 5*len(everything))
	}
}

func TestM02LoopbackWithoutAKey(t *testing.T) {
	o := options("")
	for _, c := range []struct {
		name   string
		header map[string]string
		status int
	}{
		{"plain", nil, 200},
		{"localhost", map[string]string{"Host": "LocalHost:6000"}, 200},
		{"localhost with a dot", map[string]string{"Host": "localhost."}, 200},
		{"127/8", map[string]string{"Host": "127.9.9.9"}, 200},
		{"IPv6", map[string]string{"Host": "[::1]:6000"}, 200},
		{"IPv6 without a port", map[string]string{"Host": "[::1]"}, 200},
		{"a rebound name", map[string]string{"Host": "evil.example:6000"}, 421},
		{"a name that begins right", map[string]string{"Host": "localhost.evil.example"}, 421},
		{"a name that looks like an address", map[string]string{"Host": "127.0.0.1.evil.example"}, 421},
		{"another address", map[string]string{"Host": "192.0.2.7"}, 421},
		{"forwarded", map[string]string{"Forwarded": "for=192.0.2.7"}, 401},
		{"X-Forwarded-For", map[string]string{"X-Forwarded-For": "127.0.0.1"}, 401},
		{"X-Forwarded-Host", map[string]string{"X-Forwarded-Host": "localhost"}, 401},
		{"X-Real-IP", map[string]string{"X-Real-IP": "127.0.0.1"}, 401},
		{"Via", map[string]string{"Via": "1.1 proxy"}, 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			if a := get(t, serve(t, o), "/stat", c.header); a.status != c.status {
				t.Errorf("answers %d, want %d", a.status, c.status)
			}
		})
	}
}

func TestM02Key(t *testing.T) {
	const key = "correct horse"
	o := options(key)
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for _, c := range []struct {
		name, authorization string
		status              int
	}{
		{"bearer", "Bearer " + key, 200},
		{"scheme in any case", "bearer  " + key, 200},
		{"basic", basic("", key), 200},
		{"basic with a name", basic("admin", key), 200},
		{"none", "", 401},
		{"wrong", "Bearer wrong", 401},
		{"a prefix", "Bearer correct", 401},
		{"longer", "Bearer " + key + "!", 401},
		{"empty bearer", "Bearer ", 401},
		{"bare", key, 401},
		{"basic, as the name", basic(key, ""), 401},
		{"basic, not base64", "Basic %%%", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, address := range []string{"192.0.2.7:999", "127.0.0.1:999"} { // a key holds on loopback too
				r := httptest.NewRequest(http.MethodGet, "/stat", nil)
				r.Host = "gateway.example" // with a key, any name
				r.Header.Set("Authorization", c.authorization)
				a := remote(o, address, r, t)
				if a.status != c.status {
					t.Errorf("from %s answers %d, want %d", address, a.status, c.status)
				}
				if challenges := len(a.header["Www-Authenticate"]); (challenges > 0) != (c.status == 401) {
					t.Errorf("%d challenges with status %d", challenges, a.status)
				}
				if strings.Contains(a.body, key) {
					t.Error("the answer has the key in it")
				}
			}
		})
	}
	for _, path := range everything {
		if a := remote(o, "192.0.2.7:999", httptest.NewRequest(http.MethodGet, path, nil), t); a.status != 401 {
			t.Errorf("%s without the key answers %d", path, a.status)
		}
	}
	if a := remote(o, "192.0.2.7:999", httptest.NewRequest(http.MethodPost, "/reload", nil), t); a.status != 401 {
		t.Errorf("/reload without the key answers %d", a.status)
	}
}

func TestForeignPages(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		header             map[string]string
		status             int
	}{
		{"curl", "POST", "/reload", nil, 200},
		{"own page", "POST", "/reload", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{"foreign form", "POST", "/reload", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403},
		{"another port of this host", "POST", "/reload", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"foreign page, old browser", "POST", "/reload", map[string]string{"Origin": "https://evil.example"}, 403},
		{"sandboxed page", "POST", "/reload", map[string]string{"Origin": "null"}, 403},
		{"foreign script", "GET", "/stat/stream", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403},
		{"foreign image", "GET", "/metrics", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		{"a link", "GET", "/stat", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200},
		{"the address bar", "GET", "/stat", map[string]string{"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options("")
			if a := ask(t, c.method, serve(t, o), c.path, c.header); a.status != c.status {
				t.Errorf("answers %d, want %d", a.status, c.status)
			}
			if got := o.Metrics.Snapshot().Refused[stat.ReasonOrigin]; got > 0 != (c.status == 403) {
				t.Errorf("%d refusals counted with status %d", got, c.status)
			}
		})
	}
}
