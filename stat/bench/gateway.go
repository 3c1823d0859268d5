package bench

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// pushKey is the key of the gateways that the suite starts.
const pushKey = "bench-push-key-of-one-run"

// A gateway is one that the suite has started.
type gateway struct {
	cmd     *exec.Cmd
	clients string // URL for clients
	stat    string // URL of the stat server
	wg      sync.WaitGroup
}

// startGateway starts the gateway on the given CPU, with these settings beside those that
// every gateway of the suite has.
func (s *suite) startGateway(ctx context.Context, cpu int, env []string) (*gateway, error) {
	g := &gateway{cmd: exec.CommandContext(ctx, s.server, "serve")}
	g.cmd.Env = append(cleanEnv(),
		"WSGW_ADDR=127.0.0.1:0", "WSGW_STAT_ADDR=127.0.0.1:0", "WSGW_LOG_FORMAT=json", "WSGW_DRAIN_WINDOW=0s",
		"WSGW_PUSH_KEYS="+pushKey)
	g.cmd.Env = append(g.cmd.Env, env...)
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(g.cmd, cpu); err != nil {
		return nil, err
	}
	// Its log says where it listens.
	in := bufio.NewReader(stderr)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return nil, errors.Join(fmt.Errorf("the gateway did not start: %s", line), g.cmd.Wait())
		}
		var said struct{ Msg, Clients, Stat string }
		if json.Unmarshal(line, &said) == nil && said.Clients != "" {
			g.clients, g.stat = said.Clients, strings.TrimSuffix(said.Stat, "/stat")
			break
		}
		if strings.Contains(string(line), `"ERROR"`) {
			fmt.Fprintf(s.stderr, "%s", line)
		}
	}
	g.wg.Go(func() { io.Copy(io.Discard, in) })
	return g, nil
}

// stop ends the gateway in an orderly way.
func (g *gateway) stop() error {
	if err := g.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	g.wg.Wait() // until it closes its stderr
	return g.cmd.Wait()
}

func (s *suite) file(name string) string { return filepath.Join(s.dir, name) }

// memberToken returns a token, and its proof as the members file has it.
func memberToken(member int) (proof, token string) {
	token = fmt.Sprintf("token-of-%d", member)
	salt := fmt.Sprintf("salt-of-%d", member)
	sum := sha256.Sum256([]byte(salt + token))
	return "sha256:" + salt + ":" + hex.EncodeToString(sum[:]), token
}

// cleanEnv returns the environment without settings of a gateway.
func cleanEnv() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "WSGW_") {
			env = append(env, e)
		}
	}
	return env
}
