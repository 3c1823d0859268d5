package stat_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// TestMetricsDocument compares METRICS.md with a scrape: the same metrics, of the same types,
// with the same labels and reasons.
func TestMetricsDocument(t *testing.T) {
	text, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	row := regexp.MustCompile("(?m)^\\| `(wsgateway_[a-z_]+)` \\| (\\w+) \\|([^|]*)\\|")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = m[2] + " " + strings.TrimSpace(strings.ReplaceAll(m[3], "`", ""))
	}

	m := stat.New(stat.Options{})
	exercise(m)
	_, families := scrape(t, m)
	served := make(map[string]string)
	for name, f := range families {
		if !strings.HasPrefix(name, "wsgateway_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		served[name] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ", ")
	}
	for name := range documented {
		documented[name] = sortLabels(documented[name])
	}
	if !maps.Equal(documented, served) {
		for name, is := range served {
			if documented[name] != is {
				t.Errorf("%s is a %q, METRICS.md has %q", name, is, documented[name])
			}
		}
		for name := range documented {
			if _, ok := served[name]; !ok {
				t.Errorf("METRICS.md has %s, which nothing serves", name)
			}
		}
	}

	_, reasons, _ := strings.Cut(string(text), "| reason |")
	reasons, _, _ = strings.Cut(reasons, "##")
	for _, metric := range families["wsgateway_refused_total"].GetMetric() {
		if reason := metric.GetLabel()[0].GetValue(); reason != stat.Other && !strings.Contains(reasons, "`"+reason+"`") {
			t.Errorf("METRICS.md does not explain the reason %s", reason)
		}
	}
}

// sortLabels sorts the labels in "type label, label".
func sortLabels(s string) string {
	kind, list, _ := strings.Cut(s, " ")
	labels := strings.Split(list, ", ")
	slices.Sort(labels)
	return kind + " " + strings.Join(labels, ", ")
}

// TestEveryCloseCodeHasItsSeries holds the label's values to the session's catalogue.
func TestEveryCloseCodeHasItsSeries(t *testing.T) {
	m := stat.New(stat.Options{})
	want := make(map[string]uint64)
	for code := range 5000 {
		m.SessionClosed(code)
		if session.CloseCode(code).Reason() != "" {
			want[strconv.Itoa(code)] = 1
		}
	}
	got := m.Snapshot().SessionsClosed
	want[stat.Other] = 5000 - uint64(len(want))
	if !maps.Equal(got, want) {
		t.Errorf("close codes counted: %v\nwant %v", got, want)
	}
}
