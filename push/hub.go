package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ws-gateway/apps"
	"ws-gateway/stat"
)

// Options configure a [Hub]. The zero value is a working single node without history.
type Options struct {
	Apps     *apps.Registry // nil: the default rules
	Log      Log            // nil: messages are numbered and forgotten
	Bus      Bus            // nil: a [LocalBus] over Log
	Presence Presence       // nil: no app has presence
	Shards   int            // goroutines that fan out; 0: GOMAXPROCS
	Logger   *slog.Logger   // nil: discard
	Metrics  *stat.Metrics  // nil: none
	Tail     *stat.Tail     // is shown every push; nil: nothing is

	// FlushWindow is how long a shard waits for more messages before it fans out: fewer
	// writes for later deliveries. 0: not at all.
	FlushWindow time.Duration
	// MaxQueueTime is how long an accepted message may wait for its fan-out; beyond it
	// pushes are refused with 429. 0: 250 ms.
	MaxQueueTime time.Duration
	// MaxText is the longest text of a message, in bytes. 0: 64 KiB.
	MaxText int
	// MaxIdempotencyKeys bounds how many keys are remembered at once, in about 450 bytes each;
	// of a batch every 8 messages count as one more. 0: 200 000.
	MaxIdempotencyKeys int
}

// A Receipt says what became of an accepted message.
type Receipt struct {
	Position
	Durability  string // as [Log.Durability], or "none" for an app without history
	Subscribers int    // sessions of this node that it was queued to
	Duplicate   bool   // an earlier push with the same key was accepted; this one changed nothing
}

// A RefusedError says why a push was not accepted, as an HTTP answer.
type RefusedError struct {
	Status     int
	Message    string
	Outcome    string        // "rejected" or "unknown", with status 503 only
	RetryAfter time.Duration // 0: none
	Index      int           // of the message in a batch; -1: it is not about one of them
}

// Answer returns the status code and message that err stands for. What is not a
// *RefusedError is internal.
func Answer(err error) (code int, message string) {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Status, refused.Message
	}
	return http.StatusInternalServerError, "internal error"
}

// Error implements error.
func (e *RefusedError) Error() string { return "push: " + e.Message }

// A Hub knows who is subscribed to what on this node and hands every message to them. Its
// methods may be called concurrently.
type Hub struct {
	opts   Options
	apps   *apps.Registry
	log    Log
	bus    Bus
	shards []*shard
	stop   []func()
	began  time.Time

	mu     sync.RWMutex
	topics map[string]*topic // guarded by mu
	events map[string]*topic // of those who hear who joins and leaves an app; guarded by mu

	pages    pages
	reserved atomic.Int64 // deliveries of pushes that were admitted and are not with the shards yet
	dedup    dedup

	pushes, deliveries atomic.Uint64 // of topics that are gone
}

// A Subscriber receives the frames of the apps it is subscribed to. Its methods never block
// and take no lock of a hub.
type Subscriber interface {
	// Deliver queues f and writes it.
	Deliver(f *Frame)
	// Queue queues f; Flush follows.
	Queue(f *Frame)
	// Flush writes what was queued.
	Flush()
}

// Lagging is implemented by subscribers that can say whether they keep up.
type Lagging interface {
	// Lagging reports whether something handed over still waits to be sent.
	Lagging() bool
}

// NewHub returns a hub, whose goroutines end with Close.
func NewHub(opts Options) *Hub {
	h := &Hub{opts: opts, apps: opts.Apps, log: opts.Log, bus: opts.Bus, topics: map[string]*topic{}, events: map[string]*topic{}, began: time.Now()}
	if h.log == nil {
		h.log = newNumberer()
	}
	if h.bus == nil {
		h.bus = NewLocalBus(h.log)
	}
	if h.opts.Logger == nil {
		h.opts.Logger = slog.New(slog.DiscardHandler)
	}
	h.opts.MaxQueueTime = cmp.Or(opts.MaxQueueTime, 250*time.Millisecond)
	h.opts.MaxText = cmp.Or(opts.MaxText, 64<<10)
	h.pages.log = h.log
	h.dedup.max, h.dedup.metrics = cmp.Or(opts.MaxIdempotencyKeys, defaultMaxKeys), opts.Metrics
	h.shards = make([]*shard, cmp.Or(opts.Shards, runtime.GOMAXPROCS(0)))
	for i := range h.shards {
		h.shards[i] = newShard(h)
	}
	h.stop = []func(){h.bus.Subscribe(h.deliver)}
	if opts.Presence != nil {
		h.stop = append(h.stop, opts.Presence.Watch(h.announce))
	}
	return h
}

