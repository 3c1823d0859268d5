// Package pushtest has the conformance suites of push's interfaces: an implementation's test
// is one call.
package pushtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
)

var (
	// Kept is an app with a history of 4 messages, for the suites.
	Kept = &apps.App{Name: "kept", History: apps.History{Size: 4, TTL: time.Hour}}
	// Deep is an app with a history of 10 000 messages.
	Deep = &apps.App{Name: "deep", History: apps.History{Size: 10_000, TTL: time.Hour}}
	// Live is an app without history.
	Live = &apps.App{Name: "live"}
)

// TestLog checks that what open returns is a [push.Log]. Each call of open must return an
// empty one.
func TestLog(t *testing.T, open func(t *testing.T) push.Log) {
	add := func(t *testing.T, l push.Log, app *apps.App, member int64, text string) *push.Message {
		t.Helper()
		ms := []push.Message{{App: app.Name, Member: member, Text: text}}
		if _, n, err := l.Append(t.Context(), app, ms); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		return &ms[0]
	}
	since := func(t *testing.T, l push.Log, q push.Query) push.Page {
		t.Helper()
		p, err := l.Since(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}

	t.Run("offsets grow and prev chains", func(t *testing.T) {
		l := open(t)
		last := l.Top(Deep.Name).Offset
		chains := map[int64]uint64{}
		for i := range int64(200) {
			member := []int64{-1, -1, 7, 8}[i%4]
			m := add(t, l, Deep, member, "x")
			if m.Offset <= last || m.Time == 0 {
				t.Fatalf("offset %d after %d, time %d", m.Offset, last, m.Time)
			}
			if m.Prev != chains[member] {
				t.Fatalf("prev of %d is %d, want %d", m.Offset, m.Prev, chains[member])
			}
			last, chains[member] = m.Offset, m.Offset
		}
		if top := l.Top(Deep.Name); top.Offset != last || top.Epoch == "" {
			t.Errorf("top is %v, want offset %d", top, last)
		}
	})

	t.Run("runs", func(t *testing.T) {
		l := open(t)
		for _, app := range []*apps.App{Deep, Kept, Live} { // with room for a run, with less, and with none
			chains := map[int64]uint64{}
			for _, members := range [][]int64{{-1}, {-1, 7, 7, -1, 8}, {7, 8, 9, 7, -1, 7}} {
				before := l.Top(app.Name).Offset
				run := make([]push.Message, len(members))
				for i, member := range members {
					run[i] = push.Message{App: app.Name, Member: member, From: int64(i), Binary: i%2 == 0, Text: fmt.Sprint(before, i)}
				}
				epoch, n, err := l.Append(t.Context(), app, run)
				if top := l.Top(app.Name); n != len(run) || err != nil || epoch != top.Epoch || run[n-1].Offset != top.Offset {
					t.Fatalf("appended %d of %d in %s up to %d, %v; top is %v", n, len(run), epoch, run[n-1].Offset, err, top)
				}
				last := before
				for i, m := range run {
					if m.Offset <= last || m.Time == 0 || m.Prev < chains[m.Member] || m.Prev >= m.Offset || app == Deep && m.Prev != chains[m.Member] {
						t.Errorf("%s: message %d of a run is %+v, after %d and %d of its chain", app.Name, i, m, last, chains[m.Member])
					}
					last, chains[m.Member] = m.Offset, m.Offset
				}
				want := slices.Clone(run[max(0, len(run)-app.History.Size):])
				clear(run) // what the log keeps is its own
				if got := since(t, l, push.Query{App: app.Name, All: true, After: before}); !slices.Equal(got.Messages, want) {
					t.Errorf("%s: of a run %+v is kept, want %+v", app.Name, got.Messages, want)
				}
			}
		}
	})

	t.Run("H01 positions", func(t *testing.T) {
		l := open(t)
		for i := 1; i <= 10; i++ { // the last 4 are kept
			add(t, l, Kept, -1, fmt.Sprint(i))
		}
		top := l.Top(Kept.Name)
		at := func(back uint64) push.Position { return push.Position{Epoch: top.Epoch, Offset: top.Offset - back} }
		for _, c := range []struct {
			name     string
			after    push.Position
			complete bool
			want     string
		}{
			{"exact tail", at(0), true, ""},
			{"mid", at(2), true, "9 10"},
			{"edge of the window", at(4), true, "7 8 9 10"},
			{"before the window", at(5), false, "7 8 9 10"},
			{"start", push.Position{Epoch: top.Epoch}, false, "7 8 9 10"},
			{"future", push.Position{Epoch: top.Epoch, Offset: top.Offset + 1}, false, ""},
			{"other epoch", push.Position{Epoch: "other", Offset: top.Offset - 2}, false, "9 10"},
		} {
			p := since(t, l, push.Query{App: Kept.Name, Member: -1, After: c.after.Offset})
			complete := p.Complete(c.after)
			if complete != c.complete || p.Top != top || texts(p) != c.want {
				t.Errorf("%s: complete %v, top %v, messages %q; want %v, %v, %q", c.name, complete, p.Top, texts(p), c.complete, top, c.want)
			}
		}
	})

	t.Run("U10 private messages", func(t *testing.T) {
		l := open(t)
		from := l.Top(Deep.Name)
		for i, member := range []int64{-1, 7, 8, -1, 7} {
			add(t, l, Deep, member, fmt.Sprint(i))
		}
		for member, want := range map[int64]string{-1: "0 3", 7: "0 1 3 4", 8: "0 2 3", 9: "0 3"} {
			if got := texts(since(t, l, push.Query{App: Deep.Name, Member: member, After: from.Offset})); got != want {
				t.Errorf("member %d sees %q, want %q", member, got, want)
			}
			last := texts(since(t, l, push.Query{App: Deep.Name, Member: member, Last: 2}))
			if !strings.HasSuffix(want, last) || len(strings.Fields(last)) != 2 {
				t.Errorf("the last 2 for member %d are %q of %q", member, last, want)
			}
		}
	})

	t.Run("H01 what others lost", func(t *testing.T) {
		l := open(t)
		at := l.Top(Kept.Name)
		last := map[int64]uint64{}
		for i, member := range []int64{-1, 7, 8, 8, 8, 8, 8, 8, 8, 8} {
			m := add(t, l, Kept, member, fmt.Sprint(i))
			if m.Prev < last[member] || m.Prev >= m.Offset {
				t.Errorf("prev of %d is %d, the one before was %d", m.Offset, m.Prev, last[member])
			}
			last[member] = m.Offset
		}
		for _, member := range []int64{-1, 7, 8, 9} { // everybody has lost the first
			if p := since(t, l, push.Query{App: Kept.Name, Member: member, After: at.Offset}); p.Complete(at) {
				t.Errorf("member %d is told that nothing is lost", member)
			}
		}
		at.Offset = last[8] - 5
		if p := since(t, l, push.Query{App: Kept.Name, Member: 8, After: at.Offset}); p.Complete(at) {
			t.Error("member 8 is told that nothing is lost")
		}
	})

	t.Run("H03 pages", func(t *testing.T) {
		l := open(t)
		after := l.Top(Deep.Name)
		for i := range 2500 {
			add(t, l, Deep, -1, fmt.Sprint(i))
		}
		n := 0
		for more := true; more; {
			p := since(t, l, push.Query{App: Deep.Name, Member: -1, After: after.Offset, Limit: 1000})
			if !p.Complete(after) {
				t.Fatal("not complete")
			}
			for _, m := range p.Messages {
				if m.Text != fmt.Sprint(n) {
					t.Fatalf("message %d is %q", n, m.Text)
				}
				n++
			}
			after.Offset, more = p.Messages[len(p.Messages)-1].Offset, p.More
		}
		if n != 2500 {
			t.Errorf("%d messages, want 2500", n)
		}
	})

	t.Run("bytes", func(t *testing.T) {
		l := open(t)
		from := l.Top(Deep.Name).Offset
		for _, text := range strings.Fields("aaaa bb cccc d eeee") {
			add(t, l, Deep, -1, text)
		}
		for _, c := range []struct {
			bytes      int
			next, last string
		}{{0, "aaaa bb cccc d eeee", "aaaa bb cccc d eeee"}, {1, "aaaa", "eeee"}, {6, "aaaa bb", "d eeee"}, {9, "aaaa bb", "cccc d eeee"}, {15, "aaaa bb cccc d eeee", "aaaa bb cccc d eeee"}} {
			next := since(t, l, push.Query{App: Deep.Name, Member: -1, After: from, Bytes: c.bytes})
			last := since(t, l, push.Query{App: Deep.Name, Member: -1, Last: 10, Bytes: c.bytes})
			if texts(next) != c.next || next.More != (len(next.Messages) < 5) || texts(last) != c.last {
				t.Errorf("%d bytes: the next are %q, more %v, and the last %q; want %q and %q", c.bytes, texts(next), next.More, texts(last), c.next, c.last)
			}
		}
	})

	t.Run("everybody's messages", func(t *testing.T) {
		l := open(t)
		for i, member := range []int64{-1, 7, 8, -1, 7, 8} { // the last 4 are kept
			add(t, l, Kept, member, fmt.Sprint(i))
		}
		top := l.Top(Kept.Name)
		for back, complete := range map[uint64]bool{0: true, 3: true, 4: true, 5: false} {
			at := push.Position{Epoch: top.Epoch, Offset: top.Offset - back}
			p := since(t, l, push.Query{App: Kept.Name, All: true, After: at.Offset})
			if want := min(int(back), 4); len(p.Messages) != want || p.Complete(at) != complete {
				t.Errorf("the last %d: %q, complete %v, want %d of them, %v", back, texts(p), !complete, want, complete)
			}
		}
	})

	t.Run("without history", func(t *testing.T) {
		l := open(t)
		first := add(t, l, Live, -1, "a")
		second := add(t, l, Live, -1, "b")
		top := l.Top(Live.Name)
		if second.Offset <= first.Offset || second.Prev < first.Offset || top.Offset != second.Offset {
			t.Errorf("offsets %d, %d after %d; top %v", first.Offset, second.Offset, second.Prev, top)
		}
		if p := since(t, l, push.Query{App: Live.Name, Member: -1, After: top.Offset}); !p.Complete(top) || len(p.Messages) > 0 {
			t.Errorf("at the top: %+v", p)
		}
		if p := since(t, l, push.Query{App: Live.Name, Member: -1, After: first.Offset}); p.Complete(push.Position{Epoch: top.Epoch, Offset: first.Offset}) || len(p.Messages) > 0 {
			t.Errorf("before the top: %+v", p)
		}
	})

	t.Run("an app that never was", func(t *testing.T) {
		l := open(t)
		top := l.Top("never")
		if p := since(t, l, push.Query{App: "never", Member: -1, After: top.Offset}); !p.Complete(top) || len(p.Messages) > 0 || p.Top != top {
			t.Errorf("%+v, top %v", p, top)
		}
	})

	t.Run("concurrent apps", func(t *testing.T) {
		l := open(t)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				app := &apps.App{Name: fmt.Sprint("app:", i), History: apps.History{Size: 100, TTL: time.Hour}}
				for n := range 500 {
					if _, _, err := l.Append(t.Context(), app, []push.Message{{App: app.Name, Member: -1, Text: fmt.Sprint(n)}}); err != nil {
						t.Error(err)
					}
					_, _ = l.Since(t.Context(), push.Query{App: app.Name, Member: -1, Last: 3})
				}
				p, err := l.Since(t.Context(), push.Query{App: app.Name, Member: -1, Last: 200})
				if err != nil || len(p.Messages) != 100 || p.Messages[99].Text != "499" {
					t.Errorf("%d messages, %v", len(p.Messages), err)
				}
			})
		}
		wg.Wait()
	})
}

