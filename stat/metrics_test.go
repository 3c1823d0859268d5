package stat_test

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"ws-gateway/stat"
)

// exercise calls every method that counts something.
func exercise(m *stat.Metrics) {
	m.SessionOpened("event")
	m.SessionClosed(4008)
	m.Authenticated(stat.AuthAccepted, time.Millisecond)
	m.AuthBackend("callback", "accepted", time.Millisecond)
	m.Command("subscribe", 200)
	m.Refused(stat.ReasonPushRate)
	m.Pushed(stat.PushAccepted, 3)
	m.PushUnknownKeys(1)
	m.PushDuration(time.Millisecond)
	m.QueueTime(time.Millisecond)
	m.SlowDropped("latest", 2)
	m.Resumed(true, 7)
	m.Panic("session")
	m.Reload("apps", false)
	m.HandshakeDuration(time.Millisecond)
	m.Script("/chat", "ok", time.Millisecond)
	m.BytesWritten(100)
}

// scrape returns what /metrics says, raw and parsed.
func scrape(t *testing.T, m *stat.Metrics) (string, map[string]*dto.MetricFamily) {
	t.Helper()
	a := get(t, serve(t, stat.HandlerOptions{Metrics: m}), "/metrics", nil)
	if a.status != 200 {
		t.Fatalf("/metrics answers %d: %s", a.status, a.body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(a.body))
	if err != nil {
		t.Fatalf("parse /metrics: %v", err)
	}
	return a.body, families
}

// value returns the value of the series of a family that has the labels "name=value", or -1.
func value(families map[string]*dto.MetricFamily, family string, labels ...string) float64 {
series:
	for _, metric := range families[family].GetMetric() {
		if len(metric.GetLabel()) != len(labels) {
			continue
		}
		for i, l := range metric.GetLabel() { // sorted by name
			if l.GetName()+"="+l.GetValue() != labels[i] {
				continue series
			}
		}
		switch {
		case metric.Gauge != nil:
			return metric.Gauge.GetValue()
		case metric.Counter != nil:
			return metric.Counter.GetValue()
		default:
			return float64(metric.Histogram.GetSampleCount())
		}
	}
	return -1
}

func TestNilMetricsCountsNothing(t *testing.T) {
	var m *stat.Metrics
	exercise(m)
	m.AddSource(func(*stat.Snapshot) { t.Error("a nil Metrics asked a source") })
	if got := m.Snapshot(); !reflect.DeepEqual(got, stat.Snapshot{}) {
		t.Errorf("snapshot of a nil Metrics is %+v, want the zero value", got)
	}
	url := serve(t, stat.HandlerOptions{})
	for _, path := range []string{"/stat", "/metrics"} {
		if a := get(t, url, path, nil); a.status != 200 || a.body != "" {
			t.Errorf("%s of a nil Metrics answers %d %q, want 200 and nothing", path, a.status, a.body)
		}
	}
}

func TestMetricsCount(t *testing.T) {
	m := stat.New(stat.Options{Version: "1.2.3"})
	exercise(m)
	_, families := scrape(t, m)
	for _, c := range []struct {
		family string
		labels []string
		want   float64
	}{
		{"wsgateway_sessions_opened_total", []string{"transport=event"}, 1},
		{"wsgateway_sessions_closed_total", []string{"code=4008"}, 1},
		{"wsgateway_auth_total", []string{"result=accepted"}, 1},
		{"wsgateway_auth_duration_seconds", nil, 1},
		{"wsgateway_auth_backend_duration_seconds", []string{"backend=callback", "outcome=accepted"}, 1},
		{"wsgateway_commands_total", []string{"code=200", "op=subscribe"}, 1},
		{"wsgateway_refused_total", []string{"reason=push_rate"}, 1},
		{"wsgateway_pushes_total", []string{"result=accepted"}, 3},
		{"wsgateway_push_unknown_keys_total", nil, 1},
		{"wsgateway_push_duration_seconds", nil, 1},
		{"wsgateway_push_queue_seconds", nil, 1},
		{"wsgateway_slow_dropped_messages_total", []string{"policy=latest"}, 2},
		{"wsgateway_resumes_total", []string{"recovered=true"}, 1},
		{"wsgateway_resumes_total", []string{"recovered=false"}, 0},
		{"wsgateway_resumed_messages_total", nil, 7},
		{"wsgateway_panics_total", []string{"where=session"}, 1},
		{"wsgateway_reloads_total", []string{"result=failed", "what=apps"}, 1},
		{"wsgateway_reload_failed", []string{"what=apps"}, 1},
		{"wsgateway_handshake_duration_seconds", nil, 1},
		{"wsgateway_script_duration_seconds", []string{"door=/chat", "outcome=ok"}, 1},
		{"wsgateway_written_bytes_total", nil, 100},
	} {
		if got := value(families, c.family, c.labels...); got != c.want {
			t.Errorf("%s%v is %v, want %v", c.family, c.labels, got, c.want)
		}
	}

	m.Reload("apps", true)
	m.Authenticated(stat.AuthMissing, 0)
	_, families = scrape(t, m)
	if got := value(families, "wsgateway_reload_failed", "what=apps"); got != 0 {
		t.Errorf("reload_failed is %v after a good reload, want 0", got)
	}
	if got := value(families, "wsgateway_auth_duration_seconds"); got != 1 {
		t.Errorf("a missing auth message counts as an answer: %v, want 1", got)
	}
}

func TestUnknownLabelsFold(t *testing.T) {
	m := stat.New(stat.Options{})
	before, _ := scrape(t, m)
	for code := range 5000 {
		m.SessionClosed(code)
		m.Command("subscribe", code)
	}
	for i := range 1000 {
		hostile := strings.Repeat("x", i)
		m.SessionOpened(hostile)
		m.Authenticated(hostile, 0)
		m.Command(hostile, 200)
		m.Refused(hostile)
		m.Pushed(hostile, 1)
		m.SlowDropped(hostile, 1)
	}
	after, families := scrape(t, m)
	if b, a := series(before), series(after); a != b {
		t.Errorf("unknown values make %d series of %d", a, b)
	}
	for family, label := range map[string]string{
		"wsgateway_sessions_opened_total":       "transport=other",
		"wsgateway_auth_total":                  "result=other",
		"wsgateway_refused_total":               "reason=other",
		"wsgateway_pushes_total":                "result=other",
		"wsgateway_slow_dropped_messages_total": "policy=other",
	} {
		if got := value(families, family, label); got != 1000 {
			t.Errorf("%s{%s} is %v, want 1000", family, label, got)
		}
	}
	if got := value(families, "wsgateway_sessions_closed_total", "code=other"); got != 5000-21 {
		t.Errorf("codes that are not ours: %v, want %d", got, 5000-21)
	}

	for i := range 1000 {
		m.Panic(strings.Repeat("x", i))
	}
	_, families = scrape(t, m)
	if n := len(families["wsgateway_panics_total"].GetMetric()); n != 65 {
		t.Errorf("%d values of a label that the program makes up, want 64 and other", n)
	}
	if got := value(families, "wsgateway_panics_total", "where=other"); got != 1000-64 {
		t.Errorf("panics in other places: %v, want %d", got, 1000-64)
	}
}

// series counts ours in the text of /metrics.
func series(metrics string) (n int) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "wsgateway_") {
			n++
		}
	}
	return n
}

