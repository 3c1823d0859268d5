package bench

import (
	"context"
	"time"
)

var idleScenario = scenario{
	name:  "idle",
	doc:   "memory and CPU of connections that are subscribed and say nothing",
	doors: true,
	defaults: func(o *options) {
		o.connections, o.warmup, o.duration = 10_000, 10*time.Second, 25*time.Second
	},
	run: func(ctx context.Context, r *run) error {
		before := r.sample()
		if err := r.connect(ctx, r.seats(r.connections, 0)); err != nil {
			return err
		}
		none := func() uint64 { return 0 }
		if err := r.hold(ctx, "settling", r.warmup, "", none); err != nil {
			return err
		}
		from := r.sample()
		n := float64(r.connections)
		if r.server != nil {
			r.report.add("rss_per_connection", float64(from.rss-before.rss)/1024/n, "KB")
		}
		if err := r.hold(ctx, "idling", r.duration, "", none); err != nil {
			return err
		}
		to := r.sample()
		if r.server != nil {
			r.report.add("cpu", float64((to.server-from.server).Microseconds())/1e3/to.at.Sub(from.at).Seconds(), "ms/s")
		}
		if r.stat != "" {
			if _, err := statServer(r.stat).forceGC(ctx); err != nil {
				return err
			}
			if err := r.hold(ctx, "settling after GC", r.warmup/2, "", none); err != nil {
				return err
			}
			if after := r.sample(); r.server != nil {
				r.report.add("rss_per_connection_after_gc", float64(after.rss-before.rss)/1024/n, "KB")
			}
		}
		r.report.Verdict = r.fleet.judge(nil)
		return nil
	},
}
