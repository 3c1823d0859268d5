package client_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
	"ws-gateway/session/client"
)

// quickPush are options of a pusher that comes back at once.
func quickPush() client.PushOptions {
	return client.PushOptions{MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Timeout: 5 * time.Second}
}

// dialPush returns a pusher that is closed when the test ends.
func dialPush(t *testing.T, url string, opts client.PushOptions) *client.Pusher {
	t.Helper()
	p, err := client.DialPush(t.Context(), url+"push", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func toAll(text string) client.Message {
	return client.Message{App: "match", Member: client.Everybody, Text: text}
}

// accepted returns how many messages of match g has accepted.
func accepted(t *testing.T, g *servertest.Gateway) int {
	t.Helper()
	r, err := g.Hub.Publish(t.Context(), push.Message{App: "match", Member: push.Everybody})
	if err != nil {
		t.Fatal(err)
	}
	return int(r.Offset) - 1
}

// code returns the status of the gateway's refusal, 0 if err is none.
func code(err error) int {
	var refused *client.ReplyError
	if errors.As(err, &refused) {
		return refused.Code
	}
	return 0
}

func TestPusherPipelines(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Keys = push.KeysOptions{Keys: []string{"key"}} })
	if _, err := client.DialPush(t.Context(), wsURL(g)+"push", client.PushOptions{Key: "guess"}); !errors.As(err, new(*client.HandshakeError)) {
		t.Errorf("a wrong key: %v", err)
	}
	opts := quick()
	opts.Member, opts.Token = 123456, token("654321")
	match := subscribe(t, dial(t, wsURL(g), opts), "match", client.SubscribeOptions{})
	with := quickPush()
	with.Key, with.Window = "key", 10
	p := dialPush(t, wsURL(g), with)

	const n = 500
	var refused atomic.Int64
	offsets := make(chan uint64, n)
	var pushing sync.WaitGroup
	for i := range n {
		pushing.Go(func() {
			m := toAll(strconv.Itoa(i))
			switch i % 5 {
			case 1:
				m.Member = 123456
			case 2: // in the middle of the others
				m.App = "not a name"
			}
			r, err := p.Push(t.Context(), m)
			if m.App != "match" {
				if code(err) != 400 {
					t.Errorf("a bad name: %v", err)
				}
				refused.Add(1)
				return
			}
			if err != nil || r.Epoch == "" || r.Durability != "memory" || r.Subscribers != 1 || r.Duplicate {
				t.Errorf("push: %+v, %v", r, err)
			}
			offsets <- r.Offset
		})
	}
	pushing.Wait()
	close(offsets)
	seen := make(map[uint64]bool)
	for o := range offsets {
		seen[o] = true
	}
	got := next(t, match, n-n/5)
	slices.SortFunc(got, func(a, b string) int { return atoi(a) - atoi(b) })
	if len(slices.Compact(got)) != n-n/5 || len(seen) != n-n/5 || refused.Load() != n/5 {
		t.Errorf("%d texts, %d offsets and %d refusals, want %d, %d and %d", len(slices.Compact(got)), len(seen), refused.Load(), n-n/5, n-n/5, n/5)
	}
}

