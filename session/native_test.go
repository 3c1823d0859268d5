package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/push/presence"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

// A desk accepts member N with token "N", and is unavailable for the token "down".
type desk struct{ expires time.Duration }

func (d desk) Quick(session.Credentials) bool { return true }

func (d desk) Authenticate(_ context.Context, c session.Credentials) (session.Identity, error) {
	switch string(c.Token) {
	case fmt.Sprint(c.Member):
		id := session.Identity{Roles: []string{"gold"}}
		if d.expires > 0 {
			id.Expires = time.Now().Add(d.expires)
		}
		return id, nil
	case "down":
		return session.Identity{}, errors.New("desk is closed")
	}
	return session.Identity{}, session.ErrUnauthorized
}

// world is a hub and a gateway as main would wire them.
type world struct {
	hub     *push.Hub
	gateway *session.Gateway
	t       testing.TB
}

func newWorld(t testing.TB, file string, change func(*session.Options)) *world {
	t.Helper()
	var rules *apps.Registry
	if file != "" {
		var err error
		if rules, err = apps.Parse("apps.yaml", []byte(file)); err != nil {
			t.Fatal(err)
		}
	}
	return worldOf(t, rules, change)
}

func worldOf(t testing.TB, rules *apps.Registry, change func(*session.Options)) *world {
	memory := log.NewMemory(log.Options{})
	hub := push.NewHub(push.Options{Apps: rules, Log: memory, Presence: presence.NewMemory(), Shards: 2})
	o := session.Options{Hub: hub, Apps: rules, Auth: desk{}}
	if change != nil {
		change(&o)
	}
	t.Cleanup(func() {
		hub.Close()
		memory.Close()
	})
	return &world{hub, session.NewGateway(o), t}
}

// dial opens a session whose client has sent first, if not "".
func (w *world) dial(first string) *sessiontest.Pipe {
	p := sessiontest.NewPipe(w.t)
	p.Attach(w.gateway.Open(p))
	if first != "" {
		p.Receive(first)
		p.Unread()
	}
	w.t.Cleanup(func() { p.Hangup(session.CloseAbnormal) })
	return p
}

func (w *world) push(m push.Message) push.Receipt {
	w.t.Helper()
	r, err := w.hub.Publish(w.t.Context(), m)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hub.Flush()
	return r
}

func texts(ms []sessiontest.Message) string {
	var out []string
	for _, m := range ms {
		out = append(out, m.Text)
	}
	return strings.Join(out, "\n")
}

const (
	stranger = `{"member_id":-1,"token":""}`
	member42 = `{"member_id":42,"token":"42"}`
)

func gateway(text string) string {
	return `{"app":"gateway","member_id":-1,"text":"` + strings.ReplaceAll(text, `"`, `\"`) + `"}`
}

