package push

import (
	"slices"
	"time"

	"ws-gateway/apps"
)

// A seat is a subscription's part in the presence of its app. Its fields are guarded by
// topic.roll.
type seat struct {
	member int64         // as whom the subscription is counted; 0: not yet
	watch  *Encoding     // of events; nil: the subscriber did not ask for them
	events *Subscription // to the events; nil: not yet
}

// enroll calls f with t.roll held, if there is presence at all: only there Join and Leave are
// called, so that they are in the order of what subscriptions do.
func (t *topic) enroll(f func()) {
	if t.hub.opts.Presence != nil {
		t.roll.Lock()
		defer t.roll.Unlock()
		f()
	}
}

// settle makes s count as present and hear of events, once it has started; topic.roll is held.
func (s *Subscription) settle() {
	s.mu.Lock()
	member, started := s.member, !s.closed.Load() && s.held == nil
	s.mu.Unlock()
	if s.seat == nil || !started {
		return
	}
	if s.seat.watch != nil && s.seat.events == nil {
		s.seat.events = s.listen(s.seat.watch)
	}
	old := s.seat.member
	s.seat.member = member
	if old == member {
		return
	}
	s.lane.topic.hub.opts.Presence.Join(s.App(), member)
	if old != 0 {
		s.lane.topic.hub.opts.Presence.Leave(s.App(), old)
	}
}

// rise ends the presence of s; topic.roll is held.
func (s *Subscription) rise() {
	seat := s.seat
	s.seat = nil
	if seat == nil {
		return
	}
	if seat.events != nil {
		seat.events.Close()
	}
	if seat.member != 0 {
		s.lane.topic.hub.opts.Presence.Leave(s.App(), seat.member)
	}
}

// Watch makes the subscriber hear of the app's events, as e encodes them: messages whose From
// is the member and whose Text is "join" or "leave". Without presence there are none.
func (s *Subscription) Watch(e *Encoding) {
	s.lane.topic.enroll(func() {
		if s.seat != nil {
			s.seat.watch = e
			s.settle()
		}
	})
}

// Replace closes old, the same subscriber's subscription to the same app, in favour of s,
// which has not started. Whoever is present stays so without leaving in between.
func (s *Subscription) Replace(old *Subscription) {
	s.lane.topic.enroll(func() {
		if s.seat != nil && old.seat != nil {
			if s.seat.watch != nil {
				old.seat.watch = s.seat.watch
			}
			s.seat, old.seat = old.seat, nil
		}
	})
	old.Close()
}

// SetRules tells s that the rules of its app are new.
func (s *Subscription) SetRules(app *apps.App) {
	t := s.lane.topic
	t.mu.Lock()
	t.app = app
	t.mu.Unlock()
	t.enroll(func() {
		switch {
		case !app.Presence:
			s.rise()
		case s.seat == nil && !s.closed.Load(): // whose seat nobody would give back
			s.seat = new(seat)
			s.settle()
		}
	})
}

// listen subscribes s.to to the events of s's app. They are an app of their own, without
// rules, whose messages no log keeps: so they are encoded once, and joined when there are many.
func (s *Subscription) listen(e *Encoding) *Subscription {
	t := s.lane.topic
	of := t.hub.topic(t.hub.events, &apps.App{Name: t.name})
	defer of.mu.Unlock()
	i := slices.Index(t.hub.shards, s.lane.shard)
	events := &Subscription{lane: &of.lanes[i], to: s.to, member: apps.Anonymous, encoding: e, after: of.top}
	events.lane.add(events)
	return events
}

// announce hands an event to those who asked for it.
func (h *Hub) announce(e Event) {
	h.mu.RLock()
	t := h.events[e.App]
	h.mu.RUnlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.gone {
		return
	}
	t.top++
	m := Message{App: e.App, Member: Everybody, From: e.Member, Text: "leave", Offset: t.top, Time: time.Now().UnixNano()}
	if e.Joined {
		m.Text = "join"
	}
	t.post([]Message{m}, nil)
}