// Close ends the hub: messages that were accepted are still handed to their subscribers.
// Nothing may be published or subscribed afterwards.
func (h *Hub) Close() {
	for _, stop := range h.stop {
		stop()
	}
	h.dedup.close()
	for _, s := range h.shards {
		s.close()
	}
}

// Flush returns once every message accepted before the call was handed to its subscribers.
func (h *Hub) Flush() {
	for _, s := range h.shards {
		s.flush()
	}
}

// now is the clock that waits are measured by, in ns, never 0. It is monotonic: a wall clock that
// is set must not look like a wait, and a message's Time is by the clock of its log.
func (h *Hub) now() int64 { return 1 + int64(time.Since(h.began)) }

// Lookup returns the rules of the app called name, as the hub goes by them.
func (h *Hub) Lookup(name string) (*apps.App, error) { return h.apps.Lookup(name) }

// check returns the *RefusedError that Publish would return for m without trying, or nil.
func (h *Hub) check(m *Message) (*apps.App, error) {
	if m.Member == 0 || m.Member < Everybody {
		return nil, BadRequest("member_id must be -1 or positive")
	}
	if len(m.Text) > h.opts.MaxText {
		h.opts.Metrics.Refused(stat.ReasonPushText)
		return nil, &RefusedError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("text is over %d bytes", h.opts.MaxText)}
	}
	app, err := h.lookup(m.App)
	if err == nil && app.Private && !m.Private() {
		err = BadRequest("app is private: member_id must be positive")
	}
	return app, err
}

// lookup returns the rules of the app called name; the error is a *RefusedError.
func (h *Hub) lookup(name string) (*apps.App, error) {
	app, err := h.apps.Lookup(name)
	switch {
	case errors.Is(err, apps.ErrUnknownApp):
		return nil, &RefusedError{Status: http.StatusNotFound, Message: "unknown app"}
	case err != nil:
		return nil, BadRequest("bad app name")
	}
	return app, nil
}

// Publish accepts m: it is in its app's log, and queued to every subscriber of this node,
// when Publish returns without error. The error is a *RefusedError; m was not accepted then,
// unless its Outcome says "unknown".
func (h *Hub) Publish(ctx context.Context, m Message) (Receipt, error) {
	r, err := h.publishNow(ctx, &m)
	if h.opts.Tail.Active() {
		h.show(&m, r, err)
	}
	return r, err
}

func (h *Hub) publishNow(ctx context.Context, m *Message) (Receipt, error) {
	app, err := h.check(m)
	if err != nil {
		return Receipt{}, err
	}
	load, err := h.admit(app.Name, 1)
	if err != nil {
		return Receipt{}, err
	}
	defer h.reserved.Add(-load)
	t := turn{Context: ctx}
	defer t.fanOut()
	return h.publish(&t, app, m)
}

// fanOutEvery is after how many messages of a batch they are handed over at the latest:
// others' messages wait behind them.
const fanOutEvery = 64

// PublishBatch accepts all of ms, in order, or none of them when one is not valid: the
// *RefusedError then has its index. A failure in the middle leaves what went before accepted
// and says so with the number of receipts returned.
func (h *Hub) PublishBatch(ctx context.Context, ms []Message) ([]Receipt, error) {
	receipts, err := h.publishAll(ctx, ms)
	if h.opts.Tail.Active() {
		h.showAll(ms, receipts, err)
	}
	return receipts, err
}

