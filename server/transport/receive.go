package transport

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// A partial is a message of which a part has been received.
type partial struct {
	scanner
	buf []byte
}

// received takes bytes that were read from the socket, in p, which it may overwrite. Only
// the reading goroutine calls it.
func (c *conn) received(p []byte, d *decoder) {
	c.seen.Store(c.t.clock.now())
	c.mu.Lock()
	open := c.state == stateOpen
	c.mu.Unlock()
	if open {
		c.ingest(p, d)
	} else {
		c.release() // what comes behind the end is discarded
	}
}

// ingest hands on what p completes.
func (c *conn) ingest(p []byte, d *decoder) {
	var s scanner
	if c.part != nil {
		c.grow(p)
		if len(c.part.buf) < c.part.need {
			return
		}
		p, s = c.part.buf, c.part.scanner
	}
	found := s.scan(p, c.t.opts.MaxMessage)
	open := true
	if found.messages > 0 {
		err := d.decode(found.data[:found.whole], found.messages, func(op push.Opcode, data []byte) bool {
			open = c.deliver(op, data)
			return open
		})
		if err != nil {
			c.refuse(err)
			open = false
		}
	}
	if found.pongs != nil && open {
		if err := c.Send(&push.Frame{Data: found.pongs}); errors.Is(err, session.ErrSlow) {
			c.Abort(session.CloseSlow)
		}
	}
	rest := found.data[found.whole:]
	switch {
	case !open:
		c.release()
	case found.verdict == unusual:
		c.release()
		c.refuse(d.judge(rest))
	case found.verdict == wasteful:
		c.release()
		c.refuse(errWasteful)
	case len(rest) == 0:
		c.release()
	default:
		c.hold(rest, s, found.whole > 0)
	}
}

// errWasteful says that a message comes in so many pieces that it takes much more than its
// limit on the wire.
var errWasteful = errors.New("transport: message in too many fragments")

// refuse ends the connection because of what was received: err is a decoder's.
func (c *conn) refuse(err error) {
	if errors.Is(err, errWasteful) {
		c.t.opts.Metrics.Refused(stat.ReasonMessageSize)
		c.fail(session.CloseTooLarge, "message in too many fragments")
		return
	}
	code, reason, answer := closeCode(err)
	switch {
	case answer:
		c.close(stateAnswered, code, "")
		return
	case code == session.CloseTooLarge:
		c.t.opts.Metrics.Refused(stat.ReasonMessageSize)
	case code == session.CloseInternal:
		c.t.log.Error("scanner and decoder disagree about a client's frames", "err", err)
	}
	c.fail(code, reason)
}

// hold keeps rest, the beginning of a message, until more comes. fresh says that it is not
// the message that was held before.
func (c *conn) hold(rest []byte, s scanner, fresh bool) {
	part := c.part
	if part == nil {
		part = new(partial)
		c.part = part
		fresh = true
	}
	before := cap(part.buf)
	if before == 0 || fresh && before > 4<<10 {
		part.buf = append([]byte(nil), rest...)
	} else {
		part.buf = append(part.buf[:0], rest...) // not longer than before, and may be the same
	}
	c.account(before)
	part.scanner = s
	if fresh {
		c.since.Store(c.t.clock.now())
		c.mu.Lock()
		c.watch()
		c.mu.Unlock()
	}
}

// grow appends p to the incomplete message.
func (c *conn) grow(p []byte) {
	before := cap(c.part.buf)
	c.part.buf = append(c.part.buf, p...)
	c.account(before)
}

// account notes that the buffer of the incomplete message had the given capacity before it
// changed. When all such buffers together exceed their limit, the connection that wants
// more is the one that ends.
func (c *conn) account(before int) {
	grown := int64(cap(c.part.buf) - before)
	if held := c.t.partial.Add(grown); grown > 0 && held > c.t.opts.PartialBytes {
		c.t.opts.Metrics.Refused(stat.ReasonPartialBytes)
		c.fail(session.CloseTryLater, "too many incomplete messages")
	}
}

