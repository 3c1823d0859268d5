package bench

import (
	"context"
	"math"
	"time"
)

var latencyScenario = scenario{
	name:     "latency",
	doc:      "time from push to receipt, and CPU, at a given rate",
	doors:    true,
	defaults: func(o *options) { o.pushers = 4 },
	run: func(ctx context.Context, r *run) error {
		if err := r.connect(ctx, r.seats(r.connections, r.pushers)); err != nil {
			return err
		}
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		stop := crew.pace(ctx, r.rate, toEverybody)
		return r.measurePaced(ctx, crew, stop)
	},
}

// measurePaced measures while a crew pushes at a given rate, then stops it and reports.
func (r *run) measurePaced(ctx context.Context, crew *crew, stop func() error) error {
	var from sample
	err := r.hold(ctx, "warming up", r.warmup, "deliveries", r.fleet.count)
	if err == nil {
		r.fleet.swapLatency()
		from = r.sample()
		err = r.hold(ctx, "pushing", r.duration, "deliveries", r.fleet.count)
	}
	to := r.sample()
	latency := r.fleet.swapLatency()
	if e := stop(); e != nil {
		err = e
	}
	if err != nil {
		return err
	}
	n := float64(to.deliveries - from.deliveries)
	r.report.add("subscribers", float64(r.connections), "")
	r.report.add("pushes", n/float64(r.connections)/to.at.Sub(from.at).Seconds(), "/s")
	r.addLatency("", latency)
	r.addCPU("cpu_per_delivery", from, to, n)
	r.addLoad("", from, to)
	return r.finish(ctx, crew.sent, crew.accepted.Load()*uint64(r.connections))
}

// pace makes the pushers push at the given rate in all, each in its turn and to whom its
// number i says. A message that is late, because the one before took long, still counts from
// when it was due: the loop is open, and nothing that the gateway does makes it push less.
func (c *crew) pace(ctx context.Context, rate float64, to func(i int) []addressee) (stop func() error) {
	interval := time.Duration(math.Round(float64(time.Second) / rate))
	began := time.Now()
	turns := make([]int, len(c.pushers)) // each pusher's own
	stopped := make(chan struct{})
	halt := c.start(ctx, func(ctx context.Context, i int, p *pusher) error {
		turn := turns[i]*len(c.pushers) + i
		turns[i]++
		due := began.Add(time.Duration(turn) * interval)
		select {
		case <-stopped:
			return context.Canceled
		case <-time.After(time.Until(due) - precision):
		}
		sleepUntil(due)
		return p.push(ctx, to(i), due)
	})
	return func() error {
		close(stopped)
		return halt()
	}
}

// precision is what a timer of the Go runtime may be late by, with much to spare.
const precision = 3 * time.Millisecond

// toEverybody is a message of pusher i's own stream to all subscribers.
func toEverybody(i int) []addressee { return []addressee{{stream: i, member: -1}} }
