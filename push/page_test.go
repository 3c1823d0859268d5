package push_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
)

// A countedLog counts its reads, which wait for gate, if there is one, and then fail with err.
type countedLog struct {
	push.Log
	reads atomic.Int64
	gate  chan struct{}
	err   error
}

func (l *countedLog) Since(ctx context.Context, q push.Query) (push.Page, error) {
	l.reads.Add(1)
	if l.gate != nil {
		<-l.gate
	}
	if ctx.Err() != nil {
		return push.Page{}, ctx.Err()
	}
	if l.err != nil {
		return push.Page{}, l.err
	}
	return l.Log.Since(ctx, q)
}

// paged runs f in a bubble, where no time passes while there is anything to do.
func paged(t *testing.T, size int, f func(t *testing.T, h *push.Hub, l *countedLog)) {
	synctest.Test(t, func(t *testing.T) {
		memory := log.NewMemory(log.Options{})
		defer memory.Close()
		l := &countedLog{Log: memory}
		rules, err := apps.Parse("apps.yaml", fmt.Appendf(nil, "apps: {match: {history: {size: %d}}}", size))
		if err != nil {
			t.Fatal(err)
		}
		h := push.NewHub(push.Options{Apps: rules, Log: l, Shards: 2, MaxText: 1 << 20})
		defer h.Close()
		f(t, h, l)
	})
}

// spoken encodes whom a message is for, and its offset.
var spoken = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
	return strconv.AppendUint(append(strconv.AppendInt(dst, m.Member, 10), ':'), m.Offset, 10)
}}

// replay returns everything that r holds, and whether that is complete.
func replay(t testing.TB, h *push.Hub, r push.Range, e *push.Encoding) (texts string, complete bool) {
	t.Helper()
	in := new(inbox)
	complete = true
	for more := true; more; {
		part, err := h.Replay(context.Background(), r, e)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, f := range part.Frames {
			in.Queue(f)
			n += f.Messages
		}
		if n != part.Messages || part.End < r.After.Offset || part.More && part.End == r.After.Offset {
			t.Fatalf("after %d up to %d: %d messages in a part that says %d, up to %d", r.After.Offset, r.Upto, n, part.Messages, part.End)
		}
		complete, more = complete && part.Complete, part.More
		r.After.Offset = part.End
	}
	return in.texts(), complete
}

// fillMixed publishes n messages, every third of them to one of the members 1 to 5.
func fillMixed(t testing.TB, h *push.Hub, n int) (all []push.Message) {
	t.Helper()
	for i := range n {
		member := push.Everybody
		if i%3 == 2 {
			member = int64(1 + i%5)
		}
		r := publish(t, h, "match", member, "x")
		all = append(all, push.Message{Member: member, Offset: r.Offset})
	}
	return all
}

// wanted is what of all comes after one offset, up to another, and may be seen by member.
func wanted(all []push.Message, member int64, after, upto uint64) string {
	var out []byte
	for i := range all {
		if m := &all[i]; m.Offset > after && m.Offset <= upto && (m.Member == push.Everybody || m.Member == member) {
			out = append(spoken.Append(out, m), ' ')
		}
	}
	return strings.TrimSuffix(string(out), " ")
}

// within reports whether some, none or all words of whole, in order, are part.
func within(whole, part string) bool {
	words := strings.Fields(whole)
	for w := range strings.FieldsSeq(part) {
		i := slices.Index(words, w)
		if i < 0 {
			return false
		}
		words = words[i+1:]
	}
	return true
}

// H04: ten thousand that come back to one app, strangers and members, some with messages of
// their own, each from where it was, while others push: the log is read once for each page of
// 256 messages, and each time that it has grown; and each public message is encoded once.
func TestH04ResumesShareTheirReads(t *testing.T) {
	const clients, missed, pages, live = 10_000, 600, 3, 10
	paged(t, 10_000, func(t *testing.T, h *push.Hub, l *countedLog) {
		var encoded atomic.Int64
		counted := &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
			encoded.Add(1)
			return spoken.Append(dst, m)
		}}
		app, _ := h.Lookup("match")
		all := fillMixed(t, h, missed)
		private := atomic.Int64{}
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for i := range clients / 8 {
					member := int64(i%1000) - 499 // half of them are strangers
					if member < 1 {
						member = apps.Anonymous
					}
					s, top := h.Subscribe(app, new(inbox), push.SubscribeOptions{Member: member, Encoding: counted})
					after := uint64((i*8 + worker) % 300)
					got, complete := replay(t, h, push.Range{App: "match", Member: member, After: push.Position{Epoch: top.Epoch, Offset: after}, Upto: top.Offset}, counted)
					if want := wanted(all, member, after, missed); !complete || !strings.HasPrefix(got, want) {
						t.Errorf("member %d after %d: complete %v, got %.80q, want %.80q", member, after, complete, got, want)
					}
					for w := range strings.FieldsSeq(got) {
						if !strings.HasPrefix(w, "-1:") {
							private.Add(1)
						}
					}
					s.Close()
					if worker == 0 && i%(clients/8/live) == 0 {
						publish(t, h, "match", -1, "live")
					}
				}
			})
		}
		wg.Wait()
		if n, most := l.reads.Load(), int64(pages+live); n > most {
			t.Errorf("the log was read %d times for %d clients, want at most %d", n, clients, most)
		}
		if n, most := encoded.Load()-private.Load(), int64(missed+live); n > most {
			t.Errorf("public messages were encoded %d times, want at most %d", n, most)
		}
		if private.Load() == 0 {
			t.Error("vacuous: nobody had a private message")
		}
	})
}