func TestFirstFrame(t *testing.T) {
	bad := gateway(`{"code":400,"message":"missing auth message"}`)
	for _, c := range []struct {
		name, frame, want string
		code              session.CloseCode
	}{
		{"member", member42, gateway(`{"code":200,"message":"hello 42"}`), 0},
		{"member with id", `{"member_id":42,"token":"42","id":"a\"b"}`, `{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"hello 42\",\"id\":\"a\\\"b\"}"}`, 0},
		{"stranger", stranger, gateway(`{"code":200,"message":"hello stranger"}`), 0},
		{"any negative id", `{"member_id":-99999999999999999999999}`, gateway(`{"code":200,"message":"hello stranger"}`), 0},
		{"unknown keys are ignored", `{"x":[{"y":1}],"member_id":42,"token":"42"}`, gateway(`{"code":200,"message":"hello 42"}`), 0},
		{"A04 token refused", `{"member_id":42,"token":"41"}`, gateway(`{"code":401,"message":"unauthorized"}`), 0},
		{"token missing", `{"member_id":42}`, gateway(`{"code":401,"message":"unauthorized"}`), 0},
		{"A01 backend down", `{"member_id":42,"token":"down"}`, gateway(`{"code":503,"message":"auth unavailable"}`), session.CloseTryLater},
		{"P09 not JSON", `hello`, bad, session.CloseMissingAuth},
		{"P09 array", `[]`, bad, session.CloseMissingAuth},
		{"P09 empty object", `{}`, bad, session.CloseMissingAuth},
		{"P09 app and token", `{"app":"match","member_id":42,"token":"42"}`, bad, session.CloseMissingAuth},
		{"P12 zero", `{"member_id":0,"token":"0"}`, bad, session.CloseMissingAuth},
		{"P12 minus zero", `{"member_id":-0,"token":"0"}`, bad, session.CloseMissingAuth},
		{"P12 string", `{"member_id":"42","token":"42"}`, bad, session.CloseMissingAuth},
		{"P12 1.0", `{"member_id":1.0,"token":"1"}`, bad, session.CloseMissingAuth},
		{"P12 1e3", `{"member_id":1e3,"token":"1"}`, bad, session.CloseMissingAuth},
		{"P12 null", `{"member_id":null,"token":"1"}`, bad, session.CloseMissingAuth},
		{"P12 missing", `{"token":"1"}`, bad, session.CloseMissingAuth},
		{"P12 2^53-1", `{"member_id":9007199254740991,"token":"9007199254740991"}`, gateway(`{"code":200,"message":"hello 9007199254740991"}`), 0},
		{"P12 2^53", `{"member_id":9007199254740992,"token":"9007199254740992"}`, bad, session.CloseMissingAuth},
		{"P12 2^63", `{"member_id":9223372036854775808,"token":"1"}`, bad, session.CloseMissingAuth},
		{"P13 duplicate key", `{"member_id":42,"member_id":42,"token":"42"}`, bad, session.CloseMissingAuth},
		{"P13 duplicate key deep", `{"member_id":42,"token":"42","x":{"a":1,"a":2}}`, bad, session.CloseMissingAuth},
		{"P13 duplicate by escape", `{"token":"41","tok\u0065n":"42","member_id":42}`, bad, session.CloseMissingAuth},
		{"P13 wrong case", `{"Member_ID":42,"member_id":42,"token":"42"}`, bad, session.CloseMissingAuth},
		{"P13 lone surrogate", `{"member_id":42,"token":"\ud800"}`, bad, session.CloseMissingAuth},
		{"P13 byte order mark", "\ufeff" + member42, bad, session.CloseMissingAuth},
		{"P13 trailing bytes", member42 + `x`, bad, session.CloseMissingAuth},
		{"P13 second object", member42 + member42, bad, session.CloseMissingAuth},
		{"P14 deep", `{"x":` + strings.Repeat("[", 10000) + strings.Repeat("]", 10000) + `,"member_id":42,"token":"42"}`, bad, session.CloseMissingAuth},
		{"P14 33 deep", `{"x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `,"member_id":42,"token":"42"}`, bad, session.CloseMissingAuth},
		{"P14 32 deep", `{"x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `,"member_id":42,"token":"42"}`, gateway(`{"code":200,"message":"hello 42"}`), 0},
		{"P14 64 KiB of [", strings.Repeat("[", 64<<10), bad, session.CloseMissingAuth},
		{"P14 huge number", `{"x":1e999999,"member_id":42,"token":"42"}`, gateway(`{"code":200,"message":"hello 42"}`), 0},
		{"A08 token of 4 KiB + 1", `{"member_id":42,"token":"` + strings.Repeat("x", 4097) + `"}`, bad, session.CloseMissingAuth},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newWorld(t, "", nil).dial("")
			p.Receive(c.frame)
			if got := texts(p.Unread()); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if c.code != 0 {
				if code, _ := p.Wait(); code != c.code {
					t.Errorf("closed with %d, want %d", code, c.code)
				}
			}
		})
	}
}

