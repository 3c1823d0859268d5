package apps

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
)

// ErrBadName is returned for a name that no app can have ([ValidName]), or that looks like a
// member's own app and is none: user:01 where there is user:{member_id}. The error then wraps it
// and says so.
var ErrBadName = errors.New("apps: bad app name")

// A memberError refuses a name that would be a member's own app but for the way in which its
// number is written: under a more general entry it would only look like one.
type memberError struct{ rule *rule }

func (e *memberError) Error() string {
	return fmt.Sprintf("%v for %s: %s", ErrBadName, e.rule.key, notMember)
}

var notMember = fmt.Sprintf("its number is no member's id, 1 to %d without leading zeros", MaxMember)

// Unwrap makes e an ErrBadName.
func (e *memberError) Unwrap() error { return ErrBadName }

// ErrUnknownApp is returned by [Registry.Lookup] for a name that no entry matches, under
// default: deny.
var ErrUnknownApp = errors.New("apps: unknown app")

// A DeniedError says what an app's rules refused. It is for logs: a client that is not told
// what it may do must not learn whether the app exists either, so one error is returned for both.
type DeniedError struct {
	Action Action
	App    string
	Rule   string // the entry that refused it, "default" when there is none
	Reason string // without anything about the member
}

// Error implements error.
func (e *DeniedError) Error() string {
	return fmt.Sprintf("apps: %s %s denied by %s: %s", e.Action, e.App, e.Rule, e.Reason)
}

// A Registry answers what may be done with which app. All methods may be called at once; what
// one call answers comes from one version of the file. The zero Registry, and a nil one, has
// the rules of a gateway without an apps file: every app is public, im is private.
type Registry struct {
	path  string
	rules atomic.Pointer[rules] // nil: noFile
	mu    sync.Mutex            // one reload at a time
}

var noFile = builtIn()

// Load reads the apps file at path; "" means that there is none. The error names the
// setting; it wraps a *[FileError] unless the file could not be read.
func Load(path string) (*Registry, error) {
	r := &Registry{path: path}
	if path == "" {
		return r, nil
	}
	rs, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r.rules.Store(rs)
	return r, nil
}

// Parse returns a Registry with the rules in data; name is what errors and explanations call
// it. It has no file, so Reload does nothing. The error is a *[FileError].
func Parse(name string, data []byte) (*Registry, error) {
	rs, err := parse(name, data)
	if err != nil {
		return nil, err
	}
	r := new(Registry)
	r.rules.Store(rs)
	return r, nil
}

// Reload reads the file again and returns what changed, a line for people each. After an error
// the rules are the same as before. Apps that were looked up before keep the old rules: whoever
// holds one asks again.
func (r *Registry) Reload() (changes []string, err error) {
	if r == nil || r.path == "" {
		return nil, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rs, err := readFile(r.path)
	if err != nil {
		return nil, err
	}
	return rs.changes(r.rules.Swap(rs)), nil
}

func readFile(path string) (*rules, error) {
	rs, err := readRules(path)
	if err != nil {
		return nil, fmt.Errorf("WSGW_APPS_FILE: %w", err)
	}
	return rs, nil
}

func readRules(path string) (*rules, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return parse(path, data)
}

// current returns the rules as they are now.
func (r *Registry) current() *rules {
	if r != nil {
		if rs := r.rules.Load(); rs != nil {
			return rs
		}
	}
	return noFile
}

// Lookup returns the rules of the app called name: those of the entry that spells it out, else
// of the pattern with the longest literal part that matches it, else the default. The error is
// ErrUnknownApp, or wraps ErrBadName. An app that was looked up a short while ago costs no
// allocation.
func (r *Registry) Lookup(name string) (*App, error) {
	return r.current().lookup(name)
}

// Authorize is Lookup for m, who wants to do a. The error is ErrBadName, or a *[DeniedError]
// both for an app that m has no right to and for one that does not exist.
func (r *Registry) Authorize(m Member, a Action, name string) (*App, error) {
	rs := r.current()
	app, err := rs.lookup(name)
	if err != nil {
		return nil, rs.denied(a, name, err)
	}
	if ok, _ := app.allows(m, a); ok {
		return app, nil
	}
	return nil, &DeniedError{Action: a, App: name, Rule: app.Rule, Reason: app.terms(a)}
}

// denied is what Authorize returns where lookup returned err.
func (rs *rules) denied(a Action, name string, err error) error {
	var member *memberError
	switch {
	case errors.Is(err, ErrUnknownApp):
		return &DeniedError{Action: a, App: name, Rule: rs.fallback.key, Reason: "no entry matches and default is deny"}
	case errors.As(err, &member):
		return &DeniedError{Action: a, App: name, Rule: member.rule.key, Reason: notMember}
	}
	return err
}

// Named returns the names that the file has entries for without a pattern, sorted. The caller
// owns the slice. Without a file there are none.
func (r *Registry) Named() []string {
	return slices.Clone(r.current().named)
}

// allows reports whether m may do a with the app, and what lets it.
func (app *App) allows(m Member, a Action) (bool, grant) {
	_, list := app.rule.list(a)
	g := list.match(m, app.Owner)
	return g.principal != "" && (a != Presence || app.Presence), g
}

// list returns who may do a, and which key says so. To see who is there takes the right to be
// there oneself.
func (r *rule) list(a Action) (key string, list *acl) {
	if a == Push {
		return "push", &r.push
	}
	return "subscribe", &r.subscribe
}

// terms says whom the app lets do a.
func (app *App) terms(a Action) string {
	if a == Presence && !app.Presence {
		return "presence is off"
	}
	key, list := app.rule.list(a)
	return key + " lets in " + list.text
}
