package session

import (
	"errors"
	"net/netip"

	"ws-gateway/push"
)

// A Conn is one client's connection, as a transport offers it to the session (or to any
// other handler) on top of it. All methods may be called from any goroutine, never block,
// and keep the order of the calls of one goroutine. Frames never interleave.
type Conn interface {
	// Send queues f and writes at once as much of the queue as the socket takes.
	// It returns ErrSlow when the queue's limit would be passed and f's slow policy does
	// not make room (nothing of f is queued then), and ErrClosed after Close or Abort.
	Send(f *push.Frame) error
	// Queue is Send without the write: the caller promises to call Flush soon, or is a
	// function that [Handler.Receive] returned.
	Queue(f *push.Frame) error
	// Flush writes as much of the queue as the socket takes.
	Flush()
	// Close sends a close frame behind everything that is queued, then ends the
	// connection. Later frames are refused. Only the first Close or Abort counts.
	Close(code CloseCode, reason string)
	// Abort ends the connection now, with a TCP reset when the peer does not read; code is
	// what log and metrics say, and what the close frame says where one can get through.
	Abort(code CloseCode)
	// Remote returns the client's address: the TCP peer's, or behind a trusted proxy the
	// one that the proxy reported. The zero Addr stands for a client that nobody can name.
	Remote() netip.Addr
}

// A Backlog is a [Conn] that can say what waits in it. Its methods are as those of a Conn.
type Backlog interface {
	// Queued returns how many bytes the socket has not taken yet.
	Queued() int
	// Unsent reports whether the socket has not taken all of f, which Send or Queue has accepted. It
	// can be asked until [Handler.Closed] has returned; a frame that is dropped for another of
	// its app counts as sent.
	Unsent(f *push.Frame) bool
	// Drained makes f run once, on a goroutine of the transport's, soon after everything
	// queued has left; never if the connection ends before.
	Drained(f func())
}

// A Group is a [Conn] that can send on several connections for less than on each in turn.
type Group interface {
	// SendAll makes those of all that only need a write, and sets their Frame to nil. The
	// others it leaves to Send. It is called on the connection of one of them; the others
	// may be of other types.
	SendAll(all []Sending)
}

// A Sending is a frame for a connection.
type Sending struct {
	Conn  Conn // nil: SendAll leaves it alone
	Frame *push.Frame
}

// A Waiter is a [Conn] that has few places for the functions that Receive returns.
type Waiter interface {
	// Wait calls f, which waits for something that needs none of this process's time. If the
	// caller is such a function, another has its place until f returns.
	Wait(f func())
}

// waiting flushes c and calls f, in Wait if c has it.
func waiting(c Conn, f func()) {
	c.Flush()
	if w, ok := c.(Waiter); ok {
		w.Wait(f)
	} else {
		f()
	}
}

// A Handler is what a transport drives for one connection. [Session] is one; a backend's
// push link is another.
type Handler interface {
	// Receive takes one complete message. The transport calls it serially, never
	// concurrently with itself, and may do so on a goroutine that serves many connections:
	// Receive must not wait. A message whose handling has to wait (for an auth backend, a
	// script) returns a function instead; the transport runs it elsewhere and holds back
	// the connection's next message until it has returned. What such a function waits for,
	// it waits for in [Waiter.Wait]. What it queues is flushed soon after it has returned, with
	// what others have queued. data is only valid during the call of Receive; a returned
	// function must not refer to it.
	Receive(op push.Opcode, data []byte) (wait func())
	// Closed tells the handler that the connection is gone: once, after the last Receive
	// (and the function it returned) has returned. code is what ended it: the code of
	// Close or Abort, the peer's close code, CloseAbnormal when it just went away, or what
	// the transport itself found (CloseProtocolError, CloseNoPong, CloseSlow ...).
	Closed(code CloseCode)
}

var (
	// ErrSlow is returned by [Conn.Send] when the peer does not read fast enough.
	ErrSlow = errors.New("session: peer does not keep up")
	// ErrClosed is returned by [Conn.Send] once the connection is closed or closing.
	ErrClosed = errors.New("session: connection is closed")
)
