package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
	"ws-gateway/session"
	"ws-gateway/session/client"
	"ws-gateway/stat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func wsURL(g *servertest.Gateway) string { return "ws" + strings.TrimPrefix(g.URL, "http") + "/" }

func address(g *servertest.Gateway) string { return strings.TrimPrefix(g.URL, "http://") }

// quick are options of a client that comes back at once.
func quick() client.Options {
	return client.Options{MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Timeout: 5 * time.Second}
}

// dial returns a client that is closed when the test ends.
func dial(t *testing.T, url string, opts client.Options) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func subscribe(t *testing.T, c *client.Client, app string, opts client.SubscribeOptions) *client.Subscription {
	t.Helper()
	s, err := c.Subscribe(t.Context(), app, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// next returns the next n texts.
func next(t *testing.T, s *client.Subscription, n int) (texts []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for m := range s.Messages(ctx) {
		if texts = append(texts, m.Text); len(texts) == n {
			return texts
		}
	}
	t.Fatalf("got %d messages, then %v, want %d", len(texts), s.Err(), n)
	return nil
}

// numbers returns from..to-1 as texts.
func numbers(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

func publish(t *testing.T, g *servertest.Gateway, app string, member int64, texts ...string) {
	t.Helper()
	for _, text := range texts {
		for {
			_, err := g.Hub.Publish(t.Context(), push.Message{App: app, Member: member, Text: text})
			var refused *push.RefusedError
			if errors.As(err, &refused) && refused.Status == 429 {
				continue
			}
			if err != nil {
				t.Error(err)
			}
			break
		}
	}
}

func token(s string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return s, nil }
}

func TestClientReceives(t *testing.T) {
	g := servertest.Start(t)
	opts := quick()
	opts.Member, opts.Token = 123456, token("654321")
	c := dial(t, wsURL(g), opts)
	match := subscribe(t, c, "match", client.SubscribeOptions{})
	im := subscribe(t, c, "im", client.SubscribeOptions{})
	publish(t, g, "im", 123456, "for me")
	publish(t, g, "im", 7, "not for me")
	publish(t, g, "match", push.Everybody, "1", "2")
	publish(t, g, "match", 123456, "private")
	if got, want := next(t, match, 3), []string{"1", "2", "private"}; !slices.Equal(got, want) {
		t.Errorf("match: got %q, want %q", got, want)
	}
	publish(t, g, "im", 123456, "again")
	if got, want := next(t, im, 2), []string{"for me", "again"}; !slices.Equal(got, want) {
		t.Errorf("im: got %q, want %q", got, want)
	}

	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := match.Unsubscribe(t.Context()); err != nil {
		t.Error(err)
	}
	publish(t, g, "match", push.Everybody, "too late")
	for m := range match.Messages(t.Context()) {
		t.Errorf("got %q after Unsubscribe", m.Text)
	}
	if err := match.Err(); err != nil {
		t.Errorf("Err after Unsubscribe is %v, want nil", err)
	}
	if _, err := c.Subscribe(t.Context(), "match", client.SubscribeOptions{}); err != nil {
		t.Errorf("subscribe again: %v", err)
	}
	if _, err := c.Subscribe(t.Context(), "match", client.SubscribeOptions{}); err == nil {
		t.Error("a second subscription to one app is no error")
	}
}

func TestClientIsRefused(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Apps = "apps:\n  vip: {subscribe: [members]}\n  chat: {push: [members]}\n"
	})
	t.Run("token", func(t *testing.T) {
		opts := quick()
		opts.Member, opts.Token = 123456, token("wrong")
		if _, err := client.Dial(t.Context(), wsURL(g), opts); !errors.Is(err, client.ErrUnauthorized) {
			t.Errorf("error %v, want ErrUnauthorized", err)
		}
	})
	t.Run("handshake", func(t *testing.T) {
		_, err := client.Dial(t.Context(), wsURL(g)+"nowhere", quick())
		var refused *client.HandshakeError
		if !errors.As(err, &refused) || refused.Status != 404 {
			t.Errorf("error %v, want a HandshakeError with 404", err)
		}
	})
	t.Run("subscribe and push", func(t *testing.T) {
		c := dial(t, wsURL(g), quick())
		_, err := c.Subscribe(t.Context(), "vip", client.SubscribeOptions{})
		var reply *client.ReplyError
		if !errors.As(err, &reply) || reply.Code != 403 {
			t.Errorf("subscribe: %v, want 403", err)
		}
		if err := c.Push(t.Context(), "chat", "hello"); !errors.As(err, &reply) || reply.Code != 403 {
			t.Errorf("push: %v, want 403", err)
		}
	})
	t.Run("subscribe, in the code of the original", func(t *testing.T) {
		g := servertest.Start(t, func(o *servertest.Options) {
			o.Apps, o.Session.ForbiddenCode = "apps:\n  vip: {subscribe: [members]}\n", 200
		})
		_, err := dial(t, wsURL(g), quick()).Subscribe(t.Context(), "vip", client.SubscribeOptions{})
		var reply *client.ReplyError
		if !errors.As(err, &reply) || reply.Code != 403 {
			t.Errorf("subscribe: %v, want 403", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		p := newProxy(t, address(g))
		p.setRefuse(true)
		if _, err := client.Dial(t.Context(), p.url(), quick()); err == nil {
			t.Error("no error")
		}
	})
}

func TestMemberPushes(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Apps = "apps:\n  chat: {push: [members]}\n" })
	opts := quick()
	opts.Member, opts.Token = 123456, token("654321")
	c := dial(t, wsURL(g), opts)
	s := subscribe(t, c, "chat", client.SubscribeOptions{})
	if err := c.Push(t.Context(), "chat", "hello"); err != nil {
		t.Fatal(err)
	}
	for m := range s.Messages(t.Context()) {
		if m.Text != "hello" || m.From != 123456 || m.App != "chat" {
			t.Errorf("got %+v", m)
		}
		break
	}
}

