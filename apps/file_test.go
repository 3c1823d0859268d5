package apps_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ws-gateway/apps"
)

func parse(t *testing.T, text string) *apps.Registry {
	t.Helper()
	r, err := apps.Parse("apps.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestC01FileErrors(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", `apps.yaml: empty: a file without rules of its own says "apps: {}"`},
		{"only a comment", "# nothing\n", `apps.yaml: empty: a file without rules of its own says "apps: {}"`},
		{"null", "~", "apps.yaml:1:1: must be an object (key: value), not nothing"},
		{"a list", "- apps", "apps.yaml:1:1: must be an object (key: value), not a list"},
		{"unknown key", "appz: {}", "apps.yaml:1:1: appz: unknown key; did you mean apps?"},
		{"wrong case", "Apps: {}", "apps.yaml:1:1: Apps: unknown key; did you mean apps?"},
		{"nothing like it", "listen: 1", "apps.yaml:1:1: listen: unknown key; known are default, apps"},
		{"unknown key of an entry", "apps:\n  im: {visibilty: private}", "apps.yaml:2:8: apps.im.visibilty: unknown key; did you mean visibility?"},
		{"an entry's key at the top", "apps: {}\npush: []", "apps.yaml:2:1: push: unknown key; known are default, apps"},
		{"long unknown key", "apps: {a: {" + strings.Repeat("x", 1000) + ": 1}}",
			`apps.yaml:1:12: apps.a."` + strings.Repeat("x", 64) + `"…: unknown key; known are visibility, subscribe, push, presence, history, slow`},
		{"duplicate key", "apps: {}\napps: {}", "apps.yaml:2:1: apps: duplicate of line 1"},
		{"duplicate app", "apps:\n  42: {}\n  '42': {}", "apps.yaml:3:3: apps.42: duplicate of line 2"},
		{"duplicate setting", "apps:\n  a: {slow: close, slow: latest}", "apps.yaml:2:20: apps.a.slow: duplicate of line 2"},
		{"key is a list", "apps: {[a]: {}}", "apps.yaml:1:8: apps: a key must be a word, not a list"},
		{"default", "default: private", "apps.yaml:1:10: default: must be public or deny, not \"private\""},
		{"default misspelt", "default: publik", `apps.yaml:1:10: default: must be public or deny, not "publik"; did you mean public?`},
		{"apps is a list", "apps: [match]", "apps.yaml:1:7: apps: must be an object (key: value), not a list"},
		{"apps is nothing", "apps:\n", "apps.yaml:1:6: apps: must be an object (key: value), not nothing"},
		{"reserved", "apps: {gateway: {}}", "apps.yaml:1:8: apps.gateway: reserved for the gateway's own replies"},
		{"bad name", "apps: {'a b': {}}", `apps.yaml:1:8: apps."a b": ' ' cannot be in an app name, only letters, digits and _ . : @ / -`},
		{"newline in a name", `apps: {"a\nb": {}}`, `apps.yaml:1:8: apps."a\nb": '\n' cannot be in an app name, only letters, digits and _ . : @ / -`},
		{"empty name", "apps: {'': {}}", `apps.yaml:1:8: apps."": an app name cannot be empty`},
		{"long name", "apps: {" + strings.Repeat("n", 129) + ": {}}", "apps.yaml:1:8: apps." + strings.Repeat("n", 129) + ": longer than 128 bytes"},
		{"pattern without quotes", "apps:\n  *:lobby: {}", "apps.yaml:2:3: not YAML: unknown anchor ':lobby' referenced; a pattern that begins with * needs quotes"},
		{"visibility", "apps: {a: {visibility: hidden}}", `apps.yaml:1:24: apps.a.visibility: must be public or private, not "hidden"`},
		{"visibility is a list", "apps: {a: {visibility: [private]}}", "apps.yaml:1:24: apps.a.visibility: must be public or private, not a list"},
		{"presence", "apps: {a: {presence: yes}}", `apps.yaml:1:22: apps.a.presence: must be true or false, not "yes"`},
		{"slow", "apps: {a: {slow: drop-oldest}}", `apps.yaml:1:18: apps.a.slow: must be close, drop_oldest or latest, not "drop-oldest"; did you mean drop_oldest?`},
		{"entry is a word", "apps: {a: private}", `apps.yaml:1:11: apps.a: must be an object (key: value), not "private"`},
		{"entry is ~", "apps: {a: ~}", "apps.yaml:1:11: apps.a: must be an object (key: value), not nothing"},

		{"history is a number", "apps: {a: {history: 10}}", `apps.yaml:1:21: apps.a.history: must be off or an object of size and ttl, not "10"`},
		{"history: no", "apps: {a: {history: no}}", `apps.yaml:1:21: apps.a.history: must be off or an object of size and ttl, not "no"`},
		{"history: true", "apps: {a: {history: true}}", `apps.yaml:1:21: apps.a.history: must be off or an object of size and ttl, not "true"`},
		{"history of nothing", "apps: {a: {history: }}", "apps.yaml:1:21: apps.a.history: must be off or an object of size and ttl, not nothing"},
		{"unknown key of history", "apps: {a: {history: {sise: 1}}}", "apps.yaml:1:22: apps.a.history.sise: unknown key; did you mean size?"},
		{"size 0", "apps: {a: {history: {size: 0}}}", `apps.yaml:1:28: apps.a.history.size: must be a number of messages, 1 to 100000, not "0" (history: off keeps none)`},
		{"size too large", "apps: {a: {history: {size: 100001}}}", `apps.yaml:1:28: apps.a.history.size: must be a number of messages, 1 to 100000, not "100001" (history: off keeps none)`},
		{"size above int64", "apps: {a: {history: {size: 99999999999999999999}}}", `apps.yaml:1:28: apps.a.history.size: must be a number of messages, 1 to 100000, not "99999999999999999999" (history: off keeps none)`},
		{"size octal", "apps: {a: {history: {size: 010}}}", `apps.yaml:1:28: apps.a.history.size: must be a number of messages, 1 to 100000, not "010" (history: off keeps none)`},
		{"size is a fraction", "apps: {a: {history: {size: 1.5}}}", `apps.yaml:1:28: apps.a.history.size: must be a number of messages, 1 to 100000, not "1.5" (history: off keeps none)`},
		{"ttl without unit", "apps: {a: {history: {ttl: 10}}}", `apps.yaml:1:27: apps.a.history.ttl: must be a duration from 1s to 720h, such as 90s, 10m or 1h30m, not "10"`},
		{"ttl in days", "apps: {a: {history: {ttl: 1d}}}", `apps.yaml:1:27: apps.a.history.ttl: must be a duration from 1s to 720h, such as 90s, 10m or 1h30m, not "1d"`},
		{"ttl too short", "apps: {a: {history: {ttl: 999ms}}}", `apps.yaml:1:27: apps.a.history.ttl: must be a duration from 1s to 720h, such as 90s, 10m or 1h30m, not "999ms"`},
		{"ttl too long", "apps: {a: {history: {ttl: 720h1s}}}", `apps.yaml:1:27: apps.a.history.ttl: must be a duration from 1s to 720h, such as 90s, 10m or 1h30m, not "720h1s"`},
		{"ttl negative", "apps: {a: {history: {ttl: -5m}}}", `apps.yaml:1:27: apps.a.history.ttl: must be a duration from 1s to 720h, such as 90s, 10m or 1h30m, not "-5m"`},

		{"list is a word", "apps: {a: {subscribe: members}}", `apps.yaml:1:23: apps.a.subscribe: must be a list such as [members, "role:gold", 42], not "members"`},
		{"list is nothing", "apps: {a: {push: }}", `apps.yaml:1:18: apps.a.push: must be a list such as [members, "role:gold", 42], not nothing`},
		{"unknown principal", "apps: {a: {subscribe: [42, member]}}", `apps.yaml:1:28: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not "member"; did you mean members?`},
		{"role with a space", "apps: {a: {subscribe: [role: gold]}}", "apps.yaml:1:24: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not an object"},
		{"role without name", "apps: {a: {subscribe: ['role:']}}", "apps.yaml:1:24: apps.a.subscribe: the name of a role has 1 to 128 bytes"},
		{"role of spaces", "apps: {a: {subscribe: ['role: x']}}", `apps.yaml:1:24: apps.a.subscribe: " x" cannot be the name of a role`},
		{"member 0", "apps: {a: {subscribe: [0]}}", `apps.yaml:1:24: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not "0"; a member id is 1 to 9007199254740991`},
		{"member -1", "apps: {a: {subscribe: [-1]}}", `apps.yaml:1:24: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not "-1"; a member id is 1 to 9007199254740991`},
		{"member 2^53", "apps: {a: {subscribe: [9007199254740992]}}", `apps.yaml:1:24: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not "9007199254740992"; a member id is 1 to 9007199254740991`},
		{"member 042", "apps: {a: {subscribe: [042]}}", `apps.yaml:1:24: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not "042"; a member id is 1 to 9007199254740991`},
		{"null in a list", "apps: {a: {subscribe: [~]}}", "apps.yaml:1:24: apps.a.subscribe: must be anyone, members, owner, role:NAME or a member id, not nothing"},
		{"twice in a list", "apps: {a: {subscribe: [42, '42']}}", `apps.yaml:1:28: apps.a.subscribe: "42" is in the list twice`},
		{"owner of a name", "apps: {a: {subscribe: [owner]}}", "apps.yaml:1:24: apps.a.subscribe: owner needs {member_id} in the name of the entry"},
		{"owner of a pattern", "apps: {'a:*': {push: [owner]}}", "apps.yaml:1:23: apps.a:*.push: owner needs {member_id} in the name of the entry"},
		{"anyone pushes", "apps: {a: {push: [anyone]}}", "apps.yaml:1:19: apps.a.push: anyone cannot push, as nobody could tell it from the backend; members can"},
		{"anyone in a private app", "apps: {a: {subscribe: [anyone], visibility: private}}",
			"apps.yaml:1:24: apps.a.subscribe: anyone cannot subscribe to a private app, whose pushes name a member; members can"},

		{"not YAML", "apps: {a: {}", "apps.yaml:2:1: not YAML: did not find expected ',' or '}'"},
		{"tab", "apps:\n\ta: {}", "apps.yaml:2:1: not YAML: found character that cannot start any token"},
		{"not UTF-8", "apps:\n  a: {} # \xff", "apps.yaml:2:11: not UTF-8"},
		{"UTF-16", "\xff\xfea\x00", "apps.yaml:1:1: not UTF-8"},
		{"second document", "apps: {}\n---\napps: {}", "apps.yaml:2:1: a second document: the file holds one"},
		{"broken second document", "apps: {}\n---\n{", "apps.yaml:4:1: not YAML: did not find expected node content"},
		{"anchor", "apps: {a: &x {}}", "apps.yaml:1:11: apps.a: anchors, aliases and merge keys are not supported"},
		{"alias", "apps: {a: {push: &x [members]}, b: {push: *x}}", "apps.yaml:1:18: apps.a.push: anchors, aliases and merge keys are not supported"},
		{"merge key", "apps: {a: {<<: {slow: close}}}", "apps.yaml:1:12: apps.a: anchors, aliases and merge keys are not supported"},
		{"tag", "apps: !!map {}", "apps.yaml:1:7: apps: tags are not supported"},
		{"deep", strings.Repeat("[", mib), "apps.yaml:1:10001: not YAML: exceeded max depth of 10000"},
		{"large", strings.Repeat("#", mib+1), "apps.yaml: larger than 1048576 bytes"},
		{"many", "apps:\n" + strings.Repeat("  a:\n", 10_001), "apps.yaml:2:3: apps: 10001 entries, at most 10000 are allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := apps.Parse("apps.yaml", []byte(tt.text))
			var at *apps.FileError
			if !errors.As(err, &at) {
				t.Fatalf("%v is no FileError", err)
			}
			if err.Error() != tt.want {
				t.Errorf("got  %s\nwant %s", err, tt.want)
			}
		})
	}
}

