package server_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"ws-gateway/server/servertest"
)

// S01: a client that stops reading is closed with 4008 when a megabyte waits for it, which
// nobody else notices, and it finds what it missed when it comes back.
func TestS01StalledClientResumes(t *testing.T) {
	for _, mode := range []string{"event", "goroutine"} {
		t.Run(mode, func(t *testing.T) {
			var log syncBuffer
			g := servertest.Start(t, func(o *servertest.Options) {
				o.Transport.Mode = mode
				o.Apps = "apps: {match: {history: {size: 10000, ttl: 1h}}}"
				o.Session.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			body := strings.Repeat("x", 32<<10)
			subscribe := func(position string) (*servertest.Client, string) {
				c := g.Dial("/")
				c.Login(`{"member_id":-1}`, "stranger")
				c.Send(`{"app":"match","position":` + position + `}`)
				return c, c.Next()
			}
			message := func(n int) string {
				return fmt.Sprintf(`{"app":"match","member_id":-1,"text":"%s","offset":%d,"prev":%d}`, body, n, n-1)
			}
			stalled, reply := subscribe("null")
			_, epoch, _ := strings.Cut(reply, `epoch\":\"`)
			epoch, _, _ = strings.Cut(epoch, `\"`)
			well, _ := subscribe("null")
			accepted := 0
			for g.Metrics.Snapshot().SessionsClosed["4008"] == 0 {
				if accepted++; accepted > 2000 {
					t.Fatal("64 MB wait for a client that does not read")
				}
				if status, answer := g.Push(`{"app":"match","text":"` + body + `"}`); status != 202 {
					t.Fatalf("push beside a client that does not read answered %d %s", status, answer)
				}
				if got := well.Next(); got != message(accepted) {
					t.Fatalf("message %d: who reads got %.100s", accepted, got)
				}
			}
			if !strings.Contains(log.String(), `code=4008 reason="slow consumer"`) {
				t.Errorf("the log does not say 4008:\n%s", log.String())
			}

			got, _ := stalled.Closed() // what was in the sockets
			for i, m := range got {
				if m != message(i+1) {
					t.Fatalf("message %d: who did not read got %.100s", i+1, m)
				}
			}
			if missed := (accepted - len(got)) * len(body); missed < 1<<20 {
				t.Errorf("%d bytes waited when it was closed, want 1 MiB", missed)
			}
			again, reply := subscribe(fmt.Sprintf(`{"epoch":"%s","offset":%d}`, epoch, len(got)))
			if !strings.Contains(reply, `\"recovered\":true`) {
				t.Errorf("its resume is answered %s", reply)
			}
			for n := len(got) + 1; n <= accepted; n++ {
				if m := again.Next(); m != message(n) {
					t.Fatalf("message %d: the resume brought %.100s", n, m)
				}
			}
		})
	}
}
