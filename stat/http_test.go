package stat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ws-gateway/stat"
)

// serve starts a stat server on loopback and returns its URL.
func serve(tb testing.TB, o stat.HandlerOptions) string {
	tb.Helper()
	server := httptest.NewServer(stat.Handler(tb.Context(), o))
	tb.Cleanup(server.Close)
	tb.Cleanup(http.DefaultClient.CloseIdleConnections)
	return server.URL
}

// patience ends a stream that should have been refused.
const patience = time.Minute

type response struct {
	status int
	header http.Header
	body   string
}

// get asks for a path with extra headers, of which Host goes where it belongs.
func get(tb testing.TB, url, path string, header map[string]string) response {
	tb.Helper()
	return ask(tb, http.MethodGet, url, path, header)
}

func ask(tb testing.TB, method, url, path string, header map[string]string) response {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, url+path, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v
		}
		r.Header.Set(k, v)
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Body.Close()
	body, err := io.ReadAll(w.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return response{w.StatusCode, w.Header, string(body)}
}

// remote asks the handler directly, as a peer with this address.
func remote(o stat.HandlerOptions, address string, r *http.Request, tb testing.TB) response {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	r = r.WithContext(ctx)
	r.RemoteAddr = address
	w := httptest.NewRecorder()
	stat.Handler(tb.Context(), o).ServeHTTP(w, r)
	return response{w.Code, w.Header(), w.Body.String()}
}

func TestStatHasALinePerApp(t *testing.T) {
	m := stat.New(stat.Options{Node: "a", Version: "1"})
	m.AddSource(func(s *stat.Snapshot) { // those in use
		s.Apps = append(s.Apps,
			stat.App{Name: "video:2", Subscriptions: 10},
			stat.App{Name: "match", Subscriptions: 1, Named: true},
			stat.App{Name: "gone"}, // nobody is subscribed any more
		)
	})
	m.AddSource(func(s *stat.Snapshot) { // those that the apps file names
		s.Apps = append(s.Apps, stat.App{Name: "match", Named: true}, stat.App{Name: "im", Named: true})
	})
	a := get(t, serve(t, stat.HandlerOptions{Metrics: m}), "/stat", nil)
	if want := "im 0\nmatch 1\nvideo:2 10\n"; a.body != want || a.status != 200 {
		t.Errorf("/stat answers %d %q, want 200 %q", a.status, a.body, want)
	}
	if got := a.header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("Content-Type is %q", got)
	}
}

func TestStatIsEmptyWithoutApps(t *testing.T) {
	url := serve(t, stat.HandlerOptions{Metrics: stat.New(stat.Options{})})
	if a := get(t, url, "/stat", nil); a.status != 200 || a.body != "" {
		t.Errorf("/stat answers %d %q, want 200 and nothing", a.status, a.body)
	}
	a := get(t, url, "/stat", map[string]string{"Accept": "application/json"})
	if !strings.Contains(a.body, `"apps":[]`) {
		t.Errorf("no apps are %s, want an empty list", a.body)
	}
}

