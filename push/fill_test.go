package push_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"ws-gateway/apps"
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

// An app that a reload took out of the file goes at once, or with its last subscriber.
func TestRefresh(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apps.yaml")
	write := func(file string) {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("apps: {match: {}, news: {}}")
	rules, err := apps.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	h := with(t, "apps: {}", func(o *push.Options) { o.Apps = rules })
	s, _ := subscribe(t, h, "match", 7, 0)
	s.Start()
	publish(t, h, "match", -1, "to one")
	publish(t, h, "news", -1, "to nobody")
	check := func(when string, want ...stat.App) {
		t.Helper()
		h.Flush()
		var got stat.Snapshot
		h.Fill(&got)
		for i := range got.Apps {
			got.Apps[i].Log, got.Apps[i].Position = stat.Log{}, stat.Position{}
		}
		if !slices.Equal(got.Apps, want) {
			t.Errorf("%s: apps are %+v\nwant %+v", when, got.Apps, want)
		}
		if got.Pushes != 2 || got.Deliveries != 1 {
			t.Errorf("%s: %d pushes and %d deliveries in all, want 2 and 1", when, got.Pushes, got.Deliveries)
		}
	}
	write("apps: {}\ndefault: deny")
	if _, err := rules.Reload(); err != nil {
		t.Fatal(err)
	}
	h.Refresh()
	check("after the reload", stat.App{Name: "match", Subscriptions: 1, Members: 1, Pushes: 1, Deliveries: 1})
	s.Close()
	check("without its last subscriber")
}
