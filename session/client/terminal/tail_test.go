package terminal_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ws-gateway/server/servertest"
	"ws-gateway/session/client/terminal"
	"ws-gateway/stat"
)

// A tail is ws-gateway tail, running until its test ends.
type tail struct {
	t     *testing.T
	lines *bufio.Reader
}

// startTail starts watching g, and returns once the gateway shows what happens.
func startTail(t *testing.T, g *servertest.Gateway, args ...string) *tail {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // for what does not come
	lines, out := io.Pipe()
	notes, complaints := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- terminal.Tail(ctx, append(args, "--stat", g.StatURL), out, complaints)
		out.Close()
		complaints.Close()
	}()
	t.Cleanup(func() {
		cancel()
		lines.Close()
		if err := <-done; err != nil {
			t.Errorf("tail %v ended with %v", args, err)
		}
	})
	if line, err := bufio.NewReader(notes).ReadString('\n'); !strings.HasPrefix(line, "watching ") {
		t.Fatalf("said %q, %v", line, err)
	}
	return &tail{t, bufio.NewReader(lines)}
}

// varying is what differs between runs: times, and the address of the client.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\d |\d\d:\d\d:\d\d\.\d{3}|127\.0\.0\.1`)

// want fails the test unless the next lines are these, where T stands for a time and A for the
// address.
func (l *tail) want(lines ...string) {
	l.t.Helper()
	for _, want := range lines {
		got, err := l.lines.ReadString('\n')
		if err != nil {
			l.t.Fatalf("waiting for %q: %v", want, err)
		}
		got = varying.ReplaceAllStringFunc(strings.TrimSuffix(got, "\n"), func(s string) string {
			switch {
			case strings.HasPrefix(s, "127"):
				return "A"
			case strings.HasSuffix(s, " "):
				return ""
			}
			return "T"
		})
		if got != want {
			l.t.Errorf("tail shows\n%q, want\n%q", got, want)
		}
	}
}

const rules = `
default: deny
apps:
  match: {}
  vip: {subscribe: ["role:gold"]}
  "room:*": {push: [members]}
`

func withRules(o *servertest.Options) { o.Apps = rules }

func TestTailShowsOneSessionAndItsRefusalsWithTheirRules(t *testing.T) {
	g := servertest.Start(t, withRules)
	tail := startTail(t, g)
	c := g.Dial("/")
	c.Send(`{"member_id":123456,"token":"654321"}`)
	c.Send(`{"app":"match"}`)
	c.Send(`{"app":"vip"}`)
	c.Send(`{"app":"nowhere"}`)
	c.Send(`{"App":"match"}`)
	c.Send(`{"op":"push","app":"room:1","text":"secret"}`)
	for range 6 {
		c.Next()
	}
	g.Push(`{"app":"match","text":"secret"}`)
	c.Next()
	g.Push(`{"app":"nowhere","text":"secret"}`)
	g.Do("POST", g.URL+"/disconnect", `{"member_id":123456}`, "Content-Type", "application/json")
	c.Closed()
	tail.want(
		"T connect  session 1 from A",
		"T auth     session 1 member 123456 from A: 200 hello 123456; connected T",
		"T command  session 1 member 123456 from A: subscribe match: 200 subscribe match success",
		"T denied   session 1 member 123456 from A: subscribe vip: 403 subscribe vip forbidden; rule vip; subscribe lets in role:gold",
		"T denied   session 1 member 123456 from A: subscribe nowhere: 403 subscribe nowhere forbidden; rule default; no entry matches and default is deny",
		"T command  session 1 member 123456 from A: invalid: 400 bad subscribe message; key in the wrong case",
		"T push     room:1 1 from member 123456 to everybody, 6 bytes: 0 subscribers",
		"T command  session 1 member 123456 from A: push room:1: 200 push room:1 success",
		"T push     match 1 to everybody, 6 bytes: 1 subscribers",
		"T refused  nowhere to everybody, 6 bytes: 404 unknown app",
		"T close    session 1 member 123456 from A: 4503 revoked; connected T; was subscribed to match",
	)
}