func TestStatJSON(t *testing.T) {
	m := stat.New(stat.Options{Node: "a", Version: "1.2.3"})
	exercise(m)
	m.Command("subscribe", 403)
	m.Command("subscribe", 999)
	m.AddSource(func(s *stat.Snapshot) {
		s.Sessions = stat.Sessions{Total: 6, Members: 3, Anonymous: 2, Pending: 1}
		s.Pushes, s.Deliveries = 100, 1000
		s.Apps = append(s.Apps, stat.App{
			Name: "match", Named: true, Subscriptions: 4, Members: 3, Pushes: 9, Deliveries: 36,
			Log: stat.Log{Messages: 8, Bytes: 512}, Position: stat.Position{Epoch: "e1", Offset: 9},
		})
	})
	a := get(t, serve(t, stat.HandlerOptions{Metrics: m}), "/stat", map[string]string{"Accept": "application/json"})
	if got := a.header.Get("Content-Type"); got != "application/json" || a.status != 200 {
		t.Fatalf("answers %d %s", a.status, got)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(a.body), &all); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"node": `"a"`, "version": `"1.2.3"`,
		"sessions":        `{"total":6,"members":3,"anonymous":2,"pending":1}`,
		"subscriptions":   `4`,
		"pushes":          `100`,
		"deliveries":      `1000`,
		"sessions_opened": `1`,
		"sessions_closed": `{"4008":1}`,
		"auth":            `{"accepted":1}`,
		"commands":        `{"other":1,"subscribe":2}`,
		"push_results":    `{"accepted":3}`,
		"refused":         `{"push_rate":1}`,
		"slow_dropped":    `{"latest":2}`,
		"resumes":         `{"recovered":1,"unrecovered":0,"messages":7}`,
		"written_bytes":   `100`,
		"apps": `[{"name":"match","named":true,"subscriptions":4,"members":3,"pushes":9,"deliveries":36,` +
			`"log":{"messages":8,"bytes":512},"position":{"epoch":"e1","offset":9}}]`,
	} {
		if got := string(all[key]); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}

	var s stat.Snapshot
	if err := json.Unmarshal([]byte(a.body), &s); err != nil {
		t.Fatal(err)
	}
	if s.Time.IsZero() || s.UptimeSeconds <= 0 {
		t.Errorf("time %v, uptime %v", s.Time, s.UptimeSeconds)
	}
	if p := s.Process; p.RSSBytes == 0 || p.HeapBytes == 0 || p.CPUSeconds == 0 || p.Goroutines == 0 || p.OpenFiles == 0 || p.MaxFiles == 0 {
		t.Errorf("the process is %+v", p)
	}
	var at *stat.Bucket
	for i, b := range s.QueueTime.Buckets {
		if b.Count > 0 && at == nil {
			at = &s.QueueTime.Buckets[i]
		}
	}
	if s.QueueTime.Count != 1 || s.QueueTime.SumSeconds != 0.001 || at == nil || at.LE != 0.001 {
		t.Errorf("a wait of 1 ms is %+v", s.QueueTime)
	}
}

func TestStatAccept(t *testing.T) {
	url := serve(t, stat.HandlerOptions{Metrics: stat.New(stat.Options{})})
	for accept, wantJSON := range map[string]bool{
		"":                                  false,
		"*/*":                               false,
		"text/html,application/xhtml+xml":   false,
		"application/json":                  true,
		"Application/JSON; charset=utf-8":   true,
		"text/plain;q=0.5,application/json": true,
		"application/json;q=0":              false,
		"application/json;q=0.0, */*":       false,
		"application/jsonx":                 false,
		";;;":                               false,
	} {
		a := get(t, url, "/stat", map[string]string{"Accept": accept})
		if got := strings.HasPrefix(a.header.Get("Content-Type"), "application/json"); got != wantJSON {
			t.Errorf("Accept %q answered with JSON: %v, want %v", accept, got, wantJSON)
		}
	}
}

func TestHealthAndReadiness(t *testing.T) {
	ready := new(stat.Ready)
	url := serve(t, stat.HandlerOptions{Ready: ready, Key: "secret"}) // probes have no key
	for _, c := range []struct {
		set    func()
		status int
		body   string
	}{
		{func() {}, 503, `{"code":503,"message":"starting"}`},
		{func() { ready.Set("") }, 200, `{"code":200,"message":"ready"}`},
		{func() { ready.Set("draining") }, 503, `{"code":503,"message":"draining"}`},
	} {
		c.set()
		if a := get(t, url, "/readyz", nil); a.status != c.status || a.body != c.body+"\n" {
			t.Errorf("/readyz answers %d %s, want %d %s", a.status, a.body, c.status, c.body)
		}
		if a := get(t, url, "/healthz", nil); a.status != 200 {
			t.Errorf("/healthz answers %d", a.status)
		}
	}
}

