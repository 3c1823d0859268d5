package bench

import (
	"context"
	"errors"
	"time"
)

var slowScenario = scenario{
	name:  "slow",
	doc:   "what clients that never read do to the others, and to the gateway",
	doors: true,
	defaults: func(o *options) {
		o.connections, o.pushers, o.size, o.rate = 50, 4, 2048, 1000
	},
	run: func(ctx context.Context, r *run) error {
		if r.target.tls != nil {
			return errors.New("over TLS it cannot be seen when a client that does not read is dropped")
		}
		if err := r.connect(ctx, r.seats(r.connections, r.pushers)); err != nil {
			return err
		}
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		stop := crew.pace(ctx, r.rate, toEverybody)
		err := r.besideSlow(ctx)
		if e := stop(); e != nil {
			err = e
		}
		if err != nil {
			return err
		}
		return r.finish(ctx, crew.sent, crew.accepted.Load()*uint64(r.connections))
	},
}

// besideSlow measures the subscribers before and after a client joins that never reads.
func (r *run) besideSlow(ctx context.Context) error {
	if err := r.hold(ctx, "warming up", r.warmup, "deliveries", r.fleet.count); err != nil {
		return err
	}
	r.fleet.swapLatency()
	if err := r.hold(ctx, "without a slow client", r.duration/2, "deliveries", r.fleet.count); err != nil {
		return err
	}
	r.addLatency("", r.fleet.swapLatency())
	before := r.sample()
	asleep := r.seats(1, 0)
	asleep[0].asleep = true
	if err := r.fleet.enter(ctx, asleep, 1, func(int) {}); err != nil {
		return err
	}
	joined := time.Now()
	most := before.rss
	watch := func() uint64 {
		most = max(most, r.sample().rss)
		return r.fleet.count()
	}
	if err := r.hold(ctx, "with a slow client", r.duration, "deliveries", watch); err != nil {
		return err
	}
	r.addLatency("with_slow_", r.fleet.swapLatency())
	r.fleet.mu.Lock()
	sleeper := r.fleet.conns[len(r.fleet.conns)-1]
	gone, ended := sleeper.phase == over, sleeper.ended
	r.fleet.mu.Unlock()
	if !gone {
		r.report.Notes = append(r.report.Notes, "the client that never reads was still connected at the end")
	} else {
		r.report.add("evicted_after", ended.Sub(joined).Seconds(), "s")
	}
	if r.server != nil {
		r.report.add("rss_growth", float64(most-before.rss)/1024, "KB")
	}
	return nil
}
