package bench

import (
	"context"
	"errors"
)

var privateScenario = scenario{
	name: "private",
	doc:  "cost of a push to one member with at least two connections (--tokens, a private app)",
	defaults: func(o *options) {
		o.app, o.connections, o.pushers = "im", 1000, 16
	},
	run: func(ctx context.Context, r *run) error {
		r.logins = r.logins[:min(len(r.logins), r.connections/2)]
		if len(r.logins) < r.pushers || r.logins[0].member < 0 {
			return errors.New("there must be as many members in --tokens as pushers, and two connections for each")
		}
		if len(r.logins) >= maxLane {
			return errors.New("--tokens has too many members")
		}
		// The members take their seats in turns: member i has every len(logins)'th connection.
		seats := r.seats(r.connections, 1)
		listeners := make([]uint64, len(r.logins))
		for i := range seats {
			who := i % len(r.logins)
			seats[i].member, seats[i].base = r.logins[who].member, who
			listeners[who]++
		}
		if err := r.connect(ctx, seats); err != nil {
			return err
		}
		crew := newCrew(r.target, r.pushers, len(r.logins), r.app, r.size)
		next := make([]int, r.pushers)
		err := r.pushFlatOut(ctx, crew, "pushing", "", r.connections/len(r.logins), func(i int) []addressee {
			who := next[i]*r.pushers + i
			if who >= len(r.logins) {
				next[i], who = 0, i
			}
			next[i]++
			return []addressee{{stream: who, member: r.logins[who].member}}
		})
		if err != nil {
			return err
		}
		var expected uint64
		for who, n := range listeners {
			expected += n * crew.sent[who]
		}
		return r.finish(ctx, crew.sent, expected)
	},
}
