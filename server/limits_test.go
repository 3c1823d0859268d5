package server_test

import (
	"bufio"
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server"
	"ws-gateway/server/servertest"
	"ws-gateway/session"
)

// refusedBy returns how often a limit refused something, as /metrics says.
func refusedBy(t testing.TB, g *servertest.Gateway, reason string) string {
	t.Helper()
	prefix := `wsgateway_refused_total{reason="` + reason + `"} `
	for line := range strings.Lines(g.Get(g.StatURL + "/metrics")) {
		if n, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(n)
		}
	}
	return "none"
}

// wantRefused dials and wants a refusal.
func wantRefused(t testing.TB, g *servertest.Gateway, status int, header ...string) {
	t.Helper()
	_, resp, err := g.TryDial(g.URL, header...)
	if err == nil || resp == nil || resp.StatusCode != status {
		t.Fatalf("dial: %v, %v; want %d", resp, err, status)
	}
	if resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d without Retry-After", status)
	}
}

// eventually dials until it is let in: a connection that ended is noticed soon, not at once.
func eventually(t testing.TB, g *servertest.Gateway, header ...string) *servertest.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		c, _, err := g.TryDial(g.URL, header...)
		if err == nil {
			return c
		}
		if ctx.Err() != nil {
			t.Fatalf("still refused: %v", err)
		}
	}
}

func TestLimitConnections(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Server.Limits.Connections = 2 })
	first, second := g.Dial("/"), g.Dial("/ws")
	wantRefused(t, g, 503)
	if got := refusedBy(t, g, "connections"); got != "1" {
		t.Errorf("refused by connections: %s, want 1", got)
	}
	if status, answer := g.Push(`{"app":"a","text":"x"}`); status != 202 {
		t.Errorf("push beyond the limit answered %d %s", status, answer)
	}
	first.Close()
	eventually(t, g)
	wantRefused(t, g, 503)
	second.Close()
}

func TestLimitPerAddress(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Server.Limits.PerAddress = 2
		o.Server.Proxies = server.NewProxies([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, nil)
	})
	from := func(addr string) []string { return []string{"X-Forwarded-For", addr} }
	a := g.Dial("/", from("2001:db8:1:2::1")...)
	g.Dial("/", from("2001:db8:1:2:ffff::1")...)
	wantRefused(t, g, 429, from("2001:db8:1:2::3")...) // C05: a /64 is one address
	g.Dial("/", from("2001:db8:1:3::1")...)
	g.Dial("/", from("192.0.2.1")...)
	g.Dial("/", from("::ffff:192.0.2.1")...)
	wantRefused(t, g, 429, from("192.0.2.1")...)
	g.Dial("/", from("192.0.2.2")...)
	a.Close()
	eventually(t, g, from("2001:db8:1:2::3")...)
	wantRefused(t, g, 429, from("2001:db8:1:2::1")...)
	if got := refusedBy(t, g, "address_connections"); got == "none" || got == "0" {
		t.Errorf("refused by address_connections: %s", got)
	}
}

func TestLimitHeaderFields(t *testing.T) {
	g := servertest.Start(t)
	_, r := raw(t, g, "GET / HTTP/1.1\r\n"+goodHandshake+numbered(200)+"\r\n")
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %v, %v", resp, err)
	}
	if got := refusedBy(t, g, "header_fields"); got != "1" {
		t.Errorf("refused by header_fields: %s, want 1", got)
	}
}

func TestLimitHandshakeRate(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Server.Limits.HandshakeRate = 3.0 / 3600 })
	g.Dial("/")
	wantRefused(t, g, 503)
	if got := refusedBy(t, g, "handshake_rate"); got != "1" {
		t.Errorf("refused by handshake_rate: %s, want 1", got)
	}
}

// Handshakes beyond the limit wait for their turn, but not for ever, and for none of another
// endpoint's.
func TestLimitHandshakes(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}, 2), make(chan struct{})
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Server.Limits.Handshakes = 1
		o.Server.Doors = map[string]server.Door{"/slow": func(session.Conn, *http.Request) session.Handler {
			entered <- struct{}{}
			<-leave
			return silent{}
		}}
	})
	handshake := func(path string) *bufio.Reader {
		_, r := raw(t, g, "GET "+path+" HTTP/1.1\r\n"+goodHandshake+"\r\n")
		return r
	}
	status := func(r *bufio.Reader) int {
		t.Helper()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	slow := handshake("/slow")
	<-entered
	start := time.Now()
	if got := status(handshake("/")); got != 101 || time.Since(start) > 4*time.Second {
		t.Errorf("a handshake at another endpoint: %d after %v, want 101", got, time.Since(start))
	}
	start = time.Now()
	impatient := handshake("/slow")
	if got := status(impatient); got != 503 || time.Since(start) < 4*time.Second {
		t.Errorf("a handshake without a turn: %d after %v, want 503 after 5 s", got, time.Since(start))
	}
	if got := refusedBy(t, g, "handshakes"); got != "1" {
		t.Errorf("refused by handshakes: %s, want 1", got)
	}
	patient := handshake("/slow")
	close(leave)
	if got := status(slow); got != 101 {
		t.Errorf("the slow handshake: %d, want 101", got)
	}
	if got := status(patient); got != 101 {
		t.Errorf("the handshake after it: %d, want 101", got)
	}
}

// silent is a handler that does nothing.
type silent struct{}

func (silent) Receive(push.Opcode, []byte) func() { return nil }
func (silent) Closed(session.CloseCode)           {}

func TestR02Memory(t *testing.T) {
	var o server.Limits
	o.Memory = 1 << 40
	g := servertest.Start(t, func(opts *servertest.Options) { opts.Server.Limits = o })
	g.Dial("/")
	o.Memory = 1 << 20 // less than any process has
	g = servertest.Start(t, func(opts *servertest.Options) { opts.Server.Limits = o })
	wantRefused(t, g, 503)
	if got := refusedBy(t, g, "memory"); got != "1" {
		t.Errorf("refused by memory: %s, want 1", got)
	}
	if status, answer := g.Push(`{"app":"a","text":"x"}`); status != 202 {
		t.Errorf("push answered %d %s", status, answer)
	}
}
