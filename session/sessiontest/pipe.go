// Package sessiontest helps to test what sits on top of a [session.Conn]: sessions,
// protocols and other handlers.
package sessiontest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"ws-gateway/push"
	"ws-gateway/session"
)

// A Pipe is a [session.Conn] in memory. One end is the handler's; at the other the test
// plays the client: [Pipe.Receive] is what the client says, [Pipe.Next] and [Pipe.Unread]
// what it hears. Frames are decoded as a client would, and one that is malformed fails the
// test. All methods may be called from any goroutine, and in a synctest bubble.
type Pipe struct {
	t      testing.TB
	remote netip.Addr
	serial chan struct{} // held while the handler runs, as Receive and Closed are serial
	gone   chan struct{} // closed once Handler.Closed has returned
	news   chan struct{} // has an item when unread may have grown

	mu      sync.Mutex
	handler session.Handler // nil until Attach; guarded by mu, like all below
	queued  []*push.Frame   // waits for Flush
	frames  []*push.Frame   // everything written
	unread  []Message
	slow    bool
	ended   bool
	graced  bool // the end was Close, not Abort
	code    session.CloseCode
	reason  string
}

var _ session.Conn = (*Pipe)(nil)

// A Message is one message as the client receives it.
type Message struct {
	Op   push.Opcode
	Text string
}

// NewPipe returns an open Pipe whose client has the address 192.0.2.1. A session opened on
// it must be told with [Pipe.Attach].
func NewPipe(t testing.TB) *Pipe {
	return &Pipe{
		t:      t,
		remote: netip.MustParseAddr("192.0.2.1"),
		serial: make(chan struct{}, 1),
		gone:   make(chan struct{}),
		news:   make(chan struct{}, 1),
	}
}

// Attach names the handler of the connection. If the connection has ended already, the
// handler is told.
func (p *Pipe) Attach(h session.Handler) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = h
	if p.ended {
		go p.closed(h, p.code)
	}
}

// Receive gives the handler a text message from the client and returns once it is dealt
// with, the function that Handler.Receive may return included. It reports false, and does
// nothing, after the connection has ended.
func (p *Pipe) Receive(text string) bool { return p.ReceiveFrame(push.OpText, []byte(text)) }

// ReceiveFrame is [Pipe.Receive] for a message of any type. The handler gets a copy of data
// that is overwritten as soon as Handler.Receive has returned.
func (p *Pipe) ReceiveFrame(op push.Opcode, data []byte) bool {
	p.serial <- struct{}{}
	defer func() { <-p.serial }()
	p.mu.Lock()
	h, ended := p.handler, p.ended
	p.mu.Unlock()
	if ended {
		return false
	}
	buf := append([]byte(nil), data...)
	wait := h.Receive(op, buf)
	for i := range buf {
		buf[i] = 0xff
	}
	if wait != nil {
		wait()
		p.Flush()
	}
	return true
}

// Hangup is the client going away: code is that of its close frame, or
// [session.CloseAbnormal] for a lost connection. It returns once the handler knows.
func (p *Pipe) Hangup(code session.CloseCode) {
	p.end(code, "", false)
	<-p.gone
}

// SetSlow makes Send and Queue return [session.ErrSlow], or stop doing so.
func (p *Pipe) SetSlow(slow bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = slow
}

// Next waits for the next message that the client has not read yet and returns its text.
// The test fails when the connection ends before one comes.
func (p *Pipe) Next() string {
	p.t.Helper()
	for {
		p.mu.Lock()
		if len(p.unread) > 0 {
			m := p.unread[0]
			p.unread = p.unread[1:]
			p.mu.Unlock()
			return m.Text
		}
		ended, code := p.ended, p.code
		p.mu.Unlock()
		if ended {
			p.t.Fatalf("connection ended with %d, want a message", code)
		}
		<-p.news
	}
}

// Unread returns, without waiting, what the client has not read yet, and counts it as read.
func (p *Pipe) Unread() []Message {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.unread
	p.unread = nil
	return m
}

