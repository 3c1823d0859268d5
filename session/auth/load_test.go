package auth_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/auth/authtest"
	"ws-gateway/stat"
)

// A pipe serves HTTP over connections in memory, so that time in a synctest bubble passes
// only while everybody waits.
type pipe struct {
	conns  chan net.Conn
	closed chan struct{}
}

// servePipe starts h; the returned function connects to it.
func servePipe(t *testing.T, h http.HandlerFunc) auth.DialFunc {
	p := &pipe{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(p)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
		time.Sleep(time.Second) // of the bubble: for handlers that notice at their next write
	})
	return p.dial
}

func (p *pipe) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipe) Close() error   { close(p.closed); return nil }
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// pause reads r and waits for d; it reports false when the client left before.
func pause(r *http.Request, d time.Duration) bool {
	io.Copy(io.Discard, r.Body) // net/http only notices a client that leaves once it has been read
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// bubble runs f with a Callback on an endpoint in memory.
func bubble(t *testing.T, endpoint http.HandlerFunc, f func(*testing.T, *auth.Callback, *authtest.Log)) {
	measured(t, endpoint, nil, f)
}

// measured is bubble for a Callback that counts.
func measured(t *testing.T, endpoint http.HandlerFunc, m *stat.Metrics, f func(*testing.T, *auth.Callback, *authtest.Log)) {
	synctest.Test(t, func(t *testing.T) {
		var log authtest.Log
		b := newCallback(t, auth.CallbackOptions{URL: "http://auth.example/", Dial: servePipe(t, endpoint), Logger: log.Logger(), Metrics: m})
		f(t, b, &log)
	})
}

// ask returns the verdict and how long it took.
func ask(t *testing.T, b session.Authenticator) (verdict, time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := authenticate(t, b, 42, "right")
	return verdictOf(err), time.Since(began)
}

func TestA01BreakerOpensAndCloses(t *testing.T) {
	var asked atomic.Int32
	var healthy atomic.Bool
	endpoint := func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if !healthy.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		members(w, r)
	}
	bubble(t, endpoint, func(t *testing.T, b *auth.Callback, log *authtest.Log) {
		for i := range 5 {
			if v, _ := ask(t, b); v != unavailable || asked.Load() != int32(i+1) {
				t.Fatalf("question %d: %s, the endpoint was asked %d times", i+1, v, asked.Load())
			}
		}
		for range 100 {
			if v, took := ask(t, b); v != unavailable || took != 0 {
				t.Fatalf("open: %s after %v, want an answer at once", v, took)
			}
		}
		if n := asked.Load(); n != 5 {
			t.Fatalf("while open the endpoint was asked %d times", n-5)
		}

		// Half open: one question a second, however many clients come.
		for range 10 * 100 {
			time.Sleep(10 * time.Millisecond)
			ask(t, b)
		}
		if n := asked.Load() - 5; n < 8 || n > 10 {
			t.Errorf("in 10 s of trouble the endpoint was asked %d times, want once a second", n)
		}

		healthy.Store(true)
		time.Sleep(time.Second + time.Millisecond)
		for range 3 {
			if v, _ := ask(t, b); v != accepted {
				t.Errorf("after recovery: %s", v)
			}
		}
		if n := strings.Count(log.String(), "cause=open"); n != 1 {
			t.Errorf("%d warnings that clients are turned away, want 1:\n%s", n, log.String())
		}
		if n := strings.Count(log.String(), "cause=status"); n != 1 {
			t.Errorf("A05 %d warnings of one cause in 11 s, want 1:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "answers again") {
			t.Errorf("the recovery is not in the log:\n%s", log.String())
		}
	})
}

// Refusals are answers: an attacker who guesses does not open the breaker for everybody.
func TestA04RefusalsDoNotOpenTheBreaker(t *testing.T) {
	bubble(t, members, func(t *testing.T, b *auth.Callback, _ *authtest.Log) {
		for range 100 {
			if _, err := authenticate(t, b, 42, "wrong"); !errors.Is(err, session.ErrUnauthorized) {
				t.Fatal(err)
			}
		}
		if v, _ := ask(t, b); v != accepted {
			t.Errorf("afterwards: %s", v)
		}
	})
}

func TestA05WarningsOncePerMinuteAndCause(t *testing.T) {
	endpoint := func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	bubble(t, endpoint, func(t *testing.T, b *auth.Callback, log *authtest.Log) {
		for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(1100 * time.Millisecond) {
			ask(t, b)
		}
		if n := strings.Count(log.String(), "cause=status"); n != 5 {
			t.Errorf("%d warnings in 5 minutes, want 5:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "suppressed=5") {
			t.Errorf("the log does not say how many were suppressed:\n%s", log.String())
		}
	})
}

func TestA02TimeoutIsThreeSecondsInAll(t *testing.T) {
	for name, endpoint := range map[string]http.HandlerFunc{
		"silent":    func(w http.ResponseWriter, r *http.Request) { pause(r, time.Hour) },
		"slow body": func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); pause(r, time.Hour) },
		"drips":     func(w http.ResponseWriter, r *http.Request) { drip(w, " ") },
		"2 s + 2 s": func(w http.ResponseWriter, r *http.Request) {
			pause(r, 2*time.Second)
			w.(http.Flusher).Flush()
			pause(r, 2*time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, endpoint, func(t *testing.T, b *auth.Callback, log *authtest.Log) {
				if v, took := ask(t, b); v != unavailable || took != 3*time.Second {
					t.Errorf("%s after %v, want unavailable after 3s", v, took)
				}
				if !strings.Contains(log.String(), "no answer within 3s") {
					t.Errorf("log:\n%s", log.String())
				}
			})
		})
	}
}

