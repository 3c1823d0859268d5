package stat_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/stat"
)

// watch watches the stream as a viewer on loopback, until ctx is done.
func watch(ctx context.Context, h http.Handler, w http.ResponseWriter) {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/stat/stream", nil)
	r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
	h.ServeHTTP(w, r)
}

// events returns the ids and snapshots of a stream.
func events(t *testing.T, body string) (ids []string, snapshots []stat.Snapshot) {
	t.Helper()
	for event := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		id, data, ok := strings.Cut(event, "\ndata: ")
		var s stat.Snapshot
		if err := json.Unmarshal([]byte(data), &s); err != nil || !ok {
			t.Fatalf("not an event: %q (%v)", event, err)
		}
		ids, snapshots = append(ids, strings.TrimPrefix(id, "id: ")), append(snapshots, s)
	}
	return ids, snapshots
}

func TestStreamIsSharedAndOncePerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		m := stat.New(stat.Options{Node: "a"})
		m.AddSource(func(*stat.Snapshot) { asked.Add(1) })
		h := stat.Handler(t.Context(), stat.HandlerOptions{Metrics: m})
		time.Sleep(300 * time.Millisecond) // not at a full second

		time.Sleep(time.Hour)
		if n := asked.Load(); n != 0 {
			t.Errorf("nobody watches, and %d snapshots were made", n)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		recorders := make([]*httptest.ResponseRecorder, 5)
		var viewers sync.WaitGroup
		for i := range recorders {
			recorders[i] = httptest.NewRecorder()
			viewers.Go(func() { watch(ctx, h, recorders[i]) })
			time.Sleep(50 * time.Millisecond)
		}
		viewers.Wait()
		if n := asked.Load(); n != 11 {
			t.Errorf("5 viewers for 10 s made %d snapshots, want 11: at once, then 10", n)
		}
		for _, w := range recorders {
			if got := w.Header().Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("Content-Type is %q", got)
			}
			ids, snapshots := events(t, w.Body.String())
			if len(ids) != 11 {
				t.Fatalf("a viewer saw %d events, want 11", len(ids))
			}
			for i, s := range snapshots {
				if want := fmt.Sprint(s.Time.Unix()); ids[i] != want || s.Node != "a" {
					t.Errorf("event %s is of %s from node %q", ids[i], want, s.Node)
				}
				if i > 0 && s.Time.Nanosecond() != 0 {
					t.Errorf("event %d is at %v, want a full second", i, s.Time)
				}
			}
		}

		time.Sleep(time.Hour)
		if n := asked.Load(); n != 11 {
			t.Errorf("the viewers have left, and %d more snapshots were made", n-11)
		}
	})
}

func TestStreamBoundsItsViewers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := stat.New(stat.Options{})
		h := stat.Handler(t.Context(), stat.HandlerOptions{Metrics: m, Viewers: 2})
		ctx, cancel := context.WithCancel(t.Context())
		var viewers sync.WaitGroup
		for range 2 {
			viewers.Go(func() { watch(ctx, h, httptest.NewRecorder()) })
		}
		synctest.Wait()

		w := httptest.NewRecorder()
		watch(ctx, h, w)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("the third viewer is answered %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
		}
		if got := m.Snapshot().Refused[stat.ReasonStatViewers]; got != 1 {
			t.Errorf("%d refusals counted, want 1", got)
		}

		cancel()
		viewers.Wait()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		w = httptest.NewRecorder()
		watch(ctx, h, w)
		if w.Code != http.StatusOK {
			t.Errorf("there is room again, and a viewer is answered %d", w.Code)
		}
	})
}

func TestStreamShowsTheBusiestApps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := stat.New(stat.Options{})
		m.AddSource(manyApps(1000))
		m.AddSource(func(s *stat.Snapshot) {
			s.Apps = append(s.Apps, stat.App{Name: "match", Subscriptions: 2}, stat.App{Name: "busy", Subscriptions: 1, Pushes: 3})
		})
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		w := httptest.NewRecorder()
		watch(ctx, stat.Handler(t.Context(), stat.HandlerOptions{Metrics: m}), w)
		_, snapshots := events(t, w.Body.String())
		s := snapshots[0]
		if len(s.Apps) != 101 || s.Subscriptions != 1003 {
			t.Fatalf("an event has %d apps and %d subscriptions, want 100 and the rest, 1003", len(s.Apps), s.Subscriptions)
		}
		names := make(map[string]int)
		for i, a := range s.Apps {
			names[a.Name] = i
			if i > 0 && i < 100 && a.Name < s.Apps[i-1].Name {
				t.Errorf("%q comes after %q", a.Name, s.Apps[i-1].Name)
			}
		}
		for _, name := range []string{"match", "busy"} {
			if _, ok := names[name]; !ok {
				t.Errorf("%s is missing from the busiest", name)
			}
		}
		if rest := s.Apps[100]; rest.Name != stat.Other || rest.Subscriptions != 1000-98 || rest.Pushes != 2*(1000-98) {
			t.Errorf("the rest is %+v", rest)
		}
	})
}

// deadPeer is a viewer whose connection is gone.
type deadPeer struct{ http.ResponseWriter }

func (deadPeer) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestStreamEnds(t *testing.T) {
	t.Run("with a viewer that is gone", func(t *testing.T) {
		watch(t.Context(), stat.Handler(t.Context(), stat.HandlerOptions{}), deadPeer{httptest.NewRecorder()})
	})
	t.Run("with the server", func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		server := httptest.NewServer(stat.Handler(ctx, stat.HandlerOptions{Metrics: stat.New(stat.Options{})}))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/stat/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		w, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		body := bufio.NewReader(w.Body)
		if line, err := body.ReadString('\n'); err != nil || !strings.HasPrefix(line, "id: ") {
			t.Fatalf("the first line is %q, %v", line, err)
		}
		stop()
		server.Close() // waits for the stream
	})
}