func TestCommands(t *testing.T) {
	const file = "apps: {im: {visibility: private}, vip: {subscribe: ['role:gold']}, 'room:*': {push: [members]}, hall: {presence: true}, club: {presence: true, subscribe: [members]}}"
	bad := gateway(`{"code":400,"message":"bad subscribe message"}`)
	for _, c := range []struct{ name, first, frame, want string }{
		{"subscribe", stranger, `{"app":"match"}`, gateway(`{"code":200,"message":"subscribe match success"}`)},
		{"subscribe by op", stranger, `{"op":"subscribe","app":"match","id":7}`, gateway(`{"code":200,"message":"subscribe match success","id":7}`)},
		{"P17 private app, stranger", stranger, `{"app":"im"}`, gateway(`{"code":403,"message":"subscribe im forbidden"}`)},
		{"private app, member", member42, `{"app":"im"}`, gateway(`{"code":200,"message":"subscribe im success"}`)},
		{"role", member42, `{"app":"vip"}`, gateway(`{"code":200,"message":"subscribe vip success"}`)},
		{"role, stranger", stranger, `{"app":"vip"}`, gateway(`{"code":403,"message":"subscribe vip forbidden"}`)},
		{"P16 unsubscribe unknown", stranger, `{"op":"unsubscribe","app":"match"}`, gateway(`{"code":200,"message":"unsubscribe match success"}`)},
		{"ping", stranger, `{"op":"ping"}`, gateway(`{"code":200,"message":"pong"}`)},
		{"ping with id", stranger, `{"id":-3,"op":"ping"}`, gateway(`{"code":200,"message":"pong","id":-3}`)},
		{"id of 64 bytes", stranger, `{"id":"` + strings.Repeat("i", 64) + `","op":"ping"}`, gateway(`{"code":200,"message":"pong","id":"` + strings.Repeat("i", 64) + `"}`)},
		{"id of 65 bytes", stranger, `{"id":"` + strings.Repeat("i", 65) + `","op":"ping"}`, bad},
		{"id 1.5", stranger, `{"id":1.5,"op":"ping"}`, bad},
		{"unknown op", stranger, `{"op":"fly"}`, bad},
		{"unknown op with id", stranger, `{"id":1,"op":"fly"}`, gateway(`{"code":400,"message":"bad subscribe message","id":1}`)},
		{"bad JSON", stranger, `{"app":`, bad},
		{"empty object", stranger, `{}`, bad},
		{"P15 empty app", stranger, `{"app":""}`, bad},
		{"P15 gateway", stranger, `{"app":"gateway"}`, bad},
		{"P15 129 bytes", stranger, `{"app":"` + strings.Repeat("a", 129) + `"}`, bad},
		{"P15 newline", stranger, `{"app":"a\nb"}`, bad},
		{"P15 wildcard", stranger, `{"app":"room:*"}`, bad},
		{"P15 not ASCII", stranger, `{"app":"é"}`, bad},
		{"P13 wrong case", stranger, `{"App":"match"}`, bad},
		{"P13 duplicate", stranger, `{"app":"im","app":"match"}`, bad},
		{"app not a string", stranger, `{"app":1}`, bad},
		{"P09 app and token", stranger, `{"app":"match","token":""}`, bad},
		{"last with position", stranger, `{"app":"match","last":1,"position":null}`, bad},
		{"H01 negative position", stranger, `{"app":"match","position":{"epoch":"x","offset":-1}}`, bad},
		{"push where allowed", member42, `{"op":"push","app":"room:7","text":"hi"}`, gateway(`{"code":200,"message":"push room:7 success"}`)},
		{"push where not", member42, `{"op":"push","app":"match","text":"hi"}`, gateway(`{"code":403,"message":"push match forbidden"}`)},
		{"push by a stranger", stranger, `{"op":"push","app":"room:7","text":"hi"}`, gateway(`{"code":403,"message":"push room:7 forbidden"}`)},
		{"push to a private app", member42, `{"op":"push","app":"im","text":"hi"}`, gateway(`{"code":403,"message":"push im forbidden"}`)},
		{"presence, nobody", member42, `{"op":"presence","app":"hall","id":1}`, gateway(`{"code":200,"message":"presence hall","id":1,"members":[],"anonymous":0}`)},
		{"presence where there is none", member42, `{"op":"presence","app":"match"}`, gateway(`{"code":403,"message":"presence match forbidden"}`)},
		{"presence without right", stranger, `{"op":"presence","app":"club"}`, gateway(`{"code":403,"message":"presence club forbidden"}`)},
		{"events where there are none", member42, `{"app":"match","events":true}`, gateway(`{"code":403,"message":"presence match forbidden"}`)},
		{"events not true or false", member42, `{"app":"hall","events":1}`, bad},
		{"presence without app", member42, `{"op":"presence"}`, bad},
		{"P11 become a member", stranger, member42, gateway(`{"code":200,"message":"hello 42"}`)},
		{"P11 renew", member42, member42, gateway(`{"code":200,"message":"hello 42"}`)},
		{"P11 another member", member42, `{"member_id":43,"token":"43"}`, gateway(`{"code":400,"message":"already authenticated"}`)},
		{"P11 stranger again", member42, stranger, gateway(`{"code":400,"message":"already authenticated"}`)},
		{"refused renewal", member42, `{"member_id":42,"token":"x"}`, gateway(`{"code":401,"message":"unauthorized"}`)},
		{"malformed second auth", member42, `{"member_id":0}`, bad},
		{"token without member_id", member42, `{"token":"42"}`, bad},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newWorld(t, file, nil).dial(c.first)
			p.Receive(c.frame)
			if got := texts(p.Unread()); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Nobody learns from an answer whether an app exists.
func TestP17AbsentLooksForbidden(t *testing.T) {
	w := newWorld(t, "{default: deny, apps: {there: {subscribe: [43], push: [43], presence: true}}}", nil)
	for _, who := range []string{stranger, member42} {
		for _, frame := range []string{
			`{"app":"%s"}`, `{"app":"%s","position":null}`, `{"app":"%s","last":1}`, `{"app":"%s","events":true}`,
			`{"op":"push","app":"%s","text":"x"}`, `{"op":"presence","app":"%s"}`, `{"op":"unsubscribe","app":"%s"}`,
		} {
			var answers []string
			for _, app := range []string{"there", "absent"} {
				p := w.dial(who)
				p.Receive(fmt.Sprintf(frame, app))
				answers = append(answers, strings.ReplaceAll(texts(p.Unread()), app, "APP"))
			}
			if answers[0] != answers[1] || answers[0] == "" {
				t.Errorf("%s: %s for an app that is there, %s for one that is not", frame, answers[0], answers[1])
			}
		}
	}
}

func TestTenBadMessagesInARow(t *testing.T) {
	p := newWorld(t, "", nil).dial(stranger)
	for range 9 {
		p.Receive(`x`)
	}
	p.Receive(`{"op":"ping"}`)
	for range 9 {
		p.Receive(`x`)
	}
	select {
	case <-p.Done():
		t.Fatal("closed after 9 bad messages in a row")
	default:
	}
	p.Receive(`x`)
	if code, _ := p.Wait(); code != session.CloseTooManyBad {
		t.Errorf("closed with %d", code)
	}
}

func TestP05BinaryFrame(t *testing.T) {
	p := newWorld(t, "", nil).dial(stranger)
	p.ReceiveFrame(push.OpBinary, []byte(`{"op":"ping"}`))
	if code, _ := p.Wait(); code != session.CloseUnsupported {
		t.Errorf("closed with %d", code)
	}
}

func TestP10Silence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := newWorld(t, "", nil).dial("")
		code, _ := p.Wait()
		if took := time.Since(start); code != session.CloseMissingAuth || took != 10*time.Second {
			t.Errorf("closed with %d after %v", code, took)
		}
		if got, want := texts(p.Unread()), gateway(`{"code":400,"message":"missing auth message"}`); got != want {
			t.Errorf("got %s", got)
		}
	})
}

