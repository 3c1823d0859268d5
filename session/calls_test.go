package session_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/push"
	"ws-gateway/session"
)

// call makes a backend's call from this machine and returns the answer.
func (w *world) call(path, body string) string {
	w.t.Helper()
	keys, err := push.NewKeys(push.KeysOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	do := map[string]func(*http.Request) ([]byte, error){
		"/disconnect":  w.gateway.AnswerDisconnect,
		"/unsubscribe": w.gateway.AnswerUnsubscribe,
		"/revoke":      w.gateway.AnswerRevoke,
	}[path]
	req := httptest.NewRequest(http.MethodPost, "http://localhost:5000"+path, strings.NewReader(body))
	req.RemoteAddr = "127.0.0.1:40000"
	req.Header.Set("Content-Type", "application/json")
	rec := httptest.NewRecorder()
	keys.Call(do).ServeHTTP(rec, req)
	return rec.Body.String()
}

func TestDisconnectCall(t *testing.T) {
	w := newWorld(t, "", nil)
	a, b, other := w.dial(member42), w.dial(member42), w.dial(`{"member_id":43,"token":"43"}`)
	if got := w.call("/disconnect", `{"member_id":42}`); got != `{"code":200,"sessions":2}` {
		t.Errorf("got %s", got)
	}
	for _, p := range []interface {
		Wait() (session.CloseCode, string)
	}{a, b} {
		if code, _ := p.Wait(); code != session.CloseRevoked {
			t.Errorf("closed with %d", code)
		}
	}
	other.Receive(`{"op":"ping"}`)
	if got := texts(other.Unread()); got != gateway(`{"code":200,"message":"pong"}`) {
		t.Errorf("another member got %s", got)
	}
	if got := w.call("/disconnect", `{"member_id":7}`); got != `{"code":200,"sessions":0}` {
		t.Errorf("a member who is not here: %s", got)
	}
}

func TestUnsubscribeCall(t *testing.T) {
	w := newWorld(t, "", nil)
	p := w.dial(member42)
	p.Receive(`{"app":"vip"}`)
	p.Unread()
	if got := w.call("/unsubscribe", `{"member_id":42,"app":"vip"}`); got != `{"code":200,"subscriptions":1}` {
		t.Errorf("got %s", got)
	}
	if got := texts(p.Unread()); got != gateway(`{"code":200,"message":"unsubscribe vip success"}`) {
		t.Errorf("the client got %s", got)
	}
	if r := w.push(push.Message{App: "vip", Member: push.Everybody, Text: "x"}); r.Subscribers != 0 {
		t.Errorf("%d subscribers", r.Subscribers)
	}
	if got := w.call("/unsubscribe", `{"member_id":42,"app":"vip"}`); got != `{"code":200,"subscriptions":0}` {
		t.Errorf("again: %s", got)
	}
}

// J07: the authenticator still says yes, as a cache would.
func TestJ07Revoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "", nil)
		p, stranger_ := w.dial(member42), w.dial(stranger)
		start := time.Now()
		if got := w.call("/revoke", `{"member_id":42,"seconds":3600}`); got != `{"code":200,"sessions":1}` {
			t.Errorf("got %s", got)
		}
		if code, _ := p.Wait(); code != session.CloseRevoked || time.Since(start) > 2*time.Second {
			t.Errorf("closed with %d after %v", code, time.Since(start))
		}
		login := func() string {
			q := w.dial("")
			q.Receive(member42)
			return texts(q.Unread())
		}
		yes, no := gateway(`{"code":200,"message":"hello 42"}`), gateway(`{"code":401,"message":"unauthorized"}`)
		if got := login(); got != no {
			t.Errorf("a new session: %s", got)
		}
		stranger_.Receive(member42)
		if got := texts(stranger_.Unread()); got != no {
			t.Errorf("a stranger who says so: %s", got)
		}
		time.Sleep(time.Hour - time.Nanosecond)
		if got := login(); got != no {
			t.Errorf("just before the hour is over: %s", got)
		}
		time.Sleep(time.Nanosecond)
		if got := login(); got != yes {
			t.Errorf("after an hour: %s", got)
		}
		w.call("/revoke", `{"member_id":42,"seconds":3600}`)
		synctest.Wait() // until the session is gone
		if got := w.call("/revoke", `{"member_id":42,"seconds":0}`); got != `{"code":200,"sessions":0}` {
			t.Errorf("got %s", got)
		}
		if got := login(); got != yes {
			t.Errorf("after it was undone: %s", got)
		}
	})
}

func TestCallsRefuse(t *testing.T) {
	w := newWorld(t, "", nil)
	const member = `member_id must be an integer from 1 to 2^53-1`
	for _, c := range []struct{ name, path, body, message string }{
		{"empty", "/disconnect", ``, `the body must be a JSON object`},
		{"null", "/disconnect", `null`, `the body must be a JSON object`},
		{"array", "/disconnect", `[]`, `the body must be a JSON object`},
		{"trailing bytes", "/disconnect", `{"member_id":42}x`, `the body must be a JSON object`},
		{"P13 duplicate key", "/disconnect", `{"member_id":42,"member_id":43}`, `bad JSON: duplicate key in an object`},
		{"P13 wrong case", "/disconnect", `{"Member_id":42}`, `key \"Member_id\" must be written \"member_id\"`},
		{"no member", "/disconnect", `{}`, `member_id is missing`},
		{"P12 0", "/disconnect", `{"member_id":0}`, member},
		{"P12 anonymous", "/disconnect", `{"member_id":-1}`, member},
		{"P12 string", "/disconnect", `{"member_id":"42"}`, member},
		{"P12 1.0", "/disconnect", `{"member_id":1.0}`, member},
		{"P12 2^53", "/disconnect", `{"member_id":9007199254740992}`, member},
		{"P12 null", "/disconnect", `{"member_id":null}`, member},
		{"no app", "/unsubscribe", `{"member_id":42}`, `app is missing`},
		{"P15 bad app", "/unsubscribe", `{"member_id":42,"app":"a b"}`, `bad app name`},
		{"P15 reserved app", "/unsubscribe", `{"member_id":42,"app":"gateway"}`, `bad app name`},
		{"app not a string", "/unsubscribe", `{"member_id":42,"app":[]}`, `bad app name`},
		{"no seconds", "/revoke", `{"member_id":42}`, `seconds is missing`},
		{"seconds negative", "/revoke", `{"member_id":42,"seconds":-1}`, `seconds must be an integer from 0 to 316224000`},
		{"seconds too many", "/revoke", `{"member_id":42,"seconds":316224001}`, `seconds must be an integer from 0 to 316224000`},
		{"seconds a fraction", "/revoke", `{"member_id":42,"seconds":0.5}`, `seconds must be an integer from 0 to 316224000`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, want := w.call(c.path, c.body), `{"code":400,"message":"`+c.message+`"}`; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
	if got := w.call("/disconnect", strings.Repeat(" ", 4097)); got != `{"code":413,"message":"the body is over 4096 bytes"}` {
		t.Errorf("got %s", got)
	}
}
