// Package log keeps apps' messages for subscribers that come back. [Memory] does so inside
// this process.
package log

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

const (
	perMessage = 96  // bytes that a kept message costs beside its text
	perChain   = 48  // bytes that a member with private messages costs
	perHistory = 256 // bytes that an app costs
	sweepEvery = 10 * time.Second
	keepEmpty  = 24 * time.Hour // how long an app without messages keeps its numbers
)

// Options configure a [Memory]. The zero value works.
type Options struct {
	// MaxBytes bounds what all histories take together; beyond it the chains of members whose
	// messages are gone are forgotten, and if that is not enough, the oldest messages of every
	// app go early. 0: 256 MiB.
	MaxBytes int64
	// Metrics counts each time that this happens. Nil: nothing does.
	Metrics *stat.Metrics
	// Logger is told what OpenMemory found. Nil: discard.
	Logger *slog.Logger
	// Now is the wall clock. It is read once: from then on time goes by the monotonic clock,
	// so that one that is set an hour ahead expires nothing. Nil: time.Now.
	Now func() time.Time
}

// Memory is a [push.Log] in memory. A resume after the process has ended finds another epoch,
// unless its Save handed everything over to the OpenMemory of the next (state.go).
type Memory struct {
	began   time.Time // by the wall clock
	start   time.Time // the same moment by the monotonic clock
	epoch   string
	max     int64
	bytes   atomic.Int64
	saved   atomic.Bool // nothing is appended any more
	metrics *stat.Metrics
	log     *slog.Logger
	dir     string   // for Save; "": none
	lock    *os.File // of dir
	stop    chan struct{}
	done    chan struct{}

	mu    sync.RWMutex
	apps  map[string]*history // guarded by mu
	floor uint64              // where apps that are not in the map start; guarded by mu
}

var (
	_ push.Log      = (*Memory)(nil)
	_ push.LogMeter = (*Memory)(nil)
)

// A history is one app's messages and numbers.
type history struct {
	mu       sync.Mutex
	messages []*push.Message // by offset, oldest first; guarded by mu
	ttl      time.Duration   // guarded by mu
	bytes    int64           // guarded by mu
	top      uint64          // offset of the newest message; guarded by mu
	public   chain           // guarded by mu
	private  map[int64]chain // by member; guarded by mu
	forgot   uint64          // members not in private may have had messages up to here; guarded by mu
	used     time.Time       // last append; guarded by mu
	gone     bool            // no longer in Memory.apps; guarded by mu
}

// A chain is what is known of an app's public messages, or of one member's private ones. It
// outlives them: who was away while others got many messages has missed nothing, and the next
// message of a member who seldom gets one still names the one before.
type chain struct {
	newest uint64 // offset of the newest message
	lost   uint64 // offset of the newest message that is no longer kept
}

// NewMemory returns an empty log in a new epoch. Close ends its goroutine.
func NewMemory(opts Options) *Memory {
	l := newMemory(opts)
	go l.sweep()
	return l
}

