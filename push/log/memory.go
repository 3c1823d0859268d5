// Package log keeps apps' messages for subscribers that come back. [Memory] does so inside
// this process.
package log

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

const (
	perRecord  = 28  // bytes that a record costs beside its length: its place, and what a short allocation is rounded up by
	perChain   = 36  // bytes that a member with private messages costs
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
	name string

	mu      sync.Mutex
	records []record      // of the newest messages up to top, without a hole; guarded by mu
	ttl     time.Duration // guarded by mu
	bytes   int64         // guarded by mu
	top     uint64        // offset of the newest message; guarded by mu
	used    time.Time     // last append; guarded by mu
	gone    bool          // no longer in Memory.apps; guarded by mu

	// What is known of the app's public messages, and of each member's private ones, outlives
	// them: who was away while others got many messages has missed nothing, and the next
	// message of a member who seldom gets one still names the one before.
	public  uint64           // offset of the newest public message; guarded by mu
	lost    uint64           // offset of the newest public message that is no longer kept; guarded by mu
	private map[int64]uint64 // offset of a member's newest private message; guarded by mu
	forgot  uint64           // members not in private may have had messages up to here; guarded by mu
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
func (l *Memory) Append(_ context.Context, app *apps.App, ms []push.Message) (epoch string, n int, err error) {
	h := l.history(app.Name)
	if l.saved.Load() {
		h.mu.Unlock()
		return l.epoch, 0, errSaved
	}
	now := l.now()
	h.used, h.ttl = now, app.History.TTL
	before := h.bytes
	h.expire(now)
	size := app.History.Size
	h.drop(len(h.records) + len(ms) - size)
	for i := range ms {
		h.append(&ms[i], now.UnixNano(), size > 0)
	}
	h.drop(len(h.records) - size) // of the run itself
	grown := h.bytes - before
	h.mu.Unlock()
	if l.bytes.Add(grown) > l.max {
		l.shrink()
	}
	return l.epoch, len(ms), nil
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

	page := push.Page{Top: push.Position{Epoch: l.epoch, Offset: h.top}, Floor: h.lost}
	switch {
	case q.All:
		page.Floor = h.floor()
	case q.Member > 0:
		page.Floor = max(page.Floor, h.lostOf(q.Member))
	}
	if q.Last > 0 {
		page.Messages = h.newest(q)
		return page, nil
	}
	first := 0
	if floor := h.floor(); q.After > floor {
		first = int(min(q.After, h.top) - floor)
	}
	bytes := 0
	for i := first; i < len(h.records); i++ {
		m := h.message(i)
		if !asked(q, &m) {
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

// newest returns the last messages that q asks for, oldest first.
func (h *history) newest(q push.Query) []push.Message {
	out := make([]push.Message, min(q.Last, len(h.records)))
	at, bytes := len(out), 0
	for i := len(h.records) - 1; i >= 0 && at > 0; i-- {
		m := h.message(i)
		if !asked(q, &m) {
			continue
		}
		if bytes += len(m.Text); q.Bytes > 0 && bytes > q.Bytes && at < len(out) {
			break
		}
		at--
		out[at] = m
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
	return push.Usage{Messages: len(h.records), Bytes: int(h.bytes), Top: push.Position{Epoch: l.epoch, Offset: h.top}}
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
				h = &history{name: app, top: l.floor, public: l.floor, lost: l.floor, forgot: l.floor, bytes: perHistory}
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
			l.each(func(h *history) {
				h.expire(now)
				if len(h.records) == 0 && now.Sub(h.used) > keepEmpty {
					l.forget(h)
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
	l.each(func(h *history) { h.prune() })
	for l.bytes.Load() > enough {
		dropped := false
		l.each(func(h *history) {
			if n := len(h.records); n > 0 {
				h.drop(n/10 + 1)
				h.prune()
				dropped = true
			} else if l.bytes.Load() > enough {
				l.forget(h)
				dropped = true
			}
		})
		if !dropped {
			return
		}
	}
}

// each calls f for every app, locked, and accounts for what f freed.
func (l *Memory) each(f func(h *history)) {
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
			f(h)
			l.bytes.Add(h.bytes - before)
		}
		h.mu.Unlock()
	}
}

// forget drops an empty history. Whatever is made under its name again goes on above its
// numbers, so that no offset is given twice. h.mu is held; l.mu comes after it here only,
// which is safe because nobody waits for a history while holding l.mu.
func (l *Memory) forget(h *history) {
	h.gone = true
	h.bytes = 0
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.apps, h.name)
	l.floor = max(l.floor, h.top)
}

// cost returns what r takes, on the average of all lengths: long allocations are rounded up by up to an eighth.
func cost(r record) int64 { return int64(len(r) + len(r)/16 + perRecord) }

// floor returns the offset of the newest message that is no longer kept.
func (h *history) floor() uint64 { return h.top - uint64(len(h.records)) }

// message returns the i-th of the messages that are kept.
func (h *history) message(i int) push.Message {
	return h.records[i].message(h.name, h.floor()+1+uint64(i))
}

// lostOf returns the offset of member's newest private message that is no longer kept.
func (h *history) lostOf(member int64) uint64 {
	newest, known := h.private[member]
	if !known {
		return h.forgot
	}
	floor := h.floor()
	if newest <= floor {
		return newest
	}
	for i := range h.records { // it is the one before the oldest that is kept
		if m := h.message(i); m.Member == member {
			return m.Prev
		}
	}
	return floor
}

// append gives m its place in the log, and keeps it if it is to be kept.
func (h *history) append(m *push.Message, now int64, keep bool) {
	h.top++
	m.Offset, m.Time = h.top, now
	if m.Private() {
		h.follow(m)
	} else {
		m.Prev, h.public = h.public, m.Offset
	}
	switch {
	case keep:
		h.add(newRecord(m))
	case !m.Private():
		h.lost = m.Offset
	}
}

// follow makes m, which is private, the newest of its chain.
func (h *history) follow(m *push.Message) {
	newest, known := h.private[m.Member]
	if !known {
		newest = h.forgot
		if h.private == nil {
			h.private = make(map[int64]uint64)
		}
		h.bytes += perChain
	}
	m.Prev, h.private[m.Member] = newest, m.Offset
}

// add keeps the message of offset top.
func (h *history) add(r record) {
	if n := len(h.records); n == cap(h.records) { // append would make room for twice as many
		h.records = append(make([]record, 0, n+n/4+1), h.records...)
	}
	h.records = append(h.records, r)
	h.bytes += cost(r)
}

// prune forgets the members of whom no message is kept. What they may have had counts as lost
// from then on: too much rather than too little.
func (h *history) prune() {
	floor := h.floor()
	var left map[int64]uint64 // a map does not shrink
	for member, newest := range h.private {
		if newest <= floor {
			h.forgot = max(h.forgot, newest)
			h.bytes -= perChain
			continue
		}
		if left == nil {
			left = make(map[int64]uint64)
		}
		left[member] = newest
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
	for n < len(h.records) && h.records[n].time() < limit {
		n++
	}
	h.drop(n)
}

// drop lets go of the n oldest messages, if there are so many.
func (h *history) drop(n int) {
	n = min(n, len(h.records))
	if n <= 0 {
		return
	}
	for i := range n {
		h.bytes -= cost(h.records[i])
		if m := h.message(i); !m.Private() {
			h.lost = m.Offset
		}
	}
	clear(h.records[:n])
	h.records = h.records[n:]
	switch left := len(h.records); {
	case left == 0:
		h.records = nil
	case left < n: // leave the memory of a burst
		h.records = slices.Clone(h.records)
	}
}
