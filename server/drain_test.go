package server_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/server/servertest"
)

// N02: nothing that was accepted is lost in an orderly stop, and clients are told to come
// back, spread out.
func TestN02Drain(t *testing.T) {
	t.Parallel()
	const clients, delay, window = 40, 5 * time.Second, 4 * time.Second
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Server.DrainDelay, o.Server.DrainWindow = delay, window
	})
	type end struct {
		messages []string
		code     int
		at       time.Time
	}
	ends := make([]end, clients)
	var wg sync.WaitGroup
	for i := range ends {
		c := g.Subscriber("match")
		wg.Go(func() {
			messages, code := c.Closed()
			ends[i] = end{messages, code, time.Now()}
		})
	}

	start := time.Now()
	g.Drain()
	deadline := time.After(delay)
	for tick := time.Tick(time.Millisecond); g.Ready.Reason() == ""; {
		select {
		case <-tick:
		case <-deadline:
			t.Fatal("a draining gateway is ready")
		}
	}
	if resp, body := g.Do("GET", g.StatURL+"/readyz", ""); resp.StatusCode != 503 || strings.TrimSpace(body) != `{"code":503,"message":"draining"}` {
		t.Errorf("/readyz of a draining gateway: %d %s", resp.StatusCode, body)
	}
	if g.Get(g.StatURL+"/healthz") == "" {
		t.Error("/healthz is empty")
	}
	late := g.Subscriber("other") // the load balancer has not noticed yet

	// Backends push until nobody takes it any more.
	accepted := 0
	for tick := time.Tick(10 * time.Millisecond); ; <-tick {
		status, answer, err := g.TryPush(fmt.Sprintf(`{"app":"match","text":"%d"}`, accepted))
		if err != nil {
			break
		}
		if status != 202 {
			t.Errorf("push answered %d %s", status, answer)
			break
		}
		accepted++
	}
	if took := time.Since(start); took < delay {
		t.Errorf("stopped accepting after %v, want %v", took, delay)
	}
	if resp, _ := g.Do("GET", g.StatURL+"/readyz", ""); resp.StatusCode != 503 {
		t.Errorf("/readyz in the window: %d", resp.StatusCode)
	}
	wg.Wait()
	if _, code := late.Closed(); code != 1012 {
		t.Errorf("the late client was closed with %d, want 1012", code)
	}
	<-g.Done()
	if took := time.Since(start); took < delay+window*3/4 || took > delay+window+10*time.Second {
		t.Errorf("stopped after %v, want %v + %v", took, delay, window)
	}

	if accepted == 0 {
		t.Error("no push was accepted during the delay")
	}
	early, last := ends[0].at, ends[0].at
	for i, e := range ends {
		if e.code != 1012 {
			t.Errorf("client %d closed with %d, want 1012", i, e.code)
		}
		if len(e.messages) != accepted {
			t.Errorf("client %d got %d messages, %d were accepted", i, len(e.messages), accepted)
		}
		for n, m := range e.messages {
			if want := fmt.Sprintf(`{"app":"match","member_id":-1,"text":"%d"}`, n); m != want {
				t.Fatalf("client %d: message %d is %s", i, n, m)
			}
		}
		if e.at.Before(early) {
			early = e.at
		}
		if e.at.After(last) {
			last = e.at
		}
	}
	if spread := last.Sub(early); spread < window/2 {
		t.Errorf("all were closed within %v, want spread over %v", spread, window)
	}
	for _, addr := range append(g.Server.StatAddrs(), g.Server.Addr()) {
		if conn, err := net.Dial("tcp", addr.String()); err == nil {
			conn.Close()
			t.Errorf("%s still listens", addr)
		}
	}
}

// N02: what waits for its fan-out goes out before the close frames, however short the window.
func TestN02DrainFlushes(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Push.FlushWindow = 200 * time.Millisecond })
	clients := make([]*servertest.Client, 20)
	for i := range clients {
		clients[i] = g.Subscriber("match")
	}
	if status, answer := g.Push(`{"app":"match","text":"last words"}`); status != 202 {
		t.Fatalf("push answered %d %s", status, answer)
	}
	g.Drain()
	for i, c := range clients {
		messages, code := c.Closed()
		if want := `{"app":"match","member_id":-1,"text":"last words"}`; code != 1012 || len(messages) != 1 || messages[0] != want {
			t.Errorf("client %d got %q and close %d, want the message and 1012", i, messages, code)
		}
	}
}
