package log_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
)

// An archive is a log beside a plain list of everything it was ever given.
type archive struct {
	t    testing.TB
	log  *log.Memory
	app  apps.App
	all  []*push.Message
	gone int // so many of all are no longer kept
}

func newArchive(t testing.TB, o log.Options, h apps.History) *archive {
	return &archive{t: t, log: open(t, o), app: apps.App{Name: "a", History: h}}
}

// add appends a message for member, and compares its prev with what it must be.
func (a *archive) add(member int64) {
	a.t.Helper()
	app := a.app
	m := add(a.t, a.log, &app, member, "")
	want := uint64(0)
	if i := a.last(member, len(a.all)); i >= 0 {
		want = a.all[i].Offset
	}
	if m.Prev != want {
		a.t.Fatalf("prev of %d, for member %d, is %d, want %d", m.Offset, member, m.Prev, want)
	}
	a.all = append(a.all, m)
	a.expire()
	a.gone = max(a.gone, len(a.all)-app.History.Size)
}

// last returns the index of the newest of the first n messages in member's chain, or -1.
func (a *archive) last(member int64, n int) int {
	for i := n - 1; i >= 0; i-- {
		if a.all[i].Member == member {
			return i
		}
	}
	return -1
}

func (a *archive) expire() {
	for a.gone < len(a.all) && a.all[a.gone].Time < time.Now().Add(-a.app.History.TTL).UnixNano() {
		a.gone++
	}
}

// resume compares what the log says to a member that comes back with the truth.
func (a *archive) resume(member int64, after uint64) {
	a.t.Helper()
	a.expire()
	at := push.Position{Epoch: a.log.Top("a").Epoch, Offset: after}
	p, err := a.log.Since(a.t.Context(), push.Query{App: "a", Member: member, After: after})
	if err != nil {
		a.t.Fatal(err)
	}
	complete := after <= uint64(len(a.all))
	var want []push.Message
	for i, m := range a.all {
		switch {
		case m.Offset <= after || m.Private() && m.Member != member:
		case i < a.gone:
			complete = false
		default:
			want = append(want, *m)
		}
	}
	if p.Complete(at) != complete {
		a.t.Fatalf("member %d after %d of %d: complete %v, want %v; %d are gone", member, after, len(a.all), !complete, complete, a.gone)
	}
	if !slices.Equal(p.Messages, want) {
		a.t.Fatalf("member %d after %d: %d messages, want %d", member, after, len(p.Messages), len(want))
	}
}

// Ten thousand members get private messages within seconds, far more than are kept. Nobody is
// told that something is lost who has lost nothing, or the other way round.
func TestChainsOfManyMembers(t *testing.T) {
	const members, messages = 10_000, 30_000
	for _, size := range []int{0, 1, 100, 20_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(size)))
			anybody := func() int64 { return 1 + rng.Int64N(members+100) } // some get nothing
			a := newArchive(t, log.Options{}, apps.History{Size: size, TTL: time.Hour})
			before := make(map[int64]uint64)
			for i := range messages {
				member := anybody()
				if i%1000 == 0 {
					member = push.Everybody
				}
				m := add(t, a.log, &a.app, member, "")
				if m.Prev != before[member] {
					t.Fatalf("prev of %d, for member %d, is %d, want %d", m.Offset, member, m.Prev, before[member])
				}
				before[member] = m.Offset
				a.all = append(a.all, m)
				a.gone = max(0, len(a.all)-size)
				if i%100 == 0 {
					recent := uint64(max(0, len(a.all)-rng.IntN(300)))
					a.resume(anybody(), recent)
					a.resume(member, recent)
					a.resume(push.Everybody, rng.Uint64N(uint64(len(a.all))+2))
					a.resume(anybody(), rng.Uint64N(uint64(len(a.all))+2))
				}
			}
		})
	}
}

