package dashboard_test

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"ws-gateway/server/servertest"
	"ws-gateway/stat/dashboard"
)

func TestPageIsComplete(t *testing.T) {
	g := start(t)
	resp, page := g.Do(http.MethodGet, g.StatURL+"/", "")
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/html; charset=utf-8" {
		t.Fatalf("GET /: %s, %s", resp.Status, got)
	}
	kinds := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
	named := regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1)
	if len(named) < 6 {
		t.Fatalf("the page names only %q", named)
	}
	for _, name := range named {
		if !strings.HasPrefix(name[1], "/dashboard/") {
			t.Errorf("the page loads %s, which is not ours", name[1])
			continue
		}
		resp, _ := g.Do(http.MethodGet, g.StatURL+name[1], "")
		if want := kinds[name[1][strings.LastIndexByte(name[1], '.')+1:]]; resp.StatusCode != 200 || resp.Header.Get("Content-Type") != want {
			t.Errorf("GET %s: %s, %s, want %s", name[1], resp.Status, resp.Header.Get("Content-Type"), want)
		}
	}
	if body := g.Get(g.StatURL + "/dashboard/uplot.LICENSE"); !strings.Contains(body, "Permission is hereby granted") {
		t.Errorf("the licence of uPlot is %q", body)
	}
}

func TestPageRunsNothingForeign(t *testing.T) {
	g := start(t)
	resp, page := g.Do(http.MethodGet, g.StatURL+"/", "")
	const want = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := resp.Header.Get("Content-Security-Policy"); got != want {
		t.Errorf("policy %q, want %q", got, want)
	}
	if strings.Contains(page, " style=") || strings.Contains(page, " onclick=") || strings.Contains(page, "<script>") {
		t.Error("the page has inline code, which its policy refuses")
	}
}

func TestPageIsSentOnce(t *testing.T) {
	g := start(t)
	for _, path := range []string{"/", "/dashboard/app.js", "/dashboard/uplot.js", "/dashboard/client.js"} {
		resp, body := g.Do(http.MethodGet, g.StatURL+path, "")
		etag := resp.Header.Get("ETag")
		if etag == "" || body == "" || resp.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("GET %s: ETag %q, Cache-Control %q", path, etag, resp.Header.Get("Cache-Control"))
		}
		if resp, body := g.Do(http.MethodGet, g.StatURL+path, "", "If-None-Match", etag); resp.StatusCode != http.StatusNotModified || body != "" {
			t.Errorf("GET %s again: %s and %d bytes", path, resp.Status, len(body))
		}
	}
}

func TestPush(t *testing.T) {
	const push, right = `{"app":"match","text":"hello"}`, `"code":202,"app":"match"`
	tests := map[string]struct {
		change func(*servertest.Options)
		header []string
		status int
		answer string
	}{
		"from loopback":          {status: 202, answer: right},
		"from a page of its own": {header: []string{"Sec-Fetch-Site", "same-origin"}, status: 202, answer: right},
		"from a foreign page":    {header: []string{"Sec-Fetch-Site", "cross-site"}, status: 403, answer: "foreign origin"},
		"from a foreign origin":  {header: []string{"Origin", "https://example.com"}, status: 403, answer: "foreign origin"},
		"from a sibling":         {header: []string{"Sec-Fetch-Site", "same-site"}, status: 403, answer: "foreign origin"},
		"from a form":            {header: []string{"Content-Type", "text/plain"}, status: 415, answer: "application/json"},
		"with a rebound name":    {header: []string{"Host", "evil.example"}, status: 421, answer: "Host"},
		"without the push key":   {change: keyed, status: 401, answer: "push key missing"},
		"with the push key":      {change: keyed, header: []string{"X-Push-Key", "0123456789abcdef"}, status: 202, answer: right},
		"with the stat key only": {change: locked, header: []string{"Authorization", "Bearer stat-key-0123456789"}, status: 401, answer: "push key missing"},
		"with both keys":         {change: locked, header: []string{"Authorization", "Bearer stat-key-0123456789", "X-Push-Key", "0123456789abcdef"}, status: 202, answer: right},
		"without the stat key":   {change: locked, header: []string{"X-Push-Key", "0123456789abcdef"}, status: 401, answer: "wrong or missing key"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.change == nil {
				tt.change = func(*servertest.Options) {}
			}
			g := start(t, tt.change)
			header := tt.header
			if len(header) == 0 || header[0] != "Content-Type" {
				header = append([]string{"Content-Type", "application/json"}, header...)
			}
			resp, answer := g.Do(http.MethodPost, g.StatURL+"/dashboard/push", push, header...)
			if resp.StatusCode != tt.status || !strings.Contains(answer, tt.answer) {
				t.Errorf("%s %s, want %d and %s", resp.Status, answer, tt.status, tt.answer)
			}
		})
	}
}

// keyed gives the gateway a push key.
func keyed(o *servertest.Options) { o.Keys.Keys = []string{"0123456789abcdef"} }

// locked gives the stat server a key too.
func locked(o *servertest.Options) {
	keyed(o)
	o.Stat.Key = "stat-key-0123456789"
}

func TestExplain(t *testing.T) {
	g := start(t)
	var e dashboard.Explanation
	if err := json.Unmarshal([]byte(g.Get(g.StatURL+"/dashboard/explain?member=-1&action=subscribe&app=im")), &e); err != nil {
		t.Fatal(err)
	}
	want := dashboard.Explanation{Rule: "im", Where: e.Where, Choice: "which names the app", Reason: "subscribe lets in members; an anonymous client is none of them"}
	if e != want || !strings.HasPrefix(e.Where, "apps.yaml:") {
		t.Errorf("got %+v, want %+v", e, want)
	}
	for query, message := range map[string]string{
		"member=me&action=subscribe&app=im": "member must be a number",
		"member=-1&action=shout&app=im":     `action \"shout\" is not one of subscribe, push, presence`,
	} {
		resp, body := g.Do(http.MethodGet, g.StatURL+"/dashboard/explain?"+query, "")
		if want := `{"code":400,"message":"` + message + `"}` + "\n"; resp.StatusCode != 400 || body != want {
			t.Errorf("%s: %s %s, want %s", query, resp.Status, body, want)
		}
	}
}

// TestNothingToTry is about the zero Options: what they turn off is not there.
func TestNothingToTry(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Stat.Dashboard = dashboard.Handler(dashboard.Options{}) })
	if got, want := g.Get(g.StatURL+"/dashboard/settings"), `{"gateway":"","member":0,"token":"","push":false,"explain":false}`+"\n"; got != want {
		t.Errorf("settings %s, want %s", got, want)
	}
	for path, status := range map[string]int{"/dashboard/client.js": 404, "/dashboard/explain": 404, "/dashboard/push": 404, "/dashboard/": 404, "/dashboard/index.html": 404} {
		if resp, _ := g.Do(http.MethodGet, g.StatURL+path, ""); resp.StatusCode != status {
			t.Errorf("GET %s: %s, want %d", path, resp.Status, status)
		}
	}
}
