package stat_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"ws-gateway/stat"
)

// watchTail watches GET /stat/tail?query as a viewer on loopback, until ctx is done.
func watchTail(ctx context.Context, h http.Handler, w http.ResponseWriter, query string) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/stat/tail?"+query, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
	h.ServeHTTP(w, r)
}

// tailed returns the events in the body of a stream.
func tailed(t *testing.T, body string) (events []stat.Event) {
	t.Helper()
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var e stat.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatalf("not an event: %q (%v)", data, err)
		}
		events = append(events, e)
	}
	return events
}

// A stalled viewer reads nothing until it is let go.
type stalled struct {
	*httptest.ResponseRecorder
	letGo chan struct{}
}

func (s stalled) Write(p []byte) (int, error) {
	<-s.letGo
	return s.ResponseRecorder.Write(p)
}

func TestTailDropsAndSaysHowMany(t *testing.T) {
	for _, c := range []struct {
		name, query, text string
		all, shown        int
	}{
		{"events", "", "x", 1100, 1024},
		{"texts", "payload=true", strings.Repeat("x", 64<<10), 40, 16},
		{"texts that nobody asked for", "", strings.Repeat("x", 64<<10), 1100, 1024},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tail := new(stat.Tail)
				h := stat.Handler(t.Context(), stat.HandlerOptions{Tail: tail})
				ctx, cancel := context.WithCancel(t.Context())
				slow, quick := stalled{httptest.NewRecorder(), make(chan struct{})}, httptest.NewRecorder()
				var viewers sync.WaitGroup
				viewers.Go(func() { watchTail(ctx, h, slow, c.query) })
				viewers.Go(func() { watchTail(ctx, h, quick, c.query) })
				synctest.Wait()
				for i := range c.all {
					text := c.text
					if i == c.all-1 {
						text = "" // would fit, but not behind those that were dropped
					}
					tail.Event(stat.Event{Kind: stat.EventPush, App: "match", Offset: uint64(i + 1), Text: text})
					synctest.Wait() // the quick one has it
				}
				close(slow.letGo)
				synctest.Wait()
				tail.Event(stat.Event{Kind: stat.EventPush, App: "match", Offset: uint64(c.all + 1)})
				synctest.Wait()
				cancel()
				viewers.Wait()

				events := tailed(t, slow.Body.String())
				if len(events) != c.shown+2 {
					t.Fatalf("a viewer that stalled saw %d events, want %d, how many were dropped, and one more", len(events), c.shown)
				}
				for i, e := range events[:c.shown] {
					if e.Offset != uint64(i+1) {
						t.Fatalf("event %d has offset %d", i, e.Offset)
					}
				}
				if e := events[c.shown]; e.Kind != stat.EventDropped || e.Dropped != uint64(c.all-c.shown) || e.Time.IsZero() {
					t.Errorf("then it saw %+v, want that %d were dropped", e, c.all-c.shown)
				}
				if e := events[c.shown+1]; e.Offset != uint64(c.all+1) {
					t.Errorf("at last it saw %+v", e)
				}
				if n := len(tailed(t, quick.Body.String())); n != c.all+1 {
					t.Errorf("another viewer saw %d events, want all %d", n, c.all+1)
				}
			})
		})
	}
}

func TestTailIsActiveWhileSomebodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tail, metrics := new(stat.Tail), stat.New(stat.Options{})
		h := stat.Handler(t.Context(), stat.HandlerOptions{Tail: tail, Metrics: metrics, Viewers: 2})
		active := func(want bool) {
			t.Helper()
			if tail.Active() != want {
				t.Errorf("Active is %t, want %t", !want, want)
			}
		}
		active(false)
		tail.Event(stat.Event{Kind: stat.EventPush}) // for nobody
		var cancels []context.CancelFunc
		var viewers sync.WaitGroup
		for range 2 {
			ctx, cancel := context.WithCancel(t.Context())
			cancels = append(cancels, cancel)
			viewers.Go(func() { watchTail(ctx, h, httptest.NewRecorder(), "") })
		}
		synctest.Wait()
		active(true)
		w := httptest.NewRecorder()
		watchTail(t.Context(), h, w, "")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("the third viewer is answered %d", w.Code)
		}
		if got := metrics.Snapshot().Refused[stat.ReasonStatViewers]; got != 1 {
			t.Errorf("%d refusals counted, want 1", got)
		}
		cancels[0]()
		synctest.Wait()
		active(true)
		cancels[1]()
		viewers.Wait()
		active(false)
	})
	if (*stat.Tail)(nil).Active() {
		t.Error("a nil Tail is active")
	}
	(*stat.Tail)(nil).Event(stat.Event{})
}

