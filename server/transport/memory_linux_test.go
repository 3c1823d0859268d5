package transport_test

import (
	"net/netip"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
)

// parkedClients is a number of clients that are nothing but file descriptors, so that what
// the process grows by is the server's.
type parkedClients []int

func (cs *parkedClients) dial(t testing.TB, addr string) {
	t.Helper()
	to := netip.MustParseAddrPort(addr)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	*cs = append(*cs, fd)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		t.Fatal(err)
	}
	cs.write(t, len(*cs)-1, handshake+"\r\n")
	if got := cs.read(t, len(*cs)-1, 129); !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.HasSuffix(got, "\r\n\r\n") {
		t.Fatalf("handshake answered with %q", got)
	}
}

func (cs parkedClients) write(t testing.TB, i int, s string) {
	t.Helper()
	if _, err := unix.Write(cs[i], []byte(s)); err != nil {
		t.Fatal(err)
	}
}

// read reads n bytes.
func (cs parkedClients) read(t testing.TB, i, n int) string {
	t.Helper()
	var buf [256]byte
	for got := 0; got < n; {
		m, err := unix.Read(cs[i], buf[got:n])
		if m <= 0 {
			t.Fatalf("client %d: read %d, %v", i, m, err)
		}
		got += m
	}
	return string(buf[:n])
}

func (cs parkedClients) close() {
	for _, fd := range cs {
		unix.Close(fd)
	}
}

// inUse returns the bytes of objects and of goroutine stacks.
func inUse() uint64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// TestMemoryOfIdleConnections holds what a connection costs that has sent and received one
// message and is idle now: objects and stacks, without the session on top.
func TestMemoryOfIdleConnections(t *testing.T) {
	for _, test := range []struct {
		kind   string
		conns  int
		budget int64 // bytes
	}{
		{transport.ModeEvent, 3000, 400},
		{transport.ModeGoroutine, 1000, 7 << 10},
	} {
		t.Run(test.kind, func(t *testing.T) {
			s := serveHandler(t, test.kind, transport.Options{}, newEchoer)
			var clients parkedClients
			defer func() { clients.close() }()
			grow := func(n int) {
				for range n {
					clients.dial(t, s.addr)
					i := len(clients) - 1
					clients.write(t, i, text("hello"))
					if got := clients.read(t, i, 7); got != "\x81\x05hello" {
						t.Fatalf("read %q, want an echo", got)
					}
				}
			}
			grow(100) // tables and pools
			before := inUse()
			grow(test.conns)
			after := inUse()
			each := int64(after-before) / int64(test.conns) // less than 0 if something else went away
			t.Logf("%d bytes per connection", each)
			if each > test.budget {
				t.Errorf("an idle connection takes %d bytes, budget is %d", each, test.budget)
			}
		})
	}
}

// TestMemoryAfterStorm is S05: what connections took is given back when they are gone.
func TestMemoryAfterStorm(t *testing.T) {
	for _, kind := range []string{transport.ModeEvent, transport.ModeGoroutine} {
		t.Run(kind, func(t *testing.T) {
			gone := make(chan bool, 1)
			s := serveHandler(t, kind, transport.Options{}, func(c session.Conn) session.Handler { return mortal{echoer{c}, gone} })
			storm := func(rounds int) {
				for range rounds {
					var clients parkedClients
					for range 100 {
						clients.dial(t, s.addr)
					}
					clients.close()
					for range 100 {
						wait(t, gone, "end")
					}
				}
			}
			storm(3)
			routines := runtime.NumGoroutine()
			// The runtime keeps what as many goroutines as there ever were at once need. A storm
			// may have more of them than any before it, but what leaks does so in every storm.
			var left int64
			for range 10 {
				before := inUse()
				storm(20)
				// A handler is told of the end a moment before the connection's goroutine ends.
				if !eventually(func() bool { return runtime.NumGoroutine() <= routines+10 }) {
					t.Fatalf("2000 connections left %d goroutines", runtime.NumGoroutine()-routines)
				}
				if left = int64(inUse()) - int64(before); left <= 200_000 {
					return
				}
			}
			t.Errorf("each 2000 connections leave %d bytes", left)
		})
	}
}

// A mortal is an echoer that tells of its end.
type mortal struct {
	echoer
	gone chan<- bool
}

func (m mortal) Closed(session.CloseCode) { m.gone <- true }

// TestIdleUsesNoCPU has connections in every state in which an event might be reported again
// and again: a socket that was full, one that is not read and has data, one that is not read
// and whose peer has gone.
func TestIdleUsesNoCPU(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	s := serve(t, transport.ModeEvent, transport.Options{}, func(p *peer, op push.Opcode, data []byte) func() {
		p.got <- message{}
		return func() { <-gate }
	})
	drained, p := s.dial()
	p.conn.Send(dam)
	drained.wantDam()
	for _, end := range []func(*client){func(*client) {}, func(c *client) { c.tcp.CloseWrite() }, (*client).reset} {
		c, p := s.dial()
		c.write(strings.Repeat(text("held"), 50))
		wait(t, p.got, "first message") // the inbox fills with the others
		c.write(text("left unread"))
		end(c)
	}
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	wait(t, time.After(400*time.Millisecond), "timer")
	if d := used() - before; d > 100*time.Millisecond {
		t.Errorf("idle connections took %v of CPU time in 400ms", d)
	}
}

// TestMemoryOfBadLengths is P02: a length from a header alone allocates nothing.
func TestMemoryOfBadLengths(t *testing.T) {
	s := serveHandler(t, "event", transport.Options{}, newEchoer)
	var clients parkedClients
	defer func() { clients.close() }()
	clients.dial(t, s.addr)
	before := inUse()
	for i := range 200 {
		clients.dial(t, s.addr)
		clients.write(t, i+1, "\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04")
		clients.read(t, i+1, 4)
	}
	if after := inUse(); after > before+1<<20 {
		t.Errorf("200 huge lengths took %d bytes", after-before)
	}
}

// TestMemoryOfLargeMessages is P03: 200 clients at once are in the middle of a message at
// its limit, in as many fragments as pass.
func TestMemoryOfLargeMessages(t *testing.T) {
	const limit = 64 << 10
	for name, in := range map[string]string{
		"one frame":      masked(fin|1, strings.Repeat("x", limit))[:limit],
		"many fragments": masked(1, "") + strings.Repeat(masked(0, strings.Repeat("x", 40)), limit/40),
	} {
		t.Run(name, func(t *testing.T) {
			s := serveHandler(t, "event", transport.Options{MaxMessage: limit}, newEchoer)
			var clients parkedClients
			defer func() { clients.close() }()
			clients.dial(t, s.addr)
			before := inUse()
			for i := range 200 {
				clients.dial(t, s.addr)
				clients.write(t, i+1, in+masked(fin|9, "x")[:6])
			}
			clients.write(t, 0, masked(fin|9, "")) // one poller: when it answers, it has read the others
			clients.read(t, 0, 2)
			if each := (inUse() - before) / 200; each > 2*limit {
				t.Errorf("each message takes %d bytes, want less than twice the limit of %d", each, limit)
			} else if each < limit {
				t.Errorf("each message takes %d bytes: they have not been held", each)
			}
		})
	}
}
