package bench

import (
	"context"
	"time"
)

var connectScenario = scenario{
	name:     "connect",
	doc:      "connect, authenticate and subscribe; then leave",
	doors:    true,
	defaults: func(o *options) { o.connections, o.duration = 5_000, 2*time.Second },
	run: func(ctx context.Context, r *run) error {
		none := func() uint64 { return 0 }
		n := float64(r.connections)
		before := r.sample()
		if err := r.connect(ctx, r.seats(r.connections, 0)); err != nil {
			return err
		}
		connected := r.sample()
		if err := r.hold(ctx, "settling", r.duration, "", none); err != nil {
			return err
		}
		settled := r.sample()
		r.progress.begin("leaving", "connections", 0)
		err := r.fleet.leave(ctx, r.window, r.polite, func(done int) {
			r.progress.tell(float64(done)/n, uint64(done))
		})
		if err != nil {
			return err
		}
		left := r.sample()
		if err := r.hold(ctx, "settling", r.duration, "", none); err != nil {
			return err
		}
		end := r.sample()
		r.report.add("connections", n/connected.at.Sub(before.at).Seconds(), "/s")
		r.addCPU("cpu_per_connect", before, settled, n)
		r.addCPU("cpu_per_close", settled, end, n)
		r.report.add("leaving", n/left.at.Sub(settled.at).Seconds(), "/s")
		r.report.Verdict = r.fleet.judge(nil)
		return nil
	},
}