func TestTailBeatsForThoseWhoHaveNothingToSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := stat.Handler(t.Context(), stat.HandlerOptions{Tail: new(stat.Tail)})
		watchTail(t.Context(), h, deadPeer{httptest.NewRecorder()}, "") // is noticed at once
		gone := &dies{ResponseRecorder: httptest.NewRecorder(), after: 3}
		watchTail(t.Context(), h, gone, "") // and this one by a beat
		if got := gone.Body.String(); !strings.HasSuffix(got, "\n\n:\n\n:\n\n") {
			t.Errorf("wrote %q", got)
		}
	})
}

// dies is a viewer whose connection takes only so many writes.
type dies struct {
	*httptest.ResponseRecorder
	after int
}

func (d *dies) Write(p []byte) (int, error) {
	if d.after--; d.after < 0 {
		return 0, http.ErrHandlerTimeout
	}
	return d.ResponseRecorder.Write(p)
}

func TestTailRefusesWhatItDoesNotUnderstand(t *testing.T) {
	h := stat.Handler(t.Context(), stat.HandlerOptions{Tail: new(stat.Tail)})
	for _, query := range []string{
		"member=", "member=x", "member=-2", "member=1.5", "app=", "session=-1", "session=0", "payload=maybe",
		"member=1&member=2", "members=1", "%zz",
	} {
		w := httptest.NewRecorder()
		watchTail(t.Context(), h, w, query)
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s is answered %d %s", query, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	watchTail(t.Context(), stat.Handler(t.Context(), stat.HandlerOptions{}), w, "")
	if w.Code != http.StatusNotFound {
		t.Errorf("without a Tail it is answered %d", w.Code)
	}
	r := httptest.NewRequest(http.MethodGet, "/stat/tail", nil)
	r.RemoteAddr, r.Host = "192.0.2.1:1", "localhost"
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("a stranger is answered %d", w.Code)
	}
}

func BenchmarkTail(b *testing.B) {
	remote := netip.MustParseAddr("127.0.0.1")
	run := func(b *testing.B, tail *stat.Tail) {
		b.ReportAllocs()
		for b.Loop() {
			if tail.Active() {
				tail.Event(stat.Event{Kind: stat.EventCommand, Session: 7, Member: 42, Remote: remote, App: "match"})
			}
		}
	}
	b.Run("watched=no", func(b *testing.B) { run(b, new(stat.Tail)) })
	for _, query := range []string{"member=7", "member=42"} {
		b.Run("watched="+strings.Replace(query, "=", ":", 1), func(b *testing.B) {
			tail := new(stat.Tail)
			ctx, cancel := context.WithCancel(b.Context())
			h := stat.Handler(b.Context(), stat.HandlerOptions{Tail: tail})
			var viewer sync.WaitGroup
			watching := make(chan struct{})
			viewer.Go(func() { watchTail(ctx, h, &signals{discard{http.Header{}}, watching}, query) })
			<-watching
			run(b, tail)
			cancel()
			viewer.Wait()
		})
	}
}

type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}
func (discard) Flush()                      {}

// signals closes watching at the first write.
type signals struct {
	discard
	watching chan struct{}
}

func (s *signals) Write(p []byte) (int, error) {
	if s.watching != nil {
		close(s.watching)
		s.watching = nil
	}
	return len(p), nil
}
