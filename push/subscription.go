package push

import (
	"sync"
	"sync/atomic"

	"ws-gateway/apps"
)

// A Subscription is one session's place in one app. It is made by [Hub.Subscribe].
type Subscription struct {
	lane  *lane
	seat  *seat         // nil: the app has no presence; guarded by topic.roll
	index int           // in lane.subs; guarded by topic.mu
	next  *Subscription // of the same member in the lane; guarded by topic.mu

	// What a delivery needs begins with to and ends with closed.
	to       Subscriber
	mu       sync.Mutex
	member   int64       // guarded by topic.mu and mu: either may read
	encoding *Encoding   // guarded by mu
	after    uint64      // offset of the last message handed to the subscriber, or the position it subscribed at; guarded by mu
	held     *held       // live messages that wait for Start; nil once started; guarded by mu
	closed   atomic.Bool // written with mu held; once set it stays
}

// held are messages that came between Subscribe and Start.
type held struct {
	parcels []*parcel
	bytes   int
}

// maxHeld bounds the bytes of text that are held back for one subscription. Beyond it they
// are read from the log instead.
const maxHeld = 256 << 10

func (h *held) add(ps []*parcel) {
	for _, p := range ps {
		h.bytes += len(p.Text)
	}
	if h.parcels = append(h.parcels, ps...); h.over() {
		h.parcels = nil
	}
}

func (h *held) over() bool { return h.bytes > maxHeld }

// SubscribeOptions say who subscribes, and how.
type SubscribeOptions struct {
	Member   int64     // apps.Anonymous, or the member whose private messages it gets too
	Encoding *Encoding // never nil
	Events   *Encoding // as for [Subscription.Watch]; nil: do not
	Shard    uint64    // any number that stays the same for a connection: it spreads them over the shards
}

// Subscribe enters to among app's subscribers. Every message after the position it returns
// is for to, but is held back until [Subscription.Start], so that a reply and what was
// missed can go first.
func (h *Hub) Subscribe(app *apps.App, to Subscriber, opts SubscribeOptions) (*Subscription, Position) {
	t := h.topic(h.topics, app)
	defer t.mu.Unlock()
	l := &t.lanes[opts.Shard%uint64(len(t.lanes))]
	if t.subs == 0 {
		// Messages pushed while nobody listened did not pass through here.
		t.top = max(t.top, h.log.Top(app.Name).Offset)
	}
	s := &Subscription{lane: l, to: to, member: opts.Member, encoding: opts.Encoding, after: t.top, held: new(held)}
	if h.Present(app) {
		s.seat = &seat{watch: opts.Events}
	}
	l.add(s)
	return s, Position{h.log.Top(app.Name).Epoch, t.top}
}

// App returns the name of the app that s is subscribed to.
func (s *Subscription) App() string { return s.lane.topic.name }

// Start hands over what was held back since Subscribe; from now on messages go to the
// subscriber as they come, and it counts as present. If there was too much to hold back, Start
// does nothing of this: it reports false, and what came up to the position that it returns
// must be read from the log before Start is called again. It must not be called once it has
// reported true.
func (s *Subscription) Start() (upto Position, ok bool) {
	if upto, ok = s.start(); ok {
		s.lane.topic.enroll(s.settle)
	}
	return upto, ok
}

func (s *Subscription) start() (upto Position, ok bool) {
	t := s.lane.topic
	t.mu.Lock()
	top := t.top
	s.mu.Lock()
	t.mu.Unlock()
	defer s.mu.Unlock()
	h := s.held
	switch {
	case s.closed.Load() || h == nil:
		return Position{}, true
	case h.over():
		s.held, s.after = new(held), top
		return Position{t.hub.log.Top(t.name).Epoch, top}, false
	}
	s.held = nil
	if len(h.parcels) > 0 {
		n := s.hand(h.parcels, true)
		s.to.Flush()
		t.deliveries.Add(uint64(n))
	}
	return Position{}, true
}

// Queue queues f, a part of what s missed, to the subscriber, which flushes by itself. It
// reports false, and does nothing, once s is closed.
func (s *Subscription) Queue(f *Frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed.Load() {
		s.to.Queue(f)
	}
	return !s.closed.Load()
}

// SetEncoding makes s receive messages as e encodes them. It calls reply, which must not
// block, with the position of the last message that was handed over as before.
func (s *Subscription) SetEncoding(e *Encoding, reply func(Position)) {
	h := s.lane.topic.hub
	s.mu.Lock()
	defer s.mu.Unlock()
	s.encoding = e
	reply(Position{h.log.Top(s.App()).Epoch, s.after})
}

// Close ends s: once it returns, nothing more is handed to the subscriber for it.
func (s *Subscription) Close() {
	t := s.lane.topic
	s.mu.Lock()
	if s.closed.Load() {
		s.mu.Unlock()
		return
	}
	s.closed.Store(true)
	s.held = nil
	s.mu.Unlock()
	t.enroll(s.rise)
	t.mu.Lock()
	s.lane.remove(s)
	t.release()
}

// SetMember makes s receive the private messages of another member, and count as present as
// that one: an anonymous client has said who it is.
func (s *Subscription) SetMember(member int64) {
	s.setMember(member)
	s.lane.topic.enroll(s.settle)
}

func (s *Subscription) setMember(member int64) {
	t := s.lane.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return
	}
	s.lane.unlink(s)
	s.member = member
	s.lane.link(s)
}

// hand gives the subscriber those of ps that it may see and does not have, and returns how
// many they were; s.mu is held.
func (s *Subscription) hand(ps []*parcel, queue bool) int {
	if len(ps) == 1 && ps[0].Offset > s.after && ps[0].visible(s.member) {
		s.give(ps[0].frame(s.encoding), queue)
		s.after = ps[0].Offset
		return 1
	}
	mine := make([]*parcel, 0, len(ps))
	for _, p := range ps {
		if p.Offset > s.after && p.visible(s.member) {
			mine = append(mine, p)
		}
	}
	if len(mine) > 0 {
		for _, f := range join(mine, s.encoding) {
			s.give(f, queue)
		}
		s.after = mine[len(mine)-1].Offset
	}
	return len(mine)
}

func (s *Subscription) give(f *Frame, queue bool) {
	if queue {
		s.to.Queue(f)
	} else {
		s.to.Deliver(f)
	}
}