func TestC01FileUnreadable(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "apps.yaml")
	if _, err := apps.Load(missing); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := apps.Load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory: %v", err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, make([]byte, 1<<21), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := apps.Load(large); err == nil || err.Error() != "WSGW_APPS_FILE: "+large+": larger than 1048576 bytes" {
		t.Errorf("a large file: %v", err)
	}
}

func TestEntries(t *testing.T) {
	def := apps.App{Name: "a", Rule: "a", Named: true, History: apps.History{Size: 100, TTL: 5 * time.Minute}, Slow: apps.SlowClose}
	for _, tt := range []struct {
		entry string
		want  func(*apps.App)
	}{
		{"", func(*apps.App) {}},
		{"{}", func(*apps.App) {}},
		{"{visibility: public}", func(*apps.App) {}},
		{"{visibility: private}", func(a *apps.App) { a.Private = true }},
		{"{presence: true}", func(a *apps.App) { a.Presence = true }},
		{"{presence: false}", func(*apps.App) {}},
		{"{history: off}", func(a *apps.App) { a.History = apps.History{} }},
		{"{history: 'off'}", func(a *apps.App) { a.History = apps.History{} }},
		{"{history: false}", func(a *apps.App) { a.History = apps.History{} }},
		{"{history: {}}", func(*apps.App) {}},
		{"{history: {size: 1}}", func(a *apps.App) { a.History.Size = 1 }},
		{"{history: {size: 100000, ttl: 720h}}", func(a *apps.App) { a.History = apps.History{Size: 100_000, TTL: 720 * time.Hour} }},
		{"{history: {ttl: 1m30s}}", func(a *apps.App) { a.History.TTL = 90 * time.Second }},
		{"{slow: close}", func(*apps.App) {}},
		{"{slow: drop_oldest}", func(a *apps.App) { a.Slow = apps.SlowDropOldest }},
		{"{slow: latest}", func(a *apps.App) { a.Slow = apps.SlowLatest }},
		{"\n    slow: latest # newest only\n    push:\n      - members\n", func(a *apps.App) { a.Slow = apps.SlowLatest }},
	} {
		t.Run(tt.entry, func(t *testing.T) {
			for _, text := range []string{"apps:\n  a: " + tt.entry, "\ufeffapps:\r\n  a: " + strings.ReplaceAll(tt.entry, "\n", "\r\n") + "\r\n"} {
				app, err := parse(t, text).Lookup("a")
				if err != nil {
					t.Fatal(err)
				}
				got := apps.App{Name: app.Name, Rule: app.Rule, Named: app.Named, Private: app.Private,
					Owner: app.Owner, Presence: app.Presence, History: app.History, Slow: app.Slow}
				want := def
				tt.want(&want)
				if got != want {
					t.Errorf("got  %+v\nwant %+v", got, want)
				}
			}
		})
	}
}

