package transport

import (
	"sync"
	"sync/atomic"
	"time"

	"ws-gateway/push"
	"ws-gateway/session"
)

// tick is the unit of all that the transport times. One ticker serves all connections: a timer
// each would wake the process for each.
const tick = 100 * time.Millisecond

// maxRound is the longest time between two looks at what is due. Each wakes an idle process,
// which costs it more than the look.
const maxRound = 250 * time.Millisecond

// round returns the time between two looks: a twentieth of what has to be timed, a tick at
// least.
func (o *Options) round() time.Duration {
	shortest := min(o.PingInterval, o.PongTimeout, o.PartialTimeout, o.WriteTimeout)
	return min(max(tick, shortest/20), maxRound)
}

// ticks returns d in ticks, at least 1.
func ticks(d time.Duration) uint32 { return uint32(max(1, d/tick)) }

// A clock counts ticks, from 1 on. While the process does not run (it is stopped, or the
// machine sleeps) the clock stands nearly still, so that no peer is blamed for the silence.
type clock struct{ ticks atomic.Uint32 }

func (c *clock) now() uint32 { return c.ticks.Load() + 1 }

// advance adds the time since the last call, at most a second.
func (c *clock) advance(elapsed time.Duration) { c.ticks.Add(uint32(min(elapsed, time.Second) / tick)) }

// housekeep looks after deadlines until the transport is closed.
func (t *Transport) housekeep() {
	ticker := time.NewTicker(t.opts.round())
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-t.stop:
			return
		case <-ticker.C:
		}
		if elapsed := time.Since(last).Truncate(tick); elapsed > 0 {
			t.clock.advance(elapsed)
			last = last.Add(elapsed)
		}
		t.heartbeat()
		t.watched.inspect(t.clock.now())
		t.report()
	}
}

// report tells the metrics what was written since the last call.
func (t *Transport) report() {
	if n := t.written.Swap(0); n > 0 {
		t.opts.Metrics.BytesWritten(int(n))
	}
}

// pingFrame is the ping of all connections.
var pingFrame = push.NewFrame(push.OpPing, nil)

// heartbeat pings the peers that have been silent and ends the connections of those that
// stay so.
func (t *Transport) heartbeat() {
	silent, dead := t.roster.visit(t.clock.now(), ticks(t.opts.PingInterval), ticks(t.opts.PongTimeout))
	for _, c := range silent {
		c.Send(pingFrame)
	}
	for _, c := range dead {
		c.noPong()
	}
	clear(silent)
	clear(dead)
}

// noPong ends a connection whose peer stays silent, unless that is because nobody reads
// what it says, or because a backlog is in the ping's way: then the rules for slow peers
// decide.
func (c *conn) noPong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy || c.stuck {
		c.seen.Store(c.t.clock.now())
		return
	}
	if c.state == stateOpen {
		c.abort(session.CloseNoPong)
	}
}

// A roster lists the connections of a transport, for the heartbeat and for Close.
type roster struct {
	mu           sync.Mutex
	members      []member // a connection knows its place
	cursor       int      // the heartbeat's place
	live         int      // members, and those whose handler has not been told of the end yet
	closed       bool
	empty        chan struct{} // closed when live is 0 after close
	silent, dead []*conn       // what visit returned, for reuse
}

// A member is a connection and what its heartbeat waits for. It is 16 bytes, so that the
// heartbeat reads memory in order and touches only connections that are due.
type member struct {
	conn   *conn
	due    uint32 // tick at which to look at it
	pinged bool   // a ping was sent and has to be answered when due
}

// add lists c. It reports false, and does nothing, when the transport is closed.
func (r *roster) add(c *conn, due uint32) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	c.place = uint32(len(r.members))
	r.members = append(r.members, member{conn: c, due: due})
	r.live++
	return true
}

func (r *roster) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// remove takes c off the list.
func (r *roster) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := len(r.members) - 1
	r.members[c.place] = r.members[last]
	r.members[c.place].conn.place = c.place
	r.members[last] = member{}
	r.members = r.members[:last]
	if cap(r.members) > 4*last+1024 { // a storm is over
		r.members = append(make([]member, 0, 2*last), r.members...)
	}
}

