package transport

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollers are the goroutines that read the event transport's connections.
type pollers struct {
	list  []*poller
	last  atomic.Uint32
	table table
	wg    sync.WaitGroup
}

// start starts the goroutines. When it fails, none is running.
func (ps *pollers) start(t *Transport) error {
	var list []*poller
	for range t.opts.Pollers {
		p, err := newPoller(t, &ps.table)
		if err != nil {
			for _, p := range list {
				p.file.Close()
			}
			return err
		}
		list = append(list, p)
	}
	ps.list = list
	for _, p := range list {
		ps.wg.Go(p.run)
	}
	return nil
}

// running reports whether there are any.
func (ps *pollers) running() bool { return len(ps.list) > 0 }

// next returns the poller for a new connection.
func (ps *pollers) next() *poller { return ps.list[ps.last.Add(1)%uint32(len(ps.list))] }

// stop ends the goroutines, which must have no connections any more.
func (ps *pollers) stop() {
	for _, p := range ps.list {
		p.stopping.Store(true)
		p.file.SetReadDeadline(time.Unix(1, 0))
	}
	ps.wg.Wait()
}

// A poller reads its connections when bytes arrive, decodes them and calls the handlers,
// all on one goroutine, which therefore must not wait for anything. Its epoll instance is
// itself watched by the Go runtime: waiting for it parks a goroutine, not a thread.
type poller struct {
	t        *Transport
	epoll    int
	file     *os.File // of epoll
	table    *table
	written  *atomic.Int64
	stopping atomic.Bool

	// These belong to the goroutine.
	events  [128]unix.EpollEvent
	scratch [64 << 10]byte
	decoder *decoder
}

// checkInterval is how often a poller looks for events without being woken. It never finds
// any: this is a safety net under the runtime's watching of one epoll instance by another.
const checkInterval = time.Second

func newPoller(t *Transport, table *table) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or os.NewFile leaves it to threads
		unix.Close(fd)
		return nil, fmt.Errorf("epoll instance: %w", err)
	}
	p := &poller{
		t: t, epoll: fd, table: table, written: &t.written,
		file:    os.NewFile(uintptr(fd), "epoll"),
		decoder: newDecoder(t.opts.MaxMessage),
	}
	if err := p.file.SetReadDeadline(time.Now().Add(checkInterval)); err != nil {
		p.file.Close()
		return nil, fmt.Errorf("nested epoll: %w", err)
	}
	return p, nil
}

// run handles events until the poller is stopped. Where it cannot go on it panics: nobody else
// would read its connections, or close them.
func (p *poller) run() {
	defer p.file.Close()
	raw, err := p.file.SyscallConn()
	if err != nil {
		panic("transport: " + err.Error()) // the file is open
	}
	n := 0
	poll := func(fd uintptr) bool { // the runtime may park the goroutine only when there is nothing
		n = p.poll()
		return n > 0
	}
	for {
		err := raw.Read(poll)
		switch {
		case err == nil:
			for i := range p.events[:n] {
				p.handle(&p.events[i])
			}
		case p.stopping.Load():
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.file.SetReadDeadline(time.Now().Add(checkInterval))
			if p.stopping.Load() { // and the deadline may just have been overwritten
				return
			}
		default:
			panic("transport: poll: " + err.Error())
		}
	}
}

// poll fills p.events without waiting and returns their number.
func (p *poller) poll() int {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events)), uintptr(len(p.events)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case syscall.EINTR:
		default:
			panic("transport: epoll_pwait: " + errno.Error())
		}
	}
}

// add makes the poller responsible for c.
func (p *poller) add(c *eventConn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.table.set(c.fd, c)
	c.added = true // before the poller can see it
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, int(c.fd), &unix.EpollEvent{Events: c.interest(), Fd: c.fd}); err != nil {
		return fmt.Errorf("poll connection: %w", err)
	}
	return nil
}

// handle deals with an event.
func (p *poller) handle(e *unix.EpollEvent) {
	c := p.table.get(e.Fd)
	if c == nil {
		return
	}
	if e.Events&unix.EPOLLOUT != 0 {
		c.unblock()
	}
	if e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 && c.isPaused() {
		p.drop(c) // reading on would fill the inbox with what nobody waits for
		return
	}
	if e.Events&^unix.EPOLLOUT != 0 {
		p.read(c)
	} else if c.over {
		p.drop(c)
	}
}

// read reads once; what is left is reported again.
func (p *poller) read(c *eventConn) {
	n, errno := rawReceive(c.fd, p.scratch[:])
	for errno == syscall.EINTR {
		n, errno = rawReceive(c.fd, p.scratch[:])
	}
	if errno == syscall.EAGAIN {
		return
	}
	if errno == 0 && n > 0 {
		c.received(p.scratch[:n], p.decoder)
		if !c.over {
			return
		}
	}
	p.drop(c)
}

// drop closes the socket of c, which ends the connection.
func (p *poller) drop(c *eventConn) {
	c.mu.Lock()
	fd := c.fd
	c.fd = -1
	c.mu.Unlock()
	p.table.set(fd, nil) // first: once closed, the number is another connection's
	unix.Close(int(fd))
	c.ended()
}

func (c *eventConn) isPaused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused
}

// A table finds the connection of a file descriptor. Reading takes no lock.
type table struct {
	mu    sync.Mutex
	slots atomic.Pointer[[]atomic.Pointer[eventConn]] // replaced when it grows; written with mu held
}

func (t *table) get(fd int32) *eventConn {
	slots := t.slots.Load()
	if slots == nil || int(fd) >= len(*slots) {
		return nil
	}
	return (*slots)[fd].Load()
}

// set enters c, or removes the entry if c is nil.
func (t *table) set(fd int32, c *eventConn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slots := t.slots.Load()
	if slots == nil || int(fd) >= len(*slots) {
		larger := make([]atomic.Pointer[eventConn], max(1024, 2*int(fd)))
		if slots != nil {
			for i := range *slots {
				larger[i].Store((*slots)[i].Load())
			}
		}
		slots = &larger
		t.slots.Store(slots)
	}
	(*slots)[fd].Store(c)
}
