package server_test

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
)

// P10: the time for the first message counts from the upgrade, whatever else a client sends: pings,
// or that message byte by byte, which is late and not at fault with the frame.
func TestP10FirstMessageIsLate(t *testing.T) {
	t.Parallel()                                            // it takes ten seconds, of which nearly all is waiting
	const begun = "\x81\xe4\x00\x00\x00\x00{\"member_id\":" // and never the rest
	g := servertest.Start(t)
	var clients sync.WaitGroup
	for name, send := range map[string]func(c *tunnel, second int){
		"silence":         func(*tunnel, int) {},
		"pings":           func(c *tunnel, _ int) { c.send(push.OpPing, "") },
		"a byte a second": func(c *tunnel, second int) { io.WriteString(c, begun[second:second+1]) },
		"half of it": func(c *tunnel, second int) {
			if second == 0 {
				io.WriteString(c, begun)
			}
		},
	} {
		start := time.Now()
		c := through(t, g.Server.Addr().String(), "/", "")
		ended := make(chan struct{})
		clients.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for second := range len(begun) {
				send(c, second)
				select {
				case <-tick.C:
				case <-ended:
					return
				}
			}
		})
		clients.Go(func() {
			defer close(ended)
			var got []string
			for {
				op, payload, err := c.next()
				if err != nil {
					break
				}
				if op != push.OpPong {
					got = append(got, payload)
				}
			}
			took := time.Since(start)
			if len(got) != 2 || !strings.Contains(got[0], `\"missing auth message\"`) || got[1] != "\x11\x94missing auth" {
				t.Errorf("%s: got %q, want 400 and 4500", name, got)
			}
			if took < 9500*time.Millisecond || took > 12*time.Second { // 0.5 s later, on a busy machine too
				t.Errorf("%s: it ended after %v, want 10 s", name, took)
			}
		})
	}
	clients.Wait()
}