// done notes that the handler of a removed connection has been told of its end.
func (r *roster) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live--; r.live == 0 && r.closed {
		close(r.empty)
	}
}

// close refuses further connections, calls end for each that there is, and returns once all
// have ended.
func (r *roster) close(end func(*conn)) {
	r.mu.Lock()
	r.closed = true
	r.empty = make(chan struct{})
	if r.live == 0 {
		close(r.empty)
	}
	members := append([]member(nil), r.members...)
	r.mu.Unlock()
	for _, m := range members {
		end(m.conn)
	}
	<-r.empty
}

// visit looks at a third of the members, so at each at least once in a second, and returns those
// to ping and those that have not answered. Both slices are valid until the next call.
// A ping goes out up to a twenty-fifth early, so that it is never late by default.
func (r *roster) visit(now, interval, timeout uint32) (silent, dead []*conn) {
	interval -= interval / 25
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent, r.dead = r.silent[:0], r.dead[:0]
	for range min(len(r.members), max(len(r.members)/3, 1024)) {
		if r.cursor >= len(r.members) {
			r.cursor = 0
		}
		m := &r.members[r.cursor]
		r.cursor++
		if int32(now-m.due) < 0 {
			continue
		}
		seen := m.conn.seen.Load()
		switch {
		case m.pinged && int32(seen-(m.due-timeout)) < 0:
			r.dead = append(r.dead, m.conn)
			m.due = now + timeout // to look again at one that was spared
		case now-seen >= interval:
			r.silent = append(r.silent, m.conn)
			m.pinged, m.due = true, now+timeout
		default:
			m.pinged, m.due = false, seen+interval
		}
	}
	return r.silent, r.dead
}

// A watchlist holds the connections that something is overdue for soon: frames that the
// socket does not take, an incomplete message, an unanswered close frame. Few are.
type watchlist struct {
	mu      sync.Mutex
	added   []*conn // since the last inspection
	current []*conn // belongs to the housekeeping goroutine
}

// watch puts c on the watchlist. The caller holds c.mu.
func (c *conn) watch() {
	if c.watched {
		return
	}
	c.watched = true
	w := &c.t.watched
	w.mu.Lock()
	w.added = append(w.added, c)
	w.mu.Unlock()
}

// inspect looks at every connection on the list and keeps those that need it again.
func (w *watchlist) inspect(now uint32) {
	w.mu.Lock()
	w.current = append(w.current, w.added...)
	w.added = nil
	w.mu.Unlock()
	kept := w.current[:0]
	for _, c := range w.current {
		if c.inspect(now) {
			kept = append(kept, c)
		}
	}
	clear(w.current[len(kept):])
	w.current = kept
	if len(kept) == 0 {
		w.current = nil
	}
}

// inspect ends the connection if something is overdue, and reports whether something may be
// later.
func (c *conn) inspect(now uint32) (keep bool) {
	if since := c.since.Load(); since != 0 && now-since >= ticks(c.t.opts.PartialTimeout) {
		c.fail(session.CloseProtocolError, "message not completed in time")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.gone, c.state > stateAnswered: // its reader knows
	case c.stuck && c.slow(now):
		c.abort(session.CloseSlow)
	case c.closeBy != 0 && int32(now-c.closeBy) >= 0:
		c.abort(c.code)
	default:
		keep = c.stuck || c.closeBy != 0 || c.since.Load() != 0
	}
	c.watched = keep
	return keep
}

// slow reports whether the peer takes too little of what is queued. The caller holds c.mu.
func (c *conn) slow(now uint32) bool {
	reason := c.q.pace.slow(now, c.link.unsent(), ticks(c.t.opts.WriteTimeout), c.t.opts.WriteMinimum)
	if reason != "" && c.state == stateOpen {
		c.t.opts.Metrics.Refused(reason)
	}
	return reason != ""
}
