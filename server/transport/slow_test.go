package transport_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// dam is a frame larger than any socket takes: behind it, frames queue until the client
// reads.
var dam = push.NewFrame(push.OpText, []byte(strings.Repeat("x", 16<<20)))

// maxFrames is how many frames wait for a connection at most, however small.
const maxFrames = 5000

// number returns a frame of one app with the given messages.
func number(key *push.Key, slow push.SlowPolicy, numbers ...int) *push.Frame {
	f := &push.Frame{Key: key, Slow: slow, Messages: len(numbers)}
	for _, n := range numbers {
		f.Last = len(f.Data)
		f.Data = append(f.Data, push.NewFrame(push.OpText, fmt.Appendf(nil, "%05d", n)).Data...)
	}
	return f
}

// wantNumbers reads these messages, behind the dam.
func (c *client) wantNumbers(from, to int) {
	c.t.Helper()
	for n := from; n <= to; n++ {
		c.want(push.OpText, fmt.Sprintf("%05d", n))
	}
}

func (c *client) wantDam() {
	c.t.Helper()
	if _, got, err := c.read(); err != nil || len(got) != len(dam.Data)-10 {
		c.t.Fatalf("read %d bytes, %v; want the large frame", len(got), err)
	}
}

// TestQueueLimits is the first half of S01: what may wait for a client that does not read.
func TestQueueLimits(t *testing.T) {
	key, other := new(push.Key), new(push.Key)
	each(t, func(t *testing.T, kind string) {
		m := stat.New(stat.Options{})
		s := serve(t, kind, transport.Options{QueueBytes: len(dam.Data) + 1<<20, QueueFrames: maxFrames, Metrics: m}, nil)
		stalled := func(t *testing.T) (*client, *peer) {
			c, p := s.dial()
			c.t = t
			if err := p.conn.Send(dam); err != nil {
				t.Fatal(err)
			}
			return c, p
		}
		t.Run("bytes", func(t *testing.T) {
			c, p := stalled(t)
			big := push.NewFrame(push.OpText, []byte(strings.Repeat("y", 64<<10)))
			n := 0
			var err error
			for ; err == nil; n++ {
				err = p.conn.Send(big)
			}
			if !errors.Is(err, session.ErrSlow) {
				t.Errorf("Send over the limit: %v, want ErrSlow", err)
			}
			c.wantDam() // nothing of what was accepted is lost
			for range n - 1 {
				c.want(push.OpText, strings.Repeat("y", 64<<10))
			}
			p.conn.Close(1000, "")
			c.wantClose(1000)
		})
		t.Run("joined messages", func(t *testing.T) { // frames count, not what is in them
			c, p := stalled(t)
			for n := range 600 {
				if err := p.conn.Send(number(key, push.SlowClose, 2*n, 2*n+1)); err != nil {
					t.Fatalf("Send of frame %d: %v", n, err)
				}
			}
			c.wantDam()
			c.wantNumbers(0, 1199)
			c.Close()
		})
		t.Run("frames", func(t *testing.T) {
			c, p := stalled(t)
			for n := range maxFrames - 1 {
				if err := p.conn.Send(number(key, push.SlowClose, n)); err != nil {
					t.Fatalf("Send of message %d: %v", n, err)
				}
			}
			if err := p.conn.Send(number(key, push.SlowClose, maxFrames-1)); err != session.ErrSlow {
				t.Errorf("Send of one more: %v, want ErrSlow", err)
			}
			p.conn.Abort(session.CloseSlow)
			p.wantClosed(t, session.CloseSlow)
			if _, err := io.Copy(io.Discard, c.br); err == nil || !isReset(err) {
				t.Errorf("client that does not read: %v, want a reset", err)
			}
		})
		t.Run("drop oldest", func(t *testing.T) {
			c, p := stalled(t)
			p.conn.Send(number(other, push.SlowClose, 99999))
			for n := range maxFrames + 500 {
				if err := p.conn.Send(number(key, push.SlowDropOldest, n)); err != nil {
					t.Fatalf("Send of message %d: %v", n, err)
				}
			}
			c.wantDam()
			c.wantNumbers(99999, 99999)
			c.wantNumbers(502, maxFrames+499)
			if got := m.Snapshot().SlowDropped["drop_oldest"]; got != 502 {
				t.Errorf("%d messages counted as dropped, want 502", got)
			}
			c.Close()
		})
		t.Run("drop oldest of nothing", func(t *testing.T) {
			_, p := stalled(t)
			for n := range maxFrames - 1 {
				p.conn.Send(number(other, push.SlowClose, n))
			}
			if err := p.conn.Send(number(key, push.SlowDropOldest, 0)); err != session.ErrSlow {
				t.Errorf("Send when others fill the queue: %v, want ErrSlow", err)
			}
			p.conn.Abort(session.CloseSlow)
		})
		t.Run("latest", func(t *testing.T) {
			c, p := stalled(t)
			for n := 0; n < 300; n += 3 {
				p.conn.Send(number(key, push.SlowLatest, n, n+1, n+2))
				p.conn.Send(number(other, push.SlowClose, 5000+n))
			}
			c.wantDam()
			for n := 0; n < 300; n += 3 {
				if n == 297 {
					c.wantNumbers(299, 299)
				}
				c.wantNumbers(5000+n, 5000+n)
			}
			if got := m.Snapshot().SlowDropped["latest"]; got != 299 {
				t.Errorf("%d messages counted as dropped, want 299", got)
			}
			c.Close()
		})
		t.Run("latest without backlog", func(t *testing.T) {
			c, p := s.dial()
			p.conn.Queue(number(key, push.SlowLatest, 1, 2))
			p.conn.Queue(number(key, push.SlowLatest, 3))
			p.conn.Flush()
			c.wantNumbers(1, 3)
			c.Close()
		})
		t.Run("graceful close", func(t *testing.T) { // behind a full queue
			c, p := stalled(t)
			for n := range maxFrames - 1 {
				p.conn.Queue(number(key, push.SlowClose, n))
			}
			p.conn.Close(session.CloseServiceRestart, "restart")
			c.wantDam()
			c.wantNumbers(0, 998)
			c.wantClose(session.CloseServiceRestart)
			p.wantClosed(t, session.CloseServiceRestart)
		})
	})
}