func TestReload(t *testing.T) {
	var changes []string
	var err error
	url := serve(t, stat.HandlerOptions{Reload: func() ([]string, error) { return changes, err }})
	reload := func() response { return ask(t, http.MethodPost, url, "/reload", nil) }

	if a := reload(); a.status != 200 || a.body != `{"code":200,"changes":[]}`+"\n" {
		t.Errorf("nothing changed: %d %s", a.status, a.body)
	}
	changes = []string{"app vip: subscribe"}
	if a := reload(); a.status != 200 || a.body != `{"code":200,"changes":["app vip: subscribe"]}`+"\n" {
		t.Errorf("one change: %d %s", a.status, a.body)
	}
	err = errors.New("apps.yaml:3:1: unknown key")
	if a := reload(); a.status != 422 || a.body != `{"code":422,"message":"apps.yaml:3:1: unknown key"}`+"\n" {
		t.Errorf("C02 a bad file: %d %s", a.status, a.body)
	}
	if a := get(t, url, "/reload", nil); a.status != 405 || a.header.Get("Allow") != "POST" {
		t.Errorf("GET answers %d, Allow %q", a.status, a.header.Get("Allow"))
	}
	if a := ask(t, http.MethodPost, serve(t, stat.HandlerOptions{}), "/reload", nil); a.status != 404 {
		t.Errorf("turned off it answers %d", a.status)
	}
}

func TestMethodsAndRoutes(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "page") })
	url := serve(t, stat.HandlerOptions{Dashboard: page, Pprof: true})
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/", 200},
		{"GET", "/dashboard/app.js", 200},
		{"GET", "/nowhere", 404},
		{"GET", "/stat/", 404},
		{"HEAD", "/stat", 200},
		{"HEAD", "/stat/stream", 200},
		{"POST", "/stat", 405},
		{"PUT", "/metrics", 405},
		{"DELETE", "/healthz", 405},
		{"POST", "/readyz", 405},
		{"GET", "/debug/pprof/", 200},
		{"GET", "/debug/pprof/goroutine", 200},
		{"GET", "/debug/pprof/cmdline", 200},
		{"POST", "/debug/pprof/symbol", 200},
	} {
		a := ask(t, c.method, url, c.path, nil)
		if a.status != c.status {
			t.Errorf("%s %s answers %d, want %d", c.method, c.path, a.status, c.status)
		}
		if c.status == 405 && a.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s %s: Allow is %q", c.method, c.path, a.header.Get("Allow"))
		}
		for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "Cache-Control", "Referrer-Policy", "Cross-Origin-Resource-Policy"} {
			if a.header.Get(name) == "" {
				t.Errorf("%s %s lacks %s", c.method, c.path, name)
			}
		}
	}
	plain := serve(t, stat.HandlerOptions{})
	for _, path := range []string{"/", "/dashboard/app.js", "/debug/pprof/", "/debug/pprof/heap"} {
		if a := get(t, plain, path, nil); a.status != 404 {
			t.Errorf("%s, turned off, answers %d", path, a.status)
		}
	}
}

// manyApps is a source of n apps with names that strangers would choose.
func manyApps(n int) stat.Source {
	apps := make([]stat.App, n)
	for i := range apps {
		apps[i] = stat.App{Name: hostile(i), Subscriptions: 1, Members: 1, Pushes: 2, Deliveries: 3}
	}
	return func(s *stat.Snapshot) {
		s.Apps = append(s.Apps, apps...)
		s.Pushes, s.Deliveries = s.Pushes+uint64(2*n), s.Deliveries+uint64(3*n)
	}
}

func hostile(i int) string {
	return []string{
		"app:%d", "other%d", "a\"} 1\nwsgateway_evil_%d 1", "x\n# TYPE y%d gauge", "\xff\xfe%d", "\\%d", "{%d=\"\"}",
		"é%d", "\x1b[31m%d", "%d " + strings.Repeat("x", 128),
	}[i%10] + fmt.Sprint(i)
}

func BenchmarkStat(b *testing.B) {
	m := stat.New(stat.Options{})
	m.AddSource(manyApps(10_000))
	h := stat.Handler(b.Context(), stat.HandlerOptions{Metrics: m})
	for name, accept := range map[string]string{"text": "", "json": "application/json"} {
		b.Run("as="+name, func(b *testing.B) { benchmarkGet(b, h, "/stat", accept) })
	}
	b.Run("as=metrics", func(b *testing.B) { benchmarkGet(b, h, "/metrics", "") })
}

func benchmarkGet(b *testing.B, h http.Handler, path, accept string) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		w.Body.Reset()
		h.ServeHTTP(w, r)
	}
	b.ReportMetric(float64(w.Body.Len()), "bytes")
}
