package session_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

const short = "apps: {'a': {history: {size: 5, ttl: 1h}}, 'deep': {history: {size: 10000, ttl: 1h}}, 'off': {history: off}}"

// at is a subscribe command with a position.
func at(app, epoch string, offset uint64) string {
	return fmt.Sprintf(`{"app":"%s","position":{"epoch":"%s","offset":%d}}`, app, epoch, offset)
}

// resumed is the reply to it.
func resumed(app, epoch string, top uint64, recovered bool) string {
	return gateway(fmt.Sprintf(`{"code":200,"message":"subscribe %s success","position":{"epoch":"%s","offset":%d},"recovered":%v}`, app, epoch, top, recovered))
}

func TestH01Positions(t *testing.T) {
	w := newWorld(t, short, nil)
	var epoch string
	for i := 1; i <= 9; i++ { // of which 5 are kept; 7 is private
		m := push.Message{App: "a", Member: -1, Text: fmt.Sprint(i)}
		if i == 7 {
			m.Member = 42
		}
		epoch = w.push(m).Epoch
	}
	message := func(i, prev int) string {
		member := -1
		if i == 7 {
			member = 42
		}
		return fmt.Sprintf(`{"app":"a","member_id":%d,"text":"%d","offset":%d,"prev":%d}`, member, i, i, prev)
	}
	yes, no := resumed("a", epoch, 9, true), resumed("a", epoch, 9, false)
	for _, c := range []struct {
		name, first, frame string
		want               []string
	}{
		{"exact tail", stranger, at("a", epoch, 9), []string{yes}},
		{"mid", stranger, at("a", epoch, 6), []string{yes, message(8, 6), message(9, 8)}},
		{"mid, with the member's own", member42, at("a", epoch, 6), []string{yes, message(7, 0), message(8, 6), message(9, 8)}},
		{"edge of the window", stranger, at("a", epoch, 4), []string{yes, message(5, 4), message(6, 5), message(8, 6), message(9, 8)}},
		{"before the window", stranger, at("a", epoch, 3), []string{no}},
		{"the start", stranger, at("a", epoch, 0), []string{no}},
		{"future", stranger, at("a", epoch, 10), []string{no}},
		{"far future", stranger, at("a", epoch, 1<<64-1), []string{no}},
		{"other epoch", stranger, at("a", "other", 6), []string{no}},
		{"an app that never had a message", stranger, at("b", epoch, 0), []string{resumed("b", epoch, 0, true)}},
		{"only from here", stranger, `{"app":"a","position":null}`, []string{gateway(`{"code":200,"message":"subscribe a success","position":{"epoch":"` + epoch + `","offset":9}}`)}},
		{"the last 2", stranger, `{"app":"a","last":2}`, []string{gateway(`{"code":200,"message":"subscribe a success"}`), `{"app":"a","member_id":-1,"text":"8"}`, `{"app":"a","member_id":-1,"text":"9"}`}},
		{"more than there are", member42, `{"app":"a","last":99999999999}`, []string{gateway(`{"code":200,"message":"subscribe a success"}`),
			`{"app":"a","member_id":-1,"text":"5"}`, `{"app":"a","member_id":-1,"text":"6"}`, `{"app":"a","member_id":42,"text":"7"}`, `{"app":"a","member_id":-1,"text":"8"}`, `{"app":"a","member_id":-1,"text":"9"}`}},
		{"the last of nothing", stranger, `{"app":"b","last":2}`, []string{gateway(`{"code":200,"message":"subscribe b success"}`)}},
		{"resume without history", stranger, at("off", epoch, 0), []string{resumed("off", epoch, 0, true)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := w.dial(c.first)
			p.Receive(c.frame)
			if got, want := texts(p.Unread()), strings.Join(c.want, "\n"); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	// It goes on live from there, whether it was recovered or not.
	p, q := w.dial(stranger), w.dial(stranger)
	p.Receive(at("a", epoch, 8))
	q.Receive(at("a", "other", 8))
	p.Unread()
	q.Unread()
	w.push(push.Message{App: "a", Member: -1, Text: "10"})
	for _, p := range []*sessiontest.Pipe{p, q} {
		if got := texts(p.Unread()); got != message(10, 9) {
			t.Errorf("then got %s", got)
		}
	}
}

// offset returns the offset and prev of a message.
func offset(t *testing.T, text string) (offset, prev uint64) {
	t.Helper()
	i := strings.Index(text, `"offset":`)
	if i < 0 {
		t.Fatalf("no offset in %s", text)
	}
	if _, err := fmt.Sscanf(text[i:], `"offset":%d,"prev":%d}`, &offset, &prev); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return offset, prev
}

// Clients come and go while messages are pushed: each sees each of its offsets once, in order.
func TestH02ResumeRacesWithLive(t *testing.T) {
	w := newWorld(t, short, nil)
	epoch := w.push(push.Message{App: "deep", Member: -1, Text: "first"}).Epoch
	const pushes = 3000
	var want [2][]uint64 // that a stranger and member 42 must see
	stop := make(chan struct{})
	var pushing, reading sync.WaitGroup
	pushing.Go(func() {
		for i := range pushes {
			m := push.Message{App: "deep", Member: []int64{-1, -1, 42, 43}[i%4], Text: fmt.Sprint(i)}
			r, err := w.hub.Publish(t.Context(), m)
			for err != nil { // too fast
				r, err = w.hub.Publish(t.Context(), m)
			}
			if m.Member == -1 {
				want[0] = append(want[0], r.Offset)
			}
			if m.Member != 43 {
				want[1] = append(want[1], r.Offset)
			}
		}
	})
	var got [8][]uint64
	for i := range got {
		reading.Go(func() {
			position := uint64(1)
			visit := func() {
				p := w.dial([]string{stranger, member42}[i%2])
				p.Receive(at("deep", epoch, position))
				if reply := p.Next(); !strings.Contains(reply, `\"recovered\":true`) {
					t.Errorf("after %d: %s", position, reply)
				}
				if i%3 == 0 { // stay for a while
					w.hub.Flush()
				}
				p.Hangup(session.CloseAbnormal)
				for _, m := range p.Unread() {
					n, prev := offset(t, m.Text)
					if prev > position && !slices.Contains(got[i], prev) {
						t.Errorf("offset %d follows %d, which did not come", n, prev)
					}
					got[i] = append(got[i], n)
					position = n
				}
			}
			for {
				select {
				case <-stop:
					visit()
					return
				default:
					visit()
				}
			}
		})
	}
	pushing.Wait()
	close(stop)
	reading.Wait()
	for i := range got {
		if !slices.Equal(got[i], want[i%2]) {
			t.Errorf("client %d got %d offsets, want %d; sorted %v", i, len(got[i]), len(want[i%2]), slices.IsSorted(got[i]))
		}
	}
}

// A sipper is a client whose socket takes what is queued only when the test lets it.
type sipper struct {
	*sessiontest.Pipe
	mu   sync.Mutex
	then []func()
}

func (p *sipper) Queued() int { return 0 }

func (p *sipper) Unsent(*push.Frame) bool { return false }

func (p *sipper) Drained(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.then = append(p.then, f)
}

// drain lets the socket take what is queued, and reports whether anybody waited for that.
func (p *sipper) drain() bool {
	p.mu.Lock()
	then := p.then
	p.then = nil
	p.mu.Unlock()
	for _, f := range then {
		f()
	}
	return len(then) > 0
}

func (w *world) sip() *sipper {
	p := &sipper{Pipe: sessiontest.NewPipe(w.t)}
	p.Attach(w.gateway.Open(p))
	p.Receive(stranger)
	p.Unread()
	w.t.Cleanup(func() { p.Hangup(session.CloseAbnormal) })
	return p
}

func (w *world) fill(n int, text string) (epoch string) {
	w.t.Helper()
	for i := range n {
		epoch = w.push(push.Message{App: "deep", Member: -1, Text: strconv.Itoa(i+1) + text}).Epoch
	}
	return epoch
}

func TestH03Parts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		most       int // messages of one part
	}{{"many", "", 256}, {"large", strings.Repeat("x", 40<<10), 1}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, short, nil)
			epoch := w.fill(1000, c.text)
			p := w.sip()
			p.Receive(at("deep", epoch, 100))
			if got, want := p.Next(), resumed("deep", epoch, 1000, true); got != want {
				t.Errorf("got %s", got)
			}
			next, parts, top := uint64(101), 0, uint64(1000)
			take := func() {
				old := 0 // what was held back comes at once
				defer func() {
					if old > c.most {
						t.Errorf("a part of %d messages, want at most %d", old, c.most)
					}
				}()
				for _, m := range p.Unread() {
					if n, prev := offset(t, m.Text); n != next || prev != n-1 {
						t.Fatalf("offset %d with prev %d, want %d", n, prev, next)
					}
					if next++; next <= 1001 {
						old++
					}
				}
			}
			for take(); p.drain(); take() {
				if parts++; parts <= 3 { // live messages are held back
					top = w.push(push.Message{App: "deep", Member: -1, Text: "live" + c.text}).Offset
				}
			}
			if parts+1 < 900/c.most || next != top+1 {
				t.Errorf("got up to %d of %d in %d parts", next-1, top, parts)
			}
			top = w.push(push.Message{App: "deep", Member: -1, Text: "live"}).Offset
			if take(); next != top+1 {
				t.Errorf("live got up to %d of %d", next-1, top)
			}
		})
	}
}