func newMemory(opts Options) *Memory {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	l := &Memory{
		began:   opts.Now(),
		start:   time.Now(),
		epoch:   rand.Text()[:10],
		max:     cmp.Or(opts.MaxBytes, 256<<20),
		metrics: opts.Metrics,
		log:     opts.Logger,
		apps:    make(map[string]*history),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	return l
}

// Close ends the log's goroutine, and its hold of a directory; what is kept stays readable.
func (l *Memory) Close() {
	close(l.stop)
	<-l.done
	if l.lock != nil {
		l.lock.Close()
	}
}

// Bytes returns what everything kept takes, by the log's own account.
func (l *Memory) Bytes() int64 { return l.bytes.Load() }

// now returns the time by which messages are kept: the wall clock's at the start, and what
// the monotonic clock has counted since.
func (l *Memory) now() time.Time { return l.began.Add(time.Since(l.start)) }

// Append implements [push.Log].
func (l *Memory) Append(_ context.Context, app *apps.App, m *push.Message) error {
	h := l.history(app.Name)
	if l.saved.Load() {
		h.mu.Unlock()
		return errSaved
	}
	now := l.now()
	h.used, h.ttl = now, app.History.TTL
	before := h.bytes
	c := h.chain(m.Member)
	h.top++
	m.Offset, m.Prev, m.Time = h.top, c.newest, now.UnixNano()
	c.newest = m.Offset
	if app.History.Size > 0 {
		h.messages = append(h.messages, m)
		h.bytes += cost(m)
	} else {
		c.lost = m.Offset
	}
	h.keep(m.Member, c)
	h.expire(now)
	h.drop(len(h.messages) - app.History.Size)
	grown := h.bytes - before
	h.mu.Unlock()
	if l.bytes.Add(grown) > l.max {
		l.shrink()
	}
	return nil
}

// Since implements [push.Log].
func (l *Memory) Since(_ context.Context, q push.Query) (push.Page, error) {
	l.mu.RLock()
	h, floor := l.apps[q.App], l.floor
	l.mu.RUnlock()
	if h == nil {
		return push.Page{Top: push.Position{Epoch: l.epoch, Offset: floor}, Floor: floor}, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.bytes
	h.expire(l.now())
	l.bytes.Add(h.bytes - before)

	page := push.Page{Top: push.Position{Epoch: l.epoch, Offset: h.top}, Floor: h.public.lost}
	switch {
	case q.All:
		page.Floor = h.floor()
	case q.Member > 0:
		page.Floor = max(page.Floor, h.chain(q.Member).lost)
	}
	if q.Last > 0 {
		page.Messages = newest(h.messages, q)
		return page, nil
	}
	first := sort.Search(len(h.messages), func(i int) bool { return h.messages[i].Offset > q.After })
	bytes := 0
	for _, m := range h.messages[first:] {
		if !asked(q, m) {
			continue
		}
		n := len(page.Messages)
		bytes += len(m.Text)
		if q.Limit > 0 && n == q.Limit || q.Bytes > 0 && bytes > q.Bytes && n > 0 {
			page.More = true
			break
		}
		page.Messages = append(page.Messages, m)
	}
	return page, nil
}

// asked reports whether q is about m.
func asked(q push.Query, m *push.Message) bool { return q.All || !m.Private() || m.Member == q.Member }

// newest returns the last of ms that q asks for, oldest first.
func newest(ms []*push.Message, q push.Query) []*push.Message {
	out := make([]*push.Message, min(q.Last, len(ms)))
	at, bytes := len(out), 0
	for i := len(ms) - 1; i >= 0 && at > 0; i-- {
		if !asked(q, ms[i]) {
			continue
		}
		if bytes += len(ms[i].Text); q.Bytes > 0 && bytes > q.Bytes && at < len(out) {
			break
		}
		at--
		out[at] = ms[i]
	}
	return out[at:]
}

// Top implements [push.Log].
func (l *Memory) Top(app string) push.Position {
	l.mu.RLock()
	h, floor := l.apps[app], l.floor
	l.mu.RUnlock()
	if h == nil {
		return push.Position{Epoch: l.epoch, Offset: floor}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return push.Position{Epoch: l.epoch, Offset: h.top}
}

// Durability implements [push.Log].
func (l *Memory) Durability() string { return "memory" }

// Usage implements [push.LogMeter].
func (l *Memory) Usage(app string) push.Usage {
	l.mu.RLock()
	h, floor := l.apps[app], l.floor
	l.mu.RUnlock()
	if h == nil {
		return push.Usage{Top: push.Position{Epoch: l.epoch, Offset: floor}}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return push.Usage{Messages: len(h.messages), Bytes: int(h.bytes), Top: push.Position{Epoch: l.epoch, Offset: h.top}}
}

// history returns app's history, locked, making it if need be.
func (l *Memory) history(app string) *history {
	for {
		l.mu.RLock()
		h := l.apps[app]
		l.mu.RUnlock()
		if h == nil {
			l.mu.Lock()
			if h = l.apps[app]; h == nil {
				h = &history{top: l.floor, public: chain{l.floor, l.floor}, forgot: l.floor, bytes: perHistory}
				l.apps[app] = h
				l.bytes.Add(perHistory)
			}
			l.mu.Unlock()
		}
		h.mu.Lock()
		if !h.gone {
			return h
		}
		h.mu.Unlock()
	}
}

// sweep lets go of what has expired in apps that nobody uses.
func (l *Memory) sweep() {
	defer close(l.done)
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			now := l.now()
			l.each(func(name string, h *history) {
				h.expire(now)
				if len(h.messages) == 0 && now.Sub(h.used) > keepEmpty {
					l.forget(name, h)
				}
			})
		}
	}
}

// shrink makes some room again: every app forgets the chains of which it keeps no message, and
// then, as long as it takes, its oldest tenth, or its entry if that is all it has.
func (l *Memory) shrink() {
	l.metrics.Refused(stat.ReasonHistoryMemory)
	enough := l.max - l.max/16
	l.each(func(_ string, h *history) { h.prune() })
	for l.bytes.Load() > enough {
		dropped := false
		l.each(func(name string, h *history) {
			if n := len(h.messages); n > 0 {
				h.drop(n/10 + 1)
				h.prune()
				dropped = true
			} else if l.bytes.Load() > enough {
				l.forget(name, h)
				dropped = true
			}
		})
		if !dropped {
			return
		}
	}
}

// each calls f for every app, locked, and accounts for what f freed.
func (l *Memory) each(f func(name string, h *history)) {
	l.mu.RLock()
	names := make([]string, 0, len(l.apps))
	for name := range l.apps {
		names = append(names, name)
	}
	l.mu.RUnlock()
	for _, name := range names {
		l.mu.RLock()
		h := l.apps[name]
		l.mu.RUnlock()
		if h == nil {
			continue
		}
		h.mu.Lock()
		if !h.gone {
			before := h.bytes
			f(name, h)
			l.bytes.Add(h.bytes - before)
		}
		h.mu.Unlock()
	}
}

// forget drops an empty history. Whatever is made under its name again goes on above its
// numbers, so that no offset is given twice. h.mu is held; l.mu comes after it here only,
// which is safe because nobody waits for a history while holding l.mu.
func (l *Memory) forget(name string, h *history) {
	h.gone = true
	h.bytes = 0
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.apps, name)
	l.floor = max(l.floor, h.top)
}

func cost(m *push.Message) int64 { return int64(len(m.Text)) + perMessage }

// floor returns the offset of the newest message that is no longer kept.
func (h *history) floor() uint64 {
	if len(h.messages) == 0 {
		return h.top
	}
	return h.messages[0].Offset - 1
}

// chain returns the chain that a message for member belongs to.
func (h *history) chain(member int64) chain {
	if member <= 0 {
		return h.public
	}
	if c, ok := h.private[member]; ok {
		return c
	}
	return chain{h.forgot, h.forgot}
}

// keep makes c the chain of member's messages.
func (h *history) keep(member int64, c chain) {
	if member <= 0 {
		h.public = c
		return
	}
	if h.private == nil {
		h.private = make(map[int64]chain)
	}
	n := len(h.private)
	h.private[member] = c
	h.bytes += int64(len(h.private)-n) * perChain
}

// prune forgets the members of whom no message is kept. What they may have had counts as lost
// from then on: too much rather than too little.
func (h *history) prune() {
	var left map[int64]chain // a map does not shrink
	for member, c := range h.private {
		if c.newest == c.lost {
			h.forgot = max(h.forgot, c.newest)
			h.bytes -= perChain
			continue
		}
		if left == nil {
			left = make(map[int64]chain)
		}
		left[member] = c
	}
	h.private = left
}

// expire drops what is older than the app's ttl.
func (h *history) expire(now time.Time) {
	if h.ttl <= 0 {
		return
	}
	limit := now.Add(-h.ttl).UnixNano()
	n := 0
	for n < len(h.messages) && h.messages[n].Time < limit {
		n++
	}
	h.drop(n)
}

// drop lets go of the n oldest messages.
func (h *history) drop(n int) {
	if n <= 0 {
		return
	}
	for i, m := range h.messages[:n] {
		h.bytes -= cost(m)
		c := h.chain(m.Member)
		c.lost = max(c.lost, m.Offset)
		h.keep(m.Member, c)
		h.messages[i] = nil
	}
	h.messages = h.messages[n:]
	if len(h.messages) == 0 {
		h.messages = nil
	}
}
