package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A run is one scenario while it runs.
type run struct {
	options
	target   *target
	server   *process // nil: unknown
	fleet    *fleet
	logins   []login
	progress *progress
	report   *Report
}

// seats returns n seats for listeners of the app, each to the given streams.
func (r *run) seats(n, streams int) []seat {
	out := make([]seat, n)
	for i := range out {
		out[i] = seat{auth: r.logins[i%len(r.logins)].frame(), app: r.app, member: -1, streams: streams}
	}
	return out
}

// frame returns the first message of a connection.
func (l login) frame() []byte {
	token, _ := json.Marshal(l.token)
	return appendFrame(nil, opText, fmt.Appendf(nil, `{"member_id":%d,"token":%s}`, l.member, token))
}

// connect opens the given seats.
func (r *run) connect(ctx context.Context, seats []seat) error {
	r.progress.begin("connecting", "connections", 0)
	return r.fleet.enter(ctx, seats, r.window, func(done int) {
		r.progress.tell(float64(done)/float64(len(seats)), uint64(done))
	})
}

// hold lets d pass, while count counts things called unit.
func (r *run) hold(ctx context.Context, phase string, d time.Duration, unit string, count func() uint64) error {
	began := time.Now()
	r.progress.begin(phase, unit, count())
	for {
		left := d - time.Since(began)
		if left <= 0 {
			return nil
		}
		if err := sleep(ctx, min(left, 100*time.Millisecond)); err != nil {
			return err
		}
		r.fleet.mu.Lock()
		err := r.fleet.failed
		r.fleet.mu.Unlock()
		if err != nil {
			return err
		}
		r.progress.tell(float64(time.Since(began))/float64(d), count())
	}
}

// A sample is the state of things at one moment.
type sample struct {
	at         time.Time
	server     time.Duration // CPU
	own        time.Duration // CPU
	rss        int64         // bytes, of the server
	deliveries uint64
}

func (r *run) sample() (s sample) {
	s.at = time.Now()
	s.deliveries = r.fleet.count()
	s.own = ownCPU()
	if r.server != nil {
		var err error
		if s.server, err = r.server.cpu(); err == nil {
			s.rss, err = r.server.rss()
		}
		if err != nil {
			r.report.Notes = append(r.report.Notes, err.Error())
			r.server = nil
		}
	}
	return s
}

// addCPU reports the server's CPU per one of n things, in us.
func (r *run) addCPU(name string, from, to sample, n float64) {
	if r.server != nil && n > 0 {
		r.report.add(name, float64((to.server-from.server).Nanoseconds())/1e3/n, "us")
	}
}

// addLoad reports how much of a core server and generator used.
func (r *run) addLoad(prefix string, from, to sample) {
	wall := to.at.Sub(from.at).Seconds()
	if r.server != nil {
		r.report.add(prefix+"server_cores", (to.server-from.server).Seconds()/wall, "")
	}
	r.report.add(prefix+"generator_cores", (to.own-from.own).Seconds()/wall, "")
}

// addLatency reports quantiles of h.
func (r *run) addLatency(prefix string, h *hdrhistogram.Histogram) {
	for _, q := range []struct {
		name string
		at   float64
	}{{"p50", 50}, {"p99", 99}, {"max", 100}} {
		r.report.add(prefix+q.name, float64(h.ValueAtQuantile(q.at))/1e3, "ms")
	}
}

// finish waits for what is under way, and closes the books.
func (r *run) finish(ctx context.Context, sent []uint64, expected uint64) error {
	r.progress.begin("waiting for the last", "", 0)
	if err := r.fleet.settle(ctx, expected, r.patience); err != nil {
		return err
	}
	r.report.Verdict = r.fleet.judge(sent)
	return nil
}

// What may be on its way to each subscriber, well below what a gateway keeps for one.
const (
	unreadBytes    = 256 << 10
	unreadMessages = 400
)

// behind reports whether the generator reads less than the crew pushes, each message of which
// has the given number of receivers: a client that does not come round to reading would be
// dropped for being slow.
func (r *run) behind(c *crew, receivers int) bool {
	each := uint64(min(unreadMessages, max(1, unreadBytes/(r.size+64))))
	return c.accepted.Load()*uint64(receivers) > r.fleet.count()+each*uint64(r.connections)
}
