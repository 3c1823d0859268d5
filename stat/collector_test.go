package stat_test

import (
	"strings"
	"testing"

	"ws-gateway/stat"
)

func TestM01HostileAppNames(t *testing.T) {
	m := stat.New(stat.Options{})
	m.AddSource(func(s *stat.Snapshot) {
		s.Apps = append(s.Apps, stat.App{Name: "match", Named: true, Subscriptions: 5, Members: 4, Pushes: 6, Deliveries: 7,
			Log: stat.Log{Messages: 8, Bytes: 9}})
		s.Pushes, s.Deliveries = 6, 7
	})
	before, _ := scrape(t, m)
	const n = 10_000
	m.AddSource(manyApps(n))
	after, families := scrape(t, m)
	if b, a := series(before), series(after); a != b {
		t.Errorf("%d app names make %d series of %d", n, a, b)
	}
	for _, c := range []struct {
		family      string
		match, rest float64
	}{
		{"wsgateway_app_subscriptions", 5, n},
		{"wsgateway_app_members", 4, n},
		{"wsgateway_app_pushes_total", 6, 2 * n},
		{"wsgateway_app_deliveries_total", 7, 3 * n},
		{"wsgateway_app_log_messages", 8, 0},
		{"wsgateway_app_log_bytes", 9, 0},
	} {
		if got := value(families, c.family, "app=match"); got != c.match {
			t.Errorf("%s of match is %v, want %v", c.family, got, c.match)
		}
		if got := value(families, c.family, "app=other"); got != c.rest {
			t.Errorf("%s of the rest is %v, want %v", c.family, got, c.rest)
		}
	}
	if got := value(families, "wsgateway_apps"); got != n+1 {
		t.Errorf("%v apps, want %d", got, n+1)
	}

	a := get(t, serve(t, stat.HandlerOptions{Metrics: m}), "/stat", nil)
	if lines := strings.Count(a.body, "\n"); lines != n+1 {
		t.Errorf("/stat has %d lines, want %d", lines, n+1)
	}
	for line := range strings.Lines(a.body) {
		if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
			t.Errorf("M04 a line of /stat has a character that a terminal obeys: %q", line)
			break
		}
	}
}

// TestM01NamedByTheOperator has names in the apps file that could break the output: those of
// the sum of all others, and those that only differ in bytes that are not UTF-8.
func TestM01NamedByTheOperator(t *testing.T) {
	m := stat.New(stat.Options{})
	m.AddSource(func(s *stat.Snapshot) {
		for _, name := range []string{"other", "\xff", "\xfe", "a\"b\\c\nd"} {
			s.Apps = append(s.Apps, stat.App{Name: name, Named: true, Subscriptions: 1})
		}
		s.Apps = append(s.Apps, stat.App{Name: "stranger", Subscriptions: 1})
	})
	_, families := scrape(t, m)
	for app, want := range map[string]float64{"other": 2, "\uFFFD": 2, "a\"b\\c\nd": 1} {
		if got := value(families, "wsgateway_app_subscriptions", "app="+app); got != want {
			t.Errorf("subscriptions of %q are %v, want %v", app, got, want)
		}
	}
}

func TestSessionsByKind(t *testing.T) {
	m := stat.New(stat.Options{})
	m.AddSource(func(s *stat.Snapshot) { s.Sessions = stat.Sessions{Total: 6, Members: 3, Anonymous: 2, Pending: 1} })
	_, families := scrape(t, m)
	for kind, want := range map[string]float64{"members": 3, "anonymous": 2, "pending": 1} {
		if got := value(families, "wsgateway_sessions", "kind="+kind); got != want {
			t.Errorf("sessions of kind %s are %v, want %v", kind, got, want)
		}
	}
}

// TestAppCountersNeverFall goes through what can happen to apps between two scrapes.
func TestAppCountersNeverFall(t *testing.T) {
	var apps []stat.App
	var total uint64
	m := stat.New(stat.Options{})
	m.AddSource(func(s *stat.Snapshot) {
		s.Apps = append(s.Apps, apps...)
		s.Pushes, s.Deliveries = total, 10*total
	})
	app := func(name string, named bool, pushes uint64) stat.App {
		return stat.App{Name: name, Named: named, Pushes: pushes, Deliveries: 10 * pushes}
	}
	for _, step := range []struct {
		name        string
		apps        []stat.App
		total       uint64
		match, rest float64 // -1: no series
	}{
		{"start", nil, 0, -1, 0},
		{"both in use", []stat.App{app("match", true, 4), app("room:1", false, 6)}, 10, 4, 6},
		{"the stranger's is gone", []stat.App{app("match", true, 5)}, 12, 5, 7},
		{"both are gone", nil, 12, 5, 7},
		{"both start again", []stat.App{app("match", true, 3), app("room:1", false, 1)}, 16, 8, 8},
		{"one is gone before a scrape saw it", []stat.App{app("match", true, 3)}, 26, 8, 18},
		{"a reload takes the name away", []stat.App{app("match", false, 4)}, 27, 8, 19},
		{"and gives it back", []stat.App{app("match", true, 5)}, 28, 10, 19},
		{"the total is behind", []stat.App{app("match", true, 6)}, 28, 11, 19},
		{"nothing happens", []stat.App{app("match", true, 6)}, 28, 11, 19},
	} {
		apps, total = step.apps, step.total
		_, families := scrape(t, m)
		for family, times := range map[string]float64{"wsgateway_app_pushes_total": 1, "wsgateway_app_deliveries_total": 10} {
			for label, want := range map[string]float64{"match": step.match, "other": step.rest} {
				if want != -1 {
					want *= times
				}
				if got := value(families, family, "app="+label); got != want {
					t.Errorf("%s: %s of %s is %v, want %v", step.name, family, label, got, want)
				}
			}
		}
	}
}
