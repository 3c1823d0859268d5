package transport

import (
	"testing"
	"time"

	"ws-gateway/stat"
)

// TestPace is S03: what a reader that never stops entirely has to achieve.
func TestPace(t *testing.T) {
	timeout := ticks(5 * time.Second)
	for name, test := range map[string]struct {
		every  uint32 // ticks between two steps of the reader
		bytes  int    // that it takes in each
		slow   uint32 // tick at which it is too slow, give or take a step; 0: never
		reason string // what for
	}{
		"nothing":                     {1, 0, 50, stat.ReasonWriteTimeout},
		"a byte a tick":               {1, 1, 300, stat.ReasonWriteMinimum},
		"a byte before every timeout": {49, 1, 300, stat.ReasonWriteMinimum},
		"64 KiB in 30s":               {1, 219, 0, ""},
		"little less":                 {1, 218, 300, stat.ReasonWriteMinimum},
		"in steps of 4.9s":            {49, 11 << 10, 0, ""},
		"in steps of 5s":              {50, 1 << 20, 50, stat.ReasonWriteTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			const before = 100_000 // in the socket before the queue began
			p, unsent := pace{written: 1000}, before+1000
			p.begin(1, unsent)
			for now := uint32(2); now < 2000; now++ {
				if now%test.every == 0 && !(test.every == 50 && now < 100) {
					p.written += int64(test.bytes) // the socket takes as much as the peer did
				}
				if reason := p.slow(now, unsent, timeout, 64<<10); reason != "" {
					if reason != test.reason {
						t.Errorf("too slow for %s, want %s", reason, test.reason)
					}
					if test.slow == 0 || now < test.slow || now > test.slow+2 {
						t.Errorf("too slow at tick %d, want %d", now, test.slow)
					}
					return
				}
			}
			if test.slow != 0 {
				t.Errorf("never too slow, want it at tick %d", test.slow)
			}
		})
	}
}

// A settled link has nothing of its own under way.
type settled struct{ link }

func (settled) unsent() int { return 0 }

// TestWriteMinimum has a peer take as much as it must, or a byte less.
func TestWriteMinimum(t *testing.T) {
	for taken, slow := range map[int64]bool{999: true, 1000: false} {
		m := stat.New(stat.Options{})
		c := &conn{t: &Transport{opts: Options{WriteMinimum: 1000, WriteTimeout: time.Minute, Metrics: m}}, link: settled{}, q: newQueue()}
		c.q.pace.begin(1, 0)
		c.q.pace.written += taken
		refused := map[bool]uint64{true: 1}[slow]
		if got, count := c.slow(1+ticks(30*time.Second)), m.Snapshot().Refused[stat.ReasonWriteMinimum]; got != slow || count != refused {
			t.Errorf("with %d bytes: slow is %v, counted %d times", taken, got, count)
		}
	}
}

// TestClock: the time in which the process is stopped does not count.
func TestClock(t *testing.T) {
	var c clock
	start := c.now()
	if start == 0 {
		t.Error("the clock starts at 0, which means never")
	}
	c.advance(300 * time.Millisecond)
	c.advance(time.Hour)
	if got := c.now() - start; got != 3+10 {
		t.Errorf("after 300ms and a stopped hour the clock stands at %d ticks, want 13", got)
	}
}

// TestRound: looks at what is due are as rare as the shortest time of all allows.
func TestRound(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	for _, test := range []struct {
		ping, pong, partial, write, want time.Duration
	}{
		{25 * s, 10 * s, 15 * s, 5 * s, 250 * ms},
		{time.Hour, time.Hour, time.Hour, time.Hour, 250 * ms},
		{3 * s, 10 * s, 15 * s, 5 * s, 150 * ms},
		{25 * s, 3 * s, 15 * s, 5 * s, 150 * ms},
		{25 * s, 10 * s, 3 * s, 5 * s, 150 * ms},
		{25 * s, 10 * s, 15 * s, 3 * s, 150 * ms},
		{25 * s, 10 * s, 15 * s, 100 * ms, 100 * ms},
	} {
		o := Options{PingInterval: test.ping, PongTimeout: test.pong, PartialTimeout: test.partial, WriteTimeout: test.write}
		if got := o.round(); got != test.want {
			t.Errorf("%+v: a look every %v", test, got)
		}
	}
}

// TestHeartbeat drives the roster through time: when pings go out, and when a peer is given up.
func TestHeartbeat(t *testing.T) {
	const interval, timeout = 250, 100 // 25s and 10s
	var r roster
	talks, answers, silent := new(conn), new(conn), new(conn)
	for _, c := range []*conn{talks, answers, silent} {
		c.seen.Store(1)
		r.add(c, 1+interval)
	}
	pings := map[*conn][]uint32{}
	for now := uint32(2); now < 1000; now++ {
		if now%200 == 0 {
			talks.seen.Store(now)
		}
		pinged, dead := r.visit(now, interval, timeout)
		for _, c := range pinged {
			pings[c] = append(pings[c], now)
			if c == answers {
				c.seen.Store(now + 1)
			}
		}
		for _, c := range dead {
			if c != silent {
				t.Errorf("a live peer is given up at %d", now)
			} else if now > 1+interval+timeout {
				t.Errorf("the silent peer is given up at %d, want within 35s", now)
			}
			r.remove(c)
		}
		if now == 900 {
			break
		}
	}
	if len(pings[talks]) != 0 {
		t.Errorf("a peer that talks is pinged at %v", pings[talks])
	}
	if len(pings[silent]) != 1 || pings[silent][0] > 1+interval || pings[silent][0] < 1+interval*24/25 {
		t.Errorf("the silent peer is pinged at %v, want once, 24s to 25s after its last byte", pings[silent])
	}
	if len(pings[answers]) != 3 {
		t.Errorf("the peer that answers is pinged at %v, want three times in 90s", pings[answers])
	}
	if len(r.members) != 2 {
		t.Errorf("%d members left, want 2", len(r.members))
	}
}