// The connection is cut at any moment, a hundred times, while messages are pushed: each
// arrives once and in order.
func TestClientLosesNothingOverReconnects(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Apps = "default: public\napps:\n  match: {history: {size: 100000}}\n" })
	p := newProxy(t, address(g))
	var cuts atomic.Int64
	opts := quick()
	opts.Member, opts.Token = 123456, token("654321")
	opts.Events = func(e client.Event) {
		if e.State == client.Disconnected {
			cuts.Add(1)
		}
	}
	c := dial(t, p.url(), opts)
	missed := func() { t.Error("messages were missed") }
	s := subscribe(t, c, "match", client.SubscribeOptions{Missed: missed})

	const total = 20_000
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ahead := make(chan struct{}, 150) // of the reader; it is cut off while there is something to come
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for i := range total {
			ahead <- struct{}{}
			member := push.Everybody
			if random.IntN(4) == 0 {
				member = 123456 // the other chain
			}
			publish(t, g, "match", member, strconv.Itoa(i))
		}
	})
	got := make([]string, 0, total)
	for m := range s.Messages(t.Context()) {
		if got = append(got, m.Text); len(got) == total {
			break
		}
		<-ahead
		if len(got)%(total/100) == 0 {
			p.cut()
		}
	}
	pushing.Wait()
	if want := numbers(0, total); !slices.Equal(got, want) {
		t.Errorf("first difference at %d", slices.IndexFunc(want, func(s string) bool { return got[atoi(s)] != s }))
	}
	if cuts.Load() < 50 {
		t.Errorf("the client was disconnected %d times in a hundred cuts: too few to prove anything", cuts.Load())
	}
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// What the gateway lost or sent twice, the client notices by offset and prev, and has it
// sent again or drops it.
func TestClientNoticesGapsAndDuplicates(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(n int, frame []byte) []byte
	}{
		{"lost", func(n int, frame []byte) []byte {
			if n%10 == 5 && strings.Contains(string(frame), `"match"`) {
				return nil
			}
			return frame
		}},
		{"twice", func(n int, frame []byte) []byte {
			if n%3 == 0 && strings.Contains(string(frame), `"match"`) {
				return slices.Concat(frame, frame)
			}
			return frame
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := servertest.Start(t)
			p := newProxy(t, address(g))
			p.spoil = test.spoil
			opts := quick()
			opts.Member, opts.Token = 123456, token("654321")
			c := dial(t, p.url(), opts)
			s := subscribe(t, c, "match", client.SubscribeOptions{Missed: func() { t.Error("messages were missed") }})
			for i := range 40 {
				member := push.Everybody
				if i%3 == 0 {
					member = 123456
				}
				publish(t, g, "match", member, strconv.Itoa(i))
			}
			// What is lost last is noticed with the next message.
			var got []string
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			more := 40
			done := make(chan struct{})
			defer close(done)
			go func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						publish(t, g, "match", push.Everybody, "more")
						publish(t, g, "match", 123456, "more")
					case <-done:
						return
					}
				}
			}()
			for m := range s.Messages(ctx) {
				if m.Text == "more" {
					if len(got) == more {
						break
					}
					continue
				}
				got = append(got, m.Text)
			}
			slices.SortFunc(got, func(a, b string) int { return atoi(a) - atoi(b) }) // a gap in one chain does not hold up the other
			if want := numbers(0, 40); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// What an app's rules drop for a client that is too slow, it does not ask for.