func TestJ06TokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		w := newWorld(t, "", func(o *session.Options) { o.Auth = desk{expires: time.Minute} })
		p := w.dial(member42)
		if got, want := p.Next(), gateway(`{"code":401,"message":"token expiring"}`); got != want || time.Since(start) != 30*time.Second {
			t.Errorf("got %s after %v", got, time.Since(start))
		}
		p.Receive(member42) // renewed: another minute
		p.Unread()
		if p.Next(); time.Since(start) != 60*time.Second {
			t.Errorf("second warning after %v", time.Since(start))
		}
		if code, _ := p.Wait(); code != session.CloseTokenExpired || time.Since(start) != 90*time.Second {
			t.Errorf("closed with %d after %v", code, time.Since(start))
		}
	})
}

func TestP18CommandFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "", func(o *session.Options) { o.CommandRate, o.CommandBurst = 50, 256 })
		p := w.dial(stranger)
		for range 256 {
			p.Receive(`{"op":"ping"}`)
		}
		if n := len(p.Unread()); n != 256 {
			t.Fatalf("%d answers to a burst of 256", n)
		}
		time.Sleep(time.Second)
		for range 50 {
			p.Receive(`{"op":"ping"}`)
		}
		if n := len(p.Unread()); n != 50 {
			t.Fatalf("%d answers to 50 commands a second later", n)
		}
		p.Receive(`{"op":"ping"}`)
		if code, _ := p.Wait(); code != session.CloseRateLimit {
			t.Errorf("closed with %d", code)
		}
	})
}

