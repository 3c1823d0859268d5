package transport

import (
	"slices"
	"syscall"

	"ws-gateway/session"
)

// groupSize is how many connections SendAll locks at the same time.
const groupSize = 16

var _ session.Group = (*conn)(nil)

// SendAll implements [session.Group].
func (c *conn) SendAll(all []session.Sending) {
	for group := range slices.Chunk(all, groupSize) {
		sendGroup(group)
	}
}

// sendGroup is SendAll for at most groupSize connections. It first reads what it is going to need
// of all of them, before the first lock (see [push.Grouping]), and waits for no lock.
func sendGroup(all []session.Sending) {
	var (
		conns [groupSize]*eventConn // nil: not to be written to
		sent  [groupSize]int
		errs  [groupSize]syscall.Errno
	)
	for i, s := range all {
		if c, ok := s.Conn.(*conn); ok {
			if e, ok := c.link.(*eventConn); ok {
				e.seen.Load()
				e.p.written.Load()
				conns[i] = e
			}
		}
	}
	for i, e := range conns {
		if e == nil {
			continue
		}
		if !e.mu.TryLock() {
			conns[i] = nil
		} else if !e.ready() {
			e.mu.Unlock()
			conns[i] = nil
		}
	}
	for i, e := range conns {
		if e != nil {
			sent[i], errs[i] = rawSend(e.fd, all[i].Frame.Data)
		}
	}
	for i, e := range conns {
		if e == nil {
			continue
		}
		switch n, err := e.result(sent[i], errs[i]); {
		case err != nil:
			e.broken()
		case n < len(all[i].Frame.Data):
			e.q = newQueue()
			e.q.push(all[i].Frame, n)
			e.block()
		}
		e.mu.Unlock()
		all[i].Frame = nil
	}
}
