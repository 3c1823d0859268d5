package stat

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	defaultViewers = 16
	streamApps     = 100             // apps in one event; the rest is added up
	streamPatience = 5 * time.Second // for a viewer that does not read
)

// stream shows a snapshot each second, at the full second, to all who watch. The first of
// them to wake up makes it; when nobody watches, nobody does.
type stream struct {
	done    <-chan struct{} // ends all streams
	metrics *Metrics
	max     int // viewers

	mu      sync.Mutex
	viewers int       // guarded by mu
	second  time.Time // that event shows; guarded by mu
	event   []byte    // guarded by mu; the bytes are never changed
}

func newStream(ctx context.Context, m *Metrics, viewers int) *stream {
	if viewers == 0 {
		viewers = defaultViewers
	}
	return &stream{done: ctx.Done(), metrics: m, max: viewers}
}

// ServeHTTP sends server-sent events (WHATWG HTML, section 9.2) whose data is a [Snapshot]
// with at most streamApps apps and one called [Other] for the rest.
func (s *stream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		s.metrics.Refused(ReasonStatViewers)
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "too many viewers")
		return
	}
	defer s.leave()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	wake := time.NewTimer(0)
	defer wake.Stop()
	var shown time.Time
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		case <-wake.C:
		}
		now := time.Now()
		second, event := s.current(now)
		wake.Reset(second.Add(time.Second).Sub(now))
		if second.Equal(shown) {
			continue // the wall clock is slower than the timer
		}
		shown = second
		// Only recorders of tests have no deadline; for them it does not matter.
		_ = control.SetWriteDeadline(now.Add(streamPatience))
		if _, err := w.Write(event); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
	}
}

// enter reports whether there is room for one more viewer.
func (s *stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.viewers == s.max {
		return false
	}
	s.viewers++
	return true
}

func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewers--
	if s.viewers == 0 {
		s.event, s.second = nil, time.Time{}
	}
}

// current returns the event of the second that now is in.
func (s *stream) current(now time.Time) (time.Time, []byte) {
	second := now.Truncate(time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !second.Equal(s.second) {
		snapshot := s.metrics.Snapshot()
		snapshot.limit(streamApps)
		data, err := json.Marshal(snapshot)
		if err != nil {
			panic(err) // a Snapshot is plain data
		}
		s.second, s.event = second, fmt.Appendf(nil, "id: %d\ndata: %s\n\n", second.Unix(), data)
	}
	return s.second, s.event
}
