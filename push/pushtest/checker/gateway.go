//go:build unix

package checker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A gateway is the program under test, as a process of its own.
type gateway struct {
	binary, dir string
	env         []string
	addr        string // of clients and backends
	stat        string
	cmd         *exec.Cmd
	exited      chan error
}

const (
	members = 10 // 1..members may log in with the token tN
	topics  = 4  // check:0..
)

func token(member int64) string { return fmt.Sprint("t", member) }
func topic(n int) string        { return fmt.Sprint("check:", n) }

// newGateway prepares the configuration of a gateway in dir.
func newGateway(binary, dir string, env []string) (*gateway, error) {
	g := &gateway{binary: binary, dir: dir}
	var b bytes.Buffer
	b.WriteString("members:\n")
	for m := int64(1); m <= members; m++ {
		fmt.Fprintf(&b, "  %d: {tokens: [%q]}\n", m, hashed(token(m)))
	}
	membersFile, appsFile, state := filepath.Join(dir, "members.yaml"), filepath.Join(dir, "apps.yaml"), filepath.Join(dir, "state")
	err := errors.Join(
		os.WriteFile(membersFile, b.Bytes(), 0o600),
		os.WriteFile(appsFile, []byte("apps:\n  \"check:*\": {history: {size: 100000, ttl: 1h}}\n"), 0o600),
		os.MkdirAll(state, 0o700),
	)
	if err != nil {
		return nil, err
	}
	if g.addr, err = freeAddress(); err != nil {
		return nil, err
	}
	if g.stat, err = freeAddress(); err != nil {
		return nil, err
	}
	g.env = append([]string{
		"WSGW_ADDR=" + g.addr, "WSGW_STAT_ADDR=" + g.stat,
		"WSGW_AUTH=static", "WSGW_MEMBERS_FILE=" + membersFile, "WSGW_APPS_FILE=" + appsFile,
		"WSGW_STATE_DIR=" + state, "WSGW_DRAIN_WINDOW=300ms", "WSGW_LOG_LEVEL=error",
	}, env...)
	return g, nil
}

// freeAddress returns an address of loopback that is free and stays so while its gateway is
// down: what else runs on the machine takes its ports of 127.0.0.1.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254)))
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// start starts the process and returns when it is ready.
func (g *gateway) start(ctx context.Context) error {
	g.cmd = exec.Command(g.binary)
	g.cmd.Dir = g.dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "WSGW_") {
			g.cmd.Env = append(g.cmd.Env, v)
		}
	}
	g.cmd.Env = append(g.cmd.Env, g.env...)
	var output bytes.Buffer
	g.cmd.Stdout, g.cmd.Stderr = &output, &output
	if err := g.cmd.Start(); err != nil {
		return fmt.Errorf("start gateway: %w", err)
	}
	g.exited = make(chan error, 1)
	go func() { g.exited <- g.cmd.Wait() }()
	for wait := time.NewTicker(20 * time.Millisecond); ; <-wait.C {
		resp, err := http.Get("http://" + g.stat + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				wait.Stop()
				return nil
			}
		}
		select {
		case err := <-g.exited:
			wait.Stop()
			return fmt.Errorf("gateway ended (%v): %s", err, output.String())
		case <-ctx.Done():
			wait.Stop()
			g.signal(syscall.SIGKILL)
			<-g.exited
			return fmt.Errorf("gateway is not ready: %w", ctx.Err())
		default:
		}
	}
}

func (g *gateway) signal(s syscall.Signal) { _ = g.cmd.Process.Signal(s) }

// stop sends s and waits for the process to end.
func (g *gateway) stop(s syscall.Signal) error {
	g.signal(s)
	select {
	case err := <-g.exited:
		if s == syscall.SIGTERM && err != nil {
			return fmt.Errorf("gateway did not end well after SIGTERM: %w", err)
		}
		return nil
	case <-time.After(30 * time.Second):
		g.signal(syscall.SIGKILL)
		<-g.exited
		return errors.New("gateway did not end within 30 s")
	}
}
