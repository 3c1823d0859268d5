package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server"
	"ws-gateway/server/servertest"
	"ws-gateway/session/auth"
	"ws-gateway/stat"
)

// raw sends bytes to a gateway and returns the connection and a reader of what comes back.
func raw(t testing.TB, g *servertest.Gateway, request string) (net.Conn, *bufio.Reader) {
	t.Helper()
	u, err := url.Parse(g.URL)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(conn, request) // a server that has seen enough may reset
	return conn, bufio.NewReader(conn)
}

// exchange sends bytes and returns the response, or nil if the connection ended without one.
func exchange(t testing.TB, g *servertest.Gateway, request string) (*http.Response, string) {
	t.Helper()
	_, r := raw(t, g, request)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Fatalf("no answer to %.100q", request)
		}
		return nil, ""
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return resp, ""
	}
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

const goodHandshake = "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// without returns the good handshake with a line replaced.
func without(line, by string) string {
	return strings.Replace(goodHandshake, line+"\r\n", by, 1)
}

func TestP07Handshake(t *testing.T) {
	g := servertest.Start(t)
	const plain = "this is a WebSocket endpoint: connect with a WebSocket client; " +
		"behind a reverse proxy, have it pass on the Upgrade and Connection headers over HTTP/1.1\n"
	const key = "Sec-WebSocket-Key must be 16 bytes in base64\n"
	const version = "Sec-WebSocket-Version must be 13\n"
	for _, c := range []struct {
		name, request string
		status        int
		body          string
		header        [2]string
	}{
		{"good", "GET / HTTP/1.1\r\n" + goodHandshake, 101, "", [2]string{"Sec-Websocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}},
		{"good on /ws", "GET /ws HTTP/1.1\r\n" + goodHandshake, 101, "", [2]string{"Upgrade", "websocket"}},
		{"lists and case", "GET / HTTP/1.1\r\n" + without("Connection: Upgrade", "Connection: keep-alive, upgrade\r\n"), 101, "", [2]string{}},
		{"P20 offers compression", "GET / HTTP/1.1\r\n" + goodHandshake + "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n", 101, "", [2]string{"Sec-Websocket-Extensions", ""}},
		{"a query is nobody's business", "GET /?v=1 HTTP/1.1\r\n" + goodHandshake, 101, "", [2]string{}},
		{"plain GET", "GET / HTTP/1.1\r\nHost: localhost\r\n", 426, plain, [2]string{"Upgrade", "websocket"}},
		{"plain GET on /ws", "GET /ws HTTP/1.1\r\nHost: localhost\r\n", 426, plain, [2]string{"Connection", "Upgrade"}},
		{"proxy that drops Connection", "GET / HTTP/1.1\r\n" + without("Connection: Upgrade", ""), 426, plain, [2]string{}},
		{"proxy that drops Upgrade", "GET / HTTP/1.1\r\n" + without("Upgrade: websocket", ""), 426, plain, [2]string{}},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n" + goodHandshake, 426, plain, [2]string{}},
		{"POST", "POST / HTTP/1.1\r\n" + goodHandshake, 405, `{"code":405,"message":"method not allowed"}`, [2]string{"Allow", "GET"}},
		{"DELETE", "DELETE /ws HTTP/1.1\r\n" + goodHandshake, 405, `{"code":405,"message":"method not allowed"}`, [2]string{"Allow", "GET"}},
		{"no key", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", ""), 400, key, [2]string{}},
		{"3-byte key", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: AAAA\r\n"), 400, key, [2]string{}},
		{"key that is no base64", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!!!\r\n"), 400, key, [2]string{}},
		{"two keys", "GET / HTTP/1.1\r\n" + goodHandshake + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400, key, [2]string{}},
		{"version 12", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12\r\n"), 426, version, [2]string{"Sec-Websocket-Version", "13"}},
		{"no version", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Version: 13", ""), 426, version, [2]string{"Sec-Websocket-Version", "13"}},
		{"a body", "GET / HTTP/1.1\r\n" + goodHandshake + "Content-Length: 1\r\n", 400, "a handshake has no body\n", [2]string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, body := exchange(t, g, c.request+"\r\n")
			if resp == nil {
				t.Fatal("no response")
			}
			if resp.StatusCode != c.status || body != c.body {
				t.Errorf("answered %d %q\nwant     %d %q", resp.StatusCode, body, c.status, c.body)
			}
			if c.header[0] != "" && resp.Header.Get(c.header[0]) != c.header[1] {
				t.Errorf("%s is %q, want %q", c.header[0], resp.Header.Get(c.header[0]), c.header[1])
			}
		})
	}
}

// A refused handshake is the connection's last request; any other is not.
func TestRefusedHandshakeEndsTheConnection(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) { o.Keys = push.KeysOptions{Keys: []string{"key"}} })
	for _, c := range []struct {
		name, request string
		status        int
		ends          bool
	}{
		{"origin", "GET / HTTP/1.1\r\n" + goodHandshake + "Origin: https://evil.example\r\n", 403, true},
		{"version", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8\r\n"), 426, true},
		{"key", "GET / HTTP/1.1\r\n" + without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", ""), 400, true},
		{"headers", "GET / HTTP/1.1\r\n" + goodHandshake + numbered(200), 431, true},
		{"push key", "GET /push HTTP/1.1\r\n" + goodHandshake, 401, true},
		{"no such door", "GET /nowhere HTTP/1.1\r\n" + goodHandshake, 404, true},
		{"no handshake", "GET / HTTP/1.1\r\nHost: localhost\r\n", 426, false},
		{"no such page", "GET /nowhere HTTP/1.1\r\nHost: localhost\r\n", 404, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, r := raw(t, g, c.request+"\r\n")
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			if resp.StatusCode != c.status || resp.Close != c.ends {
				t.Errorf("answered %d, which says that the connection ends: %t", resp.StatusCode, resp.Close)
			}
			if !c.ends {
				io.WriteString(conn, "GET /client.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
				if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != 200 {
					t.Errorf("the next request: %v", err)
				}
				return
			}
			began := time.Now()
			if n, err := io.Copy(io.Discard, r); err != nil || n != 0 || time.Since(began) > 10*time.Second {
				t.Errorf("the connection ended with %v after %v and %d bytes more", err, time.Since(began), n)
			}
		})
	}
}

func TestP08HostileRequests(t *testing.T) {
	g := servertest.Start(t)
	healthy := g.Subscriber("match")
	get := "GET / HTTP/1.1\r\n" + goodHandshake
	for _, c := range []struct {
		name, request string
		statuses      []int // nil: the connection may also just end
	}{
		{"2 MiB header", get + "X: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", nil},
		{"17 KiB header", get + "X: " + strings.Repeat("x", 21<<10) + "\r\n\r\n", []int{431}},
		{"2000 headers", get + strings.Repeat("a: b\r\n", 2000) + "\r\n", []int{431}},
		{"200 different headers", get + numbered(200) + "\r\n", []int{431}},
		{"protocol header for backtracking", get + "Sec-WebSocket-Protocol: " + strings.Repeat("a,", 7000) + "!\r\n\r\n", []int{101, 431}},
		{"extension header for backtracking", get + "Sec-WebSocket-Extensions: " + strings.Repeat("a;b=\"", 2500) + "\r\n\r\n", []int{101, 431}},
		{"two Hosts", get + "Host: evil\r\n\r\n", []int{400}},
		{"no Host", "GET / HTTP/1.1\r\n" + without("Host: localhost", "") + "\r\n", []int{400}},
		{"TE and CL", get + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", []int{400}},
		{"unknown TE", get + "Transfer-Encoding: gzip\r\n\r\n", []int{400, 501}},
		{"two CL", "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", []int{400}},
		{"noise", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400}},
		{"NUL in a header", get + "X: a\x00b\r\n\r\n", []int{400}},
		{"space before the colon", get + "X : a\r\n\r\n", []int{400}},
	} {
		t.Run(c.name, func(t *testing.T) {
			start, cpu := time.Now(), cpuTime(t)
			resp, body := exchange(t, g, c.request)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			for range 4 {
				exchange(t, g, c.request)
			}
			if each := (cpuTime(t) - cpu) / 5; each > 50*time.Millisecond { // this end's too
				t.Errorf("took %v of CPU time", each)
			}
			if resp == nil {
				if c.statuses != nil {
					t.Errorf("ended without an answer, want one of %d", c.statuses)
				}
				return
			}
			for _, status := range append(c.statuses, 431) {
				if resp.StatusCode == status {
					return
				}
			}
			t.Errorf("answered %d %q, want one of %d", resp.StatusCode, body, c.statuses)
		})
	}
	if status, answer := g.Push(`{"app":"match","text":"still here"}`); status != 202 {
		t.Errorf("push answered %d %s", status, answer)
	}
	healthy.Want(`{"app":"match","member_id":-1,"text":"still here"}`)
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "X-%d: x\r\n", i)
	}
	return b.String()
}

// S04: who is slow at a request is cut off; others do not notice.
func TestS04Slowloris(t *testing.T) {
	t.Parallel()
	g := servertest.Start(t)
	start := time.Now()
	_, header := raw(t, g, "GET / HTTP/1.1\r\nHost: local")
	_, body := raw(t, g, "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	for range 1000 {
		raw(t, g, "GET / HTTP/1.1\r\nX: ")
	}
	if status, answer := g.Push(`{"app":"a","text":"x"}`); status != 202 {
		t.Errorf("push beside slow clients answered %d %s", status, answer)
	}
	g.Subscriber("a")
	cut := make(chan time.Duration, 1)
	go func() {
		io.Copy(io.Discard, header)
		cut <- time.Since(start)
	}()
	resp, err := http.ReadResponse(body, nil)
	answered := time.Since(start)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if took := <-cut; took < 4*time.Second || took > answered-2*time.Second {
		t.Errorf("a slow header was cut off after %v and a slow body after %v, want 5 s and 10 s", took, answered)
	}
	if resp.StatusCode != 400 || answered < 9*time.Second || answered > 15*time.Second {
		t.Errorf("a slow body was answered %d after %v, want 400 after 10 s", resp.StatusCode, answered)
	}
}

// S04: the time that a request has to come is a setting, for pushes and all other calls.
func TestBodyTimeout(t *testing.T) {
	const limit = 300 * time.Millisecond
	g := servertest.Start(t, func(o *servertest.Options) { o.Server.BodyTimeout = limit })
	start := time.Now()
	bodies := map[string]*bufio.Reader{}
	for _, path := range []string{"/push", "/revoke", "/v1/mesh/publish"} {
		_, bodies[path] = raw(t, g, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	}
	for path, body := range bodies {
		resp, err := http.ReadResponse(body, nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if took := time.Since(start); took < limit || took > 5*time.Second {
			t.Errorf("%s answered after %v", path, took)
		}
		want := `{"code":400,"message":"the body did not arrive in time"}`
		if path == "/v1/mesh/publish" {
			want = `{"E":{"c":101,"m":"the request did not arrive in time"}}`
		}
		if string(answer) != want {
			t.Errorf("%s answered %s, want %s", path, answer, want)
		}
	}
	if got := g.Metrics.Snapshot().Refused[stat.ReasonPushBodyTime]; got != 3 {
		t.Errorf("counted %d times, want 3", got)
	}
}

func TestX03Origin(t *testing.T) {
	for _, set := range []struct {
		name    string
		origins []string
		cases   map[[2]string]bool // Host and Origin
	}{
		{"default", nil, map[[2]string]bool{
			{"example.com", ""}:                               true, // not a browser
			{"example.com", "http://example.com"}:             true,
			{"example.com", "https://example.com"}:            true, // a proxy may have spoken TLS
			{"example.com:443", "https://example.com"}:        true,
			{"example.com", "https://EXAMPLE.com"}:            true,
			{"Example.COM:5000", "http://example.com:5000"}:   true,
			{"localhost:5000", "http://localhost:3000"}:       true,
			{"gateway.internal", "http://127.0.0.1:8080"}:     true,
			{"gateway.internal", "http://[::1]:8080"}:         true,
			{"example.com", "https://evil-example.com"}:       false,
			{"example.com", "https://example.com.evil"}:       false,
			{"example.com", "https://sub.example.com"}:        false,
			{"example.com", "https://example.com:8443"}:       false,
			{"example.com:5000", "http://example.com"}:        false,
			{"example.com", "null"}:                           false,
			{"example.com", "file://"}:                        false,
			{"example.com", "https://example.com/"}:           false,
			{"example.com", "https://evil@example.com"}:       false,
			{"example.com", "example.com"}:                    false,
			{"example.com", "http://localhost.evil.com"}:      false,
			{"example.com", "http://127.0.0.1.evil.com"}:      false,
			{"example.com", "chrome-extension://example.com"}: false,
		}},
		{"list", []string{"https://Example.org", "http://app.example.org:8080"}, map[[2]string]bool{
			{"gateway", "https://example.org"}:          true,
			{"gateway", "https://example.org:443"}:      true,
			{"gateway", "http://app.example.org:8080"}:  true,
			{"gateway", "http://gateway"}:               true,
			{"gateway", "http://example.org"}:           false,
			{"gateway", "https://evil-example.org"}:     false,
			{"gateway", "https://app.example.org:8080"}: false,
			{"gateway", "null"}:                         false,
		}},
		{"any", []string{"*"}, map[[2]string]bool{
			{"gateway", "https://example.org"}: true,
			{"gateway", "null"}:                true,
		}},
	} {
		t.Run(set.name, func(t *testing.T) {
			g := servertest.Start(t, func(o *servertest.Options) { o.Server.Origins = set.origins })
			for c, allowed := range set.cases {
				header := without("Host: localhost", "Host: "+c[0]+"\r\n")
				if c[1] != "" {
					header += "Origin: " + c[1] + "\r\n"
				}
				resp, body := exchange(t, g, "GET / HTTP/1.1\r\n"+header+"\r\n")
				switch {
				case resp == nil:
					t.Errorf("Host %q, Origin %q: no answer", c[0], c[1])
				case allowed && resp.StatusCode != 101:
					t.Errorf("Host %q, Origin %q: %d %q, want 101", c[0], c[1], resp.StatusCode, body)
				case !allowed && (resp.StatusCode != 403 || body != "origin not allowed: the operator lists the origins of web pages in WSGW_ORIGINS\n"):
					t.Errorf("Host %q, Origin %q: %d %q, want 403", c[0], c[1], resp.StatusCode, body)
				}
			}
			resp, _ := exchange(t, g, "GET / HTTP/1.1\r\n"+goodHandshake+"Origin: http://localhost\r\nOrigin: http://localhost\r\n\r\n")
			if want := set.name == "any"; (resp.StatusCode == 101) != want {
				t.Errorf("two Origins: %d", resp.StatusCode)
			}
		})
	}
	for _, bad := range []string{"example.com", "https://example.com/", "https://*.example.com", "ftp://example.com", "https://", "null", "https://a b"} {
		if _, err := server.New(server.Options{Addr: "127.0.0.1:0", Origins: []string{bad}}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("origin %q: ", bad)) {
			t.Errorf("origin %q in the list: error %v", bad, err)
		}
	}
}

// X04, X05: neither a cookie nor the URL makes anybody a member.
func TestCredentialsComeInTheFirstFrameOnly(t *testing.T) {
	g := servertest.Start(t)
	c := g.Dial("/?member_id=123456&token=654321", "Cookie", "member_id=123456; token=654321", "Authorization", "Bearer 654321")
	c.Send(`{"app":"match"}`)
	messages, code := c.Closed()
	if want := servertest.Reply(`{"code":400,"message":"missing auth message"}`); len(messages) != 1 || messages[0] != want || code != 4500 {
		t.Errorf("got %q and close %d, want %q and 4500", messages, code, want)
	}
}

// A11: an address that guessed too often is not even heard.
func TestA11AuthFailures(t *testing.T) {
	guesser, failures := netip.MustParseAddr("192.0.2.66"), auth.NewFailures(1)
	failures.Failed(guesser)
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Server.Failures = failures
		o.Server.Proxies = server.NewProxies([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)
	})
	_, resp, err := g.TryDial(g.URL, "X-Forwarded-For", guesser.String())
	if err == nil || resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "60" {
		t.Errorf("handshake of a guesser: %v, %v", resp, err)
	}
	if _, _, err := g.TryDial(g.URL, "X-Forwarded-For", "192.0.2.67"); err != nil {
		t.Errorf("handshake of another: %v", err)
	}
}

func TestRoutesAnswerJSON(t *testing.T) {
	g := servertest.Start(t)
	for _, c := range []struct {
		method, path string
		status       int
		allow, body  string
	}{
		{"PUT", "/push", 405, "GET, POST", `{"code":405,"message":"method not allowed"}`},
		{"OPTIONS", "/push", 405, "GET, POST", `{"code":405,"message":"method not allowed"}`},
		{"POST", "/ws", 405, "GET", `{"code":405,"message":"method not allowed"}`},
		{"GET", "/revoke", 405, "POST", `{"code":405,"message":"method not allowed"}`},
		{"POST", "/history", 405, "GET", `{"code":405,"message":"method not allowed"}`},
		{"GET", "/nothing", 404, "", `{"code":404,"message":"not found"}`},
		{"GET", "/push/", 404, "", `{"code":404,"message":"not found"}`},
		{"GET", "/stat", 404, "", `{"code":404,"message":"not found"}`},
		{"GET", "//", 404, "", `{"code":404,"message":"not found"}`},
	} {
		resp, body := g.Do(c.method, g.URL+c.path, "")
		if resp.StatusCode != c.status || body != c.body || resp.Header.Get("Allow") != c.allow || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s, Allow %q, %q; want %d %s, %q", c.method, c.path, resp.StatusCode, body,
				resp.Header.Get("Allow"), resp.Header.Get("Content-Type"), c.status, c.body, c.allow)
		}
	}
}