func (h *Hub) publishAll(ctx context.Context, ms []Message) ([]Receipt, error) {
	rules := make([]*apps.App, len(ms))
	for i := range ms {
		app, err := h.check(&ms[i])
		if err != nil {
			var refused *RefusedError
			if errors.As(err, &refused) {
				refused.Index = i
			}
			return nil, err
		}
		rules[i] = app
	}
	for i := 0; i < len(rules); {
		n := 1 // in a row to one app
		for i+n < len(rules) && rules[i+n] == rules[i] {
			n++
		}
		load, err := h.admit(rules[i].Name, n)
		if err != nil {
			return nil, err
		}
		defer h.reserved.Add(-load)
		i += n
	}
	out := make([]Receipt, 0, len(ms))
	t := turn{Context: ctx}
	defer t.fanOut()
	for i := range ms {
		m := ms[i] // ms is the caller's; this one goes to the shards
		r, err := h.publish(&t, rules[i], &m)
		if err != nil {
			return out, err
		}
		out = append(out, r)
		if i%fanOutEvery == fanOutEvery-1 {
			t.fanOut()
		}
	}
	return out, nil
}

// A turn is the context of a Publish that waits for the bus, and what deliver tells it.
type turn struct {
	context.Context
	subscribers int      // of the last message
	run         []*shard // Publish fans these out itself: too little to wake a goroutine
}

// fanOut makes the passes that are left to Publish.
func (t *turn) fanOut() {
	for _, s := range t.run {
		s.fanOutInline()
	}
	t.run = t.run[:0]
}

type turnKey struct{}

// Value implements [context.Context].
func (t *turn) Value(key any) any {
	if key == (turnKey{}) {
		return t
	}
	return t.Context.Value(key)
}

func (h *Hub) publish(t *turn, app *apps.App, m *Message) (Receipt, error) {
	t.subscribers = 0
	m.App = app.Name
	_, m.Lossy = slowPolicies[app.Slow]
	err := h.bus.Publish(t, app, m)
	if err != nil {
		outcome, message := "rejected", "log unavailable"
		if errors.Is(err, ErrUnknownOutcome) {
			outcome, message = "unknown", "outcome unknown"
		}
		h.opts.Logger.Warn("push not accepted", "app", m.App, "outcome", outcome, "err", err)
		return Receipt{}, &RefusedError{Status: http.StatusServiceUnavailable, Message: message, Outcome: outcome, RetryAfter: time.Second}
	}
	r := Receipt{Position: Position{h.log.Top(m.App).Epoch, m.Offset}, Durability: "none", Subscribers: t.subscribers}
	if app.History.Size > 0 {
		r.Durability = h.log.Durability()
	}
	return r, nil
}

// Fill is a [stat.Source]: the apps in use, those that the apps file names, and the pushes
// and deliveries of all that there ever were.
func (h *Hub) Fill(s *stat.Snapshot) {
	meter, _ := h.log.(LogMeter)
	h.mu.RLock()
	topics := slices.Collect(maps.Values(h.topics))
	s.Pushes, s.Deliveries = h.pushes.Load(), h.deliveries.Load() // a topic is here or there
	h.mu.RUnlock()
	for _, t := range topics {
		t.mu.Lock()
		a := stat.App{Name: t.name, Named: t.app.Named, Subscriptions: t.subs}
		members := make([]int64, 0, t.subs)
		for i := range t.lanes {
			for _, sub := range t.lanes[i].subs {
				if sub.member > 0 {
					members = append(members, sub.member)
				}
			}
		}
		t.mu.Unlock()
		slices.Sort(members)
		a.Members = len(slices.Compact(members))
		a.Pushes, a.Deliveries = t.pushes.Load(), t.deliveries.Load()
		s.Pushes, s.Deliveries = s.Pushes+a.Pushes, s.Deliveries+a.Deliveries
		if meter != nil {
			u := meter.Usage(t.name)
			a.Log = stat.Log{Messages: u.Messages, Bytes: int64(u.Bytes)}
			a.Position = stat.Position(u.Top)
		}
		s.Apps = append(s.Apps, a)
	}
	for _, name := range h.apps.Named() {
		s.Apps = append(s.Apps, stat.App{Name: name, Named: true})
	}
}
