package session

import (
	"context"

	"ws-gateway/push"
)

// A catchUp sends a new subscription what it missed, part by part as the client takes it, and
// then lets live messages follow. One goroutine at a time runs it.
type catchUp struct {
	session  *Session
	sub      *push.Subscription
	encoding *push.Encoding
	missed   push.Range  // that has not been read yet
	part     push.Replay // read, not sent
	newer    bool        // the client was promised nothing up to missed.Upto: what the log has is good enough
	resumed  bool        // for the metrics
	sent     int
}

// small is the size of a frame that is worth a wait for the next.
const small = 2 << 10

// resume makes c begin after a position that a client has, and reports whether the log can
// prove that nothing in between is lost. If not, it begins nowhere.
func (c *catchUp) resume(after push.Position) (recovered bool) {
	top := c.missed.After
	c.missed.After = after
	recovered = c.read() && c.part.Complete
	if c.resumed = recovered; !recovered {
		c.session.gateway.opts.Metrics.Resumed(false, 0)
		c.missed.After, c.part = top, push.Replay{}
	}
	return recovered
}

// newest makes c begin before the last n messages.
func (c *catchUp) newest(n int) {
	at, err := c.session.gateway.opts.Hub.Newest(context.Background(), c.missed, n)
	if err != nil {
		c.session.gateway.opts.Logger.Warn("read log", "app", c.missed.App, "err", err)
		return
	}
	c.newer, c.missed.After = true, at
	if !c.read() {
		c.part = push.Replay{}
	}
}

// read reads the next part.
func (c *catchUp) read() bool {
	part, err := c.session.gateway.opts.Hub.Replay(context.Background(), c.missed, c.encoding)
	if err != nil {
		c.session.gateway.opts.Logger.Warn("read log", "app", c.missed.App, "err", err)
		return false
	}
	c.part = part
	return true
}

// run sends the part that was read, and the others when the client has taken it.
func (c *catchUp) run() {
	s := c.session
	for {
		for _, f := range c.part.Frames {
			if len(f.Data) > small { // an empty queue takes a frame of any size
				s.Flush()
			}
			if !c.sub.Queue(f) {
				c.end()
				return
			}
		}
		s.Flush()
		c.sent += c.part.Messages
		if c.part.More {
			c.missed.After.Offset = c.part.End
		} else {
			upto, ok := c.sub.Start()
			if ok {
				c.end()
				return
			}
			c.missed.After, c.missed.Upto, c.newer = push.Position{Epoch: upto.Epoch, Offset: c.missed.Upto}, upto.Offset, false
		}
		if b, ok := s.conn.(Backlog); ok {
			b.Drained(func() {
				if c.next() {
					c.run()
				}
			})
			return
		}
		if !c.next() {
			return
		}
	}
}

// next reads the next part. What the client was promised and the log no longer has ends the
// session: it can come back and be told.
func (c *catchUp) next() bool {
	if c.read() && (c.part.Complete || c.newer) {
		return true
	}
	c.end()
	c.session.Close(CloseInsufficientState)
	return false
}

func (c *catchUp) end() {
	if c.resumed {
		c.session.gateway.opts.Metrics.Resumed(true, c.sent)
	}
}
