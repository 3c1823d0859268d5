// Package session is one client: from its first frame to its close code.
//
// A [Gateway] has all sessions of a node. A transport opens a [Session] on each connection
// and drives it as a [Handler]; the session speaks its [Protocol] with the client, asks the
// [Authenticator] who it is, and subscribes it to apps of the hub.
package session

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

// A kind is what a session is to the gateway.
type kind uint8

const (
	pending   kind = iota // did not yet say who it is
	anonymous             // may do what anyone may
	known                 // a member: proved who it is
	kinds
)

const maxBad = 10 // bad messages in a row: a rule of the protocol, without a setting

// A Session is one client connection from upgrade to close code. Its own fields are small
// and few: there are very many sessions, and most of them wait.
type Session struct {
	conn     Conn
	gateway  *Gateway
	protocol Protocol
	id       uint64
	opened   uint32 // ms since the gateway started

	index  int      // in gateway.sessions; guarded by gateway.mu
	listed int64    // whose list in gateway.members it is in; 0: none; guarded by gateway.mu
	older  *Session // the next in that list; guarded by gateway.mu

	// The command budget belongs to Receive, which is serial.
	tokens   float32
	refilled uint32 // ms since the gateway started
	strikes  uint8  // bad messages in a row

	mu      sync.Mutex
	state   kind                 // guarded by mu
	asked   bool                 // its first frame came; guarded by mu
	gone    bool                 // Closed was called; guarded by mu
	warned  bool                 // of the token's expiry; guarded by mu
	member  int64                // apps.Anonymous, or who it is; guarded by mu
	roles   []string             // guarded by mu
	expires int64                // Unix ms; 0: never; guarded by mu
	subs    []*push.Subscription // guarded by mu
	timer   *time.Timer          // auth deadline, then expiry; guarded by mu
}

var (
	_ Handler         = (*Session)(nil)
	_ push.Subscriber = (*Session)(nil)
	_ push.Grouping   = (*Session)(nil)
	_ push.Lagging    = (*Session)(nil)
)

// Receive implements [Handler].
func (s *Session) Receive(op push.Opcode, data []byte) (wait func()) {
	return s.protocol.Receive(s, op, data)
}

// Closed implements [Handler].
func (s *Session) Closed(code CloseCode) {
	s.mu.Lock()
	s.gone = true
	subs := s.subs
	s.subs = nil
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	state, member := s.state, s.member
	s.mu.Unlock()
	for _, sub := range subs {
		sub.Close()
	}
	s.gateway.remove(s)
	s.gateway.counts[state].Add(-1)
	if c, ok := s.protocol.(Closer); ok {
		c.Closed(s, code)
	}
	s.showClosed(member, subs, code)
	s.gateway.opts.Logger.Debug("session closed", "session", s.id, "code", int(code), "reason", code.Reason())
}

// Deliver implements [push.Subscriber]. It never blocks: a session that cannot keep up is
// closed rather than buffered without bound, so one slow reader never costs the others.
func (s *Session) Deliver(f *push.Frame) { s.slow(s.conn.Send(f)) }

// DeliverAll implements [push.Grouping].
func (s *Session) DeliverAll(ds []push.Delivery) {
	sendings := sendingPool.Get().(*[]Sending)
	all := (*sendings)[:0]
	for _, d := range ds {
		var c Conn
		if to, ok := d.To.(*Session); ok {
			c = to.conn
		}
		all = append(all, Sending{c, d.Frame})
	}
	if g, ok := s.conn.(Group); ok {
		g.SendAll(all)
	}
	for i, left := range all {
		if left.Frame != nil {
			ds[i].To.Deliver(left.Frame)
		}
	}
	clear(all)
	*sendings = all
	sendingPool.Put(sendings)
}

var sendingPool = sync.Pool{New: func() any { return new([]Sending) }}

// Queue implements [push.Subscriber].
func (s *Session) Queue(f *push.Frame) { s.slow(s.conn.Queue(f)) }

// Flush implements [push.Subscriber].
func (s *Session) Flush() { s.conn.Flush() }

// Lagging implements [push.Lagging].
func (s *Session) Lagging() bool {
	b, ok := s.conn.(Backlog)
	return ok && b.Queued() > 0
}

func (s *Session) slow(err error) {
	if errors.Is(err, ErrSlow) {
		s.gateway.opts.Metrics.SlowDropped(apps.SlowClose, 1)
		s.conn.Abort(CloseSlow)
	}
}

// ID returns the session's number, unique on this node.
func (s *Session) ID() uint64 { return s.id }

// Remote returns the client's address.
func (s *Session) Remote() netip.Addr { return s.conn.Remote() }

// Member returns who the session is: apps.Anonymous, or a member.
func (s *Session) Member() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.member
}

// who returns whom the rules are asked about, with the roles that its token gave it.
func (s *Session) who() apps.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return apps.Member{ID: s.member, Roles: s.roles}
}

// Close ends the session behind everything that was sent to it.
func (s *Session) Close(code CloseCode) { s.conn.Close(code, code.Reason()) }

func (s *Session) kind() kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// deadline makes f run after d, instead of what was to run before.
func (s *Session) deadline(d time.Duration, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if f != nil && !s.gone {
		s.timer = time.AfterFunc(d, f)
	}
}

// reply answers a command of the kind op.
func (s *Session) reply(op string, r reply) {
	s.answered(op, r)
	s.Deliver(r.frame())
}

// answered counts r, and shows it to those who watch.
func (s *Session) answered(op string, r reply) {
	s.gateway.opts.Metrics.Command(op, r.code)
	if s.gateway.opts.Tail.Active() {
		s.show(op, r)
	}
}

// bad answers a message that is no command, for the reason err.
func (s *Session) bad(id []byte, err error) {
	s.strikes++
	s.reply("invalid", reply{code: 400, message: "bad subscribe message", id: id, about: about{err: err}})
	if s.strikes >= maxBad {
		s.gateway.opts.Metrics.Refused(stat.ReasonBadMessages)
		s.Close(CloseTooManyBad)
	}
}

// good ends a row of bad messages.
func (s *Session) good() { s.strikes = 0 }

// Allow takes one command from the session's budget, or closes it with 4013 and reports
// false. It may only be called by [Protocol.Receive].
func (s *Session) Allow() bool {
	o := &s.gateway.opts
	if o.CommandRate <= 0 {
		return true
	}
	now := s.gateway.now()
	s.tokens = min(s.tokens+float32(now-s.refilled)*float32(o.CommandRate)/1000, float32(o.CommandBurst))
	s.refilled = now
	if s.tokens < 1 {
		o.Metrics.Refused(stat.ReasonCommandRate)
		s.Close(CloseRateLimit)
		return false
	}
	s.tokens--
	return true
}

func (s *Session) pong(c command) { s.reply("ping", reply{code: 200, message: "pong", id: c.id}) }

// late ends a session that said nothing in time.
func (s *Session) late() {
	s.mu.Lock()
	asked := s.asked
	s.mu.Unlock()
	if !asked {
		s.gateway.opts.Metrics.Refused(stat.ReasonAuthDeadline)
		s.missingAuth(errSilent)
	}
}

// missingAuth ends a session that did not say who it is, for the reason err.
func (s *Session) missingAuth(err error) {
	s.gateway.opts.Metrics.Authenticated(stat.AuthMissing, 0)
	s.reply("auth", reply{code: 400, message: "missing auth message", about: about{err: err}})
	s.Close(CloseMissingAuth)
}