func TestP16Subscriptions(t *testing.T) {
	w := newWorld(t, "", func(o *session.Options) { o.MaxSubscriptions = 2 })
	p := w.dial(stranger)
	for _, c := range []struct{ frame, want string }{
		{`{"app":"a"}`, `subscribe a success`}, {`{"app":"b"}`, `subscribe b success`},
		{`{"app":"a"}`, `subscribe a success`}, {`{"app":"c"}`, `too many subscriptions`},
		{`{"op":"unsubscribe","app":"a"}`, `unsubscribe a success`}, {`{"app":"c"}`, `subscribe c success`},
	} {
		p.Receive(c.frame)
		if got := texts(p.Unread()); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s, want %s", c.frame, got, c.want)
		}
	}
	if r := w.push(push.Message{App: "b", Member: -1, Text: "x"}); r.Subscribers != 1 {
		t.Errorf("%d subscribers", r.Subscribers)
	}
	if got := texts(p.Unread()); got != `{"app":"b","member_id":-1,"text":"x"}` {
		t.Errorf("got %s", got)
	}
}

func TestU10PrivateMessages(t *testing.T) {
	w := newWorld(t, "", nil)
	a, b, c := w.dial(member42), w.dial(member42), w.dial(`{"member_id":43,"token":"43"}`)
	d := w.dial(stranger)
	for _, p := range []*sessiontest.Pipe{a, b, c, d} {
		p.Receive(`{"app":"match"}`)
		p.Unread()
	}
	if r := w.push(push.Message{App: "match", Member: 42, Text: "psst"}); r.Subscribers != 2 {
		t.Errorf("%d subscribers", r.Subscribers)
	}
	const want = `{"app":"match","member_id":42,"text":"psst"}`
	for i, p := range []*sessiontest.Pipe{a, b} {
		if got := texts(p.Unread()); got != want {
			t.Errorf("session %d of the member got %s", i, got)
		}
	}
	for i, p := range []*sessiontest.Pipe{c, d} {
		if got := texts(p.Unread()); got != "" {
			t.Errorf("other session %d got %s", i, got)
		}
	}
}

