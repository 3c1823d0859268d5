package push_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/push/presence"
	"ws-gateway/stat"
)

// An inbox is a subscriber that keeps the text of everything it receives.
type inbox struct {
	mu   sync.Mutex
	got  []string
	wait chan struct{} // if not nil, Deliver waits for it
	in   chan struct{} // if not nil, told when Deliver is called
}

func (r *inbox) Deliver(f *push.Frame) {
	if r.in != nil {
		r.in <- struct{}{}
	}
	if r.wait != nil {
		<-r.wait
	}
	r.Queue(f)
}

func (r *inbox) Queue(f *push.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for data := f.Data; len(data) > 0; n++ {
		size, header := int(data[1]), 2
		if size == 126 {
			size, header = int(data[2])<<8|int(data[3]), 4
		}
		if n == f.Messages-1 && len(f.Data)-len(data) != f.Last {
			panic("Last does not point at the last message")
		}
		r.got = append(r.got, string(data[header:header+size]))
		data = data[header+size:]
	}
	if n != f.Messages {
		panic(fmt.Sprintf("%d messages in a frame that says %d", n, f.Messages))
	}
}

func (r *inbox) Flush() {}

func (r *inbox) texts() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.got, " ")
}

// with returns a hub over a memory log, for the rules of file.
func with(t testing.TB, file string, change func(*push.Options)) *push.Hub {
	t.Helper()
	rules, err := apps.Parse("apps.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	l := log.NewMemory(log.Options{})
	o := push.Options{Apps: rules, Log: l, Shards: 2}
	if change != nil {
		change(&o)
	}
	h := push.NewHub(o)
	t.Cleanup(func() { h.Close(); l.Close() })
	return h
}

func subscribe(t testing.TB, h *push.Hub, app string, member int64, shard int) (*push.Subscription, *inbox) {
	t.Helper()
	a, err := h.Lookup(app)
	if err != nil {
		t.Fatal(err)
	}
	r := new(inbox)
	s, _ := h.Subscribe(a, r, push.SubscribeOptions{Member: member, Encoding: plain, Shard: uint64(shard)})
	return s, r
}

func publish(t testing.TB, h *push.Hub, app string, member int64, text string) push.Receipt {
	t.Helper()
	r, err := h.Publish(context.Background(), push.Message{App: app, Member: member, Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReceipt(t *testing.T) {
	h := with(t, "apps: {live: {history: off}}", nil)
	s, _ := subscribe(t, h, "match", -1, 0)
	s.Start()
	first, second := publish(t, h, "match", -1, "a"), publish(t, h, "match", 7, "b")
	if first.Offset != 1 || first.Durability != "memory" || first.Subscribers != 1 || first.Epoch == "" {
		t.Errorf("public: %+v", first)
	}
	if second.Offset != 2 || second.Subscribers != 0 || second.Epoch != first.Epoch {
		t.Errorf("private to somebody else: %+v", second)
	}
	if r := publish(t, h, "live", -1, "a"); r.Durability != "none" || r.Subscribers != 0 {
		t.Errorf("without history: %+v", r)
	}
}

func TestRefusals(t *testing.T) {
	h := with(t, "{default: deny, apps: {match: {}, im: {visibility: private}}}", func(o *push.Options) { o.MaxText = 4 })
	for _, c := range []struct {
		name   string
		m      push.Message
		status int
	}{
		{"member 0", push.Message{App: "match", Text: "x"}, 400},
		{"member -2", push.Message{App: "match", Member: -2}, 400},
		{"private app, everybody", push.Message{App: "im", Member: -1}, 400},
		{"P15 reserved app", push.Message{App: "gateway", Member: -1}, 400},
		{"P15 bad name", push.Message{App: "a b", Member: -1}, 400},
		{"unknown app", push.Message{App: "chess", Member: -1}, 404},
		{"U01 long text", push.Message{App: "match", Member: -1, Text: "12345"}, 413},
	} {
		_, err := h.Publish(t.Context(), c.m)
		if code, _ := push.Answer(err); code != c.status {
			t.Errorf("%s: %d (%v), want %d", c.name, code, err, c.status)
		}
		_, err = h.PublishBatch(t.Context(), []push.Message{{App: "match", Member: -1, Text: "ok"}, c.m})
		var invalid *push.BatchError
		if code, _ := push.Answer(err); code != c.status || !errors.As(err, &invalid) || invalid.Index != 1 {
			t.Errorf("%s in a batch: %+v", c.name, err)
		}
	}
	if r := publish(t, h, "match", -1, "x"); r.Offset != 1 {
		t.Errorf("offset %d after refusals: something of them was kept", r.Offset)
	}
}

// A log that fails in the middle of a run has accepted what went before: that is delivered, and has
// receipts.
func TestRunFailsInTheMiddle(t *testing.T) {
	for _, shards := range []int{1, 3} {
		once(t, push.Options{Shards: shards}, func(t *testing.T, h *push.Hub, g *gatedLog) {
			all, got := subscribe(t, h, "match", -1, 0)
			member, mine := subscribe(t, h, "match", 7, 1)
			all.Start()
			member.Start()
			batch := []push.Message{
				{App: "other", Member: -1, Text: "o"},
				{App: "match", Member: -1, Text: "a"}, {App: "match", Member: 7, Text: "b"}, {App: "match", Member: 8, Text: "c"},
				{App: "match", Member: -1, Text: "d"}, {App: "match", Member: -1, Text: "e"},
			}
			for _, err := range []error{nil, nil, nil, nil, push.ErrUnknownOutcome} {
				g.pass <- err
			}
			receipts, err := h.PublishBatch(t.Context(), batch)
			if outcome(err) != "unknown" {
				t.Errorf("ended with %v", err)
			}
			var said []string
			for _, r := range receipts {
				said = append(said, fmt.Sprintf("%d to %d", r.Offset, r.Subscribers))
				if r.Epoch != g.Top("match").Epoch || r.Durability != "memory" {
					t.Errorf("receipt %+v", r)
				}
			}
			if want := "[1 to 0 1 to 2 2 to 1 3 to 0]"; fmt.Sprint(said) != want {
				t.Errorf("%d shards: receipts say %v, want %s", shards, said, want)
			}
			h.Flush()
			if got.texts() != "a" || mine.texts() != "a b" {
				t.Errorf("%d shards: everybody got %q and member 7 %q", shards, got.texts(), mine.texts())
			}
		})
	}
}

// Batches of many apps and members arrive as they do one by one.
func TestBatchesInRuns(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, shards := range []int{1, 3} {
		h := with(t, "apps: {}", func(o *push.Options) { o.Shards = shards })
		want := make([]string, 12)
		var got []*inbox
		for i := range want { // of three apps: nobody in particular, and members 1, 2 and 3
			member := int64(i / 3)
			if member == 0 {
				member = apps.Anonymous
			}
			s, r := subscribe(t, h, fmt.Sprint("app:", i%3), member, i)
			s.Start()
			got = append(got, r)
		}
		for range 20 {
			batch := make([]push.Message, 1+rng.IntN(300))
			subscribers := make([]int, len(batch))
			app := 0
			for i := range batch {
				if rng.IntN(10) == 0 {
					app = rng.IntN(4) // the last has no subscribers
				}
				m := &batch[i]
				*m = push.Message{App: fmt.Sprint("app:", app), Member: -1, Text: strconv.Itoa(i)}
				if rng.IntN(3) == 0 {
					m.Member = 1 + rng.Int64N(4)
				}
				for j := range want {
					if j%3 == app && (m.Member < 0 || int64(j/3) == m.Member) {
						want[j] += m.Text + " "
						subscribers[i]++
					}
				}
			}
			receipts, err := h.PublishBatch(t.Context(), batch)
			if err != nil || len(receipts) != len(batch) {
				t.Fatalf("%d receipts for %d messages: %v", len(receipts), len(batch), err)
			}
			tops := map[string]uint64{}
			for i, r := range receipts {
				if r.Subscribers != subscribers[i] || r.Offset <= tops[batch[i].App] {
					t.Fatalf("message %d, for %d subscribers: %+v after %d", i, subscribers[i], r, tops[batch[i].App])
				}
				tops[batch[i].App] = r.Offset
			}
		}
		h.Flush()
		for j, r := range got {
			if texts := r.texts() + " "; texts != want[j] {
				t.Errorf("%d shards: subscriber %d got %d bytes of texts, want %d", shards, j, len(texts), len(want[j]))
			}
		}
	}
}

func TestHeldUntilStart(t *testing.T) {
	h := with(t, "apps: {}", nil)
	s, r := subscribe(t, h, "match", 7, 0)
	publish(t, h, "match", -1, "a")
	publish(t, h, "match", 8, "secret")
	publish(t, h, "match", 7, "b")
	h.Flush()
	if got := r.texts(); got != "" {
		t.Errorf("before Start: %q", got)
	}
	s.Start()
	publish(t, h, "match", -1, "c")
	h.Flush()
	if got := r.texts(); got != "a b c" {
		t.Errorf("got %q", got)
	}
	s.Close()
	publish(t, h, "match", -1, "d")
	h.Flush()
	if got := r.texts(); got != "a b c" {
		t.Errorf("after Close: %q", got)
	}
}

func TestTooMuchToHoldBack(t *testing.T) {
	h := with(t, "apps: {}", nil)
	s, r := subscribe(t, h, "match", 7, 0)
	for range 17 {
		publish(t, h, "match", -1, strings.Repeat("x", 64<<10))
	}
	h.Flush()
	if upto, ok := s.Start(); ok || upto.Offset != 17 || r.texts() != "" {
		t.Fatalf("Start reports %v, %v", upto, ok)
	}
	publish(t, h, "match", -1, "live")
	h.Flush()
	if _, ok := s.Start(); !ok || r.texts() != "live" {
		t.Errorf("after what was too much: %v, %q", ok, r.texts())
	}
}

// While a shard is busy, what comes next piles up and goes out joined, and private messages
// keep their place among public ones.
func TestCoalescing(t *testing.T) {
	h := with(t, "apps: {}", func(o *push.Options) { o.Shards = 1 })
	s7, r7 := subscribe(t, h, "match", 7, 0)
	s8, r8 := subscribe(t, h, "match", 8, 0)
	s7.Start()
	s8.Start()
	r7.wait = make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { publish(t, h, "match", -1, "a") }) // fans out inline, and waits for r7
	r7.wait <- struct{}{}
	wg.Wait()
	wg.Go(func() { publish(t, h, "match", 7, "b") })
	r7.wait <- struct{}{}
	wg.Wait()

	block, blocked := subscribe(t, h, "other", -1, 0)
	blocked.wait, blocked.in = make(chan struct{}), make(chan struct{})
	block.Start()
	wg.Go(func() { publish(t, h, "other", -1, "x") })
	<-blocked.in // the pass has begun
	for _, m := range []struct {
		member int64
		text   string
	}{{-1, "c"}, {7, "d"}, {-1, "e"}, {8, "f"}, {7, "g"}, {-1, "h"}} {
		publish(t, h, "match", m.member, m.text)
	}
	close(r7.wait)
	blocked.wait <- struct{}{}
	wg.Wait()
	h.Flush()
	if got := r7.texts(); got != "a b c d e g h" {
		t.Errorf("member 7 got %q", got)
	}
	if got := r8.texts(); got != "a c e f h" {
		t.Errorf("member 8 got %q", got)
	}
}

func TestSetMember(t *testing.T) {
	h := with(t, "apps: {}", nil)
	s, r := subscribe(t, h, "match", apps.Anonymous, 0)
	s.Start()
	publish(t, h, "match", 7, "a")
	s.SetMember(7)
	publish(t, h, "match", 7, "b")
	publish(t, h, "match", 8, "c")
	h.Flush()
	if got := r.texts(); got != "b" {
		t.Errorf("got %q", got)
	}
}

func TestEncodedOncePerEncoding(t *testing.T) {
	var calls atomic.Int64
	count := func(dst []byte, m *push.Message) []byte { calls.Add(1); return append(dst, m.Text...) }
	encodings := []*push.Encoding{{Op: push.OpText, Append: count}, {Op: push.OpBinary, Append: count}}
	h := with(t, "apps: {}", nil)
	app, _ := h.Lookup("match")
	for i := range 100 {
		s, _ := h.Subscribe(app, new(inbox), push.SubscribeOptions{Member: -1, Encoding: encodings[i/2%2], Shard: uint64(i)})
		s.Start()
	}
	for range 50 {
		publish(t, h, "match", -1, "x")
	}
	h.Flush()
	if n := calls.Load(); n != 100 {
		t.Errorf("50 messages for 100 subscribers in 2 encodings were encoded %d times, want 100", n)
	}
}

func TestU05BacklogIsRefused(t *testing.T) {
	metrics := stat.New(stat.Options{})
	h := with(t, "apps: {}", func(o *push.Options) { o.Metrics, o.Shards, o.MaxQueueTime = metrics, 1, time.Nanosecond })
	s, r := subscribe(t, h, "match", -1, 0)
	s.Start()
	publish(t, h, "match", -1, "a")
	r.wait, r.in = make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { publish(t, h, "match", -1, "b") })
	<-r.in // the pass has begun
	_, err := h.Publish(t.Context(), push.Message{App: "match", Member: -1, Text: "c"})
	var refused *push.RefusedError
	if !errors.As(err, &refused) || refused.Status != 429 || refused.RetryAfter <= 0 {
		t.Errorf("got %v", err)
	}
	if n := metrics.Snapshot().Refused[stat.ReasonPushBacklog]; n != 1 {
		t.Errorf("%d refusals are counted, want 1", n)
	}
	close(r.wait)
	wg.Wait()
	h.Flush()
	if got := r.texts(); got != "a b" {
		t.Errorf("delivered %q: what was refused must not be", got)
	}
	r.in = nil
	publish(t, h, "match", -1, "d")
}

func TestFlushWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := with(t, "apps: {}", func(o *push.Options) { o.FlushWindow = 5 * time.Millisecond })
		s, r := subscribe(t, h, "match", -1, 0)
		s.Start()
		publish(t, h, "match", -1, "a")
		time.Sleep(4 * time.Millisecond)
		publish(t, h, "match", -1, "b")
		if got := r.texts(); got != "" {
			t.Errorf("inside the window: %q", got)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if got := r.texts(); got != "a b" {
			t.Errorf("after the window: %q", got)
		}
	})
}

