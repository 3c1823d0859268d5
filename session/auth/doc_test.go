package auth_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ws-gateway/server/servertest"
	"ws-gateway/session"
	"ws-gateway/session/auth"
)

// document is AUTH.md.
func document(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("AUTH.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// example writes the first block of language that follows heading to a file of that name.
func example(t *testing.T, heading, language, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(document(t), heading)
	_, rest, ok2 := strings.Cut(rest, "```"+language+"\n")
	code, _, ok3 := strings.Cut(rest, "```\n")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("AUTH.md has no %s block after %q", language, heading)
	}
	file := filepath.Join(t.TempDir(), name)
	writeFile(t, file, code)
	return file
}

// need fails the test unless the machine has a program.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is not installed; make test does it", program)
	}
}

func TestCallbackExamples(t *testing.T) {
	for _, c := range []struct {
		heading, language, file string
		command                 func(t *testing.T, file string) []string
	}{
		{"\nPHP (`php -S", "php", "auth.php", func(t *testing.T, file string) []string {
			return []string{"php", "-S", "127.0.0.1:PORT", file}
		}},
		{"\nNode (`node", "js", "auth.mjs", func(t *testing.T, file string) []string {
			return []string{"node", file}
		}},
		{"\nGo (`go run", "go", "auth.go", func(t *testing.T, file string) []string {
			program := strings.TrimSuffix(file, ".go")
			if out, err := exec.Command("go", "build", "-o", program, file).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return []string{program}
		}},
	} {
		t.Run(c.language, func(t *testing.T) {
			args := c.command(t, example(t, c.heading, c.language, c.file))
			need(t, args[0])
			addr := servertest.FreeAddr(t)
			_, port, _ := net.SplitHostPort(addr)
			for i, arg := range args {
				args[i] = strings.Replace(arg, "127.0.0.1:PORT", addr, 1)
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "PORT="+port)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Kill()
				cmd.Wait()
				if t.Failed() {
					t.Logf("the example says:\n%s", &out)
				}
			})
			b := newCallback(t, auth.CallbackOptions{URL: "http://" + addr + "/", Timeout: time.Minute, Dial: patientDial})
			id, err := authenticate(t, b, 123456, "654321")
			if err != nil || fmt.Sprint(id.Roles) != "[gold]" {
				t.Errorf("good token: %v %v", id, err)
			}
			for member, token := range map[int64]session.Token{123456: "wrong", 42: "654321", 43: "", 44: "__proto__"} {
				if _, err := authenticate(t, b, member, token); verdictOf(err) != refusedIt {
					t.Errorf("member %d, token %q: %v, want refused", member, string(token), err)
				}
			}
		})
	}
}

// patientDial waits for a server that is just starting.
func patientDial(ctx context.Context, network, addr string) (net.Conn, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func TestTokenExample(t *testing.T) {
	need(t, "php")
	cmd := exec.Command("php", example(t, "A token by PHP", "php", "token.php"))
	cmd.Env = append(os.Environ(), "WSGW_JWT_SECRET="+hmacSecret)
	token, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	j := newJWT(t, auth.JWTOptions{Secret: hmacSecret})
	id, err := authenticate(t, j, 123456, session.Token(token))
	if err != nil || fmt.Sprint(id.Roles) != "[gold]" {
		t.Errorf("%v %v", id, err)
	}
}
