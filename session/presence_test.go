package session_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"ws-gateway/apps"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

const halls = "apps: {'hall:*': {presence: true}, match: {}}"

// who asks p's gateway who is in the app.
func who(p *sessiontest.Pipe, app string) string {
	p.Receive(`{"op":"presence","app":"` + app + `"}`)
	return texts(p.Unread())
}

func present(app, members string, anonymous int) string {
	return gateway(fmt.Sprintf(`{"code":200,"message":"presence %s","members":[%s],"anonymous":%d}`, app, members, anonymous))
}

func event(what string) string { return gateway(`{"code":200,"message":"` + what + `"}`) }

func TestPresence(t *testing.T) {
	w := newWorld(t, halls, nil)
	ask := w.dial(stranger)
	want := func(step, members string, anonymous int) {
		t.Helper()
		if got, want := who(ask, "hall:1"), present("hall:1", members, anonymous); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", step, got, want)
		}
	}
	a, b, c := w.dial(member42), w.dial(member42), w.dial(stranger)
	for _, p := range []*sessiontest.Pipe{a, b, c} {
		p.Receive(`{"app":"hall:1"}`)
		p.Receive(`{"app":"hall:1"}`) // again: counted once
		p.Receive(`{"app":"match"}`)
	}
	want("a member twice and a stranger", `{"member_id":42,"connections":2}`, 1)
	c.Receive(`{"member_id":43,"token":"43"}`)
	want("the stranger is a member", `{"member_id":42,"connections":2},{"member_id":43,"connections":1}`, 0)
	a.Receive(`{"op":"unsubscribe","app":"hall:1"}`)
	want("one connection left", `{"member_id":42,"connections":1},{"member_id":43,"connections":1}`, 0)
	b.Hangup(session.CloseAbnormal)
	w.gateway.Unsubscribe(43, "hall:1")
	want("nobody", "", 0)
}

func TestPresenceEvents(t *testing.T) {
	w := newWorld(t, halls, nil)
	hear := func(step string, p *sessiontest.Pipe, want ...string) {
		t.Helper()
		w.hub.Flush()
		for i := range want {
			want[i] = event(want[i])
		}
		if got := texts(p.Unread()); got != strings.Join(want, "\n") {
			t.Errorf("%s: heard\n%s\nwant\n%s", step, got, strings.Join(want, "\n"))
		}
	}
	ear := w.dial(`{"member_id":7,"token":"7"}`)
	ear.Receive(`{"app":"hall:1","events":true}`)
	hear("its own join follows the reply", ear, "subscribe hall:1 success", "join hall:1 7")
	deaf := w.dial(`{"member_id":8,"token":"8"}`)
	deaf.Receive(`{"app":"hall:1"}`)
	hear("did not ask", deaf, "subscribe hall:1 success")
	hear("another one", ear, "join hall:1 8")

	a, b := w.dial(member42), w.dial(member42)
	a.Receive(`{"app":"hall:1"}`)
	b.Receive(`{"app":"hall:1","position":null}`)
	b.Receive(`{"app":"hall:2"}`)
	hear("a member's second connection is no news", ear, "join hall:1 42")
	a.Receive(`{"op":"unsubscribe","app":"hall:1"}`)
	b.Receive(`{"app":"hall:1","position":{"epoch":"x","offset":1}}`) // resumes: a new subscription
	hear("nor does resuming or one of two make any", ear)
	b.Hangup(session.CloseAbnormal)
	hear("the last one", ear, "leave hall:1 42")

	s := w.dial(stranger)
	s.Receive(`{"app":"hall:1"}`)
	hear("strangers make none", ear)
	s.Receive(member42)
	hear("until they are somebody", ear, "join hall:1 42")
	s.Receive(member42)
	hear("renewing is no news", ear)
	hear("others hear nothing", deaf)

	deaf.Receive(`{"app":"hall:1","events":true}`)
	hear("asking later", deaf, "subscribe hall:1 success")
	s.Receive(`{"op":"unsubscribe","app":"hall:1"}`)
	hear("to whoever asked", deaf, "leave hall:1 42")
	hear("and before", ear, "leave hall:1 42")
	deaf.Receive(`{"op":"unsubscribe","app":"hall:1"}`)
	hear("without leaving oneself", deaf, "unsubscribe hall:1 success")
	ear.Receive(`{"op":"unsubscribe","app":"hall:1"}`)
	s.Receive(`{"app":"hall:1"}`)
	hear("nothing after unsubscribing", ear, "leave hall:1 8", "unsubscribe hall:1 success")
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A reload that turns presence on or off reaches live subscriptions.
func TestPresenceFollowsTheRules(t *testing.T) {
	file := t.TempDir() + "/apps.yaml"
	writeFile(t, file, "apps: {hall: {}}")
	rules, err := apps.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	w := worldOf(t, rules, nil)
	p := w.dial(member42)
	p.Receive(`{"app":"hall"}`)
	p.Unread()
	reload := func(text string) {
		t.Helper()
		writeFile(t, file, text)
		if _, err := rules.Reload(); err != nil {
			t.Fatal(err)
		}
		w.gateway.Reauthorize()
	}
	reload("apps: {hall: {presence: true}}")
	if got, want := who(p, "hall"), present("hall", `{"member_id":42,"connections":1}`, 0); got != want {
		t.Errorf("turned on: got %s, want %s", got, want)
	}
	reload("apps: {hall: {}}")
	if got, want := who(p, "hall"), gateway(`{"code":403,"message":"presence hall forbidden"}`); got != want {
		t.Errorf("turned off: got %s", got)
	}
	reload("apps: {hall: {presence: true}}")
	p.Hangup(session.CloseAbnormal)
	if got, want := who(w.dial(stranger), "hall"), present("hall", "", 0); got != want {
		t.Errorf("turned on again, and gone: got %s, want %s", got, want)
	}
}

// Whatever happens at once, in the end nobody is there, and a listener's events of one member
// alternate.
func TestPresenceUnderChurn(t *testing.T) {
	w := newWorld(t, halls, nil)
	ear := w.dial(stranger)
	ear.Receive(`{"app":"hall:1","events":true}`)
	ear.Unread()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 40 {
				p := w.dial(stranger)
				wg.Go(func() { w.gateway.Unsubscribe(int64(i%3+1), "hall:1") })
				p.Receive(`{"app":"hall:1"}`)
				p.Receive(fmt.Sprintf(`{"member_id":%d,"token":"%d"}`, i%3+1, i%3+1))
				wg.Go(w.gateway.Reauthorize)
				p.Receive(`{"app":"hall:1","last":1}`)
				p.Hangup(session.CloseAbnormal)
			}
		})
	}
	wg.Wait()
	if got, want := who(w.dial(stranger), "hall:1"), present("hall:1", "", 1); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	w.hub.Flush()
	in := map[string]bool{}
	for _, m := range ear.Unread() {
		for _, word := range []string{"join", "leave"} {
			if _, member, ok := strings.Cut(m.Text, word+" hall:1 "); ok {
				if in[member] == (word == "join") {
					t.Fatalf("two events of %s in a row for %s", word, member)
				}
				in[member] = word == "join"
			}
		}
	}
}
