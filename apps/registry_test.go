package apps_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"ws-gateway/apps"
)

var (
	stranger = apps.Member{ID: apps.Anonymous}
	ann      = apps.Member{ID: 42}
	bob      = apps.Member{ID: 7, Roles: []string{"silver", "gold"}}
)

func TestNoFile(t *testing.T) {
	loaded, err := apps.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*apps.Registry{"loaded": loaded, "zero": {}, "nil": nil} {
		t.Run(name, func(t *testing.T) {
			app, err := r.Authorize(stranger, apps.Subscribe, "match")
			if err != nil || app.Private || app.Named || app.Name != "match" || app.Rule != "default" || app.History.Size != 100 {
				t.Errorf("match for a stranger: %+v, %v", app, err)
			}
			var denied *apps.DeniedError
			if _, err := r.Authorize(stranger, apps.Subscribe, "im"); !errors.As(err, &denied) {
				t.Errorf("im for a stranger: %v, want a DeniedError", err)
			}
			if app, err := r.Authorize(ann, apps.Subscribe, "im"); err != nil || !app.Private || app.Named {
				t.Errorf("im for a member: %+v, %v", app, err)
			}
			for _, name := range []string{"im:1", "IM", "imx"} {
				if app, err := r.Lookup(name); err != nil || app.Private {
					t.Errorf("%s: %+v, %v, want a public app", name, app, err)
				}
			}
			for _, a := range []apps.Action{apps.Push, apps.Presence} {
				if _, err := r.Authorize(ann, a, "match"); !errors.As(err, &denied) {
					t.Errorf("%v of match: %v, want a DeniedError", a, err)
				}
			}
			if changes, err := r.Reload(); len(changes) != 0 || err != nil {
				t.Errorf("Reload() = %q, %v", changes, err)
			}
			if names := r.Named(); len(names) != 0 {
				t.Errorf("Named() = %q without a file", names)
			}
		})
	}
}