// Who says it is a member is of interest also when nobody believes it.
func TestTailFollowsAMember(t *testing.T) {
	g := servertest.Start(t, withRules)
	tail := startTail(t, g, "--member", "123456")
	other := g.Dial("/")
	other.Send(`{"member_id":-1,"token":""}`)
	other.Next()
	g.Push(`{"app":"match","text":"for everybody"}`)

	c := g.Dial("/")
	c.Send(`{"member_id":123456,"token":"wrong"}`)
	c.Send(`{"app":"vip"}`)
	c.Next()
	c.Next()
	g.Push(`{"app":"match","member_id":42,"text":"for another"}`)
	g.Push(`{"app":"match","member_id":123456,"text":"hello"}`)
	tail.want(
		"T auth     session 2 member 123456 from A: 401 unauthorized; unauthorized: wrong token; connected T",
		"T denied   session 2 anonymous from A: subscribe vip: 403 subscribe vip forbidden; rule vip; subscribe lets in role:gold",
		"T push     match 3 to member 123456, 5 bytes: 0 subscribers",
	)
}

func TestTailFiltersTogether(t *testing.T) {
	g := servertest.Start(t)
	byApp := startTail(t, g, "--app", "match")
	bySession := startTail(t, g, "--session", "2")
	both := startTail(t, g, "--app", "match", "--session", "2", "--json")
	var clients []*servertest.Client
	for range 2 {
		c := g.Dial("/")
		clients = append(clients, c)
		c.Send(`{"member_id":-1,"token":""}`)
		c.Send(`{"app":"clock"}`)
		c.Send(`{"app":"match"}`)
		for range 3 {
			c.Next()
		}
	}
	g.Push(`{"app":"clock","text":"1"}`)
	g.Push(`{"app":"match","text":"12"}`)
	byApp.want(
		"T command  session 1 anonymous from A: subscribe match: 200 subscribe match success",
		"T command  session 2 anonymous from A: subscribe match: 200 subscribe match success",
		"T push     match 1 to everybody, 2 bytes: 2 subscribers",
	)
	bySession.want(
		"T connect  session 2 from A",
		"T auth     session 2 anonymous from A: 200 hello stranger; connected T",
		"T command  session 2 anonymous from A: subscribe clock: 200 subscribe clock success",
		"T command  session 2 anonymous from A: subscribe match: 200 subscribe match success",
	)
	got, err := both.lines.ReadString('\n')
	var e stat.Event
	if err != nil || json.Unmarshal([]byte(got), &e) != nil || e.Kind != "command" || e.Session != 2 || e.App != "match" || e.Member != -1 {
		t.Errorf("got %s (%v)", got, err)
	}
	clients[0].Close()
	byApp.want("T close    session 1 anonymous from A: 1000 normal closure; connected T; was subscribed to clock, match")
}