func texts(p push.Page) string {
	var out []string
	for _, m := range p.Messages {
		out = append(out, m.Text)
	}
	return strings.Join(out, " ")
}

// TestBus checks that what open returns is a [push.Bus]: each call must return the buses of
// as many nodes, joined and empty.
func TestBus(t *testing.T, nodes int, open func(t *testing.T) []push.Bus) {
	t.Run("one order on every node", func(t *testing.T) {
		buses := open(t)
		if len(buses) != nodes {
			t.Fatalf("%d buses, want %d", len(buses), nodes)
		}
		const publishers, each, longest = 4, 250, 5
		got := make([]chan uint64, nodes)
		for i, b := range buses {
			got[i] = make(chan uint64, publishers*each*longest)
			stop := b.Subscribe(func(_ context.Context, app *apps.App, ms []push.Message) {
				for _, m := range ms {
					if app.Name != m.App {
						t.Errorf("message of %s with the rules of %s", m.App, app.Name)
					}
					got[i] <- m.Offset
				}
			})
			defer stop()
		}
		var wg sync.WaitGroup
		var total atomic.Int64
		for p := range publishers {
			wg.Go(func() {
				before := uint64(0)
				for i := range each {
					run := make([]push.Message, 1+(p+i)%longest)
					for j := range run {
						run[j] = push.Message{App: Deep.Name, Member: -1, Text: "x"}
					}
					epoch, n, err := buses[p%nodes].Publish(t.Context(), Deep, run)
					if err != nil || n != len(run) || epoch == "" {
						t.Errorf("published %d of %d in epoch %q: %v", n, len(run), epoch, err)
					}
					for _, m := range run {
						if m.Offset <= before {
							t.Errorf("offset %d after %d of the same publisher", m.Offset, before)
						}
						before = m.Offset
					}
					total.Add(int64(n))
				}
			})
		}
		wg.Wait()
		for i := range got {
			last := uint64(0)
			for range total.Load() {
				if o := <-got[i]; o <= last {
					t.Fatalf("node %d received %d after %d", i, o, last)
				} else {
					last = o
				}
			}
		}
	})

	t.Run("the context of a publish", func(t *testing.T) {
		b := open(t)[0]
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "mine")
		var mine []uint64
		received := make(chan struct{}, 3)
		stop := b.Subscribe(func(ctx context.Context, _ *apps.App, ms []push.Message) {
			for _, m := range ms {
				if ctx.Value(key{}) == "mine" {
					mine = append(mine, m.Offset)
				}
				received <- struct{}{}
			}
		})
		defer stop()
		run := []push.Message{{App: Deep.Name, Member: -1}, {App: Deep.Name, Member: 7}, {App: Deep.Name, Member: -1}}
		if _, _, err := b.Publish(ctx, Deep, run); err != nil {
			t.Fatal(err)
		}
		for range run {
			<-received
		}
		if want := []uint64{run[0].Offset, run[1].Offset, run[2].Offset}; len(mine) > 0 && !slices.Equal(mine, want) {
			t.Errorf("with the publisher's context came %v, want all of %v or none", mine, want)
		}
	})

	t.Run("nothing after stop", func(t *testing.T) {
		b := open(t)[0]
		stop := b.Subscribe(func(context.Context, *apps.App, []push.Message) { t.Error("delivered after stop") })
		stop()
		if _, _, err := b.Publish(t.Context(), Deep, []push.Message{{App: Deep.Name, Member: -1}}); err != nil {
			t.Error(err)
		}
	})
}
