package transport_test

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// TestWaitingHandler has messages that wait among such that do not: they stay in order.
func TestWaitingHandler(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		gate, waiting := make(chan struct{}), make(chan bool, 10)
		s := serve(t, kind, transport.Options{}, func(p *peer, op push.Opcode, data []byte) func() {
			m := message{op, string(data)}
			if strings.HasPrefix(m.text, "wait") {
				return func() {
					waiting <- true
					<-gate
					p.got <- m
				}
			}
			p.got <- m
			return nil
		})
		t.Run("order", func(t *testing.T) {
			c, p := s.dial()
			c.write(text("a") + text("wait") + text("b") + text("wait again") + masked(fin|2, "c"))
			other, q := s.dial()
			other.write(text("not held up"))
			wait(t, q.got, "message of another connection")
			gate <- struct{}{}
			gate <- struct{}{}
			for _, want := range []message{{1, "a"}, {1, "wait"}, {1, "b"}, {1, "wait again"}, {2, "c"}} {
				if got := wait(t, p.got, "message"); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			}
			c.Close()
			p.wantClosed(t, session.CloseAbnormal)
		})
		t.Run("client leaves meanwhile", func(t *testing.T) {
			c, p := s.dial()
			c.write(text("wait") + text("b") + closing(1000, ""))
			if kind == "event" {
				c.wantClose(1000) // answered although the handler waits
			}
			c.Close()
			gate <- struct{}{}
			for _, want := range []string{"wait", "b"} {
				if got := wait(t, p.got, "message"); got.text != want {
					t.Errorf("got %v, want %s", got, want)
				}
			}
			p.wantClosed(t, 1000)
		})
		t.Run("Abort meanwhile", func(t *testing.T) {
			for len(waiting) > 0 { // of the tests before
				<-waiting
			}
			c, p := s.dial()
			c.write(text("a") + text("wait") + text("b"))
			wait(t, p.got, "message")
			wait(t, waiting, "waiting handler")
			p.conn.Abort(session.CloseRevoked)
			c.wantClose(session.CloseRevoked)
			if len(p.closed) != 0 {
				t.Error("Closed was called while the handler waits")
			}
			gate <- struct{}{}
			p.wantClosed(t, session.CloseRevoked)
			wait(t, p.got, "message")
			if len(p.got) != 0 {
				t.Error("a message was handed on after Abort")
			}
		})
	})
}

// TestAnswers has functions queue answers and not flush them.
func TestAnswers(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		opts := transport.Options{QueueBytes: 5000, QueueFrames: 16}
		s := serve(t, kind, opts, func(p *peer, op push.Opcode, data []byte) func() {
			answer := func(text string) {
				if err := p.conn.Queue(push.NewFrame(push.OpText, []byte(text))); err != nil {
					t.Errorf("queue: %v", err)
				}
			}
			m := string(data)
			return func() {
				answer(m)
				switch m {
				case "bytes": // more than the queue takes
					for range 10 {
						answer(strings.Repeat("x", 1000))
					}
				case "frames":
					for range 50 {
						answer("x")
					}
				case "close":
					p.conn.Close(session.CloseNormal, "")
				case "abort":
					p.conn.Abort(session.CloseRevoked)
				}
			}
		})
		c, _ := s.dial()
		c.write(text("a"))
		c.want(push.OpText, "a")
		c.write(text("b") + text("c") + text("d"))
		for _, want := range []string{"b", "c", "d"} {
			c.want(push.OpText, want)
		}
		if kind == "event" { // elsewhere it is a goroutine that may be behind
			c.write(text("bytes") + text("frames"))
			c.want(push.OpText, "bytes")
			for range 10 {
				c.want(push.OpText, strings.Repeat("x", 1000))
			}
			c.want(push.OpText, "frames")
			for range 50 {
				c.want(push.OpText, "x")
			}
			other, p := s.dial()
			other.write(text("abort"))
			other.want(push.OpText, "abort")
			other.wantClose(session.CloseRevoked)
			p.wantClosed(t, session.CloseRevoked)
		}
		c.write(text("close"))
		c.want(push.OpText, "close")
		c.wantClose(session.CloseNormal)
	})
}

