package push_test

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/stat"
)

// A laggard is a subscriber who says whether it keeps up.
type laggard struct {
	inbox
	lags atomic.Bool
}

func (l *laggard) Lagging() bool { return l.lags.Load() }

// U05: what most subscribers of an app can't take is refused; what few can't take is theirs
// to bear.
func TestU05PublishersAreHeldBackByTheCrowd(t *testing.T) {
	for _, c := range []struct {
		name          string
		subs, lagging int
		refused       bool
	}{
		{"nobody lags", 32, 0, false},
		{"a few lag", 32, 10, false},
		{"most lag", 32, 30, true},
		{"a small app", 4, 4, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := with(t, "apps: {}", func(o *push.Options) { o.Shards, o.MaxQueueTime = 1, 250*time.Millisecond })
				app, _ := h.Lookup("match")
				subs := make([]*laggard, c.subs)
				for i := range subs {
					subs[i] = new(laggard)
					subs[i].lags.Store(i < c.lagging)
					s, _ := h.Subscribe(app, subs[i], push.SubscribeOptions{Member: -1, Encoding: plain})
					s.Start()
				}
				m := push.Message{App: "match", Member: -1, Text: "x"}
				attempt := func() error {
					_, err := h.Publish(t.Context(), m)
					h.Flush()
					return err
				}
				if err := attempt(); err != nil { // the pass after it finds them lagging
					t.Fatal(err)
				}
				time.Sleep(250 * time.Millisecond)
				if err := attempt(); err != nil {
					t.Errorf("refused after just the time that is allowed: %v", err)
				}
				time.Sleep(time.Millisecond)
				err := attempt()
				var refused *push.RefusedError
				if got := errors.As(err, &refused); got != c.refused || got && (refused.Status != http.StatusTooManyRequests || refused.RetryAfter <= 0) {
					t.Errorf("got %v, want refused: %v", err, c.refused)
				}
				if _, err := h.Publish(t.Context(), push.Message{App: "other", Member: -1, Text: "x"}); err != nil {
					t.Errorf("another app: %v", err)
				}
				for _, s := range subs {
					s.lags.Store(false)
				}
				if err := attempt(); err != nil {
					t.Errorf("after they caught up: %v", err)
				}
			})
		})
	}
}

// The wall clock was set ahead since the log began, which goes on by the old one: that is no
// time for which a message waits.
func TestSetClockIsNoWait(t *testing.T) {
	l := log.NewMemory(log.Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	t.Cleanup(l.Close)
	metrics := stat.New(stat.Options{})
	h := with(t, "apps: {}", func(o *push.Options) {
		o.Log, o.Metrics, o.Shards, o.MaxQueueTime = l, metrics, 1, 10*time.Minute
	})
	s, r := subscribe(t, h, "match", -1, 0)
	s.Start()
	r.wait, r.in = make(chan struct{}), make(chan struct{}, 3)
	var first sync.WaitGroup
	pass := sync.OnceFunc(func() {
		close(r.wait)
		first.Wait()
	})
	defer pass() // or the hub could not close when a push is refused
	first.Go(func() { publish(t, h, "match", -1, "a") })
	<-r.in // the pass has begun, and what comes now waits
	publish(t, h, "match", -1, "b")
	publish(t, h, "match", -1, "c")
	pass()
	h.Flush()
	if got := r.texts(); got != "a b c" {
		t.Errorf("delivered %q", got)
	}
	if waited := metrics.Snapshot().QueueTime.SumSeconds; waited < 0 || waited > 600 {
		t.Errorf("messages waited %v s", waited)
	}
}
