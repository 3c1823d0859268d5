package transport

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// A conn is one connection, without its socket: what both transports have in common. An
// idle one is all that a connection costs, so fields are few and small.
type conn struct {
	t       *Transport
	link    link            // the socket; never changes
	handler session.Handler // never changes once the connection is in use
	remote  netip.Addr
	seen    atomic.Uint32 // tick of the last byte received
	since   atomic.Uint32 // tick at which the incomplete message began; 0: there is none
	part    *partial      // the incomplete message; belongs to the reading goroutine
	place   uint32        // in the roster; guarded by roster.mu
	async   bool          // link.write takes nothing, so there is no use in calling it

	mu      sync.Mutex // watchlist.mu and workers.mu may be taken under it, nothing else; it guards all below
	closeBy uint32     // tick at which a closing connection is cut; 0: not yet
	code    session.CloseCode
	state   connState
	stuck   bool // the socket takes no more; it says when it does
	watched bool // is in the watchlist
	busy    bool // a function that Receive returned is running, or messages wait behind one
	paused  bool // reading has stopped because the inbox is full
	gone    bool // the socket is closed
	q       *queue
	inbox   *inbox // messages that wait while busy; nil when none
}

var (
	_ session.Conn    = (*conn)(nil)
	_ session.Backlog = (*conn)(nil)
	_ session.Waiter  = (*conn)(nil)
)

type connState uint8

const (
	stateOpen     connState = iota
	stateClosing            // by Close: frames are refused, input is discarded
	stateAnswered           // by the peer's close frame, which is being answered
	stateAborted            // by Abort: the socket is shut, its reader will find out
	stateLost               // by the network, or by the peer without a close frame
)

// local reports whether it was this side that ended the connection, so that messages still
// to be handled do not matter any more.
func (s connState) local() bool { return s == stateClosing || s == stateAborted }

// A link is the socket under a conn. All methods but run and wait are called with conn.mu held.
type link interface {
	// write writes what the socket takes without waiting. n < len(p) without an error
	// means that it takes no more at the moment. A link that can only write by waiting takes
	// nothing here and writes when it is told to await.
	write(p []byte) (n int, err error)
	// await makes the link call conn.writable as soon as the socket takes bytes.
	await()
	// unsent returns how many bytes written have not reached the peer.
	unsent() int
	// finish is called when a closing connection has nothing left to write.
	finish()
	// kill shuts the socket in both directions, after an attempt to write last, or with a
	// reset. The reading goroutine finds out and ends the connection.
	kill(last []byte, reset bool)
	// pause stops reading and resume starts it again.
	pause()
	resume()
	// run calls conn.work with wait, on a goroutine that may wait, and has answers flushed soon.
	run(wait func())
	// wait calls f, which waits, on a goroutine that run has chosen.
	wait(f func())
}

// Send implements [session.Conn].
func (c *conn) Send(f *push.Frame) error {
	c.mu.Lock()
	if c.ready() { // nearly always
		n, err := c.link.write(f.Data)
		switch {
		case err != nil:
			c.broken()
			err = session.ErrClosed
		case n < len(f.Data):
			c.q = newQueue()
			c.q.push(f, n)
			c.block()
		}
		c.mu.Unlock()
		return err
	}
	err := c.queue(f)
	if err == nil {
		c.flush()
	}
	c.mu.Unlock()
	return err
}

// ready reports whether a frame may be written without being queued. The caller holds c.mu.
func (c *conn) ready() bool { return c.q == nil && c.state == stateOpen }

// Queue implements [session.Conn].
func (c *conn) Queue(f *push.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue(f)
}

// Flush implements [session.Conn].
func (c *conn) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flush()
}

// Close implements [session.Conn].
func (c *conn) Close(code session.CloseCode, reason string) { c.close(stateClosing, code, reason) }

// Abort implements [session.Conn].
func (c *conn) Abort(code session.CloseCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == stateOpen {
		c.abort(code)
	}
}

// Remote implements [session.Conn].
func (c *conn) Remote() netip.Addr { return c.remote }

// queue appends f to what waits, or refuses it. The caller holds c.mu.
func (c *conn) queue(f *push.Frame) error {
	if c.q != nil && c.q.over(f, c.t.opts.QueueBytes, c.t.opts.QueueFrames) {
		c.flush() // a peer is not slow to take what it was not sent yet
	}
	if c.state != stateOpen {
		return session.ErrClosed
	}
	if c.q == nil {
		c.q = newQueue()
	}
	dropped, ok := c.q.admit(f, c.t.opts.QueueBytes, c.t.opts.QueueFrames, c.stuck)
	if dropped > 0 {
		c.t.opts.Metrics.SlowDropped(policyNames[f.Slow], dropped)
	}
	if !ok {
		c.t.opts.Metrics.Refused(stat.ReasonQueueBytes)
		return session.ErrSlow
	}
	return nil
}

