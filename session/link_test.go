package session_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

// link opens a backend's link.
func (w *world) link(o push.KeysOptions) *sessiontest.Pipe {
	w.t.Helper()
	keys, err := push.NewKeys(o)
	if err != nil {
		w.t.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, "http://localhost:5000/push", nil)
	req.RemoteAddr = "127.0.0.1:40000"
	l, err := push.NewLink(w.hub, keys, req)
	if err != nil {
		w.t.Fatal(err)
	}
	p := sessiontest.NewPipe(w.t)
	p.Attach(w.gateway.OpenLink(p, l))
	w.t.Cleanup(func() { p.Hangup(session.CloseAbnormal) })
	return p
}

func TestLinkAnswersInOrder(t *testing.T) {
	w := newWorld(t, "", nil)
	p, reader := w.link(push.KeysOptions{}), w.dial(stranger)
	reader.Receive(`{"app":"a"}`)
	reader.Unread()
	const n = 3000 // more than the inbox holds
	for i := range n {
		p.Receive(fmt.Sprintf(`{"id":%d,"app":"a","text":"%d%s"}`, i, i, strings.Repeat("x", 200)))
	}
	for i := range n {
		if got, want := p.Next(), fmt.Sprintf(`{"id":%d,"code":202,"app":"a",`, i); !strings.HasPrefix(got, want) {
			t.Fatalf("answer %d is %s", i, got)
		}
	}
	w.hub.Flush()
	for i, m := range reader.Unread() {
		if want := fmt.Sprintf(`{"app":"a","member_id":-1,"text":"%dx`, i); !strings.HasPrefix(m.Text, want) {
			t.Fatalf("message %d is %s", i, m.Text)
		}
	}
}

