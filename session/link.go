package session

import (
	"bytes"
	"context"
	"errors"
	"runtime/debug"
	"sync"

	"ws-gateway/push"
)

const (
	maxLinkInbox = 256 << 10 // bytes of frames that wait; beyond it the backend is not read
	maxLinkFrame = 32 << 10  // bytes of answers that are sent together, or a little more
)

// A Link is a backend's connection for pushing. It is no session: nothing is pushed to it. Its
// frames are handled one after another away from the transport's goroutine; while they are,
// others pile up, and the answers to those that came together leave together.
type Link struct {
	conn    Conn
	gateway *Gateway
	push    *push.Link

	mu      sync.Mutex
	room    sync.Cond // broadcast when inbox is taken, or nothing more will be
	inbox   [][]byte  // guarded by mu
	size    int       // bytes of inbox; guarded by mu
	busy    bool      // work is running, or has panicked; guarded by mu
	leaving bool      // Leave was called: what is in inbox is not answered, nor done; guarded by mu
	gone    bool      // Closed was called, or work has panicked: as leaving; guarded by mu

	published chan struct{} // closed when work has ended for good; what Leave returns
}

var (
	_ Handler = (*Link)(nil)
	_ Backend = (*Link)(nil)
)

// OpenLink starts a backend's link on a new connection.
func (g *Gateway) OpenLink(c Conn, p *push.Link) *Link {
	l := &Link{conn: c, gateway: g, push: p, published: make(chan struct{})}
	l.room.L = &l.mu
	g.AddBackend(l)
	return l
}

// Receive implements [Handler].
func (l *Link) Receive(op push.Opcode, data []byte) (wait func()) {
	if op != push.OpText {
		l.conn.Close(CloseUnsupported, CloseUnsupported.Reason())
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaving {
		return nil
	}
	l.inbox = append(l.inbox, bytes.Clone(data))
	l.size += len(data)
	if !l.busy {
		l.busy = true
		go l.work()
	}
	if l.size > maxLinkInbox {
		return func() { waiting(l.conn, l.awaitRoom) }
	}
	return nil
}

// awaitRoom returns once there is room for more frames.
func (l *Link) awaitRoom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.size > maxLinkInbox && !l.gone {
		l.room.Wait()
	}
}

// work handles frames until there are none.
func (l *Link) work() {
	defer func() {
		if err := recover(); err != nil {
			l.gateway.opts.Metrics.Panic("link")
			l.gateway.opts.Logger.Error("panic contained", "where", "link", "err", err, "stack", string(debug.Stack()))
			l.mu.Lock()
			l.gone = true
			l.room.Broadcast()
			l.mu.Unlock()
			close(l.published)
			l.conn.Abort(CloseInternal)
			l.gateway.RemoveBackend(l)
		}
	}()
	for {
		l.mu.Lock()
		frames := l.inbox
		l.inbox, l.size = nil, 0
		l.room.Broadcast()
		if len(frames) == 0 || l.leaving || l.gone {
			l.busy = false
			leaving, gone := l.leaving, l.gone
			l.mu.Unlock()
			if leaving {
				l.left()
			}
			if gone {
				l.gateway.RemoveBackend(l)
			}
			return
		}
		l.mu.Unlock()
		l.handle(frames)
	}
}

// Leave implements [Backend]. What was not begun is left for the backend to send again elsewhere,
// where nobody knows its keys for idempotency.
func (l *Link) Leave() (done <-chan struct{}) {
	l.mu.Lock()
	l.leaving = true
	busy := l.busy
	l.mu.Unlock()
	if !busy {
		l.left()
	}
	return l.published
}

// left ends a link that is leaving, once it does nothing more.
func (l *Link) left() {
	close(l.published)
	l.conn.Close(CloseServiceRestart, CloseServiceRestart.Reason())
}

func (l *Link) isLeaving() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving
}

// handle answers frames, or those up to the one at which the link leaves.
func (l *Link) handle(frames [][]byte) {
	var out []byte
	for i, data := range frames {
		answer := l.push.Receive(context.Background(), data)
		out = append(push.AppendHeader(out, push.OpText, len(answer)), answer...)
		last := i == len(frames)-1 || l.isLeaving()
		if len(out) < maxLinkFrame && !last {
			continue
		}
		switch err := l.conn.Send(&push.Frame{Data: out}); {
		case errors.Is(err, ErrSlow):
			l.conn.Abort(CloseSlow)
			return
		case err != nil:
			return
		}
		out = nil // the frame has it
		if last {
			return
		}
	}
}

// Closed implements [Handler].
func (l *Link) Closed(code CloseCode) {
	l.mu.Lock()
	l.gone = true
	l.room.Broadcast()
	busy := l.busy
	l.mu.Unlock()
	if !busy {
		l.gateway.RemoveBackend(l)
	}
	l.gateway.opts.Logger.Debug("link closed", "remote", l.conn.Remote(), "code", int(code), "reason", code.Reason())
}
