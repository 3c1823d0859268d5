package push

// groupSize is how many subscribers a pass delivers to together. More of them would wait
// longer for each other, and gain little.
const groupSize = 16

// A Delivery is a frame for a subscriber.
type Delivery struct {
	To    Subscriber
	Frame *Frame
}

// Grouping is implemented by subscribers of which several can be delivered to together.
//
// A write(2) leaves little of this process in the CPU's caches, so the next subscriber has to
// be fetched from memory again. The CPU fetches several at the same time, if what reads them
// takes no lock in between: an atomic instruction waits for all reads before it.
type Grouping interface {
	// DeliverAll makes all of ds, each as Deliver would. It is called on one of their
	// subscribers; the others may be of other types. It must not keep ds.
	DeliverAll(ds []Delivery)
}

// A group is what a pass delivers together.
type group struct {
	subs       []*Subscription
	deliveries []Delivery // one for each of subs
	others     []*Subscription
}

// take hands b's messages to subs, as [Subscription.take] does to one, and returns how many
// they were. It does not wait for a lock while it holds one: subscriptions that somebody else
// has locked, and those that need more than one frame, come last.
func (g *group) take(subs []*Subscription, b *batch) (n int) {
	for _, s := range subs {
		if !s.closed.Load() {
			g.subs = append(g.subs, s)
			g.deliveries = append(g.deliveries, Delivery{To: s.to})
		}
	}
	locked := 0
	for i, s := range g.subs {
		if f := s.tryBegin(b); f != nil {
			g.subs[locked], g.deliveries[locked] = s, Delivery{g.deliveries[i].To, f}
			n += f.Messages
			locked++
		} else {
			g.others = append(g.others, s)
		}
	}
	deliver(g.deliveries[:locked])
	for _, s := range g.subs[:locked] {
		s.after = b.all[len(b.all)-1].Offset
		s.mu.Unlock()
	}
	for _, s := range g.others {
		n += s.take(b, false)
	}
	clear(g.subs)
	clear(g.deliveries)
	clear(g.others)
	g.subs, g.deliveries, g.others = g.subs[:0], g.deliveries[:0], g.others[:0]
	return n
}

// tryBegin returns the frame that is all of b for s, and leaves s locked. It returns nil if
// there is no such frame, or if s is locked already.
func (s *Subscription) tryBegin(b *batch) *Frame {
	if !s.mu.TryLock() {
		return nil
	}
	if f := s.whole(b); f != nil {
		return f
	}
	s.mu.Unlock()
	return nil
}

// whole returns the frame that is all of b for s, if there is one. s.mu is held.
func (s *Subscription) whole(b *batch) *Frame {
	if !s.fresh(b) {
		return nil
	}
	if !b.special(s.member) {
		if frames := b.frames(s.encoding); len(frames) == 1 {
			return frames[0]
		}
		return nil
	}
	var mine *parcel
	for _, p := range b.all {
		if p.visible(s.member) {
			if mine != nil {
				return nil
			}
			mine = p
		}
	}
	return mine.frame(s.encoding)
}

func deliver(ds []Delivery) {
	if len(ds) == 0 {
		return
	}
	if g, ok := ds[0].To.(Grouping); ok {
		g.DeliverAll(ds)
		return
	}
	for _, d := range ds {
		d.To.Deliver(d.Frame)
	}
}