// H04: ten thousand that want the last messages of one app, strangers and members, while others
// push, share their reads: whether everything there is fits into a page, or what they want does,
// or is in two of them.
func TestH04LastSharesItsReads(t *testing.T) {
	for _, c := range []struct {
		name         string
		size, filled int
		n            int
	}{{"all in a page", 30, 600, 10}, {"fewer than wanted", 5, 600, 100}, {"newest page", 10_000, 600, 10}, {"two pages", 10_000, 512, 100}} {
		t.Run(c.name, func(t *testing.T) {
			paged(t, c.size, func(t *testing.T, h *push.Hub, l *countedLog) {
				const clients, live = 10_000, 10
				fillMixed(t, h, c.filled)
				for i := range clients {
					if i%(clients/live) == 0 {
						publish(t, h, "match", push.Everybody, "live")
					}
					member := int64(i%10) - 4
					if member < 1 {
						member = push.Everybody
					}
					r := push.Range{App: "match", Member: member, Upto: l.Top("match").Offset}
					var err error
					if r.After, err = h.Newest(t.Context(), r, c.n); err != nil {
						t.Fatal(err)
					}
					kept, _ := l.Log.Since(t.Context(), push.Query{App: "match", Member: member, Last: c.n})
					got, _ := replay(t, h, r, spoken)
					want := wanted(kept.Messages, member, 0, r.Upto)
					if !strings.HasSuffix(got, want) || want == "" || len(kept.Messages) == c.n && got != want { // a page may keep more than the log
						t.Fatalf("client %d, member %d, behind %d: got %q, want %q", i, member, r.After.Offset, got, want)
					}
				}
				if n := l.reads.Load(); n > 5+live {
					t.Errorf("the log was read %d times for %d clients, want at most %d", n, clients, 5+live)
				}
			})
		})
	}
}

// Among many messages of others there may be none for who asks, or fewer in the pages that are
// looked at than it wants.
func TestNewestAmongOthers(t *testing.T) {
	for name, c := range map[string]struct {
		mine func(offset int) bool
		live int
		want uint64 // at most
	}{
		"none": {func(int) bool { return false }, 0, 700},
		"few":  {func(offset int) bool { return offset%10 == 0 }, 90, 260},
	} {
		t.Run(name, func(t *testing.T) {
			paged(t, 10_000, func(t *testing.T, h *push.Hub, _ *countedLog) {
				for i := range 700 + c.live {
					member := int64(7)
					if i >= 700 || c.mine(i+1) {
						member = push.Everybody
					}
					publish(t, h, "match", member, "x")
				}
				at, err := h.Newest(t.Context(), push.Range{App: "match", Member: push.Everybody, Upto: 700}, 80)
				if err != nil || at.Offset > c.want || c.live == 0 && at.Offset < c.want {
					t.Errorf("behind %d, %v, want %d", at.Offset, err, c.want)
				}
			})
		})
	}
}

// Those that were away for too long share what tells them so.
func TestH04LateResumesShareTheirReads(t *testing.T) {
	paged(t, 100, func(t *testing.T, h *push.Hub, l *countedLog) {
		fillMixed(t, h, 600)
		top := l.Top("match")
		for i := range 10_000 {
			r := push.Range{App: "match", Member: int64(i%10) + 1, After: push.Position{Epoch: top.Epoch, Offset: uint64(i % 500)}, Upto: top.Offset}
			if part, err := h.Replay(t.Context(), r, spoken); err != nil || part.Complete {
				t.Fatalf("after %d of %d: complete %v, %v", r.After.Offset, top.Offset, part.Complete, err)
			}
		}
		if n := l.reads.Load(); n > 4 { // what is kept, from two offsets on, and for two kinds of page
			t.Errorf("the log was read %d times, want at most 4", n)
		}
	})
}