func TestAuthorize(t *testing.T) {
	r := parse(t, `
default: deny
apps:
  public: {}
  private: {visibility: private}
  nobody: {subscribe: [], presence: true}
  chat: {subscribe: [members], push: [members], presence: true}
  vip: {subscribe: ["role:gold", 42], push: ["role:silver"], presence: true}
  staff: {visibility: private, subscribe: ["role:staff room"], push: [9007199254740991]}
  "user:{member_id}": {visibility: private, subscribe: [owner, "role:silver"], push: [owner]}
  "open:*": {subscribe: [anyone, 42]}
`)
	everybody := map[string]apps.Member{
		"stranger": stranger, "ann": ann, "bob": bob,
		"zero":     {},
		"liar":     {ID: -42, Roles: []string{"gold", "staff room"}}, // no member, whatever its roles
		"too big":  {ID: apps.MaxMember + 1, Roles: []string{"gold"}},
		"greatest": {ID: apps.MaxMember},
		"staff":    {ID: 3, Roles: []string{"staff room"}},
	}
	members := []string{"ann", "bob", "greatest", "staff"}
	all := []string{"ann", "bob", "greatest", "liar", "staff", "stranger", "too big", "zero"}
	for _, tt := range []struct {
		action apps.Action
		app    string
		who    []string
	}{
		{apps.Subscribe, "public", all},
		{apps.Push, "public", nil},
		{apps.Presence, "public", nil},
		{apps.Subscribe, "private", members},
		{apps.Push, "private", nil},
		{apps.Subscribe, "nobody", nil},
		{apps.Presence, "nobody", nil},
		{apps.Subscribe, "chat", members},
		{apps.Push, "chat", members},
		{apps.Presence, "chat", members},
		{apps.Subscribe, "vip", []string{"ann", "bob"}},
		{apps.Push, "vip", []string{"bob"}},
		{apps.Presence, "vip", []string{"ann", "bob"}},
		{apps.Subscribe, "staff", []string{"staff"}},
		{apps.Push, "staff", []string{"greatest"}},
		{apps.Subscribe, "user:42", []string{"ann", "bob"}},
		{apps.Push, "user:42", []string{"ann"}},
		{apps.Push, "user:7", []string{"bob"}},
		{apps.Push, "user:9007199254740991", []string{"greatest"}},
		{apps.Subscribe, "user:042", nil},
		{apps.Subscribe, "user:0", nil},
		{apps.Subscribe, "open:1", all},
		{apps.Subscribe, "absent", nil},
		{apps.Push, "absent", nil},
	} {
		t.Run(fmt.Sprintf("%v %s", tt.action, tt.app), func(t *testing.T) {
			var got []string
			for who, m := range everybody {
				app, err := r.Authorize(m, tt.action, tt.app)
				if e := r.Explain(m, tt.action, tt.app); e.Allowed != (err == nil) {
					t.Errorf("Authorize answers %s %v, Explain %+v", who, err, e)
				}
				if err == nil {
					got = append(got, who)
					if app.Name != tt.app {
						t.Errorf("got the app %s", app.Name)
					}
					continue
				}
				var denied *apps.DeniedError
				if !errors.As(err, &denied) || app != nil || denied.Action != tt.action || denied.App != tt.app || denied.Rule == "" || denied.Reason == "" {
					t.Errorf("%s: %v, %#v", who, app, err)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, tt.who) {
				t.Errorf("allowed: %q, want %q", got, tt.who)
			}
		})
	}
}

func TestP17AbsentLooksForbidden(t *testing.T) {
	r := parse(t, "default: deny\napps: {secret: {subscribe: [42]}}")
	for _, name := range []string{"secret", "absent"} {
		for _, a := range []apps.Action{apps.Subscribe, apps.Push, apps.Presence} {
			_, err := r.Authorize(bob, a, name)
			var denied *apps.DeniedError
			if !errors.As(err, &denied) || errors.Is(err, apps.ErrUnknownApp) || errors.Is(err, apps.ErrBadName) {
				t.Errorf("%v %s: %v, want a DeniedError and nothing else", a, name, err)
			}
		}
	}
	if _, err := r.Lookup("secret"); err != nil {
		t.Errorf("secret: %v", err)
	}
	if app, err := r.Lookup("absent"); !errors.Is(err, apps.ErrUnknownApp) || app != nil {
		t.Errorf("absent: %v, %v, want ErrUnknownApp", app, err)
	}
}

func TestNamed(t *testing.T) {
	r := parse(t, `apps: {vip: {}, "a:*": {}, im: {visibility: private}, "user:{member_id}": {}}`)
	names := r.Named()
	if want := []string{"im", "vip"}; !slices.Equal(names, want) {
		t.Errorf("Named() = %q, want %q", names, want)
	}
	names[0] = "changed"
	if r.Named()[0] != "im" {
		t.Error("the slice is not the caller's own")
	}
	for name, named := range map[string]bool{"vip": true, "a:1": false, "user:1": false, "other": false} {
		if app, err := r.Lookup(name); err != nil || app.Named != named {
			t.Errorf("%s: %+v, %v, want Named %v", name, app, err, named)
		}
	}
}

// file is an apps file that tests rewrite.
type file string

func newFile(t *testing.T, text string) (file, *apps.Registry) {
	t.Helper()
	f := file(filepath.Join(t.TempDir(), "apps.yaml"))
	f.write(t, text)
	r, err := apps.Load(string(f))
	if err != nil {
		t.Fatal(err)
	}
	return f, r
}

func (f file) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(string(f), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestC02BadReloadChangesNothing(t *testing.T) {
	f, r := newFile(t, "default: deny\napps: {vip: {subscribe: [42]}}")
	bad := map[string]string{
		"typo":      "apps: {vip: {subscribed: [anyone]}}",
		"tie":       "apps: {'a*': {}, '*a': {}}",
		"truncated": "default: public\napps: {vip: {subscr",
		"emptied":   "",
	}
	check := func(t *testing.T) {
		t.Helper()
		if changes, err := r.Reload(); err == nil || len(changes) > 0 {
			t.Fatalf("Reload() = %q, %v", changes, err)
		}
		if _, err := r.Authorize(ann, apps.Subscribe, "vip"); err != nil {
			t.Errorf("the right was lost: %v", err)
		}
		if _, err := r.Authorize(bob, apps.Subscribe, "vip"); err == nil {
			t.Error("the app is open")
		}
		if _, err := r.Lookup("absent"); !errors.Is(err, apps.ErrUnknownApp) {
			t.Errorf("absent: %v", err)
		}
	}
	for name, text := range bad {
		t.Run(name, func(t *testing.T) {
			f.write(t, text)
			check(t)
		})
	}
	t.Run("missing", func(t *testing.T) {
		if err := os.Remove(string(f)); err != nil {
			t.Fatal(err)
		}
		check(t)
	})
	t.Run("repaired", func(t *testing.T) {
		f.write(t, "apps: {vip: {}}")
		if _, err := r.Reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Authorize(bob, apps.Subscribe, "vip"); err != nil {
			t.Error(err)
		}
	})
}

func TestC03ReloadTightens(t *testing.T) {
	f, r := newFile(t, "apps: {vip: {}, 'room:*': {}}")
	for _, name := range []string{"vip", "room:1", "other"} {
		if _, err := r.Authorize(ann, apps.Subscribe, name); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	f.write(t, "default: deny\napps: {vip: {subscribe: [7]}, 'room:*': {subscribe: [7]}}")
	if _, err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	var denied *apps.DeniedError
	for _, name := range []string{"vip", "room:1", "other"} {
		if _, err := r.Authorize(ann, apps.Subscribe, name); !errors.As(err, &denied) {
			t.Errorf("%s after the reload: %v, want a DeniedError", name, err)
		}
	}
}

func TestReloadSaysWhatChanged(t *testing.T) {
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprint(1000 + i)
	}
	for _, tt := range []struct {
		name, before, after string
		want                []string
	}{
		{"nothing", "apps: {a: {}}", "# only this comment\napps: {a: }", nil},
		{"order", "apps: {a: {push: [7, 42]}, b: {}}", "apps: {b: {}, a: {push: [42, 7]}}", nil},
		{"what was the default is spelt out", "apps: {a: {}}",
			"default: public\napps: {a: {visibility: public, subscribe: [anyone], push: [], presence: false, history: {size: 100, ttl: 5m}, slow: close}}", nil},
		{"default", "apps: {}", "default: deny", []string{"default: public -> deny"}},
		{"entries", "apps: {b: {}, old: {}}", "apps: {b: {}, 'a:*': {visibility: private, history: off}}", []string{
			"a:*: added (subscribe: members; push: nobody; visibility: private; presence: false; history: off; slow: close)",
			"old: removed",
		}},
		{"settings", "apps: {a: {}}", "apps: {a: {visibility: private, push: [members], presence: true, history: {ttl: 10m}, slow: latest}}", []string{
			"a: subscribe: added members",
			"a: subscribe: removed anyone",
			"a: push: added members",
			"a: visibility: public -> private",
			"a: presence: false -> true",
			"a: history: 100 for 5m0s -> 100 for 10m0s",
			"a: slow: close -> latest",
		}},
		{"one member of many", "apps: {a: {subscribe: [1, " + strings.Join(many, ", ") + "]}}", "apps: {a: {subscribe: [2, " + strings.Join(many, ", ") + "]}}",
			[]string{"a: subscribe: added 2", "a: subscribe: removed 1"}},
		{"many members", "apps: {a: {subscribe: []}}", "apps: {a: {subscribe: [" + strings.Join(many, ", ") + "]}}",
			[]string{"a: subscribe: added 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007 and 92 more"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, r := newFile(t, tt.before)
			f.write(t, tt.after)
			got, err := r.Reload()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(tt.want, "\n\t"))
			}
			if again, err := r.Reload(); err != nil || len(again) > 0 {
				t.Errorf("the same file changes %q, %v", again, err)
			}
		})
	}
}

