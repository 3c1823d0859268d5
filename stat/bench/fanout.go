package bench

import (
	"context"
	"time"

	"ws-gateway/stat"
)

var fanoutScenario = scenario{
	name:     "fanout",
	doc:      "every push to many subscribers, as fast as the gateway takes it",
	doors:    true,
	defaults: func(o *options) { o.pushers = 16 },
	run: func(ctx context.Context, r *run) error {
		if err := r.connect(ctx, r.seats(r.connections, r.pushers)); err != nil {
			return err
		}
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		stop := crew.start(ctx, func(ctx context.Context, i int, p *pusher) error {
			if r.behind(crew, r.connections) {
				return sleep(ctx, time.Millisecond)
			}
			to := make([]addressee, r.batch)
			for j := range to {
				to[j] = addressee{stream: i, member: -1}
			}
			return p.push(ctx, to, time.Time{})
		})
		var from, to sample
		var pushes uint64
		var waited stat.Times // of the gateway's queue, before
		err := r.hold(ctx, "warming up", r.warmup, "deliveries", r.fleet.count)
		if err == nil {
			r.fleet.swapLatency()
			from, pushes = r.sample(), crew.accepted.Load()
			if r.stat != "" {
				waited, err = statServer(r.stat).queueTimes(ctx)
			}
		}
		if err == nil {
			err = r.hold(ctx, "pushing", r.duration, "deliveries", r.fleet.count)
		}
		to, pushes = r.sample(), crew.accepted.Load()-pushes
		latency := r.fleet.swapLatency()
		if e := stop(); e != nil {
			err = e
		}
		if err != nil {
			return err
		}
		n := float64(to.deliveries - from.deliveries)
		r.report.add("subscribers", float64(r.connections), "")
		r.report.add("deliveries", n/to.at.Sub(from.at).Seconds(), "/s")
		r.report.add("pushes", float64(pushes)/to.at.Sub(from.at).Seconds(), "/s")
		r.addCPU("cpu_per_delivery", from, to, n)
		r.addLoad("", from, to)
		r.addLatency("", latency)
		if r.stat != "" {
			times, err := statServer(r.stat).queueTimes(ctx)
			if err != nil {
				return err
			}
			r.report.add("queue_p99", 1e3*quantile(waited, times, 0.99), "ms")
		}
		r.report.add("refused", float64(crew.refused.Load()), "")
		return r.finish(ctx, crew.sent, crew.accepted.Load()*uint64(r.connections))
	},
}