// A door's script subscribes for its client, by the same rules.
func TestTailShowsDoors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "door.lua")
	err := os.WriteFile(file, []byte(`
function on_message(msg)
  local conn = mix.websocket()
  if msg.data == "log in" then conn:set_context_value("uid", 42) else conn:subscribe(msg.data) end
  conn:send("done")
end`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	g := servertest.Start(t, withRules, func(o *servertest.Options) { o.Doors = map[string]string{"/door": file} })
	tail := startTail(t, g)
	c := g.Dial("/door")
	for _, text := range []string{"match", "vip", "log in", "vip"} {
		c.Send(text)
		c.Want("done")
	}
	c.Close()
	tail.want(
		"T connect  session 1 from A",
		"T command  session 1 anonymous from A: subscribe match: 200",
		"T denied   session 1 anonymous from A: subscribe vip: 403; rule vip; subscribe lets in role:gold",
		"T auth     session 1 member 42 from A: 200; the door's script says so; connected T",
		"T denied   session 1 member 42 from A: subscribe vip: 403; rule vip; subscribe lets in role:gold",
		"T close    session 1 member 42 from A: 1000 normal closure; connected T; was subscribed to match",
	)
}

// What a resume did not get back is told, and so is why somebody is no longer let in.
func TestTailSaysWhatTheClientIsNotTold(t *testing.T) {
	g := servertest.Start(t)
	tail := startTail(t, g, "--member", "123456")
	c := g.Dial("/")
	c.Send(`{"member_id":123456,"token":"654321"}`)
	c.Send(`{"app":"match","position":{"epoch":"another","offset":1}}`)
	c.Next()
	c.Next()
	g.Sessions.Revoke(123456, time.Hour)
	c.Closed()
	tail.want(
		"T auth     session 1 member 123456 from A: 200 hello 123456; connected T",
		"T command  session 1 member 123456 from A: subscribe match: 200 subscribe match success; not recovered: the log cannot prove that it has all that was missed",
		"T close    session 1 member 123456 from A: 4503 revoked; connected T; was subscribed to match",
	)
	c = g.Dial("/")
	c.Send(`{"member_id":123456,"token":"654321"}`)
	c.Next()
	tail.want("T auth     session 2 member 123456 from A: 401 unauthorized; unauthorized: member is revoked; connected T")
}

// Texts are shown to those only who ask for them, and tokens to nobody.
func TestTailKeepsSecrets(t *testing.T) {
	g := servertest.Start(t)
	plain := startTail(t, g, "--json")
	full := startTail(t, g, "--json", "--payload")
	readable := startTail(t, g, "--payload", "--app", "match")
	c := g.Dial("/")
	c.Send(`{"member_id":123456,"token":"canary-token"}`)
	c.Send(`{"member_id":123456,"token":"canary-token","canary-token":1,"canary-token":2}`)
	c.Send(`{"member_id":123456,"token":"canary-token`)
	c.Send(`{"op":"canary-token","app":"match"}`)
	for range 4 {
		c.Next()
	}
	g.Push("{\"app\":\"match\",\"text\":\"canary-text \\u001b[2J\\nforged\u202e\u009b\U000e0041\"}", "Idempotency-Key", "canary-key")
	readAll := func(l *tail) string {
		var all strings.Builder
		for !strings.Contains(all.String(), `"event":"push"`) {
			line, err := l.lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			all.WriteString(line)
		}
		return all.String()
	}
	for name, got := range map[string]string{"plain": readAll(plain), "payload": readAll(full)} {
		if strings.Contains(got, "canary-token") || strings.Contains(got, "canary-key") {
			t.Errorf("%s shows a secret:\n%s", name, got)
		}
		if strings.ContainsAny(got, "\x1b\u202e\u009b\U000e0041") {
			t.Errorf("%s has control characters: %q", name, got)
		}
		if (name == "payload") != strings.Contains(got, `"text":"canary-text \u001b[2J\nforged\u202e\u009b\udb40\udc41"`) {
			t.Errorf("%s shows\n%s", name, got)
		}
		if strings.Count(got, "\n") != 6 {
			t.Errorf("%s shows %d lines, want 6:\n%s", name, strings.Count(got, "\n"), got)
		}
	}
	readable.want(`T push     match 1 to everybody, 32 bytes: 0 subscribers: canary-text \x1b[2J\nforged\u202e\u009b\U000e0041`)
}

func TestTailSaysWhyNot(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Stat.Key, o.Stat.Viewers = "key", 1 })
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "401 Unauthorized"},
		{[]string{"--key", "key", "--session", "0"}, `bad value of parameter session: \"0\"`},
		{[]string{"--key", "key", "--app", ""}, "bad value of parameter app"},
		{[]string{"--key", "key", "--stat", "http://127.0.0.1:1"}, "refused"},
		{[]string{"--stat", "::"}, "--stat: "},
	} {
		err := terminal.Tail(t.Context(), append([]string{"--stat", g.StatURL}, c.args...), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("tail %v: %v, want %q", c.args, err, c.want)
		}
	}
	for _, args := range [][]string{{"match"}, {"--nonsense"}, {"--member", "x"}} {
		var complaints bytes.Buffer
		if err := terminal.Tail(t.Context(), args, io.Discard, &complaints); !errors.Is(err, terminal.ErrUsage) || complaints.Len() == 0 {
			t.Errorf("tail %v: %v, complained %q", args, err, &complaints)
		}
	}
	startTail(t, g, "--key", "key")
	err := terminal.Tail(t.Context(), []string{"--stat", g.StatURL, "--key", "key"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "503 Service Unavailable: ") {
		t.Errorf("a second viewer: %v, want 503", err)
	}
}

func TestTailEndsWithTheGateway(t *testing.T) {
	g := servertest.Start(t)
	notes, complaints := io.Pipe()
	done := make(chan error)
	go func() { done <- terminal.Tail(t.Context(), []string{"--stat", g.StatURL}, io.Discard, complaints) }()
	if _, err := bufio.NewReader(notes).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	g.Stop()
	if err := <-done; err == nil || err.Error() != "the gateway has ended the stream" {
		t.Error(err)
	}
}