// TestReloadIsAtomic reloads between two files while others ask: they see one or the other.
func TestReloadIsAtomic(t *testing.T) {
	const open = "apps: {'room:*': {history: {size: 1}}}"
	const shut = "default: deny\napps: {'room:*': {visibility: private, subscribe: [7], history: {size: 2}}}"
	f, r := newFile(t, open)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprint("room:", i%20)
				app, err := r.Lookup(name)
				if err != nil || app.Name != name || app.Private != (app.History.Size == 2) {
					t.Errorf("%s: %+v, %v", name, app, err)
				}
				r.Authorize(ann, apps.Subscribe, name)
				r.Explain(ann, apps.Subscribe, name)
				r.Named()
			}
		})
	}
	for i := range 50 {
		text := [...]string{shut, open}[i%2]
		next := string(f) + ".new"
		file(next).write(t, text)
		if err := os.Rename(next, string(f)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Reload(); err != nil {
			t.Error(err)
		}
		app, err := r.Lookup("room:1")
		if want := i%2 == 0; err != nil || app.Private != want {
			t.Errorf("after reload %d: %+v, %v, want Private %v", i, app, err, want)
		}
	}
	close(stop)
	wg.Wait()
}

// TestHostileNames looks up more names than memory is meant for, each of them a piece of a
// larger body.
func TestHostileNames(t *testing.T) {
	r := parse(t, `apps: {"room:*": {}}`)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	padding := strings.Repeat("x", 4096)
	for i := range 100_000 {
		body := fmt.Sprintf("room:%0100d%s", i, padding)
		if _, err := r.Lookup(body[:105]); err != nil {
			t.Fatal(err)
		}
	}
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("100000 names take %d KiB of memory", grown>>10)
	}
	runtime.KeepAlive(r)
}

func TestLookupAllocations(t *testing.T) {
	r := parse(t, `apps: {match: {subscribe: [42]}, "room:*": {subscribe: [members]}, vip: {subscribe: ["role:gold"]}}`)
	for what, f := range map[string]func(){
		"a name":            func() { r.Lookup("match") },
		"a pattern":         func() { r.Lookup("room:1") },
		"the default":       func() { r.Lookup("other") },
		"a member's right":  func() { r.Authorize(ann, apps.Subscribe, "match") },
		"a role's right":    func() { r.Authorize(bob, apps.Subscribe, "vip") },
		"a right to a room": func() { r.Authorize(bob, apps.Subscribe, "room:1") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s costs %v allocations", what, n)
		}
	}
}
