package bench_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestMemoryBudget holds 5 000 subscribed connections on the program itself, built as users
// build it, and wants less than 3 KB of resident memory for each after a garbage collection.
func TestMemoryBudget(t *testing.T) {
	const connections, budget = "5000", 3.0 // KB
	dir := t.TempDir()
	binary := filepath.Join(dir, "ws-gateway")
	if out, err := exec.Command("go", "build", "-o", binary, "ws-gateway").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	gateway := exec.Command(binary)
	gateway.Env = []string{
		"PATH=" + os.Getenv("PATH"), "WSGW_ADDR=127.0.0.1:0", "WSGW_STAT_ADDR=127.0.0.1:0", "WSGW_PPROF=true",
		"WSGW_LOG_FORMAT=json", "WSGW_DRAIN_WINDOW=0s",
	}
	said, err := gateway.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = gateway.Process.Kill()
		_ = gateway.Wait()
	}()
	greeting := regexp.MustCompile(`"clients":"(ws://[^"]+)".*"stat":"(http://[^"/]+)`)
	var urls []string
	for lines := bufio.NewScanner(said); urls == nil; {
		if !lines.Scan() {
			t.Fatal("the gateway ended without a greeting")
		}
		urls = greeting.FindStringSubmatch(lines.Text())
	}
	go io.Copy(io.Discard, said) // ends with the process
	out, err := exec.CommandContext(t.Context(), binary, "bench", "idle", "-url", urls[1], "-stat", urls[2],
		"-connections", connections, "-duration", "1s", "-json").Output()
	if err != nil {
		t.Fatalf("bench idle: %v\n%s", err, out)
	}
	var report struct {
		Figures []struct {
			Name  string
			Value float64
		}
	}
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&report); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Figures {
		if f.Name == "rss_per_connection_after_gc" {
			t.Logf("%.2f KB for each connection", f.Value)
			if f.Value <= 0 || f.Value >= budget {
				t.Errorf("%.2f KB for each connection, the budget is %.0f KB", f.Value, budget)
			}
			return
		}
	}
	t.Errorf("bench idle does not say: %s", out)
}