func TestClientDoesNotAskForWhatWasDropped(t *testing.T) {
	for _, policy := range []string{"drop_oldest", "latest"} {
		t.Run(policy, func(t *testing.T) {
			g := servertest.Start(t, func(o *servertest.Options) {
				o.Apps = "default: public\napps:\n  price: {slow: " + policy + ", history: {size: 100000}}\n"
				o.Transport.QueueBytes = 128 << 10
			})
			p := newProxy(t, address(g))
			c := dial(t, p.url(), quick())
			s := subscribe(t, c, "price", client.SubscribeOptions{Missed: func() { t.Error("messages were missed") }})
			p.stall(true)
			pushed := 0
			for long := strings.Repeat("x", 32<<10); g.Metrics.Snapshot().SlowDropped[policy] == 0; pushed++ {
				publish(t, g, "price", push.Everybody, strconv.Itoa(pushed)+" "+long)
			}
			p.stall(false)
			publish(t, g, "price", push.Everybody, "end")
			got, last := 0, -1
			for m := range s.Messages(t.Context()) {
				if m.Text == "end" {
					break
				}
				number, _, _ := strings.Cut(m.Text, " ")
				if atoi(number) <= last {
					t.Fatalf("got %s after %d", number, last)
				}
				got, last = got+1, atoi(number)
			}
			if got >= pushed {
				t.Errorf("got %d of %d messages: nothing was dropped, or it was sent again", got, pushed)
			}
			if r := g.Metrics.Snapshot().Resumes; r != (stat.Resumes{}) {
				t.Errorf("the client resumed: %+v", r)
			}
		})
	}
}

// A reader that is slower than the messages has them sent again when it is back, and no
// other subscription waits for it.
func TestSlowReaderHoldsUpNobody(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Apps = "default: public\napps:\n  \"*\": {history: {size: 10000}}\n" })
	opts := quick()
	opts.Buffer = 8
	c := dial(t, wsURL(g), opts)
	missed := func() { t.Error("messages were missed") }
	slow := subscribe(t, c, "slow", client.SubscribeOptions{Missed: missed})
	fast := subscribe(t, c, "fast", client.SubscribeOptions{Missed: missed})
	publish(t, g, "slow", push.Everybody, numbers(0, 1000)...)
	publish(t, g, "fast", push.Everybody, "hello")
	if got := next(t, fast, 1); got[0] != "hello" {
		t.Errorf("fast got %q", got)
	}
	if got, want := next(t, slow, 1000), numbers(0, 1000); !slices.Equal(got, want) {
		t.Errorf("slow got %q", got)
	}
}

func TestClientIsToldWhatItMissed(t *testing.T) {
	first, second := servertest.Start(t), servertest.Start(t)
	p := newProxy(t, address(first))
	c := dial(t, p.url(), quick())
	var missed []int
	var got []string
	s := subscribe(t, c, "match", client.SubscribeOptions{Missed: func() { missed = append(missed, len(got)) }})
	publish(t, first, "match", push.Everybody, "0", "1")
	got = next(t, s, 2)
	p.setTarget(address(second)) // which has another epoch
	p.cut()
	done := make(chan struct{})
	var pushing sync.WaitGroup
	pushing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				publish(t, second, "match", push.Everybody, "of the second")
			}
		}
	})
	got = append(got, next(t, s, 1)...)
	close(done)
	pushing.Wait()
	if len(missed) != 1 || missed[0] != 2 {
		t.Errorf("missed at %v, want once, after 2 messages", missed)
	}
}