// A client that takes its time gets everything, however much comes meanwhile.
func TestH03MoreThanIsHeldBack(t *testing.T) {
	w := newWorld(t, short, nil)
	epoch := w.fill(600, "")
	p := w.sip()
	p.Receive(at("deep", epoch, 0))
	p.Next()
	for range 3 {
		for range 100 { // 400 KiB
			w.push(push.Message{App: "deep", Member: -1, Text: strings.Repeat("x", 4<<10)})
		}
		p.drain()
	}
	top := uint64(900)
	for p.drain() {
		top = w.push(push.Message{App: "deep", Member: -1, Text: "little"}).Offset
	}
	ms := p.Unread()
	if len(ms) != int(top) {
		t.Fatalf("%d messages, want %d", len(ms), top)
	}
	for i, m := range ms {
		if n, _ := offset(t, m.Text); n != uint64(i+1) {
			t.Fatalf("offset %d, want %d", n, i+1)
		}
	}
}

func TestH03LogIsShorterThanTheClientIsSlow(t *testing.T) {
	w := newWorld(t, "apps: {deep: {history: {size: 600, ttl: 1h}}}", nil)
	epoch := w.fill(600, "")
	p := w.sip()
	p.Receive(at("deep", epoch, 0))
	w.fill(600, "")
	p.drain()
	if code, _ := p.Wait(); code != session.CloseInsufficientState {
		t.Errorf("closed with %d", code)
	}
}

