package push_test

import (
	"slices"
	"testing"

	"ws-gateway/push"
	"ws-gateway/stat"
)

func TestFill(t *testing.T) {
	h := with(t, "apps: {match: {}, im: {visibility: private}, \"room:*\": {}}", nil)
	m := stat.New(stat.Options{})
	m.AddSource(h.Fill)
	check := func(when string, pushes, deliveries uint64, want ...stat.App) {
		t.Helper()
		h.Flush()
		s := m.Snapshot()
		for i := range s.Apps {
			s.Apps[i].Log, s.Apps[i].Position.Epoch = stat.Log{}, ""
		}
		if !slices.Equal(s.Apps, want) {
			t.Errorf("%s: apps are %+v\nwant %+v", when, s.Apps, want)
		}
		if s.Pushes != pushes || s.Deliveries != deliveries {
			t.Errorf("%s: %d pushes and %d deliveries in all, want %d and %d", when, s.Pushes, s.Deliveries, pushes, deliveries)
		}
	}
	im := stat.App{Name: "im", Named: true}
	check("at start", 0, 0, im, stat.App{Name: "match", Named: true})

	var subscriptions []*push.Subscription
	for i, member := range []int64{7, 7, 8, -1} {
		s, _ := subscribe(t, h, "room:1", member, i)
		s.Start()
		subscriptions = append(subscriptions, s)
	}
	publish(t, h, "room:1", -1, "all")
	publish(t, h, "room:1", 7, "two")
	publish(t, h, "match", -1, "nobody")
	publish(t, h, "room:2", -1, "nobody")
	match := stat.App{Name: "match", Named: true, Pushes: 1, Position: stat.Position{Offset: 1}}
	check("in use", 4, 6, im, match, stat.App{
		Name: "room:1", Subscriptions: 4, Members: 2, Pushes: 2, Deliveries: 6, Position: stat.Position{Offset: 2},
	})

	for _, s := range subscriptions {
		s.Close()
	}
	check("nobody left in the room", 4, 6, im, match)
}