func TestPusherRefusesByItself(t *testing.T) {
	g := servertest.Start(t)
	p := dialPush(t, wsURL(g), quickPush())
	for name, m := range map[string]client.Message{
		"no member":       {App: "match", Text: "x"},
		"text not UTF-8":  {App: "match", Member: client.Everybody, Text: "\xff"},
		"app name in ISO": {App: "match\xe4", Member: client.Everybody},
	} {
		if _, err := p.Push(t.Context(), m); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := p.PushOnce(t.Context(), "", toAll("x")); err == nil {
		t.Error("no key: no error")
	}
	if n := accepted(t, g); n != 0 {
		t.Errorf("%d messages were accepted", n)
	}
}

// The link is cut at any moment while messages are pushed: each is accepted once.
func TestPusherPushesOnceOverReconnects(t *testing.T) {
	g := servertest.Start(t)
	proxy := newProxy(t, address(g))
	p := dialPush(t, proxy.url(), quickPush())
	const pushers, each = 8, 500
	done := make(chan uint64, pushers*each)
	var duplicates atomic.Int64
	var pushing sync.WaitGroup
	for range pushers {
		pushing.Go(func() {
			for i := range each {
				r, err := p.Push(t.Context(), toAll(strconv.Itoa(i)))
				if err != nil {
					t.Errorf("push: %v", err)
				}
				if r.Duplicate {
					duplicates.Add(1)
				}
				done <- r.Offset
			}
		})
	}
	seen := make(map[uint64]bool)
	for i := range pushers * each {
		seen[<-done] = true
		if i%80 == 0 {
			proxy.cut()
		}
	}
	pushing.Wait()
	if n := accepted(t, g); n != pushers*each || len(seen) != n {
		t.Errorf("%d messages accepted with %d offsets, want %d", n, len(seen), pushers*each)
	}
	t.Logf("%d retries were duplicates", duplicates.Load())
}

// loseAnswer has proxy lose what the gateway says, and cut the link then, once.
func loseAnswer(proxy *proxy) {
	lost := false
	proxy.spoil = func(_ int, frame []byte) []byte {
		if lost {
			return frame
		}
		lost = true
		go proxy.cut()
		return nil
	}
}

func TestPusherLosesAnAnswer(t *testing.T) {
	for _, test := range []struct {
		name string
		once bool // not tried again
		push func(p *client.Pusher) (client.Receipt, error)
	}{
		{"retried", false, func(p *client.Pusher) (client.Receipt, error) { return p.Push(t.Context(), toAll("x")) }},
		{"retried with the caller's key", false, func(p *client.Pusher) (client.Receipt, error) {
			return p.PushOnce(t.Context(), "key", toAll("x"))
		}},
		{"at most once", true, func(p *client.Pusher) (client.Receipt, error) { return p.Push(t.Context(), toAll("x")) }},
		{"too late for the gateway to know the key", true, func(p *client.Pusher) (client.Receipt, error) {
			p.SetRetries(0)
			return p.Push(t.Context(), toAll("x"))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := servertest.Start(t)
			proxy := newProxy(t, address(g))
			loseAnswer(proxy)
			opts := quickPush()
			opts.AtMostOnce = test.name == "at most once"
			p := dialPush(t, proxy.url(), opts)
			r, err := test.push(p)
			if test.once && (!errors.Is(err, client.ErrUnknown) || !errors.Is(err, client.ErrConnectionLost)) {
				t.Errorf("error %v, want ErrUnknown for ErrConnectionLost", err)
			}
			if !test.once && (err != nil || r.Offset != 1 || !r.Duplicate) {
				t.Errorf("got %+v, %v, want a duplicate at 1", r, err)
			}
			if n := accepted(t, g); n != 1 {
				t.Errorf("%d messages were accepted", n)
			}
		})
	}
}

// A key of the caller's own is good over pushers, and only for one message.
func TestPushOnce(t *testing.T) {
	g := servertest.Start(t)
	for i, p := range []*client.Pusher{dialPush(t, wsURL(g), quickPush()), dialPush(t, wsURL(g), quickPush())} {
		if r, err := p.PushOnce(t.Context(), "key", toAll("x")); err != nil || r.Offset != 1 || r.Duplicate != (i == 1) {
			t.Errorf("pusher %d: %+v, %v", i, r, err)
		}
		if _, err := p.PushOnce(t.Context(), "key", toAll("y")); code(err) != 422 || errors.Is(err, client.ErrUnknown) {
			t.Errorf("pusher %d, another message: %v", i, err)
		}
	}
}

// A gateway that takes its time holds up nobody for longer than that one wants to wait.
func TestPusherWaitsForASlowGateway(t *testing.T) {
	g := servertest.Start(t)
	proxy := newProxy(t, address(g))
	opts := quickPush()
	opts.Window = 200
	p := dialPush(t, proxy.url(), opts)
	proxy.stall(true)
	text := strings.Repeat("x", 60<<10) // more than the sockets take
	var waiting sync.WaitGroup
	for range opts.Window - 1 {
		waiting.Go(func() {
			if _, err := p.Push(t.Context(), toAll(text)); err != nil {
				t.Errorf("push: %v", err)
			}
		})
	}
	brief := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := p.Push(ctx, toAll("x"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("push to a slow gateway: %v", err)
		}
		return err
	}
	for !errors.Is(brief(), client.ErrUnknown) { // the window has one place left
	}
	for errors.Is(brief(), client.ErrUnknown) { // the others have come before
	}
	proxy.stall(false)
	waiting.Wait()
	if _, err := p.Push(t.Context(), toAll("last")); err != nil {
		t.Error(err)
	}
}

func TestPusherWithoutALink(t *testing.T) {
	g := servertest.Start(t)
	proxy := newProxy(t, address(g))
	p := dialPush(t, proxy.url(), quickPush())
	if _, err := p.Push(t.Context(), toAll("x")); err != nil {
		t.Fatal(err)
	}
	loseAnswer(proxy)
	proxy.setRefuse(true) // who is connected stays so
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := p.Push(ctx, toAll("y")); !errors.Is(err, client.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a message on its way when the link broke: %v, want ErrUnknown", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Push(ctx, toAll("z")); errors.Is(err, client.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a message that was never sent: %v, want the context's error alone", err)
	}
	proxy.setRefuse(false)
	if r, err := p.Push(t.Context(), toAll("again")); err != nil || r.Offset != 3 {
		t.Errorf("when the gateway is back: %+v, %v", r, err)
	}
}