func TestLinkRefuses(t *testing.T) {
	w := newWorld(t, "", nil)
	const badID = `id must be an integer or a string of at most 64 bytes`
	long := strings.Repeat("i", 65)
	for _, c := range []struct{ name, frame, want string }{
		{"no id", `{"app":"a","text":"x"}`, `{"code":400,"message":"id is missing"}`},
		{"id null", `{"id":null,"app":"a","text":"x"}`, `{"code":400,"message":"` + badID + `"}`},
		{"id 1.5", `{"id":1.5,"app":"a","text":"x"}`, `{"code":400,"message":"` + badID + `"}`},
		{"id too long", `{"id":"` + long + `","app":"a","text":"x"}`, `{"code":400,"message":"` + badID + `"}`},
		{"array", `[{"id":1,"app":"a","text":"x"}]`, `{"code":400,"message":"a frame must be a JSON object"}`},
		{"not JSON", `x`, `{"code":400,"message":"bad JSON: invalid character 'x' at start of value, at byte 0"}`},
		{"P13 trailing", `{"id":1,"app":"a","text":"x"}{}`, `{"id":1,"code":400,"message":"bad JSON: data after the end, at byte 29"}`},
		{"P13 duplicate", `{"id":1,"id":2,"app":"a","text":"x"}`, `{"id":1,"code":400,"message":"bad JSON: duplicate key in an object"}`},
		{"P13 wrong case", `{"ID":1,"app":"a","text":"x"}`, `{"code":400,"message":"key \"ID\" must be written \"id\""}`},
		{"U02 no text", `{"id":1,"app":"a"}`, `{"id":1,"code":400,"message":"text is missing"}`},
		{"U02 no text, id last", `{"app":"a","id":"\u0061\n"}`, `{"id":"\u0061\n","code":400,"message":"text is missing"}`},
		{"private app", `{"id":1,"app":"im","text":"x"}`, `{"id":1,"code":400,"message":"app is private: member_id must be positive"}`},
		{"key too long", `{"id":1,"app":"a","text":"x","key":"` + long + `"}`, `{"id":1,"code":400,"message":"an idempotency key has 1 to 64 bytes"}`},
		{"key empty", `{"id":1,"app":"a","text":"x","key":""}`, `{"id":1,"code":400,"message":"an idempotency key has 1 to 64 bytes"}`},
		{"key not a string", `{"id":1,"app":"a","text":"x","key":1}`, `{"id":1,"code":400,"message":"key must be a string"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := w.link(push.KeysOptions{})
			p.Receive(c.frame)
			if got := p.Next(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	if r := w.push(push.Message{App: "a", Member: -1}); r.Offset != 1 {
		t.Errorf("%d messages were accepted", r.Offset-1)
	}
}

func TestLinkRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "", nil)
		p := w.link(push.KeysOptions{Rate: 0.25}) // in bursts of 1000
		for i := range 1001 {
			p.Receive(fmt.Sprintf(`{"id":%d,"app":"a","text":"x"}`, i))
		}
		for range 1000 {
			p.Next()
		}
		if got, want := p.Next(), `{"id":1000,"code":429,"message":"too many messages for this push key","retry_after":4}`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

func TestLinkEnds(t *testing.T) {
	w := newWorld(t, "", nil)
	binary := w.link(push.KeysOptions{})
	binary.ReceiveFrame(push.OpBinary, []byte(`{"id":1,"app":"a","text":"x"}`))
	if code, _ := binary.Wait(); code != session.CloseUnsupported {
		t.Errorf("P05: closed with %d", code)
	}
	slow := w.link(push.KeysOptions{})
	slow.SetSlow(true)
	slow.Receive(`{"id":1,"app":"a","text":"x"}`)
	if code, _ := slow.Wait(); code != session.CloseSlow {
		t.Errorf("S01: closed with %d", code)
	}
	p := w.link(push.KeysOptions{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go func() {
		if code, _ := p.Wait(); code != session.CloseServiceRestart {
			t.Errorf("N02: closed with %d", code)
		}
	}()
	w.gateway.Drain(ctx, 0)
	if ctx.Err() != nil {
		t.Error("Drain did not see that the link is gone")
	}
}

// A gate is a log that accepts a message when the test lets it.
type gate struct {
	push.Log
	pass chan struct{}
}

func (g *gate) Append(ctx context.Context, app *apps.App, ms []push.Message) (string, int, error) {
	<-g.pass
	return g.Log.Append(ctx, app, ms)
}

// N02: a stop answers what was accepted, and nothing is accepted that is not answered.
func TestLinkLeavesWithItsAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := log.NewMemory(log.Options{})
		defer memory.Close()
		g := &gate{memory, make(chan struct{})}
		hub := push.NewHub(push.Options{Log: g})
		defer hub.Close()
		w := &world{hub, session.NewGateway(session.Options{Hub: hub}), t}
		p, reader := w.link(push.KeysOptions{}), w.dial(stranger)
		reader.Receive(`{"app":"a"}`)
		reader.Unread()
		p.Receive(`{"id":1,"app":"a","text":"x"}`)
		synctest.Wait()
		p.Receive(`{"id":2,"app":"a","text":"x"}`) // waits, and is taken together with the next one
		p.Receive(`{"id":3,"app":"a","text":"x"}`)
		g.pass <- struct{}{}
		synctest.Wait()
		drained := make(chan struct{})
		go func() {
			w.gateway.Drain(t.Context(), 0)
			close(drained)
		}()
		synctest.Wait()
		p.Receive(`{"id":4,"app":"a","text":"x"}`) // came too late
		close(g.pass)
		code, _ := p.Wait()
		var ids []string
		for _, m := range p.Unread() {
			id, rest, _ := strings.Cut(m.Text, ",")
			if !strings.HasPrefix(rest, `"code":202,`) {
				t.Errorf("answered %s", m.Text)
			}
			ids = append(ids, id)
		}
		if got := strings.Join(ids, " "); got != `{"id":1 {"id":2` || code != session.CloseServiceRestart {
			t.Errorf("answered %s, closed with %d", got, code)
		}
		if top := memory.Top("a"); top.Offset != 2 {
			t.Errorf("%d messages were accepted, want 2", top.Offset)
		}
		if code, _ := reader.Wait(); code != session.CloseServiceRestart {
			t.Errorf("the reader is closed with %d", code)
		}
		if got := reader.Unread(); len(got) != 2 {
			t.Errorf("the reader got %v, want both messages before it is closed", got)
		}
		<-drained
	})
}

// N02: a push that the log does not answer keeps nobody from being told to go.
func TestDrainWaitsForLinksForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{log.NewMemory(log.Options{}), make(chan struct{})}
		defer g.Log.(*log.Memory).Close()
		hub := push.NewHub(push.Options{Log: g})
		defer hub.Close()
		w := &world{hub, session.NewGateway(session.Options{Hub: hub}), t}
		p, reader := w.link(push.KeysOptions{}), w.dial(stranger)
		p.Receive(`{"id":1,"app":"a","text":"x"}`)
		synctest.Wait()
		start := time.Now()
		go w.gateway.Drain(t.Context(), 0)
		if code, _ := reader.Wait(); code != session.CloseServiceRestart || time.Since(start) != 5*time.Second {
			t.Errorf("the reader is closed with %d after %v", code, time.Since(start))
		}
		close(g.pass)
		p.Wait()
	})
}

// N02: members and doors push while others are being closed already. Whoever is closed has got
// what was accepted before.
func TestDrainClosesBehindWhatWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := push.NewHub(push.Options{FlushWindow: 40 * time.Millisecond})
		defer hub.Close()
		w := &world{hub, session.NewGateway(session.Options{Hub: hub}), t}
		var accepted atomic.Int64
		var readers sync.WaitGroup
		for range 40 {
			p := w.dial(stranger)
			p.Receive(`{"app":"a"}`)
			p.Unread()
			readers.Go(func() {
				p.Wait()
				if got, want := len(p.Unread()), int(accepted.Load()); got != want {
					t.Errorf("closed with %d messages when %d were accepted", got, want)
				}
			})
		}
		go w.gateway.Drain(t.Context(), 2*time.Second)
		time.Sleep(5 * time.Millisecond) // sessions are closed at multiples of 10 ms, or when the hub is flushed
		for range 40 {
			if _, err := hub.Publish(t.Context(), push.Message{App: "a", Member: -1, Text: "x"}); err != nil {
				t.Error(err)
			}
			accepted.Add(1)
			time.Sleep(50 * time.Millisecond)
		}
		readers.Wait()
	})
}

// A faulty connection panics at the first answer, once the test has seen to it that more waits
// than a link reads ahead.
type faulty struct {
	*sessiontest.Pipe
	pass chan struct{}
}

func (c *faulty) Send(*push.Frame) error {
	<-c.pass
	panic("of the test")
}

func TestLinkPanicsWithAFullInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "", nil)
		keys, err := push.NewKeys(push.KeysOptions{})
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodGet, "http://localhost:5000/push", nil)
		req.RemoteAddr = "127.0.0.1:40000"
		l, err := push.NewLink(w.hub, keys, req)
		if err != nil {
			t.Fatal(err)
		}
		c := &faulty{sessiontest.NewPipe(t), make(chan struct{})}
		link := w.gateway.OpenLink(c, l)
		c.Attach(link)
		frame := `{"id":1,"app":"a","text":"` + strings.Repeat("x", 60<<10) + `"}`
		c.Receive(frame)
		synctest.Wait()
		for range 4 {
			c.Receive(frame)
		}
		full := make(chan struct{})
		go func() {
			c.Receive(frame)
			close(full)
		}()
		synctest.Wait()
		select {
		case <-full:
			t.Error("a full inbox does not hold up the reader")
		default:
		}
		close(c.pass)
		<-full
		if code, _ := c.Wait(); code != session.CloseInternal {
			t.Errorf("closed with %d", code)
		}
		w.gateway.Drain(t.Context(), 0) // the link is gone
	})
}

// C03: a key that the operator withdraws is of no use to a link that is open.
func TestLinkOfAWithdrawnKey(t *testing.T) {
	file := t.TempDir() + "/keys"
	writeFile(t, file, "one\ntwo\n")
	keys, err := push.NewKeys(push.KeysOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	hub := push.NewHub(push.Options{})
	defer hub.Close()
	links := map[string]*push.Link{}
	for _, key := range []string{"one", "two"} {
		req := httptest.NewRequest(http.MethodGet, "/push", nil)
		req.Header.Set("X-Push-Key", key)
		if links[key], err = push.NewLink(hub, keys, req); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, file, "two\n")
	if err := keys.Reload(); err != nil {
		t.Fatal(err)
	}
	const frame = `{"id":1,"app":"a","text":"x"}`
	if got, want := string(links["one"].Receive(t.Context(), []byte(frame))), `{"id":1,"code":401,"message":"push key no longer valid"}`; got != want {
		t.Errorf("the withdrawn one: %s", got)
	}
	if got := string(links["two"].Receive(t.Context(), []byte(frame))); !strings.HasPrefix(got, `{"id":1,"code":202,`) {
		t.Errorf("the other: %s", got)
	}
}

// BenchmarkLink measures a push without the network.
func BenchmarkLink(b *testing.B) {
	for _, key := range []string{"", `,"key":"%d"`} {
		name := "key=none"
		if key != "" {
			name = "key=new"
		}
		b.Run(name, func(b *testing.B) {
			hub := push.NewHub(push.Options{MaxIdempotencyKeys: 1 << 40})
			defer hub.Close()
			keys, err := push.NewKeys(push.KeysOptions{})
			if err != nil {
				b.Fatal(err)
			}
			req := httptest.NewRequest(http.MethodGet, "http://localhost/push", nil)
			req.RemoteAddr = "127.0.0.1:40000"
			l, err := push.NewLink(hub, keys, req)
			if err != nil {
				b.Fatal(err)
			}
			frame := []byte(`{"id":12345,"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if key != "" {
					frame = fmt.Appendf(frame[:0], `{"id":12345,"app":"match","member_id":-1,"text":"x"`+key+`}`, i)
				}
				l.Receive(b.Context(), frame)
			}
		})
	}
}
