package terminal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"ws-gateway/server/servertest"
	"ws-gateway/session/client/terminal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// push runs terminal.Push against g and returns what it printed.
func push(t *testing.T, g *servertest.Gateway, stdin string, args ...string) string {
	t.Helper()
	var out, complaints bytes.Buffer
	args = append(args, "--url", g.URL+"/push")
	if err := terminal.Push(t.Context(), args, strings.NewReader(stdin), &out, &complaints); err != nil {
		t.Fatalf("push %v: %v %s", args, err, &complaints)
	}
	return out.String()
}

func TestSubPrintsWhatPushPushes(t *testing.T) {
	g := servertest.Start(t)
	messages, out := io.Pipe()
	notes, complaints := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		args := []string{"match", "--url", "ws" + strings.TrimPrefix(g.URL, "http") + "/", "-n", "3", "clock"}
		if err := terminal.Sub(t.Context(), args, out, complaints); err != nil {
			t.Error(err)
		}
		out.Close()
	})
	lines, said := bufio.NewReader(messages), bufio.NewReader(notes)
	if line, err := said.ReadString('\n'); line != "subscribed to match, clock\n" {
		t.Fatalf("said %q, %v", line, err)
	}
	answer := push(t, g, "", "match", `{"hello":"world"}`)
	if !strings.HasPrefix(answer, `{"code":202,"app":"match","epoch":"`) || !strings.HasSuffix(answer, "\"subscribers\":1}\n") {
		t.Errorf("push answered %s", answer)
	}
	want := func(line string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); got != line {
			t.Errorf("printed %q, want %q (%v)", got, line, err)
		}
	}
	want("match {\"hello\":\"world\"}\n")
	push(t, g, "from a pipe", "clock", "-")
	want("clock from a pipe\n")
	push(t, g, "", "match", "\x1b[31mred\nalert")
	want("match \ufffd[31mred\ufffdalert\n")
	wg.Wait()
}

// A later run goes on where the one before stopped.
func TestSubGoesOnFromAPosition(t *testing.T) {
	g := servertest.Start(t)
	push(t, g, "", "match", "a")
	top := g.Log.Top("match")
	push(t, g, "", "match", "b")
	push(t, g, "", "match", "c", "--member", "7")
	push(t, g, "", "match", "d")
	var out, complaints bytes.Buffer
	err := terminal.Sub(t.Context(), []string{
		"match", "--url", "ws" + strings.TrimPrefix(g.URL, "http") + "/", "-n", "2", "--json", "--position", top.Epoch + ":1",
	}, &out, &complaints)
	want := `{"app":"match","member_id":-1,"text":"b","epoch":"` + top.Epoch + `","offset":2}` + "\n" +
		`{"app":"match","member_id":-1,"text":"d","epoch":"` + top.Epoch + `","offset":4}` + "\n"
	if err != nil || out.String() != want {
		t.Errorf("printed %s(%v), want %s", &out, err, want)
	}
}

func TestSubSaysWhyNot(t *testing.T) {
	g := servertest.Start(t)
	url := "ws" + strings.TrimPrefix(g.URL, "http") + "/"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"im", "--url", url}, "subscribe im forbidden"},
		{[]string{"match", "--url", url, "--member", "123456", "--token", "x"}, "refused the token"},
		{[]string{"match", "--url", url, "--position", "x"}, "EPOCH:OFFSET"},
		{[]string{"match", "--url", "ws://127.0.0.1:1/"}, "refused"},
	} {
		err := terminal.Sub(t.Context(), c.args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("sub %v: %v, want %q", c.args, err, c.want)
		}
	}
	for _, args := range [][]string{nil, {"--nonsense"}} {
		var complaints bytes.Buffer
		if err := terminal.Sub(t.Context(), args, io.Discard, &complaints); !errors.Is(err, terminal.ErrUsage) || complaints.Len() == 0 {
			t.Errorf("sub %v: %v, complained %q", args, err, &complaints)
		}
	}
}

func TestSubEndsWithItsContext(t *testing.T) {
	g := servertest.Start(t)
	ctx, cancel := context.WithCancel(t.Context())
	notes, complaints := io.Pipe()
	done := make(chan error)
	go func() {
		done <- terminal.Sub(ctx, []string{"match", "--url", "ws" + strings.TrimPrefix(g.URL, "http") + "/"}, io.Discard, complaints)
	}()
	if _, err := bufio.NewReader(notes).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPushSaysWhyNot(t *testing.T) {
	g := servertest.Start(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"no app", "x"}, "400 Bad Request"},
		{[]string{"im", "x"}, "member_id must be positive"},
	} {
		err := terminal.Push(t.Context(), append(c.args, "--url", g.URL+"/push"), strings.NewReader(""), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("push %v: %v, want %q", c.args, err, c.want)
		}
	}
	if err := terminal.Push(t.Context(), []string{"match"}, nil, io.Discard, io.Discard); !errors.Is(err, terminal.ErrUsage) {
		t.Errorf("without a text: %v", err)
	}
}