// Frames returns every frame written so far, as the handler sent it.
func (p *Pipe) Frames() []*push.Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*push.Frame(nil), p.frames...)
}

// Done is closed once the connection has ended and the handler has been told.
func (p *Pipe) Done() <-chan struct{} { return p.gone }

// Wait waits for the end of the connection and returns its code and the reason given to
// Close.
func (p *Pipe) Wait() (code session.CloseCode, reason string) {
	<-p.gone
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code, p.reason
}

// Aborted reports whether the connection has ended other than by Close.
func (p *Pipe) Aborted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended && !p.graced
}

// Send implements [session.Conn].
func (p *Pipe) Send(f *push.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.queue(f); err != nil {
		return err
	}
	p.flush()
	return nil
}

// Queue implements [session.Conn]: the client hears f only after Flush.
func (p *Pipe) Queue(f *push.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue(f)
}

// Flush implements [session.Conn].
func (p *Pipe) Flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.flush()
	}
}

// Close implements [session.Conn].
func (p *Pipe) Close(code session.CloseCode, reason string) { p.end(code, reason, true) }

// Abort implements [session.Conn].
func (p *Pipe) Abort(code session.CloseCode) { p.end(code, "", false) }

// Remote implements [session.Conn].
func (p *Pipe) Remote() netip.Addr { return p.remote }

// queue appends f to what waits for a flush. The caller holds p.mu.
func (p *Pipe) queue(f *push.Frame) error {
	switch {
	case p.ended:
		return session.ErrClosed
	case p.slow:
		return session.ErrSlow
	}
	p.queued = append(p.queued, f)
	return nil
}

// flush writes what is queued. The caller holds p.mu.
func (p *Pipe) flush() {
	for _, f := range p.queued {
		messages, err := Decode(f.Data)
		if err != nil {
			p.t.Errorf("sent frame %x: %v", f.Data, err)
		}
		p.frames = append(p.frames, f)
		p.unread = append(p.unread, messages...)
	}
	p.queued = nil
	p.notify()
}

// end makes code what ended the connection, if nothing has ended it before.
func (p *Pipe) end(code session.CloseCode, reason string, grace bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if grace {
		p.flush()
	}
	p.ended, p.graced, p.code, p.reason = true, grace, code, reason
	p.notify()
	if p.handler != nil {
		go p.closed(p.handler, code)
	}
}

// closed tells h about the end, when no Receive is running.
func (p *Pipe) closed(h session.Handler, code session.CloseCode) {
	p.serial <- struct{}{}
	defer func() { <-p.serial }()
	h.Closed(code)
	close(p.gone)
}

// notify wakes Next. The caller holds p.mu.
func (p *Pipe) notify() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// Decode splits what a server wrote into its messages; control frames are messages too.
// Frames must be final, unmasked, without reserved bits and have the shortest length
// encoding, as the gateway's always are.
func Decode(data []byte) ([]Message, error) {
	var messages []Message
	for len(data) > 0 {
		if len(data) < 2 {
			return messages, fmt.Errorf("%d stray bytes behind the last frame", len(data))
		}
		op, n, head := push.Opcode(data[0]&0x0f), uint64(data[1]), 2
		if data[0]&0xf0 != 0x80 || n >= 0x80 {
			return messages, fmt.Errorf("header % x is not that of a final, unmasked frame", data[:2])
		}
		switch {
		case n == 126 && len(data) >= 4:
			n, head = uint64(binary.BigEndian.Uint16(data[2:])), 4
		case n == 127 && len(data) >= 10:
			n, head = binary.BigEndian.Uint64(data[2:]), 10
		}
		if want := len(push.AppendHeader(nil, op, int(n))); head != want {
			return messages, fmt.Errorf("header of %d bytes for a payload of %d, want %d", head, n, want)
		}
		if n > uint64(len(data)-head) {
			return messages, fmt.Errorf("payload of %d bytes is cut to %d", n, len(data)-head)
		}
		messages = append(messages, Message{op, string(data[head : head+int(n)])})
		data = data[head+int(n):]
	}
	return messages, nil
}
