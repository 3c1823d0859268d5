package push

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// inline is the number of deliveries up to which a publisher fans out by itself: it costs
// less than waking the shard's goroutine.
const inline = 8

// A shard hands messages to its share of the subscribers. While it is busy with some,
// others pile up, and its next pass hands over all of an app's at once: one write for many.
type shard struct {
	hub  *Hub
	wake chan struct{} // of capacity 1: sent to by whoever sets busy, unless it makes the pass itself
	done chan struct{}

	mu    sync.Mutex
	over  sync.Cond // broadcast at the end of a pass
	ready []*lane   // lanes with pending messages, oldest first; guarded by mu
	busy  bool      // somebody makes a pass or was woken to make one; guarded by mu
	made  uint64    // passes; guarded by mu

	oldest atomic.Int64 // when the oldest of ready came, by Hub.now; 0: ready is empty
	visits atomic.Int64 // subscribers still to be visited, in this pass and the next
	load   atomic.Int64 // deliveries to be made in them
	visit  atomic.Int64 // ns that a visit takes for its first messages, a moving average
	each   atomic.Int64 // ns that each message adds to a visit, a moving average

	pass struct {
		sync.Mutex // held during a pass
		ready      []*lane
		parcels    [][]*parcel
		subs       []*Subscription
		group      group
		dirty      []Subscriber
	}
}

