package dashboard_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ws-gateway/server/servertest"
	"ws-gateway/stat"
)

// program returns the path of one of Prometheus's programs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("these tests need %s: make tools installs it, or apt-get install prometheus", name)
	}
	return path
}

func TestAlertsFire(t *testing.T) {
	promtool := program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "testdata/alerts_test.yml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	rules, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("testdata/alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllSubmatch(rules, -1) {
		if !strings.Contains(string(tests), `alertname="`+string(m[1])+`"`) {
			t.Errorf("nothing shows that %s fires", m[1])
		}
	}
}

// A prometheus is a running one, of Debian's.
type prometheus struct {
	t   *testing.T
	url string
	web *http.Client
}

// watch starts a Prometheus that scrapes g every second and has the rules of alerts.yml.
func watch(t *testing.T, g *servertest.Gateway) *prometheus {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
  - job_name: ws-gateway
    static_configs: [{targets: [%q]}]
`, rules, g.Server.StatAddrs()[0].String())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	address := servertest.FreeAddr(t) // it does not tell which port it took
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t, "prometheus"), "--config.file="+config,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &prometheus{t, "http://" + address, &http.Client{Transport: &http.Transport{}}}
	t.Cleanup(func() {
		p.web.CloseIdleConnections()
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("Prometheus says:\n%s", said)
		}
	})
	p.until("it is ready", func() bool {
		resp, err := p.web.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

// until asks until something is so: while a scrape fails, as it may on a busy machine, there is
// nothing to be found.
func (p *prometheus) until(what string, f func() bool) {
	p.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-limit:
			p.t.Fatalf("Prometheus: waited in vain until %s", what)
		}
	}
}

// get asks the HTTP API.
func get[T any](p *prometheus, path string) (data T) {
	p.t.Helper()
	resp, err := p.web.Get(p.url + "/api/v1/" + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          *T
	}{Data: &data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("GET %s: %v %s", path, err, answer.Error)
	}
	return data
}

// has reports whether an expression finds anything.
func (p *prometheus) has(expression string) bool {
	p.t.Helper()
	return len(get[struct{ Result []json.RawMessage }](p, "query?query="+url.QueryEscape(expression)).Result) > 0
}

// TestPrometheus shows that every panel of the Grafana dashboard finds something in a real
// Prometheus that watches a real gateway, and that every alert is evaluated over series that
// are there.
func TestPrometheus(t *testing.T) {
	g := start(t)
	p := watch(t, g)
	p.until("it has scraped", func() bool { return p.has(`up == 1`) })

	// What has no series before it happens for the first time, and what panels show only
	// while it happens.
	g.Metrics.Panic("test")
	g.Metrics.Reload("apps", true)
	trouble := func() {
		g.Push(`{"app":"match","text":"hello"}`)
		g.Metrics.Refused(stat.ReasonConnections)
		g.Metrics.SessionClosed(4008)
	}
	trouble()
	p.until("it has seen that", func() bool {
		return p.has(`wsgateway_panics_total == 1 and on () wsgateway_app_pushes_total{app="match"} == 1`)
	})
	trouble()
	p.until("it has seen two pushes", func() bool { return p.has(`wsgateway_app_pushes_total{app="match"} == 2`) })

	for title, expression := range panels(t) {
		p.until(fmt.Sprintf("%s: something is found by %s", title, expression), func() bool { return p.has(expression) })
	}

	type rule struct{ Name, Query, Health, LastError, State string }
	var rules struct{ Groups []struct{ Rules []rule } }
	p.until("it has evaluated the rules", func() bool {
		rules = get[struct{ Groups []struct{ Rules []rule } }](p, "rules")
		return len(rules.Groups) != 1 || !slices.ContainsFunc(rules.Groups[0].Rules, func(r rule) bool { return r.Health == "unknown" })
	})
	if len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 10 {
		t.Fatalf("rules: %+v", rules)
	}
	selector := regexp.MustCompile(`\b(?:(?:wsgateway|process)_[a-z_]+|up)\b(?:\{[^}]*\})?`)
	for _, r := range rules.Groups[0].Rules {
		if r.Health != "ok" {
			t.Errorf("%s: %s %s", r.Name, r.Health, r.LastError)
		}
		selectors := selector.FindAllString(r.Query, -1)
		if len(selectors) == 0 {
			t.Errorf("%s asks for nothing: %s", r.Name, r.Query)
		}
		for _, s := range selectors {
			p.until(fmt.Sprintf("%s: a gateway has %s", r.Name, s), func() bool { return p.has(s) })
		}
	}
}

// panels returns the expressions of the Grafana dashboard, for all nodes.
func panels(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
		Annotations struct{ List []struct{ Expr string } }
	}
	if err := json.Unmarshal(data, &d); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "1m", "$job", "ws-gateway", "$instance", ".*")
	expressions := make(map[string]string)
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			expressions[p.Title+" "+q.RefID] = variables.Replace(q.Expr)
		}
	}
	for _, a := range d.Annotations.List { // starts, whether there was one or not
		expressions["annotation"] = strings.TrimSuffix(variables.Replace(a.Expr), " > 0")
	}
	if len(expressions) < 30 {
		t.Fatalf("only %d expressions", len(expressions))
	}
	return expressions
}