// flush writes what waits, until the socket takes no more. The caller holds c.mu.
func (c *conn) flush() {
	if c.q == nil || c.stuck || c.gone || c.state > stateAnswered {
		return
	}
	if c.async {
		c.block()
		return
	}
	var buf *[flushSize]byte
	for !c.q.empty() {
		p := c.q.single()
		if p == nil {
			if buf == nil {
				buf = flushBuffers.Get().(*[flushSize]byte)
				defer flushBuffers.Put(buf)
			}
			p = c.q.gather(buf[:0])
		}
		n, err := c.link.write(p)
		c.q.wrote(n)
		if err != nil {
			c.broken()
			return
		}
		if n < len(p) {
			c.block()
			return
		}
	}
	c.drained()
}

// block notes that the socket takes no more at the moment. The caller holds c.mu.
func (c *conn) block() {
	c.stuck = true
	c.q.pace.begin(c.t.clock.now(), c.link.unsent())
	c.link.await()
	c.watch()
}

// writable writes on: the socket takes bytes again. It is called by the link.
func (c *conn) writable() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck {
		c.stuck = false
		c.flush()
	}
}

// Queued implements [session.Backlog].
func (c *conn) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.q == nil {
		return 0
	}
	return c.q.bytes
}

// Unsent implements [session.Backlog].
func (c *conn) Unsent(f *push.Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.q != nil && slices.ContainsFunc(c.q.entries, func(e entry) bool { return e.frame == f })
}

// Drained implements [session.Backlog].
func (c *conn) Drained(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != stateOpen: // nobody reads on
	case c.q == nil:
		c.later(f)
	default:
		c.q.then = append(c.q.then, f)
	}
}

// Wait implements [session.Waiter].
func (c *conn) Wait(f func()) {
	c.mu.Lock()
	busy := c.busy
	c.mu.Unlock()
	if busy {
		c.link.wait(f)
	} else {
		f()
	}
}

// later has f called on a goroutine that may wait. A panic costs this connection only.
func (c *conn) later(f func()) {
	c.t.workers.run(task{f: func() {
		if !c.t.contain("session", f) {
			c.fail(session.CloseInternal, session.CloseInternal.Reason())
		}
	}})
}

// drained lets go of the empty queue, and ends a connection that waited for that. The
// caller holds c.mu.
func (c *conn) drained() {
	for _, f := range c.q.then {
		c.later(f)
	}
	c.q.free()
	c.q = nil
	if c.state == stateClosing || c.state == stateAnswered {
		c.closeBy = c.t.clock.now() + ticks(closeTimeout)
		c.watch()
		c.link.finish()
	}
}

// close ends an open connection with a close frame behind all that is queued.
func (c *conn) close(state connState, code session.CloseCode, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != stateOpen {
		return
	}
	c.state, c.code = state, code
	if c.q == nil {
		c.q = newQueue()
	}
	c.q.push(closeFrame(code, reason), 0)
	c.flush()
}

// fail is what the transport does when the peer breaks a rule.
func (c *conn) fail(code session.CloseCode, reason string) { c.close(stateClosing, code, reason) }

// abort is Abort; it also cuts short a closing handshake, whose code then stays. The caller
// holds c.mu.
func (c *conn) abort(code session.CloseCode) {
	c.flush()
	if c.state > stateAnswered {
		return
	}
	var last []byte
	reset := c.q != nil // nothing gets through to a peer that does not read, and the kernel need not try
	if c.state == stateOpen {
		c.code = code
		if c.q == nil {
			last = closeFrame(code, code.Reason()).Data
		}
	}
	c.state = stateAborted
	c.link.kill(last, reset)
}

// broken notes that the socket does not work any more. The caller holds c.mu.
func (c *conn) broken() {
	if c.state == stateOpen {
		c.code = session.CloseAbnormal
	}
	if c.state <= stateAnswered {
		c.state = stateLost
		c.link.kill(nil, false)
	}
}

// ended is called by the reading goroutine, once, when it will not read any more. It
// tells the handler, unless that is busy and will be told when it is done.
func (c *conn) ended() {
	c.release()
	c.mu.Lock()
	if c.state == stateOpen {
		c.code, c.state = session.CloseAbnormal, stateLost
	}
	c.stuck, c.gone = false, true
	busy := c.busy
	c.mu.Unlock()
	c.t.roster.remove(c)
	if !busy {
		c.tell()
	}
}

// tell tells the handler that the connection is gone.
func (c *conn) tell() {
	c.t.opts.Metrics.SessionClosed(int(c.code))
	if c.handler != nil { // or it could not be opened
		c.t.contain("session", func() { c.handler.Closed(c.code) })
	}
	c.mu.Lock()
	if c.q != nil {
		c.q.free()
		c.q = nil
	}
	c.mu.Unlock()
	c.t.roster.done()
}

// closeFrame returns a close frame; CloseNoStatus gives an empty one. A reason longer than
// a control frame takes is cut at a character.
func closeFrame(code session.CloseCode, reason string) *push.Frame {
	if code == session.CloseNoStatus {
		return push.NewFrame(push.OpClose, nil)
	}
	if len(reason) > 123 {
		cut := 123
		for cut > 0 && reason[cut]&0xc0 == 0x80 {
			cut--
		}
		reason = reason[:cut]
	}
	return push.NewFrame(push.OpClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
}
