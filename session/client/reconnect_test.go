package client

import (
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
)

// Subscribe may look up the connection and then come to use it when that is long gone, and the
// subscription was resumed on the next.
func TestSubscribeComesLate(t *testing.T) {
	g := servertest.Start(t)
	connected := make(chan struct{}, 2)
	c, err := Dial(t.Context(), "ws"+strings.TrimPrefix(g.URL, "http")+"/", Options{
		MinBackoff: time.Millisecond,
		Events: func(e Event) {
			if e.State == Connected {
				connected <- struct{}{}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-connected
	first, err := c.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Subscribe(t.Context(), "match", SubscribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first.ws.NetConn().Close()
	<-connected
	for range 2 { // the second is asked when the client has resumed, and answered behind that
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	s.resume(first)
	second, err := c.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.resume(second)
	s.mu.Lock()
	conn, asking := s.conn, s.asking
	s.mu.Unlock()
	if conn != second || asking {
		t.Errorf("the subscription is on connection %d and asking: %t; want 2, false", conn.number, asking)
	}
	if _, err := g.Hub.Publish(t.Context(), push.Message{App: "match", Member: push.Everybody, Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	for m := range s.Messages(t.Context()) {
		if m.Text != "hello" {
			t.Errorf("got %q", m.Text)
		}
		break
	}
}
