package bench

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// newReactor returns what reads the connections of f: one thread on epoll, or a goroutine
// each when they are TLS.
func newReactor(f *fleet) reactor {
	if f.target.tls != nil {
		return newGoroutines(f)
	}
	r := &poller{fleet: f, done: make(chan struct{}), buf: make([]byte, 256<<10)}
	r.ep, r.err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if r.err != nil {
		close(r.done)
		return r
	}
	go r.run()
	return r
}

// A poller reads every connection of a fleet in one goroutine.
type poller struct {
	fleet *fleet
	ep    int
	err   error // of epoll_create
	buf   []byte
	done  chan struct{}

	opened int             // guarded by fleet.mu
	conns  map[int32]*conn // by file descriptor; guarded by fleet.mu
	closed bool            // guarded by fleet.mu
}

// open implements [reactor].
func (r *poller) open(c *conn) error {
	if r.err != nil {
		return fmt.Errorf("epoll: %w", r.err)
	}
	to := c.fleet.target.addr
	family, sa := sockaddr(to)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	s := &socket{poller: r, fd: fd}
	c.link = s
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if to.Addr().Is4() && to.Addr().IsLoopback() {
		// One address has some 28 000 ports to connect from.
		from := netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + r.opened%sources)})
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		_, local := sockaddr(netip.AddrPortFrom(from, 0))
		if err := unix.Bind(fd, local); err != nil {
			return fmt.Errorf("bind to %v: %w", from, err)
		}
	}
	r.opened++
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect to %v: %w", to, err)
	}
	if r.conns == nil {
		r.conns = make(map[int32]*conn)
	}
	r.conns[int32(fd)] = c
	ev := unix.EpollEvent{Events: unix.EPOLLOUT, Fd: int32(fd)}
	if err := unix.EpollCtl(r.ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// sources is the number of local addresses that connections to a loopback address come from.
const sources = 8

func sockaddr(a netip.AddrPort) (family int, sa unix.Sockaddr) {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// close implements [reactor].
func (r *poller) close() {
	if r.err != nil {
		return
	}
	r.fleet.mu.Lock()
	r.closed = true
	r.fleet.mu.Unlock()
	<-r.done
}

// run reads until close.
func (r *poller) run() {
	defer close(r.done)
	defer unix.Close(r.ep)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, 512)
	for {
		n, err := unix.EpollWait(r.ep, events, 100)
		if err != nil && err != unix.EINTR {
			n = 0
		}
		f := r.fleet
		f.mu.Lock()
		if r.closed {
			for _, c := range f.conns {
				c.end(nil)
			}
			f.mu.Unlock()
			return
		}
		for i := range max(n, 0) {
			if c := r.conns[events[i].Fd]; c != nil {
				r.handle(c, int(events[i].Fd))
			}
		}
		f.changed.Broadcast()
		f.mu.Unlock()
	}
}

// handle serves one event of c; the fleet's lock is held.
func (r *poller) handle(c *conn, fd int) {
	if c.phase == connecting {
		if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
			c.end(fmt.Errorf("connect to %v: %w", c.fleet.target.addr, errors.Join(err, unix.Errno(code))))
			return
		}
		r.interest(fd, unix.EPOLLIN|unix.EPOLLRDHUP)
		c.connected()
		return
	}
	if c.seat.asleep && c.phase == live { // only errors and ends are waited for
		c.end(io.EOF)
		return
	}
	n, err := unix.Read(fd, r.buf)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
	case err != nil:
		c.end(fmt.Errorf("read: %w", err))
	case n == 0:
		c.end(io.EOF)
	default:
		c.feed(r.buf[:n], time.Now().UnixNano())
	}
}

func (r *poller) interest(fd int, events uint32) {
	unix.EpollCtl(r.ep, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// A socket is a connection of a poller.
type socket struct {
	poller *poller
	fd     int
}

// write implements [link].
func (s *socket) write(b []byte) error {
	n, err := unix.Write(s.fd, b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}

// stopReading implements [link].
func (s *socket) stopReading() { s.poller.interest(s.fd, unix.EPOLLRDHUP) }

// close implements [link].
func (s *socket) close() {
	delete(s.poller.conns, int32(s.fd))
	unix.Close(s.fd)
}
