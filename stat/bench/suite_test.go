package bench_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"

	"ws-gateway/stat/bench"
)

// The whole suite, with the real program on both sides.
func TestSuiteAsksEveryQuestion(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "ws-gateway")
	if out, err := exec.Command("go", "build", "-o", program, "ws-gateway").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), program, "bench", "all", "--quick", "--runs", "1", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, &stdout, &stderr)
	}
	var got struct {
		Rows    []struct{ What string }
		Reports map[string][]bench.Report
	}
	if err := json.Unmarshal(stdout.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for plan, figures := range map[string][]string{
		"idle":           {"rss_per_connection", "rss_per_connection_after_gc", "cpu"},
		"idle door":      {"rss_per_connection", "rss_per_connection_after_gc"},
		"idle goroutine": {"rss_per_connection_after_gc"},
		"fanout 1000":    {"cpu_per_delivery", "deliveries", "p99", "queue_p99", "refused"},
		"fanout free":    {"deliveries"},
		"floor 50/s":     {"at_rate_cpu_per_delivery", "at_rate_p50", "frames_4_cpu_per_delivery"},
		"latency 50/s":   {"cpu_per_delivery", "p50", "p99"},
		"bare ingest":    {"cpu_per_push", "batched_cpu_per_push"},
		"ingest":         {"cpu_per_push", "batched_cpu_per_push"},
		"bare private":   {"cpu_per_push"},
		"private":        {"cpu_per_push"},
		"bare connect":   {"cpu_per_connect", "cpu_per_close"},
		"connect":        {"cpu_per_connect", "cpu_per_close"},
		"bare commands":  {"cpu_per_command", "commands"},
		"commands":       {"cpu_per_command", "commands"},
		"commands door":  {"cpu_per_command", "commands"},
		"resume":         {"cpu_per_resumed_message", "heap_per_logged_message_beside_text", "heap_per_logged_private_message_beside_text"},
		"slow":           {"p99", "with_slow_p99", "rss_growth"},
		"overload":       {"queue_p99"},
		"churn":          {"deliveries", "commands"},
	} {
		reports := got.Reports[plan]
		if len(reports) != 1 {
			t.Errorf("%s: %d reports, want 1", plan, len(reports))
			continue
		}
		if !reports[0].Clean() {
			t.Errorf("%s: %+v", plan, reports[0].Verdict)
		}
		for _, name := range figures {
			if _, ok := reports[0].Value(name); !ok {
				t.Errorf("%s: no figure %s", plan, name)
			}
		}
	}
	if len(got.Rows) < 25 {
		t.Errorf("%d rows, want all", len(got.Rows))
	}
}