func newShard(h *Hub) *shard {
	s := &shard{hub: h, wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.over.L = &s.mu
	go s.run()
	return s
}

// run makes the passes that publishers do not make themselves.
func (s *shard) run() {
	defer close(s.done)
	for range s.wake {
		for more := true; more; more = s.fanOut() {
			s.gather()
		}
	}
}

// gather lets messages come together for the next pass: those of the flush window, or at
// least those of publishers that could run now. Without that a shard on a busy CPU would make
// a pass for each message, and publishers would wait for it.
func (s *shard) gather() {
	if w := s.hub.opts.FlushWindow; w > 0 {
		time.Sleep(w)
		return
	}
	runtime.Gosched()
}

func (s *shard) close() {
	s.flush()
	close(s.wake)
	<-s.done
}

// flush waits until what is pending now was handed over: that is in the pass after the
// current one at the latest. What comes meanwhile is not waited for.
func (s *shard) flush() {
	s.mu.Lock()
	for last := s.made + 2; s.busy && s.made < last; {
		s.over.Wait()
	}
	s.mu.Unlock()
}

// backlog estimates how long a message posted now waits until it was handed over.
func (s *shard) backlog() time.Duration {
	wait := time.Duration(s.visits.Load()*s.visit.Load() + s.load.Load()*s.each.Load())
	if t := s.oldest.Load(); t != 0 {
		wait = max(wait, time.Duration(s.hub.now()-t))
	}
	return wait
}

// post adds ps to what is pending: load deliveries to subscribers of l, each of ps to at most so
// many as are to be visited. It reports whether the caller has to make the pass: only if it
// offered to, and there is little to do.
func (s *shard) post(l *lane, ps []*parcel, visits, load int, offer bool) (yours bool) {
	s.mu.Lock()
	if len(l.pending) == 0 {
		if len(s.ready) == 0 {
			s.oldest.Store(ps[0].came)
		}
		s.ready = append(s.ready, l)
	}
	l.pending = append(l.pending, ps...)
	l.load += load
	s.load.Add(int64(load))
	if visits > l.visits {
		s.visits.Add(int64(visits - l.visits))
		l.visits = visits
	}
	busy := s.busy
	s.busy = true
	s.mu.Unlock()
	if busy {
		return false
	}
	if offer && visits <= inline && s.hub.opts.FlushWindow == 0 {
		return true
	}
	s.wake <- struct{}{}
	return false
}

// fanOutInline makes the pass that post asked of its caller.
func (s *shard) fanOutInline() {
	s.gather()
	if s.fanOut() {
		s.wake <- struct{}{} // others came meanwhile; busy is still set
	}
}

// fanOut makes one pass: it hands over all that is pending. It reports whether more came
// meanwhile; if not, the shard is no longer busy.
func (s *shard) fanOut() (more bool) {
	p := &s.pass
	p.Lock()
	defer p.Unlock()

	s.mu.Lock()
	p.ready, s.ready = s.ready, p.ready[:0]
	visits, load := 0, 0
	for _, l := range p.ready {
		p.parcels = append(p.parcels, l.pending)
		visits += l.visits
		load += l.load
		l.pending, l.visits, l.load = nil, 0, 0
	}
	s.oldest.Store(0)
	s.mu.Unlock()

	began := s.hub.now()
	oldest := began
	for i, l := range p.ready {
		oldest = min(oldest, p.parcels[i][0].came)
		s.serve(l, p.parcels[i], len(p.ready) > 1)
	}
	for _, to := range p.dirty {
		to.Flush()
	}
	clear(p.ready)
	clear(p.parcels)
	clear(p.dirty)
	p.parcels, p.dirty = p.parcels[:0], p.dirty[:0]

	now := s.hub.now()
	s.hub.opts.Metrics.QueueTime(time.Duration(now - oldest))
	s.learn(time.Duration(now-began), visits, load)
	s.visits.Add(int64(-visits))
	s.load.Add(int64(-load))

	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	s.busy = len(s.ready) > 0
	s.over.Broadcast()
	return s.busy
}

// learn corrects what visits and deliveries are thought to take by a pass that took d: one
// with few messages a visit tells the price of a visit, one with many that of a message.
func (s *shard) learn(d time.Duration, visits, load int) {
	average := func(a *atomic.Int64, now int64) { a.Store(a.Load() + (now-a.Load())/4) }
	switch {
	case visits == 0:
	case load <= 2*visits:
		average(&s.visit, int64(d)/int64(visits))
	default:
		average(&s.each, max(0, int64(d)-int64(visits)*s.visit.Load())/int64(load))
	}
}

// serve hands ps, which are all of l's app and in order, to their subscribers. With several
// lanes in a pass it only queues: a session may be in more than one of them.
func (s *shard) serve(l *lane, ps []*parcel, several bool) {
	p := &s.pass
	private := 0
	for _, m := range ps {
		if m.Private() {
			private++
		}
	}
	b := batch{all: ps, public: ps}
	l.topic.mu.Lock()
	p.subs = p.subs[:0]
	if private < len(ps) {
		p.subs = append(p.subs, l.subs...)
	}
	if private > 0 {
		b.members = make(map[int64]struct{}, private)
		b.public = make([]*parcel, 0, len(ps)-private)
		for _, m := range ps {
			if !m.Private() {
				b.public = append(b.public, m)
				continue
			}
			if _, seen := b.members[m.Member]; seen {
				continue
			}
			b.members[m.Member] = struct{}{}
			if private == len(ps) {
				for sub := l.of(m.Member); sub != nil; sub = sub.next {
					p.subs = append(p.subs, sub)
				}
			}
		}
	}
	l.topic.mu.Unlock()

	n := 0
	for subs := range slices.Chunk(p.subs, groupSize) {
		if !several && len(subs) > 1 {
			n += p.group.take(subs, &b)
			continue
		}
		for _, sub := range subs {
			n += sub.take(&b, several)
			if several {
				p.dirty = append(p.dirty, sub.to)
			}
		}
	}
	if len(b.public) > 0 {
		l.observe(p.subs)
	}
	clear(p.subs)
	l.topic.deliveries.Add(uint64(n))
}

// A batch is what one pass hands to the subscribers of a lane.
type batch struct {
	all     []*parcel
	public  []*parcel          // of all
	members map[int64]struct{} // who has private messages in all
	joined  []joined           // of public, by encoding
}

type joined struct {
	by     *Encoding
	frames []*Frame
}

// frames returns b's public messages as e encodes them.
func (b *batch) frames(e *Encoding) []*Frame {
	i := slices.IndexFunc(b.joined, func(j joined) bool { return j.by == e })
	if i < 0 {
		i = len(b.joined)
		b.joined = append(b.joined, joined{e, join(b.public, e)})
	}
	return b.joined[i].frames
}

// special reports whether b has messages for member alone.
func (b *batch) special(member int64) bool {
	_, ok := b.members[member]
	return ok
}

// fresh reports whether s is live and has nothing of b yet. s.mu is held.
func (s *Subscription) fresh(b *batch) bool {
	return s.after < b.all[0].Offset && s.held == nil && !s.closed.Load()
}

// take hands b's messages to the subscriber and returns how many were for it.
func (s *Subscription) take(b *batch, queue bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return 0
	}
	if s.held != nil {
		s.held.add(b.all)
		return 0
	}
	if b.special(s.member) || !s.fresh(b) {
		return s.hand(b.all, queue)
	}
	for _, f := range b.frames(s.encoding) {
		s.give(f, queue)
	}
	s.after = b.all[len(b.all)-1].Offset
	return len(b.public)
}
