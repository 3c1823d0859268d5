package server_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server"
	"ws-gateway/server/servertest"
	"ws-gateway/session"
)

func TestX01ForwardedFor(t *testing.T) {
	var log syncBuffer
	proxies := server.NewProxies([]netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.2/32"), netip.MustParsePrefix("2001:db8::/32"),
	}, slog.New(slog.NewTextHandler(&log, nil)))
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"no proxy", "192.0.2.1:1", nil, "192.0.2.1"},
		{"claimed by a stranger", "192.0.2.1:1", []string{"198.51.100.7"}, "192.0.2.1"},
		{"proxy that says nothing", "10.0.0.1:1", nil, "10.0.0.1"},
		{"one hop", "10.0.0.1:1", []string{"192.0.2.1"}, "192.0.2.1"},
		{"forged by the client, proxy adds", "10.0.0.1:1", []string{"198.51.100.7, 192.0.2.1"}, "192.0.2.1"},
		{"two proxies", "10.0.0.1:1", []string{"198.51.100.7, 192.0.2.1,10.0.0.2"}, "192.0.2.1"},
		{"header of its own each", "10.0.0.1:1", []string{"198.51.100.7", "192.0.2.1", "10.0.0.2"}, "192.0.2.1"},
		{"proxies all the way", "10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"garbage left of a proxy", "10.0.0.1:1", []string{"unknown, 10.0.0.2"}, "10.0.0.2"},
		{"garbage", "10.0.0.1:1", []string{"' OR 1=1"}, "10.0.0.1"},
		{"empty", "10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"ports", "10.0.0.1:1", []string{"192.0.2.1:4711"}, "192.0.2.1"},
		{"IPv6", "[2001:db8::1]:1", []string{"2001:db9::7"}, "2001:db9::7"},
		{"IPv6 in brackets, port", "[2001:db8::1]:1", []string{"[2001:db9::7]:4711"}, "2001:db9::7"},
		{"C05 IPv4 in IPv6", "[::ffff:10.0.0.1]:1", []string{"::ffff:192.0.2.1"}, "192.0.2.1"},
		{"C05 zone", "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"A11 a proxy on this machine that is not trusted", "127.0.0.1:1", []string{"192.0.2.1"}, "invalid IP"},
		{"somebody on this machine", "127.0.0.1:1", nil, "127.0.0.1"},
		{"somebody on this machine, through a proxy there", "127.0.0.2:1", []string{"127.0.0.1"}, "127.0.0.1"},
		{"U03 name that was rebound to this machine", "127.0.0.1:1", nil, "invalid IP"},
		{"U03 name that was rebound to where a proxy is", "127.0.0.2:1", nil, "invalid IP"},
		{"U03 name that was rebound to a proxy", "127.0.0.2:1", []string{"127.0.0.1"}, "invalid IP"},
		{"no TCP", "@", []string{"192.0.2.1"}, "invalid IP"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr, r.Host = c.peer, "127.0.0.1:5000"
		if strings.HasPrefix(c.name, "U03") {
			r.Host = "evil.example:5000"
		}
		for _, f := range c.forwarded {
			r.Header.Add("X-Forwarded-For", f)
		}
		if got := proxies.Remote(r).String(); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
	if got := log.String(); strings.Count(got, "WSGW_TRUSTED_PROXIES") != 1 || !strings.Contains(got, "peer=192.0.2.1") {
		t.Errorf("A11: an unknown proxy is warned about once; the log is %q", got)
	}
	var none *server.Proxies
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	if got := none.Remote(r).String(); got != "192.0.2.1" {
		t.Errorf("no proxies: %s", got)
	}
	r.RemoteAddr, r.Host = "127.0.0.1:1", "127.0.0.1:5000"
	if got := none.Remote(r); got.IsValid() {
		t.Errorf("no proxies, and one on this machine that is not trusted: %s", got)
	}
}

// nginx runs in front of a gateway and cuts idle connections off after timeout.
func nginx(t *testing.T, backend net.Addr, timeout time.Duration) (addr string) {
	t.Helper()
	addr = servertest.FreeAddr(t)
	dir := t.TempDir()
	config := fmt.Sprintf(`
daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr warn;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server {
		listen %[2]s;
		location / {
			proxy_pass http://%[3]s;
			proxy_http_version 1.1;
			proxy_set_header Host $http_host;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection $http_connection;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_read_timeout %[4]dms;
		}
		location /plain/ { # what one gets who forgets about WebSocket
			proxy_pass http://%[3]s/;
		}
	}
}
`, dir, addr, backend, timeout.Milliseconds())
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	servertest.Run(t, addr, "nginx", "-p", dir, "-c", file, "-e", "stderr")
	return addr
}

// haproxy runs in front of a gateway and cuts idle tunnels off after timeout.
func haproxy(t *testing.T, backend string, timeout time.Duration) (addr string) {
	t.Helper()
	addr = servertest.FreeAddr(t)
	config := fmt.Sprintf(`
global
	maxconn 256
defaults
	mode http
	option forwardfor
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	timeout tunnel %dms
listen gateway
	bind %s
	server one %s
`, timeout.Milliseconds(), addr, backend)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	servertest.Run(t, addr, "haproxy", "-db", "-f", file)
	return addr
}

// A tunnel is a client's connection through a proxy, down to the frames.
type tunnel struct {
	net.Conn
	r *bufio.Reader
}

// through connects to addr from a loopback address that is not the proxies'.
func through(t *testing.T, addr, path, header string) *tunnel {
	t.Helper()
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	conn, err := from.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\n%s%s\r\n", path, without("Host: localhost", "Host: "+addr+"\r\n"), header)
	c := &tunnel{conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s through %s: %s: %s", path, addr, resp.Status, body)
	}
	return c
}

// next returns the next frame; this end understands lengths below 126 only.
func (c *tunnel) next() (op push.Opcode, payload string, err error) {
	var header [2]byte
	if _, err := io.ReadFull(c.r, header[:]); err != nil {
		return 0, "", err
	}
	data := make([]byte, header[1])
	_, err = io.ReadFull(c.r, data)
	return push.Opcode(header[0] & 0x0f), string(data), err
}

// send sends a frame of less than 126 bytes, masked with zeros.
func (c *tunnel) send(op push.Opcode, payload string) {
	c.Write(append([]byte{0x80 | byte(op), 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...))
}

// whoami is a door that tells a client its address as the gateway sees it.
func whoami(c session.Conn, _ *http.Request) session.Handler {
	c.Send(push.NewFrame(push.OpText, []byte(c.Remote().String())))
	return silent{}
}

func behind(o *servertest.Options) {
	o.Server.Proxies = server.NewProxies([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, nil)
	o.Server.Doors = map[string]server.Door{"/whoami": whoami}
}

func TestX01ThroughProxies(t *testing.T) {
	g := servertest.Start(t, behind)
	direct := g.Server.Addr().String()
	first := nginx(t, g.Server.Addr(), time.Minute)
	second := haproxy(t, direct, time.Minute)
	both := haproxy(t, first, time.Minute)
	const forged = "X-Forwarded-For: 198.51.100.7\r\n"
	for _, c := range []struct{ name, addr, header, want string }{
		{"directly", direct, "", "127.0.0.9"},
		{"directly, forged", direct, forged, "invalid IP"}, // might be anybody's proxy, and is not trusted
		{"nginx", first, "", "127.0.0.9"},
		{"nginx, forged", first, forged, "127.0.0.9"},
		{"haproxy", second, "", "127.0.0.9"},
		{"haproxy, forged", second, forged, "127.0.0.9"},
		{"haproxy and nginx", both, "", "127.0.0.9"},
		{"haproxy and nginx, forged", both, forged, "127.0.0.9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, got, err := through(t, c.addr, "/whoami", c.header).next(); got != c.want || err != nil {
				t.Errorf("the gateway sees %s, error %v; want %s", got, err, c.want)
			}
		})
	}
	for name, addr := range map[string]string{"nginx": first, "haproxy": second, "both": both} {
		t.Run("push and subscribe through "+name, func(t *testing.T) {
			client, _, err := g.TryDial("http://"+addr+"/", "Origin", "http://"+addr)
			if err != nil {
				t.Fatal(err)
			}
			client.Login(`{"member_id":-1,"token":""}`, "stranger")
			client.Subscribe("match")
			body := `{"app":"match","text":"through ` + name + `"}`
			resp, answer := g.Do("POST", "http://"+addr+"/push", body, "Content-Type", "application/json", "Host", "localhost")
			if resp.StatusCode != 401 {
				t.Errorf("push without a key through a proxy: %d %s, want 401", resp.StatusCode, answer)
			}
			resp, answer = g.Do("POST", "http://"+addr+"/push", body, "Content-Type", "application/json", "X-Push-Key", g.Keys.Generated())
			if resp.StatusCode != 202 {
				t.Errorf("push with the key through a proxy: %d %s, want 202", resp.StatusCode, answer)
			}
			client.Want(`{"app":"match","member_id":-1,"text":"through ` + name + `"}`)
		})
	}
	// A proxy that is not set up for WebSocket gets an answer that says so.
	resp, answer := g.Do("GET", "http://"+first+"/plain/", "")
	if resp.StatusCode != 426 || !strings.Contains(answer, "have it pass on the Upgrade and Connection headers") {
		t.Errorf("through a proxy that knows no WebSocket: %d %s", resp.StatusCode, answer)
	}
}

// X02: pings keep a tunnel open that the proxy would cut.
func TestX02IdleTimeout(t *testing.T) {
	t.Parallel()
	const ping, cut = 2 * time.Second, 8 * time.Second // 25 and 30 by default
	run := func(interval time.Duration) (g *servertest.Gateway, addrs map[string]string) {
		g = servertest.Start(t, behind, func(o *servertest.Options) {
			o.Transport.PingInterval, o.Transport.PongTimeout = interval, 5*time.Second
		})
		return g, map[string]string{"nginx": nginx(t, g.Server.Addr(), cut), "haproxy": haproxy(t, g.Server.Addr().String(), cut)}
	}
	alive, through1 := run(ping)
	for name, addr := range through1 {
		t.Run("pings through "+name, func(t *testing.T) {
			t.Parallel()
			c := through(t, addr, "/", "")
			c.send(push.OpText, `{"member_id":-1,"token":""}`)
			c.send(push.OpText, `{"app":"match"}`)
			for pings := 0; pings < 5; {
				op, payload, err := c.next()
				if err != nil {
					t.Fatalf("cut off after %d pings: %v", pings, err)
				}
				if op == push.OpPing {
					pings++
					c.send(push.OpPong, payload)
				}
			}
			alive.Push(`{"app":"match","text":"still here"}`)
			if _, got, err := c.next(); got != `{"app":"match","member_id":-1,"text":"still here"}` {
				t.Errorf("after five pings: %q, %v", got, err)
			}
		})
	}
	_, through2 := run(time.Hour)
	for name, addr := range through2 {
		t.Run("silence through "+name, func(t *testing.T) { // shows that the proxies do cut
			t.Parallel()
			c := through(t, addr, "/whoami", "")
			start := time.Now()
			for {
				if _, _, err := c.next(); err != nil {
					break
				}
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("the proxy cut an idle tunnel after %v, want %v", took, cut)
			}
		})
	}
}
