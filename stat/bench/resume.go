package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

var resumeScenario = scenario{
	name: "resume",
	doc:  "cost of a message that a client missed and gets when it is back, and of keeping one",
	defaults: func(o *options) {
		o.connections, o.duration, o.batch, o.pushers = 5000, time.Second, 100, 1
	},
	run: func(ctx context.Context, r *run) error {
		// What subscribing with a position costs when nothing was missed.
		seats := r.seats(r.connections, 0)
		for i := range seats {
			seats[i].subscribe = fmt.Appendf(nil, `{"app":%q,"position":null}`, r.app)
		}
		if _, err := r.visit(ctx, seats, 0); err != nil { // the gateway's heap grows to its size
			return err
		}
		fresh, err := r.visit(ctx, seats, 0)
		if err != nil {
			return err
		}
		position, err := r.position()
		if err != nil {
			return err
		}
		// What it costs when a whole batch was.
		crew := newCrew(r.target, r.pushers, 1, r.app, r.size)
		to := make([]addressee, r.batch)
		for i := range to {
			to[i] = addressee{member: -1}
		}
		if err := crew.pushers[0].push(ctx, to, time.Time{}); err != nil {
			return err
		}
		seats = r.seats(r.connections, 1)
		for i := range seats {
			seats[i].subscribe = fmt.Appendf(nil, `{"app":%q,"position":%s}`, r.app, position)
		}
		missed := uint64(r.batch * r.connections)
		resumed, err := r.visit(ctx, seats, missed)
		if err != nil {
			return err
		}
		crew.pushers[0].backend.close()
		if r.server != nil {
			r.report.add("cpu_per_resumed_message", float64((resumed-fresh).Nanoseconds())/1e3/float64(missed), "us")
		}
		r.report.Verdict = r.fleet.judge(crew.sent)
		return r.fillLogs(ctx)
	},
}

// visit connects the seats, waits until they have received n messages and lets them go. It
// returns the CPU time of the gateway up to then.
func (r *run) visit(ctx context.Context, seats []seat, n uint64) (time.Duration, error) {
	before, had := r.sample(), r.fleet.count()
	if err := r.connect(ctx, seats); err != nil {
		return 0, err
	}
	if err := r.fleet.settle(ctx, had+n, r.patience); err != nil {
		return 0, err
	}
	none := func() uint64 { return 0 }
	if err := r.hold(ctx, "settling", r.duration, "", none); err != nil {
		return 0, err
	}
	after := r.sample()
	if err := r.fleet.leave(ctx, r.window, false, func(int) {}); err != nil {
		return 0, err
	}
	return after.server - before.server, r.hold(ctx, "settling", r.duration, "", none)
}

// position returns, as JSON, what the first connection was told when it subscribed.
func (r *run) position() ([]byte, error) {
	r.fleet.mu.Lock()
	answer := r.fleet.conns[0].answer
	r.fleet.mu.Unlock()
	_, rest, ok := bytes.Cut(answer, []byte(`\"position\":`))
	end := bytes.IndexByte(rest, '}')
	if !ok || end < 0 {
		return nil, errors.New("the gateway gave no position: it cannot resume")
	}
	return bytes.ReplaceAll(rest[:end+1], []byte(`\"`), []byte(`"`)), nil
}

const (
	logApps = 1000 // whose logs are filled
	logSize = 100  // messages in each, as many as a gateway keeps by default
)

// fillLogs reports what the gateway's heap grows by for each message that it keeps, beside the
// text: for everybody, and each for another member.
func (r *run) fillLogs(ctx context.Context) error {
	if r.stat == "" {
		return nil
	}
	p := newCrew(r.target, 1, 1, r.app, r.size).pushers[0]
	defer p.backend.close()
	public, private := make([]addressee, logSize), make([]addressee, logSize)
	for i := range logSize {
		public[i], private[i] = addressee{member: -1}, addressee{member: int64(i + 1)}
	}
	for _, kind := range []struct {
		name string
		to   []addressee
	}{{"message", public}, {"private_message", private}} {
		before, err := statServer(r.stat).forceGC(ctx)
		if err != nil {
			return err
		}
		r.progress.begin("filling logs", "messages", 0)
		for i := range logApps {
			p.app = fmt.Sprintf("%s.%s.%d", r.app, kind.name, i)
			if err := p.push(ctx, kind.to, time.Time{}); err != nil {
				return err
			}
			r.progress.tell(float64(i)/logApps, uint64(i*logSize))
		}
		after, err := statServer(r.stat).forceGC(ctx)
		if err != nil {
			return err
		}
		beside := float64(after-before)/(logApps*logSize) - float64(r.size)
		r.report.add("heap_per_logged_"+kind.name+"_beside_text", beside, "B")
	}
	return nil
}