// TestInboxPausesReading fills the inbox: the client is not read any more, until it is.
func TestInboxPausesReading(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		gate := make(chan struct{})
		s := serve(t, kind, transport.Options{}, func(p *peer, op push.Opcode, data []byte) func() {
			if len(data) == 4 {
				return func() { <-gate }
			}
			p.got <- message{op, string(data[:8])}
			return nil
		})
		body := strings.Repeat("x", 30_000)
		fill := func(c *client) int { // writes until nothing gets through
			c.tcp.SetWriteBuffer(64 << 10)
			for n := 0; ; n++ {
				c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
				if _, err := io.WriteString(c.Conn, text(fmt.Sprintf("%08d", n)+body)); err != nil {
					return n
				}
				if n > 2000 {
					t.Fatalf("%d messages of 30 KB went through", n)
				}
			}
		}
		t.Run("resumed", func(t *testing.T) {
			c, p := s.dial()
			c.write(text("wait"))
			n := fill(c)
			close(gate)
			for i := range n {
				if got := wait(t, p.got, "message"); got.text != fmt.Sprintf("%08d", i) {
					t.Fatalf("got message %s, want %d", got.text, i)
				}
			}
			gate = make(chan struct{})
			c.Close()
			wait(t, p.closed, "end")
		})
		t.Run("Abort while paused", func(t *testing.T) {
			c, p := s.dial()
			c.write(text("wait"))
			fill(c)
			p.conn.Abort(session.CloseRevoked)
			close(gate)
			p.wantClosed(t, session.CloseRevoked)
			gate = make(chan struct{})
		})
		t.Run("reset while paused", func(t *testing.T) {
			c, p := s.dial()
			c.write(text("wait"))
			fill(c)
			c.reset()
			close(gate)
			p.wantClosed(t, session.CloseAbnormal)
			gate = make(chan struct{})
		})
	})
}

// TestManyWaitingHandlers has more handlers waiting than there are workers.
func TestManyWaitingHandlers(t *testing.T) {
	gate := make(chan struct{})
	s := serve(t, "event", transport.Options{Workers: 4}, func(p *peer, op push.Opcode, data []byte) func() {
		m := message{op, string(data)}
		return func() {
			<-gate
			p.got <- m
		}
	})
	var peers []*peer
	for range 20 {
		c, p := s.dial()
		c.write(text("a") + text("b"))
		peers = append(peers, p)
	}
	close(gate)
	for _, p := range peers {
		wait(t, p.got, "message")
		wait(t, p.got, "message")
	}
}

// TestPanics is R03: a handler that panics costs its own connection.
func TestPanics(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		var log lockedBuilder
		m := stat.New(stat.Options{})
		s := serve(t, kind, transport.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), Metrics: m},
			func(p *peer, op push.Opcode, data []byte) func() {
				switch string(data) {
				case "panic":
					panic("in Receive")
				case "panic later":
					return func() { panic("in wait") }
				case "panic when drained":
					p.conn.(session.Backlog).Drained(func() { panic("in Drained") })
					return nil
				}
				return echo(p, op, data)
			})
		for _, in := range []string{text("panic") + text("behind"), text("panic later") + text("behind"), text("panic when drained")} {
			c, p := s.dial()
			c.write(in)
			c.wantClose(session.CloseInternal)
			p.wantClosed(t, session.CloseInternal)
		}
		c, _ := s.dial()
		c.write(text("alive"))
		c.want(push.OpText, "alive")
		c.Close()
		if got := log.String(); strings.Count(got, "panic contained") != 1 || !strings.Contains(got, "in Receive") || !strings.Contains(got, "receive_test.go") {
			t.Errorf("log does not have the first panic with its stack, once:\n%s", got)
		}
	})
}

type lockedBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuilder) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuilder) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestIncompleteMessages has a client that begins messages and does not go on.
func TestIncompleteMessages(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		t.Run("deadline", func(t *testing.T) {
			s := serve(t, kind, transport.Options{PartialTimeout: 300 * time.Millisecond}, echo)
			c, p := s.dial()
			start := time.Now()
			c.write(text("hello")[:8])
			c.wantClose(session.CloseProtocolError)
			p.wantClosed(t, session.CloseProtocolError)
			if d := time.Since(start); d < 200*time.Millisecond {
				t.Errorf("ended after %v, want 300ms", d)
			}
		})
		t.Run("fragments do not help", func(t *testing.T) {
			s := serve(t, kind, transport.Options{PartialTimeout: 300 * time.Millisecond}, echo)
			c, p := s.dial()
			c.write(masked(1, "a"))
			var wg sync.WaitGroup
			wg.Go(func() {
				ticker := time.NewTicker(50 * time.Millisecond)
				defer ticker.Stop()
				for range ticker.C {
					if _, err := io.WriteString(c.Conn, masked(0, "b")); err != nil {
						return
					}
				}
			})
			c.wantClose(session.CloseProtocolError)
			p.wantClosed(t, session.CloseProtocolError)
			wg.Wait()
		})
		t.Run("cap", func(t *testing.T) {
			m := stat.New(stat.Options{})
			s := serve(t, kind, transport.Options{PartialBytes: 100 << 10, Metrics: m}, echo)
			begin, end := masked(1, strings.Repeat("x", 59_000)), masked(fin, strings.Repeat("x", 1000))
			first, _ := s.dial()
			first.write(begin + masked(fin|9, ""))
			first.want(push.OpPong, "") // it is held
			second, p := s.dial()
			second.write(begin)
			second.wantClose(session.CloseTryLater)
			p.wantClosed(t, session.CloseTryLater)
			first.write(end)
			first.want(push.OpText, strings.Repeat("x", 60_000))
			first.write(masked(fin|9, ""))
			first.want(push.OpPong, "") // it is let go of
			if got := m.Snapshot().Refused[stat.ReasonPartialBytes]; got == 0 {
				t.Error("the refusal is not counted")
			}
			third, _ := s.dial() // the memory has been given back
			third.write(begin + end)
			third.want(push.OpText, strings.Repeat("x", 60_000))
		})
	})
}

// TestDeadlineOfAMessage has a client that is always in the middle of a message, but never of
// one for long, and then idle for longer than a message may take.
func TestDeadlineOfAMessage(t *testing.T) {
	const timeout = 2 * time.Second
	eachAtOnce(t, func(kind string) *server {
		return serve(t, kind, transport.Options{PartialTimeout: timeout}, echo)
	}, func(t *testing.T, kind string, s *server) {
		c, _ := s.dial()
		begun, done := text("hello")[:8], text("hello")[8:]
		ticker := time.NewTicker(timeout / 20)
		defer ticker.Stop()
		c.write(begun)
		for range 25 {
			<-ticker.C
			c.write(done + begun)
			c.want(push.OpText, "hello")
		}
		c.write(done)
		c.want(push.OpText, "hello")
		for range 25 {
			<-ticker.C
		}
		c.write(text("alive"))
		c.want(push.OpText, "alive")
		c.Close()
	})
}

// TestSilentPeers is S02 in short: who does not answer a ping is gone.
func TestSilentPeers(t *testing.T) {
	eachAtOnce(t, func(kind string) *server {
		return serve(t, kind, transport.Options{PingInterval: time.Second, PongTimeout: 2 * time.Second}, nil)
	}, func(t *testing.T, kind string, s *server) {
		silent, p := s.dial()
		lively, q := s.dial()
		for range 3 {
			lively.want(push.OpPing, "")
			lively.write(masked(fin|10, ""))
		}
		silent.want(push.OpPing, "")
		silent.wantClose(session.CloseNoPong)
		p.wantClosed(t, session.CloseNoPong)
		if len(q.closed) != 0 {
			t.Error("the peer that answers is gone too")
		}
	})
}

// TestSilenceOfOurOwnMaking has peers that seem silent because the gateway does not read
// them, or because their ping is stuck behind what they are still reading.
func TestSilenceOfOurOwnMaking(t *testing.T) {
	const interval = time.Second
	gates := make(map[string]chan struct{})
	eachAtOnce(t, func(kind string) *server {
		gate := make(chan struct{})
		gates[kind] = gate
		return serve(t, kind, transport.Options{PingInterval: interval, PongTimeout: interval, WriteTimeout: time.Minute},
			func(p *peer, op push.Opcode, data []byte) func() {
				if len(data) > 10 {
					return func() { <-gate }
				}
				return echo(p, op, data)
			})
	}, func(t *testing.T, kind string, s *server) {
		busy, p := s.dial()
		busy.write(strings.Repeat(text("a long message"), 100)) // pauses reading
		stuck, q := s.dial()
		q.conn.Send(dam)
		wait(t, time.After(3*interval), "timer")
		if len(p.closed)+len(q.closed) != 0 {
			t.Error("a peer was given up although it could not be heard")
		}
		close(gates[kind])
		heard := func(c *client) { // and answers pings, as it has to now
			defer c.Close()
			io.WriteString(c.Conn, text("alive"))
			for op, got := push.Opcode(0), ""; got != "alive"; {
				var err error
				if op, got, err = c.read(); err != nil {
					t.Error(err)
					return
				}
				if op == push.OpPing {
					io.WriteString(c.Conn, masked(fin|10, ""))
				}
			}
		}
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { heard(busy) })
		stuck.wantDam()
		heard(stuck)
	})
}