// A publisher posts to shards, and does not pay for subscribers: here none of them is served while
// it publishes.
func TestPublisherPaysForShards(t *testing.T) {
	h := with(t, "apps: {}", func(o *push.Options) { o.Shards, o.MaxQueueTime = 1, time.Hour })
	stuck, r := subscribe(t, h, "other", -1, 0)
	stuck.Start()
	r.wait, r.in = make(chan struct{}), make(chan struct{})
	var first sync.WaitGroup
	first.Go(func() { publish(t, h, "other", -1, "x") })
	<-r.in // the pass has begun
	defer first.Wait()
	defer close(r.wait)

	app, _ := h.Lookup("match")
	subscribed := 0
	publishing := func(subs int) time.Duration {
		for ; subscribed < subs; subscribed++ {
			s, _ := h.Subscribe(app, new(sink), push.SubscribeOptions{Member: -1, Encoding: plain})
			s.Start()
		}
		best := time.Hour
		for range 20 {
			began := time.Now()
			for range 10 {
				publish(t, h, "match", -1, "x")
			}
			best = min(best, time.Since(began))
		}
		return best
	}
	few, many := publishing(10), publishing(20_000)
	if many > 20*few { // of 2000 times as many
		t.Errorf("10 messages take %v to publish with 10 subscribers, %v with 20 000", few, many)
	}
}

