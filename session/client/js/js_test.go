package js_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ws-gateway/server/servertest"
	"ws-gateway/session"
)

func TestScriptIsServed(t *testing.T) {
	g := servertest.Start(t)
	want, err := os.ReadFile("dist/client.js")
	if err != nil {
		t.Fatal(err)
	}
	resp, body := g.Do("GET", g.URL+"/client.js", "", "Accept-Encoding", "identity", "Origin", "https://elsewhere.example")
	if resp.StatusCode != 200 || body != string(want) {
		t.Errorf("%s with %d bytes, want 200 with the %d of dist/client.js", resp.Status, len(body), len(want))
	}
	for name, value := range map[string]string{
		"Content-Type":                 "text/javascript; charset=utf-8",
		"X-Content-Type-Options":       "nosniff",
		"Access-Control-Allow-Origin":  "*",
		"Cross-Origin-Resource-Policy": "cross-origin",
		"Cache-Control":                "public, max-age=3600",
		"Vary":                         "Accept-Encoding",
	} {
		if got := resp.Header.Get(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}

	etag := resp.Header.Get("Etag")
	if resp, body := g.Do("GET", g.URL+"/client.js", "", "Accept-Encoding", "identity", "If-None-Match", etag); resp.StatusCode != 304 || body != "" || etag == "" {
		t.Errorf("asked again with %q: %s, %d bytes", etag, resp.Status, len(body))
	}
	if resp, _ := g.Do("HEAD", g.URL+"/client.js", "", "Accept-Encoding", "identity"); resp.StatusCode != 200 || resp.ContentLength != int64(len(want)) {
		t.Errorf("HEAD: %s, length %d", resp.Status, resp.ContentLength)
	}
	if resp, _ := g.Do("POST", g.URL+"/client.js", ""); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s, Allow: %q", resp.Status, resp.Header.Get("Allow"))
	}

	for accept, encoding := range map[string]string{
		"gzip, deflate, br": "gzip", "br;q=1.0, gzip;q=0.8": "gzip", "gzip;q=0": "", "br": "", "": "",
	} {
		req, err := http.NewRequest("GET", g.URL+"/client.js", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", accept) // set by hand: not undone by net/http
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		packed, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding"); got != encoding || err != nil {
			t.Errorf("Accept-Encoding %q: got %q, %v, want %q", accept, got, err, encoding)
		}
		if encoding == "" {
			continue
		}
		if text := gunzip(t, packed); !bytes.Equal(text, want) || resp.Header.Get("Etag") == etag {
			t.Errorf("Accept-Encoding %q: %d bytes unpacked, want %d, under an ETag of their own", accept, len(text), len(want))
		}
		if len(packed) > 5<<10 {
			t.Errorf("%d bytes gzipped, want at most 5 KiB", len(packed))
		}
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

func gunzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestPackage runs the package's own tests, in Node and in Chromium, against this gateway's
// program: a build of the working tree. They are in JavaScript, as what they test is, and so
// drive Chromium with playwright-core; the tests of the stat server's page are in Go, for they
// reach into its gateway, and do that with chromedp.
func TestPackage(t *testing.T) {
	chromium := need(t, "chromium", "chromium-browser")
	npm := need(t, "npm")
	version, err := exec.Command(need(t, "node", "nodejs"), "--version").Output()
	if major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), "."); err != nil || atoi(major) < 20 {
		t.Fatalf("these tests need Node 20 or later: node --version says %q, %v", version, err)
	}
	readSources(t)

	binary := filepath.Join(t.TempDir(), "ws-gateway")
	run(t, exec.Command("go", "build", "-o", binary, "ws-gateway"))
	install(t, npm)

	codes := make(map[session.CloseCode]bool)
	for code := range session.CloseCode(5000) {
		if code.Reason() != "" {
			codes[code] = code.Reconnect()
		}
	}
	catalogue, err := json.Marshal(codes)
	if err != nil {
		t.Fatal(err)
	}
	test := exec.Command(npm, "test")
	test.Env = append(os.Environ(), "WSGW_BINARY="+binary, "WSGW_CLOSE_CODES="+string(catalogue), "CHROMIUM="+chromium,
		"TOXIPROXY="+servertest.Toxiproxy(t))
	run(t, test)
}

// need returns the path of a program that goes by one of names.
func need(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("these tests need %s: make tools installs it", names[0])
	return ""
}

// readSources reads what the tests are made of, for go test to know when a result that it
// has kept is no longer true.
func readSources(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"src", "dist", "examples", "test"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				_, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"README.md", "build.mjs", "package.json"} {
		if _, err := os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
}

// install makes node_modules what package-lock.json says, unless it is already.
func install(t *testing.T, npm string) {
	t.Helper()
	const done = "node_modules/.installed"
	want, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if is, _ := os.ReadFile(done); bytes.Equal(is, want) {
		return
	}
	run(t, exec.Command(npm, "ci", "--no-audit", "--no-fund", "--fetch-retries=5"))
	if err := os.WriteFile(done, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs cmd, logs what it said, and fails the test if that fails.
func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	t.Logf("%s\n%s", cmd, out)
	if err != nil {
		t.Fatal(err)
	}
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