// A client that goes away ends its question and is no trouble of the endpoint's.
func TestCallbackClientLeaves(t *testing.T) {
	endpoint := func(w http.ResponseWriter, r *http.Request) {
		if pause(r, time.Second) {
			io.WriteString(w, `{"member_id":42}`)
		}
	}
	bubble(t, endpoint, func(t *testing.T, b *auth.Callback, log *authtest.Log) {
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			began := time.Now()
			_, err := b.Authenticate(ctx, session.Credentials{Member: 42, Token: "right"})
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 500*time.Millisecond {
				t.Fatalf("%v after %v", err, time.Since(began))
			}
		}
		if v, _ := ask(t, b); v != accepted {
			t.Errorf("after 20 clients left: %s", v)
		}
		if log.String() != "" {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// herd has n clients come at once, each with 10 s, and counts the verdicts.
func herd(t *testing.T, b *auth.Callback, n int) map[verdict]int {
	var mu sync.Mutex
	count := make(map[verdict]int)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err := b.Authenticate(ctx, session.Credentials{Member: 42, Token: "right"})
			mu.Lock()
			count[verdictOf(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return count
}

func TestA10Herd(t *testing.T) {
	for _, c := range []struct {
		name     string
		clients  int
		latency  time.Duration
		accepted int // within 10 s
	}{
		{"50 ms", 10_000, 50 * time.Millisecond, 10_000},
		{"500 ms", 5_000, 500 * time.Millisecond, 19 * 128}, // the 20th round ends with the deadline
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked, inFlight, most atomic.Int32
			endpoint := func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				most.Store(max(most.Load(), inFlight.Add(1))) // good enough: they come and stay for long
				defer inFlight.Add(-1)
				pause(r, c.latency)
				io.WriteString(w, `{"member_id":42}`)
			}
			metrics := stat.New(stat.Options{})
			measured(t, endpoint, metrics, func(t *testing.T, b *auth.Callback, log *authtest.Log) {
				go func() { // at the deadline questions replace ones that are given up but not gone
					time.Sleep(10*time.Second - time.Nanosecond)
					if n := most.Load(); n != 128 {
						t.Errorf("%d questions at once, want 128", n)
					}
				}()
				count := herd(t, b, c.clients)
				if n := count[accepted]; n < c.accepted || n > c.accepted+128 {
					t.Errorf("%d accepted, want %d: %v", n, c.accepted, count)
				}
				if count[refusedIt] != 0 {
					t.Errorf("%d refused", count[refusedIt])
				}
				noTurn := int(metrics.Snapshot().Refused[stat.ReasonAuthQueue])
				if n := int(asked.Load()); n+noTurn > c.clients {
					t.Errorf("asked %d times by %d clients, of whom %d had no turn", n, c.clients, noTurn)
				}
				if want := (c.clients - c.accepted) / 2; noTurn < want || want == 0 && noTurn > 0 { // at the deadline some still get one
					t.Errorf("%d clients are counted as having had no turn, want at least %d", noTurn, want)
				}
				if v, _ := ask(t, b); v != accepted {
					t.Errorf("afterwards: %s", v)
				}
				time.Sleep(10 * time.Second)
			})
		})
	}
}

// While the endpoint is silent, a herd costs it what fits into the slots; the rest does not
// wait behind the breaker.
func TestA10HerdMeetsSilence(t *testing.T) {
	var asked atomic.Int32
	endpoint := func(w http.ResponseWriter, r *http.Request) { asked.Add(1); pause(r, time.Hour) }
	bubble(t, endpoint, func(t *testing.T, b *auth.Callback, log *authtest.Log) {
		var late atomic.Int32
		began := time.Now()
		var wg sync.WaitGroup
		for range 2_000 {
			wg.Go(func() {
				if v, _ := ask(t, b); v != unavailable {
					t.Error(v)
				}
				if time.Since(began) > 3*time.Second {
					late.Add(1)
				}
			})
		}
		wg.Wait()
		// The first four troubles each let one more in, the fifth opens the breaker.
		if n := late.Load(); n > 4 {
			t.Errorf("%d of 2 000 waited for longer than the first ones' 3 s", n)
		}
		if n := asked.Load(); n > 128+4 {
			t.Errorf("asked %d times", n)
		}
	})
}