// numbered encodes what a message's place in its chain is.
var numbered = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
	return fmt.Appendf(dst, "%d/%d", m.Offset, m.Prev)
}}

// Sessions come and go while several backends push: nobody gets an offset twice, out of
// order, or misses one between subscribing and leaving.
func TestSubscribeWhilePushing(t *testing.T) {
	h := with(t, "apps: {match: {history: {size: 100000}}}", nil)
	app, _ := h.Lookup("match")
	const pushers, each = 4, 2000
	var pushing, reading sync.WaitGroup
	for p := range pushers {
		pushing.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(p), 1))
			for range each {
				member := int64(-1)
				if rng.IntN(5) == 0 {
					member = 1 + rng.Int64N(3)
				}
				for {
					_, err := h.Publish(context.Background(), push.Message{App: "match", Member: member, Text: "x"})
					if err == nil {
						break
					}
				}
			}
		})
	}
	stop := make(chan struct{})
	for i := range 8 {
		reading.Go(func() {
			member := int64(i % 4) // 0: nobody in particular
			for round := 0; ; round++ {
				r := new(inbox)
				s, top := h.Subscribe(app, r, push.SubscribeOptions{Member: max(member, 1) * sign(member), Encoding: numbered, Shard: uint64(i + round)})
				after, upto := push.Position{Epoch: top.Epoch, Offset: top.Offset / 2}, top
				for started := false; !started; {
					part, _ := h.Replay(context.Background(), push.Range{App: "match", Member: member, After: after, Upto: upto.Offset}, numbered)
					for _, f := range part.Frames {
						s.Queue(f)
					}
					if after.Offset = part.End; !part.More {
						upto, started = s.Start()
					}
				}
				h.Flush()
				s.Close()
				check(t, r, top.Offset/2)
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	pushing.Wait()
	close(stop)
	reading.Wait()
}

func sign(n int64) int64 {
	if n == 0 {
		return -1
	}
	return 1
}

// TestH02ReplayEndsAtTheSubscription has the first message of an app come between a
// subscription and the replay of what it missed: it is live, and not missed.
func TestH02ReplayEndsAtTheSubscription(t *testing.T) {
	h := with(t, "apps: {}", nil)
	app, _ := h.Lookup("match")
	r := new(inbox)
	s, top := h.Subscribe(app, r, push.SubscribeOptions{Member: -1, Encoding: numbered})
	publish(t, h, "match", -1, "x")
	newest, err := h.Newest(t.Context(), push.Range{App: "match", Member: -1, Upto: top.Offset}, 5)
	if err != nil || newest != top {
		t.Errorf("the newest come after %v, %v; want %v", newest, err, top)
	}
	for _, after := range []push.Position{top, newest} {
		part, err := h.Replay(t.Context(), push.Range{App: "match", Member: -1, After: after, Upto: top.Offset}, numbered)
		if err != nil || len(part.Frames) > 0 || part.Messages > 0 || part.More {
			t.Errorf("missed before the first message: %+v, %v", part, err)
		}
	}
	s.Start()
	h.Flush()
	if got := r.texts(); got != "1/0" {
		t.Errorf("received %q, want %q", got, "1/0")
	}
	s.Close()
}

// check verifies that the offsets that r received grow, and that every prev is an offset
// that it has, or that was before after.
func check(t *testing.T, r *inbox, after uint64) {
	have := map[uint64]bool{}
	last := uint64(0)
	for _, s := range strings.Fields(r.texts()) {
		a, b, _ := strings.Cut(s, "/")
		offset, _ := strconv.ParseUint(a, 10, 64)
		prev, _ := strconv.ParseUint(b, 10, 64)
		if offset <= last {
			t.Errorf("offset %d after %d", offset, last)
		}
		if prev > after && !have[prev] {
			t.Errorf("offset %d follows %d, which never came", offset, prev)
		}
		have[offset], last = true, offset
	}
}

// A subscription that is over keeps nobody present: rules that come late, and the older
// subscription that it was to replace, are as if it had never been.
func TestPresenceOfASubscriptionThatIsOver(t *testing.T) {
	h := with(t, "apps: {hall: {presence: true}}", func(o *push.Options) { o.Presence = presence.NewMemory() })
	hall, err := h.Lookup("hall")
	if err != nil {
		t.Fatal(err)
	}
	old, _ := subscribe(t, h, "hall", 42, 0)
	old.Start()
	s, _ := subscribe(t, h, "hall", 42, 0)
	s.Close()
	s.SetRules(hall)
	s.Replace(old)
	if a, err := h.Members(t.Context(), hall, 0); err != nil || len(a.Members) > 0 {
		t.Errorf("present: %+v, %v, want nobody", a, err)
	}
}

// An echo publishes another message for each that it receives: its shard is never idle.
type echo struct {
	hub     *push.Hub
	silence atomic.Bool
}

func (e *echo) Deliver(*push.Frame) {
	if !e.silence.Load() {
		e.hub.Publish(context.Background(), push.Message{App: "a", Member: push.Everybody, Text: "again"})
	}
}
func (e *echo) Queue(f *push.Frame) { e.Deliver(f) }
func (e *echo) Flush()              {}

// N02: a stop is not held up by those who go on pushing.
func TestFlushWaitsForNoOtherMessages(t *testing.T) {
	h := push.NewHub(push.Options{Shards: 1})
	e := &echo{hub: h}
	app, err := h.Lookup("a")
	if err != nil {
		t.Fatal(err)
	}
	s, _ := h.Subscribe(app, e, push.SubscribeOptions{Member: -1, Encoding: plain})
	s.Start()
	defer h.Close()
	defer s.Close()
	defer e.silence.Store(true)
	if _, err := h.Publish(t.Context(), push.Message{App: "a", Member: push.Everybody, Text: "first"}); err != nil {
		t.Fatal(err)
	}
	flushed := make(chan struct{})
	go func() {
		h.Flush()
		close(flushed)
	}()
	select {
	case <-flushed:
	case <-time.After(30 * time.Second):
		t.Error("Flush waits for what comes after it")
	}
}