func TestPromtoolFindsNothing(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("promtool checks the metrics; install it with: apt-get install prometheus (%v)", err)
	}
	m := stat.New(stat.Options{Version: "1.2.3"})
	exercise(m)
	m.AddSource(func(s *stat.Snapshot) { s.Apps = append(s.Apps, stat.App{Name: "match", Named: true}) })
	text, _ := scrape(t, m)
	check := exec.Command(promtool, "check", "metrics")
	check.Stdin = strings.NewReader(text)
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	m := stat.New(stat.Options{})
	for name, f := range hot(m) {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

// hot returns calls of the methods that run once per command, push, write or connection.
func hot(m *stat.Metrics) map[string]func() {
	return map[string]func(){
		"SessionOpened": func() { m.SessionOpened("event") },
		"SessionClosed": func() { m.SessionClosed(4008) },
		"Authenticated": func() { m.Authenticated(stat.AuthAccepted, time.Millisecond) },
		"Command":       func() { m.Command("subscribe", 200) },
		"Refused":       func() { m.Refused(stat.ReasonPushRate) },
		"Pushed":        func() { m.Pushed(stat.PushAccepted, 1) },
		"PushDuration":  func() { m.PushDuration(time.Millisecond) },
		"QueueTime":     func() { m.QueueTime(time.Millisecond) },
		"SlowDropped":   func() { m.SlowDropped("latest", 1) },
		"Resumed":       func() { m.Resumed(true, 3) },
		"Handshake":     func() { m.HandshakeDuration(time.Millisecond) },
		"Script":        func() { m.Script("/chat", "ok", time.Millisecond) },
		"BytesWritten":  func() { m.BytesWritten(1400) },
	}
}

func BenchmarkCount(b *testing.B) {
	for name, f := range hot(stat.New(stat.Options{})) {
		b.Run("method="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

func BenchmarkCountParallel(b *testing.B) {
	m := stat.New(stat.Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m.BytesWritten(1400)
		}
	})
}
