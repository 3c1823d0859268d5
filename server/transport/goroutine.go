package transport

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"ws-gateway/session"
)

const (
	readSize  = 512      // of the buffer that a goroutine connection keeps
	chunkSize = 16 << 10 // of a write that has to make progress in time; a TLS record
)

// A goroutineConn is a conn with a goroutine that reads. Another one writes, but exists only
// while there is something to write.
type goroutineConn struct {
	conn
	nc     net.Conn // of TLS, or the socket
	socket net.Conn
}

var _ link = (*goroutineConn)(nil)

// openGoroutine gives nc to the goroutine transport.
func (t *Transport) openGoroutine(nc net.Conn, remote netip.Addr, open func(session.Conn) session.Handler) error {
	c := &goroutineConn{nc: nc, socket: nc}
	if secure, ok := nc.(*tls.Conn); ok {
		c.socket = secure.NetConn()
		if tcp, ok := c.socket.(*net.TCPConn); ok {
			tcp.SetWriteBuffer(sendBuffer)
		}
	}
	c.async = true
	if err := t.enlist(&c.conn, c, ModeGoroutine, remote); err != nil {
		c.socket.Close()
		return err
	}
	if err := c.open(open); err != nil {
		c.ended() // Abort closes the socket
		return err
	}
	t.wg.Go(c.readAll) // not on the handler's goroutine, whose stack net/http has made deep
	return nil
}

// readAll reads until the connection ends. A function that Receive returns runs right here,
// so a busy connection is simply not read.
func (c *goroutineConn) readAll() {
	idle := make([]byte, readSize)
	for {
		n, err := c.read(idle)
		if err != nil {
			break
		}
		if n > 0 {
			c.process(idle[:n])
		}
	}
	c.socket.Close()
	c.ended()
}

// read waits for bytes in buf. While a message is incomplete it reads more at once, and
// processes that itself.
func (c *goroutineConn) read(buf []byte) (int, error) {
	if c.part == nil {
		return c.nc.Read(buf)
	}
	large := flushBuffers.Get().(*[flushSize]byte)
	defer flushBuffers.Put(large)
	n, err := c.nc.Read(large[:])
	if n > 0 {
		c.process(large[:n])
	}
	return 0, err
}

// process decodes p.
func (c *goroutineConn) process(p []byte) {
	d := c.t.decoders.Get().(*decoder)
	c.received(p, d)
	c.t.decoders.Put(d)
}

// writeAll writes what is queued, then ends.
func (c *goroutineConn) writeAll() {
	buf := flushBuffers.Get().(*[flushSize]byte)
	defer flushBuffers.Put(buf)
	for {
		p := c.nextWrite(buf)
		if p == nil {
			break
		}
		n, err := c.nc.Write(p)
		c.t.written.Add(int64(n))
		c.mu.Lock()
		if c.q != nil {
			c.q.wrote(n)
		}
		if err != nil {
			c.broken()
		}
		c.mu.Unlock()
	}
}

// nextWrite returns what to write next, copied to buf if need be, or nil when nothing is
// left. Then a connection that is closing has its writing end closed.
func (c *goroutineConn) nextWrite(buf *[flushSize]byte) []byte {
	c.mu.Lock()
	if c.q == nil || c.gone || c.state > stateAnswered {
		c.stuck = false
		c.mu.Unlock()
		return nil
	}
	if !c.q.empty() {
		p := c.q.single()
		if p == nil {
			p = c.q.gather(buf[:0:chunkSize])
		}
		c.mu.Unlock()
		return p[:min(len(p), chunkSize)]
	}
	c.stuck = false
	c.drained()
	state := c.state
	c.mu.Unlock()
	half, ok := c.nc.(interface{ CloseWrite() error })
	switch {
	case state == stateOpen:
	case state == stateClosing && ok:
		half.CloseWrite()
	default:
		c.nc.Close()
	}
	return nil
}

// write implements link: a net.Conn can't be written to without waiting.
func (c *goroutineConn) write([]byte) (int, error) { return 0, nil }

// await implements link: the writing goroutine waits. There is no other, as the connection
// is not stuck when one has ended.
func (c *goroutineConn) await() { c.t.wg.Go(c.writeAll) }

// unsent implements link: what the socket took counts as sent.
func (c *goroutineConn) unsent() int { return 0 }

// finish implements link: the writing goroutine knows.
func (c *goroutineConn) finish() {}

// kill implements link.
func (c *goroutineConn) kill(last []byte, reset bool) {
	if tcp, ok := c.socket.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	if last == nil || reset {
		c.socket.Close()
		return
	}
	c.t.wg.Go(func() {
		c.nc.SetWriteDeadline(time.Now().Add(time.Second))
		c.nc.Write(last)
		c.socket.Close()
	})
}

// pause implements link: a busy connection is not read anyway.
func (c *goroutineConn) pause() {}

// resume implements link.
func (c *goroutineConn) resume() {}

// run implements link.
func (c *goroutineConn) run(wait func()) {
	if c.work(wait) {
		c.Flush()
	}
}

// wait implements link: the goroutine is the connection's own.
func (c *goroutineConn) wait(f func()) { f() }
