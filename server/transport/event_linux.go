package transport

import (
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"ws-gateway/session"
)

// An eventConn is a conn over a socket that a poller watches. The socket is not known to
// the Go runtime, so an idle connection needs nothing but this struct.
//
// Who may use the file descriptor: until the poller has it, the goroutine of the handshake,
// which also closes it if something goes wrong. From then on only the poller's goroutine
// reads and closes. Every other use is made with mu held and checks that fd is not -1. So
// an event can't be about another connection that got the same number.
type eventConn struct {
	conn
	p     *poller
	fd    int32 // -1 once closed; guarded by mu, but the poller, who closes it, reads it freely
	added bool  // the poller has it; guarded by mu
	armed bool  // the poller waits for the socket to take bytes; guarded by mu
	over  bool  // the closing handshake is complete; belongs to the poller
}

var _ link = (*eventConn)(nil)

// openEvent gives tcp to the event transport.
func (t *Transport) openEvent(tcp *net.TCPConn, remote netip.Addr, open func(session.Conn) session.Handler) error {
	fd, err := takeDescriptor(tcp)
	if err != nil {
		return err
	}
	// The kernel gives up on a peer that acknowledges nothing when the heartbeat does; but
	// not before the write timeout, as it counts a peer that just does not read as well.
	unacknowledged := max(t.opts.PingInterval+t.opts.PongTimeout, t.opts.WriteTimeout)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unacknowledged.Milliseconds()))
	c := &eventConn{p: t.pollers.next(), fd: int32(fd)}
	if err := t.enlist(&c.conn, c, ModeEvent, remote); err != nil {
		unix.Close(fd)
		return err
	}
	if err = c.open(open); err == nil {
		err = c.p.add(c)
	}
	if err != nil {
		c.p.drop(c)
	}
	return err
}

// takeDescriptor returns the socket of tcp under a number that the Go runtime does not
// know, and closes tcp.
func takeDescriptor(tcp *net.TCPConn) (fd int, err error) {
	defer tcp.Close()
	raw, err := tcp.SyscallConn()
	if err != nil {
		return -1, err
	}
	if e := raw.Control(func(old uintptr) {
		fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); e != nil {
		return -1, e
	}
	return fd, err
}

// write implements link.
func (c *eventConn) write(p []byte) (int, error) { return c.result(rawSend(c.fd, p)) }

// result is what rawSend returned, as write returns it.
func (c *eventConn) result(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		c.p.written.Add(int64(n))
		return n, nil
	case syscall.EAGAIN, syscall.EINTR: // whoever awaits it is told at once
		return 0, nil
	}
	return 0, errno
}

// await implements link.
func (c *eventConn) await() {
	if !c.armed {
		c.armed = true
		c.watchEvents()
	}
}

// unblock is called by the poller when the socket takes bytes again.
func (c *eventConn) unblock() {
	c.writable()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.armed && !c.stuck {
		c.armed = false
		c.watchEvents()
	}
}

// unsent implements link.
func (c *eventConn) unsent() int {
	if c.fd < 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(int(c.fd), unix.TIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// finish implements link. A close frame of the peer's is answered by the poller only, so
// it is its goroutine that sets over.
func (c *eventConn) finish() {
	if c.state == stateAnswered {
		c.over = true
	} else if c.fd >= 0 {
		unix.Shutdown(int(c.fd), unix.SHUT_WR)
	}
}

// kill implements link. The shutdown makes the poller read the end of the stream.
func (c *eventConn) kill(last []byte, reset bool) {
	if c.fd < 0 {
		return
	}
	if reset {
		unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	} else if last != nil {
		c.write(last) // may be cut short: nothing comes behind it
	}
	unix.Shutdown(int(c.fd), unix.SHUT_RDWR)
}

// pause implements link.
func (c *eventConn) pause() { c.watchEvents() }

// resume implements link.
func (c *eventConn) resume() { c.watchEvents() }

// run implements link.
func (c *eventConn) run(wait func()) { c.t.workers.run(task{wait, &c.conn}) }

// wait implements link.
func (c *eventConn) wait(f func()) { c.t.workers.wait(f) }

// interest returns the events that the poller is to report; those about the end of a
// connection are always reported. The caller holds mu.
func (c *eventConn) interest() (events uint32) {
	if !c.paused {
		events = unix.EPOLLIN | unix.EPOLLRDHUP
	}
	if c.armed {
		events |= unix.EPOLLOUT
	}
	return events
}

// watchEvents tells the kernel about a changed interest. The caller holds mu.
func (c *eventConn) watchEvents() {
	if c.added && c.fd >= 0 {
		unix.EpollCtl(c.p.epoll, unix.EPOLL_CTL_MOD, int(c.fd), &unix.EpollEvent{Events: c.interest(), Fd: c.fd})
	}
}

// rawSend and rawReceive bypass the scheduler, which costs a tenth of a send: these calls
// never wait.

func rawSend(fd int32, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	return int(n), errno
}

func rawReceive(fd int32, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}