// TestConcurrentWrites is P19: pushes, replies, pongs and pings at once.
func TestConcurrentWrites(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{PingInterval: 100 * time.Millisecond, PongTimeout: time.Minute}, echo)
		c, p := s.dial()
		const senders, frames = 8, 50 // never more than the 1000 that a queue takes
		var wg sync.WaitGroup
		for i := range senders {
			wg.Go(func() {
				for n := range frames {
					f := push.NewFrame(push.OpText, fmt.Appendf(nil, "%d %d %s", i, n, strings.Repeat("x", 40*n)))
					err := p.conn.Queue(f)
					if n%3 != 0 {
						err = p.conn.Send(push.NewFrame(push.OpPong, nil))
					}
					if err != nil {
						t.Errorf("sender %d, frame %d: %v", i, n, err)
					}
					p.conn.Flush()
				}
			})
		}
		go func() {
			for range frames {
				io.WriteString(c.Conn, masked(fin|9, "ping")+text("echo"))
			}
		}()
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		next := make([]int, senders)
		echoes, pongs := 0, 0
		for total := 0; total < senders*frames || echoes < frames || pongs < frames; {
			op, got, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case op == push.OpPong && got == "ping":
				pongs++
			case op == push.OpPing || op == push.OpPong:
			case got == "echo":
				echoes++
			default:
				var i, n int
				fmt.Sscanf(got, "%d %d", &i, &n)
				if want := fmt.Sprintf("%d %d %s", i, next[i], strings.Repeat("x", 40*next[i])); got != want {
					t.Fatalf("got %s, want %s", printable(got), printable(want))
				}
				next[i]++
				total++
			}
		}
		<-done
		p.conn.Close(1000, "")
		c.wantClose(1000)
	})
}

// TestConcurrentClose is the end of P19: senders go on while the connection is closed. What they
// were told is sent arrives whole and in order, then the close frame, and nothing behind it.
func TestConcurrentClose(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, nil)
		for turn := range 20 {
			c, p := s.dial()
			const senders = 8
			var sent [senders]int
			var wg sync.WaitGroup
			for i := range senders {
				wg.Go(func() {
					for {
						switch err := p.conn.Send(push.NewFrame(push.OpText, fmt.Appendf(nil, "%d %d", i, sent[i]))); err {
						case nil:
							sent[i]++
						case session.ErrSlow: // the client is busy
							runtime.Gosched()
						case session.ErrClosed:
							return
						default:
							t.Errorf("sender %d: %v", i, err)
							return
						}
					}
				})
			}
			var got [senders]int
			for n := 0; ; n++ {
				if n == 10*turn {
					wg.Go(func() { p.conn.Close(4000+session.CloseCode(turn), "enough") })
				}
				op, message, err := c.read()
				if err != nil {
					t.Fatalf("turn %d: %v", turn, err)
				}
				if op == push.OpClose {
					if code := closeCode(message); code != 4000+session.CloseCode(turn) {
						t.Errorf("turn %d: closed with %d", turn, code)
					}
					break
				}
				var i, number int
				fmt.Sscanf(message, "%d %d", &i, &number)
				if number != got[i] {
					t.Fatalf("turn %d: sender %d's frame %d came after %d others", turn, i, number, got[i])
				}
				got[i]++
			}
			wg.Wait()
			if got != sent {
				t.Errorf("turn %d: %v frames came of %v that were accepted", turn, got, sent)
			}
			c.write(closing(4000, ""))
			if rest, err := io.ReadAll(c.br); len(rest) > 0 || err != nil && !isReset(err) {
				t.Errorf("turn %d: behind the close frame: %q, %v", turn, rest, err)
			}
			c.Close()
		}
	})
}