// An unsent handler sends a frame, the dam and another frame, and tells when the connection has
// ended which of them the socket has not taken.
type unsent struct {
	conn   session.Conn
	frames [3]*push.Frame
	tell   chan<- [3]bool
}

func (u unsent) Receive(push.Opcode, []byte) func() {
	for _, f := range u.frames {
		u.conn.Send(f)
	}
	return nil
}

func (u unsent) Closed(session.CloseCode) {
	var left [3]bool
	for i, f := range u.frames {
		left[i] = u.conn.(session.Backlog).Unsent(f)
	}
	u.tell <- left
}

func TestUnsent(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		told := make(chan [3]bool, 1)
		frames := [3]*push.Frame{push.NewFrame(push.OpText, []byte("first")), dam, push.NewFrame(push.OpText, []byte("last"))}
		s := serveHandler(t, kind, transport.Options{QueueBytes: 2 * len(dam.Data)}, func(c session.Conn) session.Handler {
			return unsent{c, frames, told}
		})
		c := s.connect()
		c.write(handshake + "\r\n")
		if _, err := http.ReadResponse(c.br, nil); err != nil {
			t.Fatal(err)
		}
		c.write(text("go"))
		c.want(push.OpText, "first")
		// A write that comes behind the first frame's: by then it is known what that one did.
		if _, err := io.CopyN(io.Discard, c.br, 256<<10); err != nil {
			t.Fatal(err)
		}
		c.reset()
		if got, want := wait(t, told, "end"), [3]bool{false, true, true}; got != want {
			t.Errorf("unsent: %v, want %v", got, want)
		}
	})
}

// TestStalledReader is the other half of S01: a client that reads nothing goes in time.
func TestStalledReader(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		m := stat.New(stat.Options{})
		s := serve(t, kind, transport.Options{WriteTimeout: 300 * time.Millisecond, Metrics: m}, nil)
		t.Run("open", func(t *testing.T) {
			_, p := s.dial()
			p.conn.Send(dam)
			p.wantClosed(t, session.CloseSlow)
			if got := m.Snapshot().Refused[stat.ReasonWriteTimeout]; got != 1 {
				t.Errorf("counted %d times", got)
			}
		})
		t.Run("closing", func(t *testing.T) {
			_, p := s.dial()
			p.conn.Send(dam)
			p.conn.Close(session.CloseRevoked, "")
			p.wantClosed(t, session.CloseRevoked)
			if got := m.Snapshot().Refused[stat.ReasonWriteTimeout]; got != 1 {
				t.Errorf("counted %d times: it was refused for something else", got)
			}
		})
	})
}

// TestStalledReadersDelayNobody has 200 clients that do not read and one that does. When
// they read on, no byte is missing.
func TestStalledReadersDelayNobody(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		const readers, rounds = 200, 40
		s := serve(t, kind, transport.Options{WriteTimeout: time.Minute}, nil)
		var stalled []*client
		var conns []session.Conn
		for range readers {
			c, p := s.dial()
			c.tcp.SetReadBuffer(16 << 10)
			stalled, conns = append(stalled, c), append(conns, p.conn)
		}
		lively, p := s.dial()
		body := strings.Repeat("x", 8<<10)
		f := push.NewFrame(push.OpText, []byte(body))
		for range rounds {
			for _, c := range conns {
				if err := c.Send(f); err != nil {
					t.Fatal(err)
				}
			}
			p.conn.Send(f)
			lively.want(push.OpText, body)
		}
		var wg sync.WaitGroup
		for _, c := range stalled {
			wg.Go(func() {
				for range rounds {
					if _, got, err := c.read(); err != nil || got != body {
						t.Errorf("after the stall: %d bytes, %v", len(got), err)
						return
					}
				}
			})
		}
		wg.Wait()
		for _, c := range append(stalled, lively) {
			c.Close()
		}
	})
}

// TestSteadyReader reads slowly, but without a pause as long as the write timeout: it stays.
func TestSteadyReader(t *testing.T) {
	s := serve(t, transport.ModeAuto, transport.Options{WriteTimeout: 2 * time.Second}, nil)
	c, p := s.dial()
	c.tcp.SetReadBuffer(16 << 10)
	f := push.NewFrame(push.OpText, []byte(strings.Repeat("x", 512<<10)))
	p.conn.Send(f)
	buf := make([]byte, 16<<10)
	ticker := time.NewTicker(120 * time.Millisecond)
	defer ticker.Stop()
	for rest := len(f.Data); rest > 0; {
		<-ticker.C
		n, err := io.ReadFull(c.br, buf[:min(rest, len(buf))])
		if err != nil {
			t.Fatalf("with %d bytes to go: %v", rest, err)
		}
		rest -= n
	}
	c.Close()
	p.wantClosed(t, session.CloseAbnormal)
}
