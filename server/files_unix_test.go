//go:build unix

package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"ws-gateway/server"
	"ws-gateway/server/servertest"
)

const childFiles = "WSGW_TEST_CHILD_FILES"

// TestChildGateway is what TestR01FileLimit runs in a process of its own.
func TestChildGateway(t *testing.T) {
	var files uint64
	if _, err := fmt.Sscan(os.Getenv(childFiles), &files); err != nil {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: files, Max: files}); err != nil {
		t.Fatal(err)
	}
	g := servertest.Start(t, func(o *servertest.Options) { o.Server.Limits.Connections = server.DefaultConnections() })
	fmt.Println(g.URL)
	io.Copy(io.Discard, os.Stdin) // until the parent is done
}

// R01: connections end before the files do, with an answer, and pushes still get through.
func TestR01FileLimit(t *testing.T) {
	t.Parallel()
	child := exec.Command(os.Args[0], "-test.run=^TestChildGateway$")
	child.Env = append(os.Environ(), childFiles+"=256")
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	out := bufio.NewReader(stdout)
	line, err := out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
		stdin.Close()
		rest, _ := io.ReadAll(out)
		if err := child.Wait(); err != nil {
			t.Errorf("the gateway: %v\n%s", err, rest)
		}
	}()
	u, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	dial := func(request string) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", u.Host)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, request)
		return c, bufio.NewReader(c)
	}
	answer := func(r *bufio.Reader) *http.Response {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 101 {
			io.Copy(io.Discard, resp.Body)
		}
		return resp
	}
	const handshake = "GET / HTTP/1.1\r\n" + goodHandshake + "\r\n"
	const body = `{"app":"a","text":"x"}`
	push := fmt.Sprintf("POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)

	backend, backendAnswers := dial(push)
	if got := answer(backendAnswers).StatusCode; got != 202 {
		t.Fatalf("push answered %d", got)
	}
	clients := 0
	for {
		_, r := dial(handshake)
		resp := answer(r)
		if resp.StatusCode == 101 {
			clients++
			continue
		}
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("one too many answered %d, Retry-After %q", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		break // it stays: the gateway would notice at some time or other that it is gone
	}
	if want := 256 - 64; clients != want {
		t.Errorf("%d connections with 256 files, want %d", clients, want)
	}
	// Sockets that say nothing take what is left; they too get an answer when it is too little.
	for range 64 {
		dial("")
	}
	if _, r := dial(""); answer(r).StatusCode != 503 {
		t.Error("a socket beyond the reserve was not answered 503")
	}
	// Who is connected already is served.
	io.WriteString(backend, push)
	if got := answer(backendAnswers).StatusCode; got != 202 {
		t.Errorf("push with all files in use answered %d", got)
	}
}

// cpuTime returns what this process has used so far.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