// Over its rate a message waits as long as the gateway says, or comes back if that is too long.
func TestPusherIsTooFast(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Keys = push.KeysOptions{Rate: 1000} }) // in bursts of as many
	p := dialPush(t, wsURL(g), quickPush())
	var pushing sync.WaitGroup
	for range 1100 {
		pushing.Go(func() {
			if _, err := p.Push(t.Context(), toAll("x")); err != nil {
				t.Error(err)
			}
		})
	}
	pushing.Wait()
	if n := accepted(t, g); n != 1100 {
		t.Errorf("%d messages were accepted, want 1100", n)
	}

	slow := servertest.Start(t, func(o *servertest.Options) { o.Keys = push.KeysOptions{Rate: 0.01} })
	p = dialPush(t, wsURL(slow), quickPush())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var err error
	for err == nil {
		_, err = p.Push(ctx, toAll("x"))
	}
	var refused *client.ReplyError
	if !errors.As(err, &refused) || refused.Code != 429 || refused.RetryAfter < 90*time.Second || ctx.Err() != nil || errors.Is(err, client.ErrUnknown) {
		t.Errorf("over the rate: %v", err)
	}
}

// A message that the gateway does not read costs the others a reconnect, and not the pusher.
func TestPusherMessageTooLarge(t *testing.T) {
	g := servertest.Start(t)
	p := dialPush(t, wsURL(g), quickPush())
	var pushing sync.WaitGroup
	for i := range 50 {
		pushing.Go(func() {
			m := toAll(strconv.Itoa(i))
			if i%10 == 5 {
				m.Text = strings.Repeat("x", 100<<10)
			}
			_, err := p.Push(t.Context(), m)
			if want := len(m.Text) > 64<<10; want != (code(err) == 413) || !want && err != nil {
				t.Errorf("%d bytes: %v", len(m.Text), err)
			}
		})
	}
	pushing.Wait()
	if n := accepted(t, g); n != 45 {
		t.Errorf("%d messages were accepted, want 45", n)
	}
}

func TestPusherWithAWithdrawnKey(t *testing.T) {
	file := t.TempDir() + "/keys"
	write := func(keys string) {
		if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old\nnew\n")
	g := servertest.Start(t, func(o *servertest.Options) { o.Keys = push.KeysOptions{File: file} })
	proxy := newProxy(t, address(g))
	opts := quickPush()
	opts.Key = "old"
	p := dialPush(t, proxy.url(), opts)
	if _, err := p.Push(t.Context(), toAll("x")); err != nil {
		t.Fatal(err)
	}
	write("new\n")
	if err := g.Keys.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Push(t.Context(), toAll("x")); code(err) != 401 {
		t.Errorf("push: %v, want 401", err)
	}
	proxy.cut()
	<-p.Done()
	var refused *client.HandshakeError
	if _, err := p.Push(t.Context(), toAll("x")); !errors.As(err, &refused) || refused.Status != 401 || err != p.Err() {
		t.Errorf("push: %v, and the pusher %v", err, p.Err())
	}
}

func TestPusherCloses(t *testing.T) {
	g := servertest.Start(t)
	proxy := newProxy(t, address(g))
	p := dialPush(t, proxy.url(), quickPush())
	asked := make(chan struct{})
	proxy.spoil = func(int, []byte) []byte { // an answer, and the gateway's goodbye
		select {
		case <-asked:
		default:
			close(asked)
		}
		return nil
	}
	failed := make(chan error)
	go func() {
		_, err := p.Push(t.Context(), toAll("x"))
		failed <- err
	}()
	<-asked
	p.Close()
	if err := <-failed; !errors.Is(err, client.ErrUnknown) || !errors.Is(err, client.ErrClosed) {
		t.Errorf("the message under way: %v, want ErrUnknown for ErrClosed", err)
	}
	if _, err := p.Push(t.Context(), toAll("y")); err != client.ErrClosed || p.Err() != client.ErrClosed {
		t.Errorf("after Close: %v and %v", err, p.Err())
	}
}

// An orderly stop answers what it accepts, and accepts nothing that it does not answer: what is
// tried again at the next gateway, which knows no keys, is pushed once.
func TestPusherMovesToTheNextGateway(t *testing.T) {
	first, second := servertest.Start(t), servertest.Start(t)
	proxy := newProxy(t, address(first))
	p := dialPush(t, proxy.url(), quickPush())
	const pushers, each = 8, 500
	half := make(chan struct{}, pushers*each)
	var pushing sync.WaitGroup
	for range pushers {
		pushing.Go(func() {
			for i := range each {
				if r, err := p.Push(t.Context(), toAll(strconv.Itoa(i))); err != nil || r.Duplicate {
					t.Errorf("push: %+v, %v", r, err)
				}
				half <- struct{}{}
			}
		})
	}
	for range pushers * each / 2 {
		<-half
	}
	proxy.setTarget(address(second))
	first.Drain()
	pushing.Wait()
	if a, b := accepted(t, first), accepted(t, second); a+b != pushers*each || a == 0 || b == 0 {
		t.Errorf("the gateways accepted %d and %d messages, want %d together", a, b, pushers*each)
	}
}