// FuzzFile feeds the parser text of all kinds: it answers with rules or one line, and what it
// accepts can be used.
func FuzzFile(f *testing.F) {
	reference, err := os.ReadFile("APPS.md")
	if err != nil {
		f.Fatal(err)
	}
	_, block, _ := strings.Cut(string(reference), "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	for _, s := range []string{
		block, "", "apps: {}", "default: deny", "apps: {\"a\\nb\": {}}", "apps: {a: &x {}, b: *x}", "? [a]\n: b", "apps: {a: {history: {ttl: 1s}}}",
		"apps: {'{member_id}': {subscribe: [owner]}}", "{", "apps:\n  *a: {}", "%YAML 1.1\n---\napps: {}", "apps: {1: , true: , ~: }", "a: |\n b\n", "\"\\", ">\n>",
	} {
		f.Add([]byte(s))
	}
	stranger := apps.Member{ID: apps.Anonymous}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := apps.Parse("apps.yaml", data)
		if err != nil {
			var at *apps.FileError
			if !errors.As(err, &at) || strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 1000 {
				t.Fatalf("error %T: %q", err, err)
			}
			return
		}
		for _, name := range append(r.Named(), "a", "user:42", "42") {
			for _, a := range []apps.Action{apps.Subscribe, apps.Push, apps.Presence} {
				app, err := r.Authorize(stranger, a, name)
				if err == nil && (app.Private || a == apps.Push) {
					t.Fatalf("a stranger may %v the app %+v", a, app)
				}
				if e := r.Explain(stranger, a, name); e.Allowed != (err == nil) {
					t.Fatalf("Authorize says %v, Explain %+v", err, e)
				}
			}
		}
	})
}