// FuzzChains lets anything happen to a log with few members.
func FuzzChains(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		steps := make([]byte, 400)
		for i := range steps {
			steps[i] = byte(rng.Uint32())
		}
		f.Add(steps)
	}
	f.Add([]byte{4, 0, 4, 0, 3, 0, 4, 0, 0, 12}) // history is turned off while there is some
	f.Fuzz(func(t *testing.T, steps []byte) {
		synctest.Test(t, func(t *testing.T) {
			a := newArchive(t, log.Options{}, apps.History{Size: 10, TTL: time.Minute})
			member := func(n byte) int64 {
				if n %= 6; n == 0 {
					return push.Everybody
				}
				return int64(n)
			}
			for len(steps) >= 2 {
				what, n := steps[0], steps[1]
				steps = steps[2:]
				switch what % 8 {
				default:
					a.add(member(n))
				case 0, 1:
					a.resume(member(n), uint64(max(0, len(a.all)+1-int(n/6))))
				case 2:
					time.Sleep(time.Duration(n%16) * 5 * time.Second)
				case 3:
					if n%4 == 0 { // a reload has new rules
						a.app.History.Size = int(n/4) % 12
					}
				}
			}
		})
	})
}

// With too little memory for everything the chains without messages go first. What is forgotten
// counts as lost: the log never claims more than it knows.
func TestForgottenChains(t *testing.T) {
	const limit = 1 << 20
	rng := rand.New(rand.NewPCG(1, 2))
	l := open(t, log.Options{MaxBytes: limit})
	app := &apps.App{Name: "a", History: apps.History{Size: 100, TTL: time.Hour}}
	var all []push.Message
	before := make(map[int64]uint64)
	forgotten, proved := 0, 0
	for i := range 100_000 {
		member := 1 + rng.Int64N(50_000)
		m := add(t, l, app, member, "")
		if m.Prev < before[member] || m.Prev >= m.Offset {
			t.Fatalf("prev of %d is %d, the one before was %d", m.Offset, m.Prev, before[member])
		}
		if m.Prev > before[member] {
			forgotten++
		}
		before[member] = m.Offset
		all = append(all, *m)
		if b := l.Bytes(); b > limit {
			t.Fatalf("%d bytes are kept, over the limit of %d", b, limit)
		}
		if u := l.Usage("a"); u.Messages != min(i+1, 100) {
			t.Fatalf("%d messages are kept of %d, want 100: there was enough to forget beside them", u.Messages, i+1)
		}
		if i%100 > 0 {
			continue
		}
		after := l.Top("a")
		after.Offset -= min(after.Offset, rng.Uint64N(2000))
		p, _ := l.Since(t.Context(), push.Query{App: "a", Member: member, After: after.Offset})
		if !p.Complete(after) {
			continue
		}
		proved++
		missed := slices.DeleteFunc(slices.Clone(all[after.Offset:]), func(m push.Message) bool { return m.Member != member })
		if !slices.Equal(p.Messages, missed) {
			t.Fatalf("member %d after %d of %d is told that %d messages are all, of %d", member, after.Offset, i, len(p.Messages), len(missed))
		}
	}
	if forgotten == 0 || proved == 0 {
		t.Errorf("vacuous: %d chains forgotten, %d resumes proved", forgotten, proved)
	}
}

// What a member had before a restart counts as much as before.
func TestChainsOverARestart(t *testing.T) {
	dir := t.TempDir()
	l, _ := reopen(t, dir, log.Options{})
	app := &apps.App{Name: "im", Private: true, History: apps.History{Size: 4, TTL: time.Hour}}
	for _, member := range []int64{1, 2, 3, 1, 2, 4, 2, 4} { // of which 2 4 2 4 are kept
		add(t, l, app, member, "x")
	}
	top := l.Top("im")
	save(t, l)
	l, _ = reopen(t, dir, log.Options{})
	defer l.Close()
	for member, lost := range map[int64]uint64{1: 4, 2: 2, 3: 3, 4: 0, 5: 0} {
		p, _ := l.Since(t.Context(), push.Query{App: "im", Member: member})
		if p.Floor != lost {
			t.Errorf("member %d has lost messages up to %d, want %d", member, p.Floor, lost)
		}
	}
	for member, prev := range map[int64]uint64{1: 4, 2: 7, 3: 3, 4: 8, 5: 0} {
		if m := add(t, l, app, member, "x"); m.Prev != prev || m.Offset <= top.Offset {
			t.Errorf("the next message of member %d is %d with prev %d, want %d", member, m.Offset, m.Prev, prev)
		}
	}
}
