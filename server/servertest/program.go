package servertest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// FreeAddr returns an address of 127.0.0.1 that nobody listens on. It can be bound later, and
// again: its port is below those that systems give to whoever asks for any (from 32768 on Linux,
// from 49152 elsewhere).
func FreeAddr(t testing.TB) string {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

// Run runs a program until the test ends, and returns when it listens on addr. What it said
// is logged if the test fails.
func Run(t testing.TB, addr, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name // not in everybody's PATH
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%s is not installed; make test does it", name)
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, out.String())
		}
	})
	deadline := time.After(10 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%s does not listen on %s", name, addr)
		}
	}
}

// Toxiproxy runs https://github.com/Shopify/toxiproxy until the test ends, and returns the
// URL of its HTTP API, by which proxies are made and their links treated badly.
func Toxiproxy(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	install := exec.Command("go", "install", "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0")
	install.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", install, err, out)
	}
	addr := FreeAddr(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	Run(t, addr, "env", "LOG_LEVEL=error", filepath.Join(dir, "server"), "-host", host, "-port", port)
	return "http://" + addr
}
