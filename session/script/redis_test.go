package script_test

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ws-gateway/session/script"
)

// startRedis starts a Redis server of its own on a free port and returns its URL.
func startRedis(t *testing.T) string {
	t.Helper()
	const host = "127.0.0.79" // where nothing else takes the port meanwhile
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command("redis-server", "--port", fmt.Sprint(port), "--bind", host, "--save", "", "--appendonly", "no", "--requirepass", "secret", "--dir", t.TempDir())
	out := new(logBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need a real Redis: make tools installs it: %v", err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.String(), "Ready to accept connections"); {
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not start:\n%s", out)
		}
		out.changed()
	}
	return fmt.Sprintf("redis://:secret@%s:%d/0", host, port)
}

func TestRedis(t *testing.T) {
	url := startRedis(t)
	for name, c := range map[string]struct{ body, want string }{
		"set and get":     {`redis:command("set", "key", "va\0lue") return redis:command("get", "key") == "va\0lue"`, "true"},
		"status":          {`return redis:command("set", "key", 12)`, "OK"},
		"number":          {`redis:command("set", "n", 41) return redis:command("incr", "n") + 1`, "43"},
		"nil":             {`local v, err = redis:command("get", "nothing") return tostring(v) .. tostring(err)`, "nilnil"},
		"list":            {`redis:command("del", "l") redis:command("rpush", "l", "a", "b") return table.concat(redis:command("lrange", "l", 0, -1), ",")`, "a,b"},
		"hash":            {`redis:command("hset", "h", "f", "v") return table.concat(redis:command("hgetall", "h"), ",")`, "f,v"},
		"nested":          {`return redis:command("eval", "return {1, {'a', {'b'}}}", 0)[2][2][1]`, "b"},
		"error":           {`redis:command("set", "s", "x") local v, err = redis:command("incr", "s") return tostring(v) .. err`, "nilERR value is not an integer or out of range"},
		"unknown command": {`return select(2, redis:command("nothing")):match("^ERR unknown command") ~= nil`, "true"},
		"stateful":        {`return select(2, redis:command("multi"))`, "MULTI is not possible on a shared connection"},
		"subscribe":       {`return select(2, redis:command("Subscribe", "x"))`, "SUBSCRIBE is not possible on a shared connection"},
		"bad call":        {`return (pcall(redis.command, "get", "x"))`, "false"},
		"waiting":         {`redis:command("blpop", "nothing", "0.2") return "waited longer than it may run"`, "waited longer than it may run"},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, `local redis = mix.redis.connection("main")
				function on_message(msg) mix.websocket():send(tostring((function() `+c.body+` end)())) end`,
				script.Options{Redis: map[string]string{"main": url}})
			if got, code := f.ask("x"); got != c.want {
				t.Errorf("got %q (code %d), want %q", got, code, c.want)
			}
		})
	}
	t.Run("not there", func(t *testing.T) {
		f := start(t, `function on_message(msg) mix.websocket():send(tostring(select(2, mix.redis.connection():command("get", "x")) ~= nil)) end`,
			script.Options{Redis: map[string]string{"default": "redis://127.0.0.1:1"}})
		if got, _ := f.ask("x"); got != "true" {
			t.Errorf("error is there: %s", got)
		}
	})
	t.Run("bad url", func(t *testing.T) {
		for _, url := range []string{"http://:canary@x", "redis://:canary@x/db", "redis://:canary/@x", "redis://:canary@x?canary=1", "canary"} {
			_, err := script.NewHost(script.Options{Redis: map[string]string{"main": url}})
			if err == nil || !strings.HasPrefix(err.Error(), "WSGW_REDIS: main has no URL like ") || strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: error %v", url, err)
			}
		}
	})
}