func TestH03UnsubscribeEndsTheCatchUp(t *testing.T) {
	w := newWorld(t, short, nil)
	epoch := w.fill(1000, "")
	p := w.sip()
	p.Receive(at("deep", epoch, 0))
	p.Unread()
	p.Receive(`{"op":"unsubscribe","app":"deep"}`)
	p.drain()
	p.Receive(`{"op":"ping"}`) // whose answer takes along whatever is queued
	if got, want := texts(p.Unread()), gateway(`{"code":200,"message":"unsubscribe deep success"}`)+"\n"+gateway(`{"code":200,"message":"pong"}`); got != want {
		t.Errorf("got %.300s", got)
	}
}

// H04: however many come back at once, and from where: what they missed is encoded once.
func TestH04ResumesShareTheirBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // at once: no time passes
		w := newWorld(t, short, nil)
		epoch := w.fill(200, "")
		const clients = 10_000
		ends := map[*byte]int{}
		for i := range clients {
			p := sessiontest.NewPipe(t)
			p.Attach(w.gateway.Open(p))
			p.Receive([]string{stranger, member42}[i/50%2])
			p.Receive(at("deep", epoch, uint64(i%50)))
			if n := len(p.Unread()); n != 2+200-i%50 {
				t.Fatalf("client %d got %d messages", i, n)
			}
			for _, f := range p.Frames()[2:] {
				ends[&f.Data[len(f.Data)-1]]++
			}
			p.Hangup(session.CloseAbnormal)
		}
		if len(ends) != 1 {
			t.Errorf("the messages were encoded %d times for %d clients", len(ends), clients)
		}
	})
}

// BenchmarkResume measures what resuming costs beside the network.
func BenchmarkResume(b *testing.B) {
	for _, missed := range []uint64{1, 10, 100, 1000} {
		b.Run(fmt.Sprintf("missed=%d", missed), func(b *testing.B) {
			w := newWorld(b, short, nil)
			epoch := w.fill(2000, strings.Repeat("x", 128))
			p := &hole{}
			s := w.gateway.Open(p)
			defer s.Closed(session.CloseNormal)
			s.Receive(push.OpText, []byte(stranger))
			resume := []byte(at("deep", epoch, 2000-missed))
			b.ReportAllocs()
			for b.Loop() {
				s.Receive(push.OpText, resume)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(missed), "ns/message")
		})
	}
}

// A hole is a client that takes everything.
type hole struct{ session.Conn }

func (hole) Send(*push.Frame) error  { return nil }
func (hole) Queue(*push.Frame) error { return nil }
func (hole) Flush()                  {}
