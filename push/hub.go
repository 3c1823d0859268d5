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
	"strings"
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
}

// A BatchError says which message of a batch is not valid.
type BatchError struct {
	Index int
	Err   error // what Publish would refuse the message with
}

// Error implements error.
func (e *BatchError) Error() string { return fmt.Sprintf("message %d: %v", e.Index, e.Err) }

// Unwrap returns e.Err.
func (e *BatchError) Unwrap() error { return e.Err }

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

// check returns the rules of m's app, which may be those of the message before, or the
// *RefusedError that Publish would return for m without trying.
func (h *Hub) check(m *Message, before *apps.App) (*apps.App, error) {
	if m.Member == 0 || m.Member < Everybody {
		return nil, BadRequest("member_id must be -1 or positive")
	}
	if err := h.CheckText(m.Text); err != nil {
		return nil, err
	}
	app := before
	if app == nil || app.Name != m.App {
		var err error
		if app, err = h.lookup(m.App); err != nil {
			return nil, err
		}
	}
	if app.Private && !m.Private() {
		return nil, BadRequest("app is private: member_id must be positive")
	}
	return app, nil
}

// CheckText returns the *RefusedError that Publish would return for a text that is too long, which
// is counted, and nil for any other.
func (h *Hub) CheckText(text string) error {
	if len(text) <= h.opts.MaxText {
		return nil
	}
	h.opts.Metrics.Refused(stat.ReasonPushText)
	return &RefusedError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("text is over %d bytes", h.opts.MaxText)}
}

// lookup returns the rules of the app called name; the error is a *RefusedError.
func (h *Hub) lookup(name string) (*apps.App, error) {
	app, err := h.apps.Lookup(name)
	switch {
	case errors.Is(err, apps.ErrUnknownApp):
		return nil, &RefusedError{Status: http.StatusNotFound, Message: "unknown app"}
	case err != nil:
		return nil, BadRequest("%s", strings.TrimPrefix(err.Error(), "apps: "))
	}
	return app, nil
}

// Publish accepts m: it is in its app's log, and queued to every subscriber of this node,
// when Publish returns without error. The error is a *RefusedError; m was not accepted then,
// unless its Outcome says "unknown".
func (h *Hub) Publish(ctx context.Context, m Message) (Receipt, error) {
	receipts, err := h.publish(ctx, []Message{m})
	if err == nil {
		return receipts[0], nil
	}
	var invalid *BatchError
	if errors.As(err, &invalid) {
		err = invalid.Err
	}
	return Receipt{}, err
}

// PublishBatch accepts all of ms, in order, or none of them when one is not valid: the error is
// then a *BatchError, and a *RefusedError otherwise. A failure in the middle leaves what went
// before accepted and says so with the number of receipts returned.
func (h *Hub) PublishBatch(ctx context.Context, ms []Message) ([]Receipt, error) {
	return h.publish(ctx, slices.Clone(ms)) // they go to the shards
}

// publish is PublishBatch; ms belongs to it.
func (h *Hub) publish(ctx context.Context, ms []Message) ([]Receipt, error) {
	receipts, err := h.publishAll(ctx, ms)
	if h.opts.Tail.Active() {
		h.showAll(ms, receipts, err)
	}
	return receipts, err
}

// A run is messages of a batch that follow each other and are of one app.
type run struct {
	app *apps.App
	n   int
}

func (h *Hub) publishAll(ctx context.Context, ms []Message) ([]Receipt, error) {
	runs := make([]run, 0, 8)
	var app *apps.App
	for i := range ms {
		now, err := h.check(&ms[i], app)
		if err != nil {
			return nil, &BatchError{i, err}
		}
		if app != now {
			app = now
			runs = append(runs, run{app: app})
		}
		runs[len(runs)-1].n++
	}
	var reserved int64
	defer func() { h.reserved.Add(-reserved) }()
	for _, r := range runs {
		load, err := h.admit(r.app.Name, r.n)
		if err != nil {
			return nil, err
		}
		reserved += load
	}
	out := make([]Receipt, 0, len(ms))
	t := turn{Context: ctx}
	defer t.fanOut()
	for room := fanOutEvery; len(runs) > 0; {
		r := &runs[0]
		n := min(r.n, room)
		var err error
		if out, err = h.append(&t, r.app, ms[:n], out); err != nil {
			return out, err
		}
		ms = ms[n:]
		if r.n -= n; r.n == 0 {
			runs = runs[1:]
		}
		if room -= n; room == 0 {
			t.fanOut()
			room = fanOutEvery
		}
	}
	return out, nil
}

// fanOutEvery is after how many messages of a batch they are handed over at the latest:
// others' messages wait behind them.
const fanOutEvery = 64

// A turn is the context of a Publish that waits for the bus, and what deliver tells it.
type turn struct {
	context.Context
	receipts []Receipt // of the messages that deliver gets next
	shards   []*shard  // Publish fans these out itself: too little to wake a goroutine
}

// next returns the receipts of the next n messages; t may be nil.
func (t *turn) next(n int) []Receipt {
	if t == nil {
		return nil
	}
	next := t.receipts[:n]
	t.receipts = t.receipts[n:]
	return next
}

// fanOut makes the passes that are left to Publish.
func (t *turn) fanOut() {
	for _, s := range t.shards {
		s.fanOutInline()
	}
	t.shards = t.shards[:0]
}

type turnKey struct{}

// Value implements [context.Context].
func (t *turn) Value(key any) any {
	if key == (turnKey{}) {
		return t
	}
	return t.Context.Value(key)
}

// append publishes ms, a run of messages of app, and appends their receipts to out.
func (h *Hub) append(t *turn, app *apps.App, ms []Message, out []Receipt) ([]Receipt, error) {
	_, lossy := slowPolicies[app.Slow]
	for i := range ms {
		ms[i].App, ms[i].Lossy = app.Name, lossy
	}
	receipts := slices.Grow(out, len(ms))[len(out) : len(out)+len(ms)]
	t.receipts = receipts
	epoch, n, err := h.bus.Publish(t, app, ms)
	durability := "none"
	if app.History.Size > 0 {
		durability = h.log.Durability()
	}
	for i := range receipts[:n] {
		r := &receipts[i]
		r.Position, r.Durability = Position{epoch, ms[i].Offset}, durability
	}
	out = out[:len(out)+n]
	if err != nil {
		outcome, message := "rejected", "log unavailable"
		if errors.Is(err, ErrUnknownOutcome) {
			outcome, message = "unknown", "outcome unknown"
		}
		h.opts.Logger.Warn("push not accepted", "app", app.Name, "outcome", outcome, "err", err)
		return out, &RefusedError{Status: http.StatusServiceUnavailable, Message: message, Outcome: outcome, RetryAfter: time.Second}
	}
	return out, nil
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
