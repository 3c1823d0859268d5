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
	return appendOne(t, l, app, push.Message{App: app.Name, Member: member, Text: text})
}

func appendOne(t testing.TB, l *log.Memory, app *apps.App, m push.Message) *push.Message {
	ms := []push.Message{m}
	if _, n, err := l.Append(t.Context(), app, ms); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	return &ms[0]
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
		if p, _ := l.Since(t.Context(), push.Query{App: app.Name, Member: -1, Last: 1}); len(p.Messages) != 1 || p.Messages[0] != *newest {
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

// A filling is messages of one kind, for a log to keep.
type filling struct {
	name     string
	apps     int
	messages int   // of each app
	members  int   // who get them in turn; 0: everybody does
	first    int64 // a member's number
	from     int64
	binary   bool
}

var fillings = []filling{
	{name: "public", apps: 1, messages: 10_000},
	{name: "public, many apps", apps: 100, messages: 100},
	{name: "from members of high numbers", apps: 1, messages: 10_000, from: 1 << 52},
	{name: "binary", apps: 1, messages: 10_000, binary: true},
	{name: "private, one for each member", apps: 1, messages: 10_000, members: 10_000},
	{name: "private, and the map has just grown", apps: 1, messages: 15_000, members: 15_000},
	{name: "private, many apps", apps: 100, messages: 100, members: 100},
	{name: "private, ten for each member", apps: 1, messages: 10_000, members: 1000},
	{name: "private, members of high numbers", apps: 1, messages: 10_000, members: 10_000, first: 1 << 52},
}

// measure returns what a kept message of f costs, with a text of so many bytes: in live heap,
// and by the log's own account.
func (f filling) measure(tb testing.TB, text int) (heap, counted float64) {
	l := log.NewMemory(log.Options{MaxBytes: 1 << 30})
	defer l.Close()
	content := strings.Repeat("x", text)
	all := make([]*apps.App, f.apps)
	for i := range all {
		all[i] = &apps.App{Name: fmt.Sprint("app:", i), History: apps.History{Size: f.messages, TTL: time.Hour}}
		add(tb, l, all[i], push.Everybody, "") // what an app costs is not asked for
	}
	empty := l.Bytes()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, app := range all {
		m := push.Message{App: app.Name, From: f.from, Binary: f.binary, Text: content}
		for i := range f.messages {
			m.Member = push.Everybody
			if f.members > 0 {
				m.Member = f.first + int64(i%f.members) + 1
			}
			appendOne(tb, l, app, m)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	n := float64(len(all) * f.messages)
	return float64(after.HeapAlloc-before.HeapAlloc) / n, float64(l.Bytes()-empty) / n
}

// A kept message costs its text and at most 100 bytes, whomever it is for. The account by which memory is
// bounded is not below what is really taken.
func TestMemoryOfAMessage(t *testing.T) {
	for _, f := range fillings {
		for _, text := range []int{0, 16, 128, 1000, 1020} {
			heap, counted := f.measure(t, text)
			if beside := heap - float64(text); text != 1020 && beside > 100 { // which is rounded up by an eighth
				t.Errorf("%s: a message costs %.1f bytes beside a text of %d", f.name, beside, text)
			}
			if counted < 0.95*heap {
				t.Errorf("%s, with a text of %d: a message costs %.1f bytes, and is counted as %.1f", f.name, text, heap, counted)
			}
		}
	}
}

// BenchmarkMemoryBytes reports what a kept message costs beside its text.
func BenchmarkMemoryBytes(b *testing.B) {
	for _, f := range fillings {
		for _, text := range []int{0, 16, 128, 1000} {
			b.Run(fmt.Sprintf("%s/text=%d", f.name, text), func(b *testing.B) {
				for b.Loop() {
					heap, counted := f.measure(b, text)
					b.ReportMetric(heap-float64(text), "B/message")
					b.ReportMetric(counted-float64(text), "counted-B/message")
				}
			})
		}
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
				m := push.Message{App: "a", Member: -1, Text: "x"}
				if members > 0 {
					m.Member = i%members + 1
				}
				appendOne(b, l, app, m)
			}
		})
	}
}