func TestDenyAnonymous(t *testing.T) {
	for _, first := range []string{stranger, `{"member_id":42,"token":"x"}`} {
		w := newWorld(t, "", func(o *session.Options) { o.DenyAnonymous = true })
		p := w.dial("")
		p.Receive(first)
		if got := texts(p.Unread()); got != gateway(`{"code":401,"message":"unauthorized"}`) {
			t.Errorf("got %s", got)
		}
		if code, _ := p.Wait(); code != session.CloseUnauthorized {
			t.Errorf("closed with %d", code)
		}
	}
}

func TestMaxPerMember(t *testing.T) {
	w := newWorld(t, "", func(o *session.Options) { o.MaxPerMember = 1 })
	first := w.dial(member42)
	w.dial(member42)
	if code, _ := first.Wait(); code != session.CloseTooManyConnections {
		t.Errorf("the oldest closed with %d", code)
	}
}

func TestS01SlowSessionIsClosed(t *testing.T) {
	w := newWorld(t, "", nil)
	slow, well := w.dial(stranger), w.dial(stranger)
	for _, p := range []*sessiontest.Pipe{slow, well} {
		p.Receive(`{"app":"match"}`)
		p.Unread()
	}
	slow.SetSlow(true)
	w.push(push.Message{App: "match", Member: -1, Text: "x"})
	if code, _ := slow.Wait(); code != session.CloseSlow {
		t.Errorf("closed with %d", code)
	}
	if got := texts(well.Unread()); got != `{"app":"match","member_id":-1,"text":"x"}` {
		t.Errorf("the other got %s", got)
	}
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{member42, stranger, `{"app":"match","position":{"epoch":"e","offset":1},"id":"x"}`, `{"op":"push","app":"a","text":"\u00e9"}`, `[`, `{"x":{}}`,
		`{"member_id":42,"token":"42","Token":"43"}`, `{"member_id":42,"token":"42","member_id":43}`, `{"app":"a","App":"b"}`, `{"op":"unsubscribe","app":"a","x":{"app":1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t, "", nil)
		for _, p := range []*sessiontest.Pipe{w.dial(""), w.dial(stranger)} {
			for range 2 { // whatever comes first or second is answered
				if !p.ReceiveFrame(push.OpText, data) {
					break
				}
				answers := p.Unread()
				if len(answers) < 1 {
					t.Fatalf("no answer to %q", data)
				}
				checkReading(t, data, answers[0].Text)
			}
		}
	})
}

// checkReading fails the test if encoding/json, which other programs may use, finds something else in
// a frame than what was done (P13).
func checkReading(t *testing.T, data []byte, answer string) {
	var m struct{ Text string }
	var done struct {
		Code    int
		Message string
	}
	if json.Unmarshal([]byte(answer), &m) != nil || json.Unmarshal([]byte(m.Text), &done) != nil {
		t.Fatalf("answered %s", answer)
	}
	if done.Code != 200 || done.Message == "pong" {
		return
	}
	var read struct {
		Member json.Number `json:"member_id"`
		App    string      `json:"app"`
		Token  string      `json:"token"`
	}
	if err := json.Unmarshal(data, &read); err != nil {
		t.Fatalf("%q is answered %s, and is no JSON: %v", data, done.Message, err)
	}
	switch verb, object, _ := strings.Cut(done.Message, " "); {
	case verb == "hello" && object == "stranger":
		if !strings.HasPrefix(string(read.Member), "-") {
			t.Errorf("%q is answered %s", data, done.Message)
		}
	case verb == "hello":
		if object != string(read.Member) || object != read.Token {
			t.Errorf("%q is answered %s", data, done.Message)
		}
	default:
		if object != read.App+" success" {
			t.Errorf("%q is answered %s", data, done.Message)
		}
	}
}