// Pages that were read for clients far apart, and have since become full before what the next
// client misses, do not stand in its way, however many they are.
func TestFullPagesBeforeWhatIsMissed(t *testing.T) {
	const page, before, live = 13, 40, 20 // messages of 5 kB: these fill a page
	paged(t, 1000, func(t *testing.T, h *push.Hub, l *countedLog) {
		text := strings.Repeat("x", 5000)
		for range before {
			publish(t, h, "match", push.Everybody, text)
		}
		epoch := publish(t, h, "match", push.Everybody, text).Epoch
		missing := func(n, top uint64) push.Range {
			return push.Range{App: "match", Member: push.Everybody, After: push.Position{Epoch: epoch, Offset: top - n}, Upto: top}
		}
		for n := range uint64(page - 1) { // the last first, so that each begins a page of its own
			replay(t, h, missing(n+1, before+1), spoken)
		}
		for range live {
			publish(t, h, "match", push.Everybody, text)
		}
		reads := l.reads.Load()
		texts, complete := replay(t, h, missing(1, before+1+live), spoken)
		if want := fmt.Sprintf("-1:%d", before+1+live); texts != want || !complete {
			t.Errorf("got %q, complete %v, want %q", texts, complete, want)
		}
		if n := l.reads.Load() - reads; n > 2 {
			t.Errorf("took %d reads of the log, want 2 at most: of a page that turns out to end before, and of its own", n)
		}
	})
}

// Those that come while a read is under way wait for it, and share its error.
func TestH04ReadsUnderWayAreShared(t *testing.T) {
	paged(t, 1000, func(t *testing.T, h *push.Hub, l *countedLog) {
		fillMixed(t, h, 100)
		l.gate = make(chan struct{})
		broken := errors.New("broken")
		for _, err := range []error{broken, nil} {
			l.err = err
			before := l.reads.Load()
			var wg sync.WaitGroup
			for i := range 1000 {
				wg.Go(func() {
					ctx, leave := context.WithTimeout(t.Context(), time.Millisecond) // while it waits
					defer leave()
					r := push.Range{App: "match", Member: 1, After: push.Position{Epoch: l.Top("match").Epoch, Offset: uint64(i % 50)}, Upto: 100}
					part, got := h.Replay(ctx, r, spoken)
					if !errors.Is(got, err) || err == nil && (part.Messages == 0 || !part.Complete) {
						t.Errorf("%+v, %v", part, got)
					}
				})
			}
			synctest.Wait()
			time.Sleep(time.Second)
			l.gate <- struct{}{}
			wg.Wait()
			if n := l.reads.Load() - before; n != 1 {
				t.Errorf("%d reads", n)
			}
		}
	})
}

// What is encoded for some holds up nobody who reads something else.
func TestH04EncodingHoldsUpNobody(t *testing.T) {
	h := with(t, "apps: {}", nil)
	publish(t, h, "match", -1, "x")
	publish(t, h, "other", -1, "x")
	begun, pass := make(chan struct{}, 100), make(chan struct{})
	slow := &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
		begun <- struct{}{}
		<-pass
		return spoken.Append(dst, m)
	}}
	read := func(app string, upto uint64, e *push.Encoding) string {
		rules, _ := h.Lookup(app)
		s, at := h.Subscribe(rules, new(inbox), push.SubscribeOptions{Member: -1, Encoding: e})
		defer s.Close()
		text, _ := replay(t, h, push.Range{App: app, Member: -1, After: push.Position{Epoch: at.Epoch}, Upto: upto}, e)
		return text
	}
	var waiting sync.WaitGroup
	wait := func(upto uint64, want string) {
		waiting.Go(func() {
			if got := read("match", upto, slow); got != want {
				t.Errorf("up to %d: %q, want %q", upto, got, want)
			}
		})
	}
	wait(1, "-1:1")
	<-begun
	publish(t, h, "match", -1, "y")
	free := make(chan struct{})
	go func() {
		defer close(free)
		for app, want := range map[string]string{"match": "-1:1 -1:2", "other": "-1:1"} {
			if got := read(app, uint64(strings.Count(want, ":")), spoken); got != want {
				t.Errorf("%s: %q, want %q", app, got, want)
			}
		}
	}()
	select {
	case <-free:
	case <-time.After(20 * time.Second):
		t.Error("others wait for an encoding")
	}
	for range 10 {
		wait(1, "-1:1")
		wait(2, "-1:1 -1:2")
	}
	close(pass)
	waiting.Wait()
	<-free
}