func TestSubscribeGoesOnWhereAnEarlierRunStopped(t *testing.T) {
	g := servertest.Start(t)
	c := dial(t, wsURL(g), quick())
	s := subscribe(t, c, "match", client.SubscribeOptions{})
	publish(t, g, "match", push.Everybody, numbers(0, 5)...)
	next(t, s, 2) // of five that may have arrived
	position := s.Position()
	c.Close()

	later := dial(t, wsURL(g), quick())
	s = subscribe(t, later, "match", client.SubscribeOptions{Position: &position, Missed: func() { t.Error("missed") }})
	if got, want := next(t, s, 3), numbers(2, 5); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A code of 4500 and above says not to come back.
func TestClientStaysAwayWhenTold(t *testing.T) {
	g := servertest.Start(t)
	opts := quick()
	opts.Member, opts.Token = 123456, token("654321")
	events := make(chan client.Event, 10)
	opts.Events = func(e client.Event) { events <- e }
	c := dial(t, wsURL(g), opts)
	s := subscribe(t, c, "match", client.SubscribeOptions{})
	g.Sessions.Disconnect(123456, session.CloseRevoked)
	<-c.Done()
	var closed *client.CloseError
	if !errors.As(c.Err(), &closed) || closed.Code != session.CloseRevoked {
		t.Errorf("client ended with %v, want %d", c.Err(), session.CloseRevoked)
	}
	for range s.Messages(t.Context()) {
	}
	if s.Err() != c.Err() {
		t.Errorf("subscription ended with %v, want %v", s.Err(), c.Err())
	}
	var states []string
	for len(events) > 0 {
		e := <-events
		states = append(states, fmt.Sprint(e.State, e.Final))
	}
	if want := []string{"connecting false", "connected false", "disconnected true"}; !slices.Equal(states, want) {
		t.Errorf("events %q, want %q", states, want)
	}
	if err := c.Ping(t.Context()); !errors.As(err, &closed) {
		t.Errorf("ping: %v, want the CloseError", err)
	}
}

// Attempts to come back are spread over a time that doubles, between two bounds.
func TestClientBacksOff(t *testing.T) {
	g := servertest.Start(t)
	p := newProxy(t, address(g))
	opts := client.Options{MinBackoff: time.Millisecond, MaxBackoff: 8 * time.Millisecond, Timeout: 5 * time.Second}
	waits := make(chan time.Duration, 100)
	opts.Events = func(e client.Event) {
		if e.State == client.Connecting && len(waits) < cap(waits) {
			waits <- e.Wait
		}
	}
	c := dial(t, p.url(), opts)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if wait := <-waits; wait != 0 {
		t.Errorf("waited %v before the first attempt", wait)
	}
	p.setRefuse(true)
	p.cut()
	seen := make(map[time.Duration]bool)
	for i := range 20 {
		wait, most := <-waits, min(8*time.Millisecond, time.Millisecond+time.Millisecond<<min(i, 10))
		if wait < time.Millisecond || wait > most {
			t.Errorf("wait %d is %v, want 1ms to %v", i, wait, most)
		}
		seen[wait] = true
	}
	if len(seen) < 5 {
		t.Errorf("20 waits have %d values: no jitter", len(seen))
	}
	p.setRefuse(false)
	if err := c.Ping(t.Context()); err != nil {
		t.Errorf("after the gateway is back: %v", err)
	}
}

// A network that swallows everything is noticed, and left.
func TestClientLeavesADeadConnection(t *testing.T) {
	g := servertest.Start(t)
	p := newProxy(t, address(g))
	opts := quick()
	opts.Silence = time.Second // pings are answered in between, on any machine
	lost := make(chan struct{})
	var once sync.Once
	opts.Events = func(e client.Event) {
		if e.State == client.Disconnected {
			once.Do(func() { close(lost) })
		}
	}
	c := dial(t, p.url(), opts)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.stall(true)
	<-lost
	p.stall(false)
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// A command whose answer did not come is neither repeated nor forgotten.
func TestCommandIsLostWithItsConnection(t *testing.T) {
	g := servertest.Start(t)
	p := newProxy(t, address(g))
	c := dial(t, p.url(), quick())
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.stall(true)
	failed := make(chan error)
	go func() { failed <- c.Ping(t.Context()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping without an answer: %v, want the context's error", err)
	}
	p.cut()
	if err := <-failed; !errors.Is(err, client.ErrConnectionLost) {
		t.Errorf("ping: %v, want ErrConnectionLost", err)
	}
	p.stall(false)
}

// expiring lets everybody in for a while.
type expiring struct {
	lasts time.Duration // of the first token; the next ones last
	again chan struct{} // closed by the second login

	mu   sync.Mutex
	seen []string
}

func (a *expiring) Authenticate(_ context.Context, c session.Credentials) (session.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, string(c.Token))
	if len(a.seen) == 2 {
		close(a.again)
	}
	if len(a.seen) > 1 {
		return session.Identity{Expires: time.Now().Add(time.Hour)}, nil
	}
	return session.Identity{Expires: time.Now().Add(a.lasts)}, nil
}

// A token is renewed while the connection lives.
func TestClientRenewsItsToken(t *testing.T) {
	auth := &expiring{lasts: 30*time.Second + 100*time.Millisecond, again: make(chan struct{})} // the gateway warns 30 s before
	g := servertest.Start(t, func(o *servertest.Options) { o.Session.Auth = auth })
	opts := quick()
	opts.Member = 42
	calls := 0
	opts.Token = func(context.Context) (string, error) {
		calls++
		return "token " + strconv.Itoa(calls), nil
	}
	c := dial(t, wsURL(g), opts)
	<-auth.again
	if err := c.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	c.Close()
	auth.mu.Lock()
	defer auth.mu.Unlock()
	if want := []string{"token 1", "token 2"}; !slices.Equal(auth.seen, want) {
		t.Errorf("the gateway saw %q, want %q", auth.seen, want)
	}
}

// A Token that fails for now is asked again; one that says no for good ends the client.
func TestTokenFails(t *testing.T) {
	g := servertest.Start(t)
	p := newProxy(t, address(g))
	opts := quick()
	opts.Member = 123456
	calls := 0
	opts.Token = func(context.Context) (string, error) {
		switch calls++; calls {
		case 1:
			return "654321", nil
		case 2, 3:
			return "", errors.New("not now")
		}
		return "", fmt.Errorf("signed out: %w", client.ErrUnauthorized)
	}
	c := dial(t, p.url(), opts)
	if err := c.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.cut()
	<-c.Done()
	if !errors.Is(c.Err(), client.ErrUnauthorized) || calls != 4 {
		t.Errorf("ended with %v after %d calls, want ErrUnauthorized after 4", c.Err(), calls)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	g := servertest.Start(t)
	p := newProxy(t, address(g))
	t.Run("while connected", func(t *testing.T) {
		c := dial(t, p.url(), quick())
		s := subscribe(t, c, "match", client.SubscribeOptions{})
		c.Close()
		for range s.Messages(t.Context()) {
		}
		if !errors.Is(s.Err(), client.ErrClosed) || !errors.Is(c.Err(), client.ErrClosed) {
			t.Errorf("ended with %v and %v, want ErrClosed", s.Err(), c.Err())
		}
		if _, err := c.Subscribe(t.Context(), "match", client.SubscribeOptions{}); !errors.Is(err, client.ErrClosed) {
			t.Errorf("subscribe: %v, want ErrClosed", err)
		}
	})
	t.Run("while it comes back", func(t *testing.T) {
		opts := quick()
		opts.MinBackoff, opts.MaxBackoff = time.Hour, time.Hour
		waiting := make(chan struct{}, 1)
		opts.Events = func(e client.Event) {
			if e.Wait > 0 {
				waiting <- struct{}{}
			}
		}
		c := dial(t, p.url(), opts)
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.cut()
		<-waiting
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := c.Subscribe(ctx, "match", client.SubscribeOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("subscribe while disconnected: %v, want the context's error", err)
		}
		c.Close()
	})
}

// Who unsubscribes while the client comes back is not subscribed again by that.
func TestUnsubscribeMeetsTheReconnect(t *testing.T) {
	g := servertest.Start(t)
	p := newProxy(t, address(g))
	gone, cancel := context.WithCancel(t.Context())
	cancel() // Unsubscribe does not wait for the answer
	var c *client.Client
	var s *client.Subscription
	back := make(chan struct{})
	opts := quick()
	opts.Events = func(e client.Event) {
		if e.State == client.Connected && s != nil {
			s.Unsubscribe(gone)
			close(back)
		}
	}
	c = dial(t, p.url(), opts)
	if err := c.Ping(t.Context()); err != nil { // Events has been told
		t.Fatal(err)
	}
	s = subscribe(t, c, "match", client.SubscribeOptions{})
	p.cut()
	<-back
	for range 2 { // the second is asked behind whatever the client asks when it is back
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r, err := g.Hub.Publish(t.Context(), push.Message{App: "match", Member: push.Everybody, Text: "hello"})
	if err != nil || r.Subscribers != 0 {
		t.Errorf("%d subscribers, %v, want none", r.Subscribers, err)
	}
}
