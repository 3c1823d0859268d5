package bench

import (
	"context"
	"time"
)

var ingestScenario = scenario{
	name:     "ingest",
	doc:      "cost of a push with one subscriber, alone and in batches",
	doors:    true,
	defaults: func(o *options) { o.connections, o.pushers, o.batch, o.duration = 1, 16, 100, 5*time.Second },
	run: func(ctx context.Context, r *run) error {
		if err := r.connect(ctx, r.seats(r.connections, r.pushers)); err != nil {
			return err
		}
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		for _, part := range []struct {
			name, prefix string
			batch        int
		}{
			{"pushing one by one", "", 1},
			{"pushing in batches", "batched_", r.batch},
		} {
			to := make([][]addressee, r.pushers)
			for i := range to {
				for range part.batch {
					to[i] = append(to[i], addressee{stream: i, member: -1})
				}
			}
			if err := r.pushFlatOut(ctx, crew, part.name, part.prefix, r.connections, func(i int) []addressee { return to[i] }); err != nil {
				return err
			}
		}
		return r.finish(ctx, crew.sent, crew.accepted.Load()*uint64(r.connections))
	},
}

// pushFlatOut lets the crew push as fast as the gateway takes it, to receivers each, and
// reports what a push costs.
func (r *run) pushFlatOut(ctx context.Context, crew *crew, phase, prefix string, receivers int, to func(i int) []addressee) error {
	stop := crew.start(ctx, func(ctx context.Context, i int, p *pusher) error {
		if r.behind(crew, receivers) {
			return sleep(ctx, time.Millisecond)
		}
		return p.push(ctx, to(i), time.Time{})
	})
	err := r.hold(ctx, "warming up", r.warmup, "pushes", crew.accepted.Load)
	from, before := r.sample(), crew.accepted.Load()
	if err == nil {
		err = r.hold(ctx, phase, r.duration, "pushes", crew.accepted.Load)
	}
	end, after := r.sample(), crew.accepted.Load()
	if e := stop(); e != nil {
		err = e
	}
	if err != nil {
		return err
	}
	n := float64(after - before)
	r.addCPU(prefix+"cpu_per_push", from, end, n)
	r.report.add(prefix+"pushes", n/end.at.Sub(from.at).Seconds(), "/s")
	r.addLoad(prefix, from, end)
	return nil
}
