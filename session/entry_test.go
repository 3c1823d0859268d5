package session_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

// An office accepts every member, whose token is its role. It asks elsewhere, as a callback does.
type office struct{}

func (office) Authenticate(ctx context.Context, c session.Credentials) (session.Identity, error) {
	return session.Identity{Roles: []string{string(c.Token)}}, ctx.Err()
}

// A gateway counts time in 32 bits of milliseconds, which are over after 49.7 days.
func TestLoginAfterMonthsOfRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := push.NewHub(push.Options{}) // without a log, which would tick all the while
		defer hub.Close()
		g := session.NewGateway(session.Options{Hub: hub, Auth: office{}, CommandRate: 1})
		time.Sleep(1<<32*time.Millisecond - time.Second)
		for range 3 {
			p := sessiontest.NewPipe(t)
			p.Attach(g.Open(p))
			time.Sleep(2 * time.Second) // of the ten
			p.Receive(member42)
			if got, want := texts(p.Unread()), gateway(`{"code":200,"message":"hello 42"}`); got != want {
				t.Errorf("after %v: got %s", time.Now(), got)
			}
			p.Hangup(session.CloseNormal)
		}
	})
}

// C03: a token that is renewed with fewer roles takes along what they allowed.
func TestRenewalWithOtherRoles(t *testing.T) {
	w := newWorld(t, `apps: {vip: {subscribe: ["role:gold"]}, club: {subscribe: ["role:gold", "role:tin"]}}`,
		func(o *session.Options) { o.Auth = office{} })
	p := w.dial(`{"member_id":42,"token":"gold"}`)
	p.Receive(`{"app":"vip"}`)
	p.Receive(`{"app":"club"}`)
	p.Unread()
	p.Receive(`{"member_id":42,"token":"tin"}`)
	w.push(push.Message{App: "vip", Member: push.Everybody, Text: "secret"})
	w.push(push.Message{App: "club", Member: push.Everybody, Text: "hi"})
	want := strings.Join([]string{
		gateway(`{"code":200,"message":"hello 42"}`),
		gateway(`{"code":403,"message":"subscribe vip forbidden"}`),
		`{"app":"club","member_id":-1,"text":"hi"}`,
	}, "\n")
	if got := texts(p.Unread()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A lingering connection takes long to close: its peer does not read.
type lingering struct {
	*sessiontest.Pipe
	code session.CloseCode
}

func (l *lingering) Close(code session.CloseCode, _ string) { l.code = code }

func TestMaxPerMemberWhileTheOldestLingers(t *testing.T) {
	w := newWorld(t, "", func(o *session.Options) { o.MaxPerMember = 2 })
	var all []*lingering
	for range 4 {
		l := &lingering{Pipe: sessiontest.NewPipe(t)}
		l.Attach(w.gateway.Open(l))
		l.Receive(member42)
		all = append(all, l)
	}
	for i, want := range []session.CloseCode{session.CloseTooManyConnections, session.CloseTooManyConnections, 0, 0} {
		if all[i].code != want {
			t.Errorf("session %d of 4: closed with %d, want %d", i+1, all[i].code, want)
		}
	}
	for _, l := range all {
		l.Hangup(session.CloseAbnormal)
	}
	if members, _, _ := w.gateway.Counts(); members != 0 || w.gateway.Disconnect(42, session.CloseRevoked) != 0 {
		t.Errorf("%d members are left, or listed", members)
	}
}

// A mute protocol leaves it to the test to say who its client is.
type mute struct{}

func (*mute) Receive(*session.Session, push.Opcode, []byte) func() { return nil }
func (*mute) Encoding() *push.Encoding                             { return nil }

// R03: a door that panics while it opens leaves nothing behind.
func TestDoorPanicsWhileItOpens(t *testing.T) {
	w := newWorld(t, "", nil)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the transport does not learn of the panic")
			}
		}()
		w.gateway.OpenProtocol(sessiontest.NewPipe(t), new(mute), func(s *session.Session) {
			s.Become(42, nil)
			panic("of the test")
		})
	}()
	members, anonymous, pending := w.gateway.Counts()
	if n := w.gateway.Disconnect(42, session.CloseRevoked); n+members+anonymous+pending != 0 {
		t.Errorf("listed %d times, counted %d %d %d", n, members, anonymous, pending)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	w.gateway.Drain(ctx, 0)
	if ctx.Err() != nil {
		t.Error("Drain waits for the session")
	}
}

