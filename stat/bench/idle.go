package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

var idleScenario = scenario{
	name: "idle",
	doc:  "memory and CPU of connections that are subscribed and say nothing",
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
		if r.pprof != "" {
			if err := forceGC(ctx, r.pprof); err != nil {
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

// forceGC makes the gateway collect its garbage, twice so that what pools hold goes as well.
func forceGC(ctx context.Context, stat string) error {
	for range 2 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(stat, "/")+"/debug/pprof/heap?gc=1", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("force a GC: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("force a GC: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("force a GC: %s answered %s", req.URL, resp.Status)
		}
	}
	return nil
}
