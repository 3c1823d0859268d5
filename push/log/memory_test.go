package log_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/push/pushtest"
	"ws-gateway/stat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, o log.Options) *log.Memory {
	l := log.NewMemory(o)
	t.Cleanup(l.Close)
	return l
}

func TestMemory(t *testing.T) {
	pushtest.TestLog(t, func(t *testing.T) push.Log { return open(t, log.Options{}) })
	pushtest.TestBus(t, 1, func(t *testing.T) []push.Bus {
		return []push.Bus{push.NewLocalBus(open(t, log.Options{}))}
	})
}

func add(t testing.TB, l *log.Memory, app *apps.App, member int64, text string) *push.Message {
	m := &push.Message{App: app.Name, Member: member, Text: text}
	if err := l.Append(t.Context(), app, m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMessagesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, log.Options{})
		app := &apps.App{Name: "a", History: apps.History{Size: 10, TTL: time.Minute}}
		at := l.Top("a")
		add(t, l, app, -1, "x")
		time.Sleep(time.Minute)
		if p, _ := l.Since(t.Context(), push.Query{App: "a", Member: -1, After: at.Offset}); !p.Complete(at) || len(p.Messages) != 1 {
			t.Errorf("after exactly the ttl: %+v", p)
		}
		time.Sleep(time.Nanosecond)
		if p, _ := l.Since(t.Context(), push.Query{App: "a", Member: -1, After: at.Offset}); p.Complete(at) || len(p.Messages) != 0 {
			t.Errorf("after more than the ttl: %+v", p)
		}
	})
}

// R04: a wall clock that is set an hour ahead expires nothing.
func TestR04ClockJump(t *testing.T) {
	jump := time.Duration(0)
	l := open(t, log.Options{Now: func() time.Time { return time.Now().Add(jump) }})
	app := &apps.App{Name: "a", History: apps.History{Size: 10, TTL: time.Minute}}
	at := l.Top("a")
	add(t, l, app, -1, "before")
	jump = time.Hour
	add(t, l, app, -1, "after")
	if p, _ := l.Since(t.Context(), push.Query{App: "a", Member: -1, After: at.Offset}); !p.Complete(at) || len(p.Messages) != 2 {
		t.Errorf("after the jump: %+v", p)
	}
}

// An app that nobody uses loses its messages and, a day later, its entry; its numbers go
// on where they were.
func TestIdleAppsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := open(t, log.Options{})
		app := &apps.App{Name: "a", History: apps.History{Size: 10, TTL: time.Minute}}
		last := add(t, l, app, -1, "x")
		held := l.Bytes()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if b := l.Bytes(); b <= 0 || b >= held {
			t.Errorf("%d bytes after the messages expired, %d before", b, held)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if b := l.Bytes(); b != 0 {
			t.Errorf("%d bytes after the app was forgotten", b)
		}
		if m := add(t, l, app, -1, "y"); m.Offset <= last.Offset {
			t.Errorf("offset %d was given again (after %d)", m.Offset, last.Offset)
		}
		if p, _ := l.Since(t.Context(), push.Query{App: "a", Member: -1}); p.Complete(push.Position{Epoch: l.Top("a").Epoch}) {
			t.Error("a position from before is taken for complete")
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	const limit = 1 << 20
	m := stat.New(stat.Options{})
	l := open(t, log.Options{MaxBytes: limit, Metrics: m})
	for i := range 2000 {
		app := &apps.App{Name: fmt.Sprint("app:", i%7), History: apps.History{Size: 10_000, TTL: time.Hour}}
		newest := add(t, l, app, -1, strings.Repeat("x", 4000))
		if b := l.Bytes(); b > limit {
			t.Fatalf("%d bytes are kept, over the limit of %d", b, limit)
		}
		if p, _ := l.Since(t.Context(), push.Query{App: app.Name, Member: -1, Last: 1}); len(p.Messages) != 1 || p.Messages[0] != newest {
			t.Fatal("the newest message is not kept")
		}
	}
	for i := range 20_000 { // apps cost something too, when strangers make them
		add(t, l, &apps.App{Name: fmt.Sprint("other:", i)}, -1, "")
	}
	if b := l.Bytes(); b > limit {
		t.Errorf("%d bytes for apps without messages", b)
	}
	if m.Snapshot().Refused[stat.ReasonHistoryMemory] == 0 {
		t.Error("nobody can see that logs gave up their oldest messages")
	}
}

// BenchmarkMemoryBytes reports what a kept message costs beside its text, and what each of its
// members adds.
func BenchmarkMemoryBytes(b *testing.B) {
	const n = 100_000
	for _, members := range []int{0, n} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			for b.Loop() {
				l := log.NewMemory(log.Options{MaxBytes: 1 << 30})
				app := &apps.App{Name: "a", History: apps.History{Size: n, TTL: time.Hour}}
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				for i := range n {
					m := &push.Message{App: "a", Member: -1, Text: strings.Repeat("x", 128)}
					if members > 0 {
						m.Member = int64(i%members) + 1
					}
					if err := l.Append(b.Context(), app, m); err != nil {
						b.Fatal(err)
					}
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n-128, "B/message")
				b.ReportMetric(float64(l.Bytes())/n-128, "counted-B/message")
				l.Close()
			}
		})
	}
}

// BenchmarkAppend measures what the log adds to a push: the messages go as others come.
func BenchmarkAppend(b *testing.B) {
	for _, members := range []int64{0, 10_000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			l := open(b, log.Options{})
			app := &apps.App{Name: "a", History: apps.History{Size: 100, TTL: time.Hour}}
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				m := &push.Message{App: "a", Member: -1, Text: "x"}
				if members > 0 {
					m.Member = i%members + 1
				}
				if err := l.Append(b.Context(), app, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