// U10: whoever asks, in whatever order and from wherever, sees what is public and what is its
// own, all of it, in order, and no more; and is told when something is lost, and only then.
func TestU10PagesKeepMembersApart(t *testing.T) {
	for _, size := range []int{30, 300, 10_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			paged(t, size, func(t *testing.T, h *push.Hub, l *countedLog) {
				rng := rand.New(rand.NewPCG(1, uint64(size)))
				var all []push.Message
				proved, lost := 0, 0
				for range 400 {
					switch rng.IntN(8) {
					case 0:
						time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
					case 1, 2:
						member := push.Everybody
						if rng.IntN(4) > 0 {
							member = 1 + rng.Int64N(9)
						}
						for range rng.IntN(20) {
							text := strings.Repeat("x", []int{0, 0, 0, 0, 0, 1000, 20_000, 60_000}[rng.IntN(8)])
							all = append(all, push.Message{Member: member, Offset: publish(t, h, "match", member, text).Offset})
						}
					default:
						member := rng.Int64N(12) - 1
						if member <= 0 {
							member = push.Everybody
						}
						upto := l.Top("match")
						upto.Offset -= min(upto.Offset, rng.Uint64N(3))
						back := []uint64{700, uint64(size)}[rng.IntN(2)]
						after := push.Position{Epoch: upto.Epoch, Offset: upto.Offset - min(upto.Offset, rng.Uint64N(back))}
						got, complete := replay(t, h, push.Range{App: "match", Member: member, After: after, Upto: upto.Offset}, spoken)
						want := wanted(all, member, after.Offset, upto.Offset)
						if complete && got != want || !within(want, got) {
							t.Fatalf("member %d after %d up to %d: complete %v, got %q, want %q", member, after.Offset, upto.Offset, complete, got, want)
						}
						kept, _ := l.Log.Since(t.Context(), push.Query{App: "match", Member: member, After: after.Offset})
						if !complete && kept.Complete(after) {
							t.Fatalf("member %d after %d up to %d is told that something is lost", member, after.Offset, upto.Offset)
						}
						if complete {
							proved++
						} else {
							lost++
						}
					}
				}
				if proved == 0 || lost == 0 && size < 10_000 {
					t.Errorf("vacuous: %d complete, %d not", proved, lost)
				}
			})
		})
	}
}

// What was read is not kept for long, nor much of it.
func TestPagesAreBounded(t *testing.T) {
	paged(t, 100_000, func(t *testing.T, h *push.Hub, l *countedLog) {
		for range 100 {
			for range 256 {
				publish(t, h, "match", -1, "")
			}
		}
		top := l.Top("match")
		read := func(page int) int64 {
			before := l.reads.Load()
			part, err := h.Replay(t.Context(), push.Range{App: "match", Member: -1, After: push.Position{Epoch: top.Epoch, Offset: uint64(page) * 256}, Upto: top.Offset}, spoken)
			if err != nil || part.Messages != 256 {
				t.Fatalf("%+v, %v", part, err)
			}
			return l.reads.Load() - before
		}
		for page := range 100 {
			read(page)
		}
		if read(99) != 0 || read(99-63) != 0 {
			t.Error("one of the last 64 pages was read again")
		}
		if read(99-64) != 1 {
			t.Error("more than 64 pages are kept")
		}
		time.Sleep(time.Second + 1)
		if read(99) != 1 {
			t.Error("a page is kept for more than a second")
		}
	})
	paged(t, 1000, func(t *testing.T, h *push.Hub, l *countedLog) {
		for range 10 {
			publish(t, h, "match", -1, strings.Repeat("x", 1<<20))
		}
		top := l.Top("match")
		read := func(offset uint64) int64 {
			before := l.reads.Load()
			part, err := h.Replay(t.Context(), push.Range{App: "match", Member: -1, After: push.Position{Epoch: top.Epoch, Offset: offset}, Upto: top.Offset}, spoken)
			if err != nil || part.Messages != 1 {
				t.Fatalf("%+v, %v", part, err)
			}
			return l.reads.Load() - before
		}
		for offset := range uint64(10) {
			read(offset)
		}
		if read(9) != 0 || read(6) != 0 || read(5) == 0 {
			t.Error("the pages kept are not the last ones, up to 4 MiB")
		}
	})
}

// A page that had to make room is garbage at once, however many a stranger has read.
func TestPagesThatMadeRoomAreFreed(t *testing.T) {
	paged(t, 1000, func(t *testing.T, h *push.Hub, l *countedLog) {
		for range 10 {
			publish(t, h, "match", -1, strings.Repeat("x", 1<<20))
		}
		top := l.Top("match")
		read := func(offset uint64) weak.Pointer[byte] {
			part, err := h.Replay(t.Context(), push.Range{App: "match", Member: -1, After: push.Position{Epoch: top.Epoch, Offset: offset}, Upto: top.Offset}, spoken)
			if err != nil || part.Messages != 1 {
				t.Fatalf("%+v, %v", part, err)
			}
			return weak.Make(&part.Frames[0].Data[0])
		}
		var pages []weak.Pointer[byte]
		for offset := range uint64(10) {
			pages = append(pages, read(offset))
		}
		runtime.GC()
		for offset, p := range pages {
			if kept := p.Value() != nil; kept != (offset >= 6) {
				t.Errorf("page behind %d: held %t", offset, kept)
			}
		}
	})
}