// N02: a connection whose handshake ends while the gateway stops does not hold that up.
func TestDrainSeesWhoComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "", nil)
		early := []*sessiontest.Pipe{w.dial(stranger), w.dial(stranger)}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		drained := make(chan struct{})
		go func() {
			w.gateway.Drain(ctx, 10*time.Second)
			close(drained)
		}()
		synctest.Wait()
		late := []*sessiontest.Pipe{w.dial(""), w.link(push.KeysOptions{})}
		for _, p := range append(late, early...) {
			if code, _ := p.Wait(); code != session.CloseServiceRestart {
				t.Errorf("closed with %d", code)
			}
		}
		<-drained
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("drained after %v, want 10s", took)
		}
	})
}

// A notary lets in by what it finds at its n'th look.
type notary struct {
	n    int
	look func(n int) error
}

func (n *notary) Authenticate(context.Context, session.Credentials) (session.Identity, error) {
	n.n++
	return session.Identity{}, n.look(n.n)
}

// Who proves to be a member with what is no longer good when the gateway lists the session is
// asked again.
func TestDisconnectMeetsALogin(t *testing.T) {
	for _, test := range []struct {
		name   string
		second error
		want   string
	}{
		{"still good", nil, `{"code":200,"message":"hello 42"}`},
		{"no longer good", session.ErrUnauthorized, `{"code":401,"message":"unauthorized"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var w *world
			desk := &notary{look: func(n int) error {
				if n == 2 {
					return test.second
				}
				w.gateway.Disconnect(43, session.CloseTokenExpired) // somebody else
				if n := w.gateway.Disconnect(42, session.CloseTokenExpired); n != 0 {
					t.Errorf("%d sessions were closed", n)
				}
				return nil
			}}
			w = newWorld(t, "", func(o *session.Options) { o.Auth = desk })
			p := w.dial("")
			p.Receive(member42)
			if got := p.Next(); got != gateway(test.want) || desk.n != 2 {
				t.Errorf("answered %s after %d looks, want %s after 2", got, desk.n, test.want)
			}
			if n := w.gateway.Claims(); n != 0 {
				t.Errorf("%d logins are under way for ever", n)
			}
		})
	}
}

// A backend may say who a door's client is while that leaves, or at once with the script.
func TestBecomeAtAnyTime(t *testing.T) {
	w := newWorld(t, "", nil)
	p := sessiontest.NewPipe(t)
	s := w.gateway.OpenProtocol(p, new(mute), func(*session.Session) {})
	p.Attach(s)
	done := make(chan bool)
	for range 8 {
		go func() { done <- s.Become(42, nil) }()
	}
	for range 8 {
		if !<-done {
			t.Error("may not enter")
		}
	}
	if n := w.gateway.Disconnect(42, session.CloseRevoked); n != 1 {
		t.Fatalf("listed %d times", n)
	}
	p.Wait()
	if s.Become(42, nil) {
		t.Error("entered although its connection is gone")
	}
	members, anonymous, pending := w.gateway.Counts()
	if n := w.gateway.Disconnect(42, session.CloseRevoked); n != 0 || members != 0 || anonymous != 0 || pending != 0 {
		t.Errorf("listed %d times, counted %d %d %d", n, members, anonymous, pending)
	}
}

// A refusal is explained by the roles of the session that was refused, though the member has
// others, and none where it has no session.
func TestExplainWithTheRolesOfSessions(t *testing.T) {
	w := newWorld(t, `apps: {vip: {subscribe: ["role:gold"]}}`, func(o *session.Options) { o.Auth = office{} })
	explain := func(want string) {
		t.Helper()
		e := w.gateway.Explain(42, apps.Subscribe, "vip")
		if got := e.Reason; got != "subscribe lets in role:gold; member 42 "+want || e.Allowed != strings.HasPrefix(want, "has") {
			t.Errorf("allowed %v: %s, want %s", e.Allowed, got, want)
		}
	}
	explain("is none of them")
	tin := w.dial(`{"member_id":42,"token":"tin"}`)
	explain("(tin) is none of them")
	w.dial(`{"member_id":42,"token":"gold"}`)
	explain("(tin) is none of them")
	tin.Receive(`{"member_id":42,"token":"gold"}`)
	explain("has the role gold")
}
