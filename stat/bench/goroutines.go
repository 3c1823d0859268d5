package bench

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// goroutines is a reactor with a goroutine per connection: for TLS, and for systems without
// epoll.
type goroutines struct {
	fleet  *fleet
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newGoroutines(f *fleet) *goroutines {
	r := &goroutines{fleet: f}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// open implements [reactor].
func (r *goroutines) open(c *conn) error {
	l := &netLink{awake: make(chan struct{})}
	c.link = l
	r.wg.Go(func() { r.run(c, l) })
	return nil
}

func (r *goroutines) run(c *conn, l *netLink) {
	f := r.fleet
	nc, err := f.target.dial(r.ctx)
	f.mu.Lock()
	if err != nil || c.phase == over {
		c.end(err)
		f.mu.Unlock()
		if nc != nil {
			nc.Close()
		}
		return
	}
	l.conn = nc
	c.connected()
	f.mu.Unlock()
	buf := make([]byte, 4<<10)
	for {
		n, err := nc.Read(buf)
		now := time.Now().UnixNano()
		f.mu.Lock()
		if n > 0 && c.phase != over {
			c.feed(buf[:n], now)
		}
		if err != nil {
			c.end(fmt.Errorf("read: %w", err))
		}
		f.changed.Broadcast()
		gone, asleep := c.phase == over, l.asleep
		f.mu.Unlock()
		if gone {
			return
		}
		if asleep {
			<-l.awake
			return
		}
	}
}

// close implements [reactor].
func (r *goroutines) close() {
	r.cancel()
	r.fleet.mu.Lock()
	for _, c := range r.fleet.conns {
		c.end(nil)
	}
	r.fleet.mu.Unlock()
	r.wg.Wait()
}

// A netLink is a connection of goroutines.
type netLink struct {
	conn   net.Conn // nil while it connects
	asleep bool
	awake  chan struct{} // closed by close
}

// write implements [link]. What is written is small: it fits the kernel's buffer.
func (l *netLink) write(b []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err := l.conn.Write(b)
	return err
}

// stopReading implements [link].
func (l *netLink) stopReading() { l.asleep = true }

// close implements [link].
func (l *netLink) close() {
	close(l.awake)
	if l.conn != nil {
		l.conn.Close()
	}
}