// release lets go of the incomplete message, if there is one.
func (c *conn) release() {
	if c.part != nil {
		c.t.partial.Add(-int64(cap(c.part.buf)))
		c.part = nil
		c.since.Store(0)
	}
}

// deliver hands a message to the handler, or to the inbox when that is busy. It reports
// whether the connection takes more.
func (c *conn) deliver(op push.Opcode, data []byte) bool {
	if op == push.OpText && !utf8.Valid(data) {
		c.fail(session.CloseInvalidUTF8, session.CloseInvalidUTF8.Reason())
		return false
	}
	c.mu.Lock()
	if c.state != stateOpen {
		c.mu.Unlock()
		return false
	}
	if c.busy {
		if c.inbox == nil {
			c.inbox = new(inbox)
		}
		c.inbox.add(op, data)
		if c.inbox.full() && !c.paused {
			c.paused = true
			c.link.pause()
		}
		c.mu.Unlock()
		return true
	}
	c.mu.Unlock()
	if wait := c.receive(op, data); wait != nil {
		c.mu.Lock()
		c.busy = true
		c.mu.Unlock()
		c.link.run(wait)
	}
	return true
}

// receive calls the handler. One that panics costs its own connection.
func (c *conn) receive(op push.Opcode, data []byte) (wait func()) {
	if !c.t.contain("session", func() { wait = c.handler.Receive(op, data) }) {
		c.fail(session.CloseInternal, session.CloseInternal.Reason())
		return nil
	}
	return wait
}

// work runs wait, then hands on the messages that have come meanwhile, until there are no
// more. It may wait. It reports whether it leaves answers to be flushed.
func (c *conn) work(wait func()) bool {
	var in inbox
	for {
		if wait != nil && !c.t.contain("session", wait) {
			c.fail(session.CloseInternal, session.CloseInternal.Reason())
		}
		more, answered := c.refill(&in)
		if !more {
			return answered
		}
		wait = c.receive(in.next())
	}
}

// refill fills in from the connection's inbox if it is empty, and reports whether there is a
// message in it. When there is none, the connection is its reader's again; if it has ended
// meanwhile, the handler is told; and answered says whether there are answers to be flushed.
func (c *conn) refill(in *inbox) (more, answered bool) {
	c.mu.Lock()
	if c.state.local() {
		*in, c.inbox = inbox{}, nil
	}
	if len(in.data) == 0 && c.inbox != nil {
		*in, c.inbox = *c.inbox, nil
		c.flush()
	}
	if len(in.data) > 0 {
		c.mu.Unlock()
		return true, false
	}
	c.busy = false
	if c.paused {
		c.paused = false
		c.link.resume()
	}
	gone := c.gone
	answered = c.q != nil && !c.stuck
	c.mu.Unlock()
	if gone {
		c.tell()
	}
	return false, answered
}

const (
	inboxMessages = 32
	inboxBytes    = 256 << 10
)

// An inbox holds the messages that arrive while the handler waits. When it is full, the
// connection is not read any more; it exceeds its limits only by what the last read brought.
type inbox struct {
	messages int
	data     []byte // of each message: opcode, length in 4 bytes, payload
}

func (in *inbox) add(op push.Opcode, data []byte) {
	in.messages++
	in.data = binary.LittleEndian.AppendUint32(append(in.data, byte(op)), uint32(len(data)))
	in.data = append(in.data, data...)
}

func (in *inbox) full() bool { return in.messages >= inboxMessages || len(in.data) >= inboxBytes }

// next removes the first message.
func (in *inbox) next() (op push.Opcode, data []byte) {
	op, end := push.Opcode(in.data[0]), 5+binary.LittleEndian.Uint32(in.data[1:])
	data = in.data[5:end]
	in.data = in.data[end:]
	return op, data
}
