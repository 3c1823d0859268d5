package auth_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ws-gateway/server/servertest"
	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/auth/authtest"
)

// canary is a token that the endpoints below put wherever they can.
const canary = authtest.Canary

func newCallback(t *testing.T, o auth.CallbackOptions) *auth.Callback {
	t.Helper()
	b, err := auth.NewCallback(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// serve starts an endpoint and returns its URL.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/auth"
}

// serveRaw starts an endpoint that is not HTTP, or not quite: talk gets each connection
// once its request header is in.
func serveRaw(t *testing.T, talk func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				talk(c)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String() + "/auth"
}

// drip writes s again and again, a byte every few milliseconds, until the peer is gone.
func drip(w io.Writer, s string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % len(s) {
		<-tick.C
		if _, err := io.WriteString(w, s[i:i+1]); err != nil {
			return
		}
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
	}
}

// members is an endpoint as an operator would write it.
func members(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if string(body) != `{"member_id":42,"token":"right"}` {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	io.WriteString(w, `{"member_id":42,"roles":["gold"],"name":"ignored"}`)
}

func TestCallback(t *testing.T) {
	authtest.Run(t, func(t *testing.T, l *slog.Logger) authtest.Backend {
		b := newCallback(t, auth.CallbackOptions{URL: serve(t, members), Logger: l})
		return authtest.Backend{Auth: b, Member: 42, Token: "right", Roles: []string{"gold"}}
	})
}

// A verdict is what came of one question.
type verdict string

const (
	accepted    verdict = "accepted"
	refusedIt   verdict = "refused"
	unavailable verdict = "unavailable"
)

func verdictOf(err error) verdict {
	switch {
	case err == nil:
		return accepted
	case errors.Is(err, session.ErrUnauthorized):
		return refusedIt
	}
	return unavailable
}

func TestCallbackAnswers(t *testing.T) {
	future := time.Now().Add(time.Hour).Unix()
	for _, c := range []struct {
		name, body string
		want       verdict
		log        string // what the log says of it
	}{
		{"member_id", `{"member_id":42}`, accepted, ""},
		{"uid", `{"uid":42}`, accepted, ""},
		{"both", `{"member_id":42,"uid":42}`, accepted, ""},
		{"spaces around", " \r\n{ \"member_id\" : 42 }\n", accepted, ""},
		{"extra keys", `{"member_id":42,"code":0,"data":{"a":[1,{"b":null}]}}`, accepted, ""},
		{"expires_at", fmt.Sprintf(`{"member_id":42,"expires_at":%d}`, future), accepted, ""},
		{"nulls", `{"member_id":42,"uid":null,"expires_at":null,"roles":null}`, accepted, ""},
		{"A05 another member", `{"member_id":43}`, refusedIt, ""},
		{"A05 another uid", `{"uid":43}`, refusedIt, ""},
		{"A05 one of two is another", `{"member_id":42,"uid":43}`, refusedIt, ""},
		{"A05 member 0", `{"member_id":0}`, refusedIt, ""},
		{"expired", `{"member_id":42,"expires_at":1}`, refusedIt, ""},
		{"expires_at 0", `{"member_id":42,"expires_at":0}`, refusedIt, ""},
		{"A05 empty", "", unavailable, "empty body"},
		{"A05 garbage", canary + "<html>It works!</html>", unavailable, "not JSON"},
		{"A05 PHP notice first", "Notice: " + canary + "\n{\"member_id\":42}", unavailable, "not JSON"},
		{"A05 byte order mark", "\xef\xbb\xbf{\"member_id\":42}", unavailable, "not JSON"},
		{"A05 null", `null`, unavailable, "neither member_id nor uid"},
		{"A05 empty object", `{}`, unavailable, "neither member_id nor uid"},
		{"A05 other case", `{"Member_ID":42}`, unavailable, "neither member_id nor uid"},
		{"A05 array", `[42]`, unavailable, "not JSON"},
		{"A05 number", `42`, unavailable, "not JSON"},
		{"A05 string member", `{"member_id":"` + canary + `"}`, unavailable, "not JSON"},
		{"A05 float member", `{"member_id":42.0}`, unavailable, "not JSON"},
		{"A05 huge member", `{"member_id":9223372036854775808}`, unavailable, "not JSON"},
		{"A05 duplicate key", `{"member_id":42,"` + canary + `":1,"` + canary + `":2}`, unavailable, "not JSON"},
		{"A05 member twice", `{"member_id":43,"member_id":42}`, unavailable, "not JSON"},
		{"A05 invalid UTF-8", "{\"member_id\":42,\"a\":\"\xff" + canary + "\"}", unavailable, "not JSON"},
		{"A05 trailing", `{"member_id":42}{"member_id":42}`, unavailable, "not JSON"},
		{"A05 cut", `{"member_id":42`, unavailable, "not JSON"},
		{"A05 expires in ms", `{"member_id":42,"expires_at":1700000000000}`, unavailable, "not in seconds"},
		{"A05 expires text", `{"member_id":42,"expires_at":"` + canary + `"}`, unavailable, "not JSON"},
		{"A05 roles text", `{"member_id":42,"roles":"gold"}`, unavailable, "not JSON"},
		{"A05 role with a space", `{"member_id":42,"roles":["` + canary + ` x"]}`, unavailable, "invalid roles"},
		{"A05 too many roles", `{"member_id":42,"roles":["a"` + strings.Repeat(`,"a"`, 64) + `]}`, unavailable, "invalid roles"},
		{"64 KiB", `{"member_id":42,"a":"` + strings.Repeat("x", 64<<10-23) + `"}`, accepted, ""},
		{"A06 a byte more", `{"member_id":42,"a":"` + strings.Repeat("x", 64<<10-22) + `"}`, unavailable, "larger than 65536"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log authtest.Log
			b := newCallback(t, auth.CallbackOptions{Logger: log.Logger(), URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, c.body)
			})})
			id, err := authenticate(t, b, 42, canary)
			if got := verdictOf(err); got != c.want {
				t.Fatalf("%s (%v), want %s", got, err, c.want)
			}
			if c.name == "expires_at" && id.Expires.Unix() != future {
				t.Errorf("expires %v, want %d", id.Expires, future)
			}
			checkComplaint(t, &log, err, c.log)
		})
	}
}

// checkComplaint looks for one warning with text in it, or for none, and for A09.
func checkComplaint(t *testing.T, log *authtest.Log, err error, text string) {
	t.Helper()
	if want := min(len(text), 1); strings.Count(log.String(), "level=WARN") != want || !strings.Contains(log.String(), text) {
		t.Errorf("want %d warnings with %q, the log is:\n%s", want, text, log.String())
	}
	if all := fmt.Sprintf("%v %+v %#v %s", err, err, err, log.String()); strings.Contains(all, canary) {
		t.Errorf("A09: the token is shown: %s", all)
	}
}

func TestCallbackFaults(t *testing.T) {
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			io.WriteString(w, `{"member_id":42}`) // must not matter
		}
	}
	redirect := func(code int, to string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(code)
		}
	}
	short := 2 * time.Second // long enough for the request to arrive
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		raw     func(net.Conn)
		timeout time.Duration
		want    verdict
		log     string
	}{
		{name: "A02 never answers", timeout: short, want: unavailable, log: "cause=timeout",
			handler: func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body); <-r.Context().Done() }},
		{name: "A02 drips its header", timeout: short, want: unavailable, log: "cause=timeout",
			raw: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "); drip(c, canary) }},
		{name: "A02 drips its body", timeout: short, want: unavailable, log: "cause=timeout",
			handler: func(w http.ResponseWriter, r *http.Request) { drip(w, ` `) }},
		{name: "A02 stops in its body", timeout: short, want: unavailable, log: "cause=timeout",
			raw: func(c net.Conn) {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"member_id\":")
				io.Copy(io.Discard, c)
			}},
		{name: "A03 500", handler: status(500), want: unavailable, log: "answered 500"},
		{name: "A03 502", handler: status(502), want: unavailable, log: "answered 502"},
		{name: "A03 503", handler: status(503), want: unavailable, log: "answered 503"},
		{name: "A03 429", handler: status(429), want: unavailable, log: "answered 429"},
		{name: "A03 400", handler: status(400), want: unavailable, log: "answered 400"},
		{name: "A03 201", handler: status(201), want: unavailable, log: "answered 201"},
		{name: "A03 204", handler: status(204), want: unavailable, log: "answered 204"},
		{name: "A04 401", handler: status(401), want: refusedIt},
		{name: "A04 403", handler: status(403), want: refusedIt},
		{name: "A04 404", handler: status(404), want: refusedIt},
		{name: "A04 401 with an endless body", want: refusedIt,
			handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401); endless(w) }},
		{name: "A06 endless body", handler: func(w http.ResponseWriter, r *http.Request) { endless(w) },
			want: unavailable, log: "larger than 65536"},
		{name: "A06 gzip bomb", want: unavailable, log: "larger than 65536",
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(bomb())
			}},
		{name: "A06 gzip that is none", want: unavailable, log: "cause=broken",
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				io.WriteString(w, canary)
			}},
		{name: "A06 gzip", want: accepted,
			handler: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				z := gzip.NewWriter(w)
				io.WriteString(z, `{"member_id":42}`)
				z.Close()
			}},
		{name: "A06 endless header", want: unavailable, log: "cause=broken",
			raw: func(c net.Conn) {
				io.WriteString(c, "HTTP/1.1 200 OK\r\n")
				for err := error(nil); err == nil; {
					_, err = io.WriteString(c, "X-Padding: "+canary+"\r\n")
				}
			}},
		{name: "A06 header of 32 KiB", want: unavailable, log: "cause=broken",
			raw: func(c net.Conn) {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 16\r\nX: "+strings.Repeat("x", 32<<10)+"\r\n\r\n{\"member_id\":42}")
			}},
		{name: "A06 endless 100 Continue", want: unavailable, log: "cause=broken",
			raw: func(c net.Conn) {
				for err := error(nil); err == nil; {
					_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: "+canary+"\r\n\r\n")
				}
			}},
		{name: "A07 to a metadata service", handler: redirect(302, "http://169.254.169.254/latest/"+canary), want: unavailable, log: "redirects are not followed"},
		{name: "A07 to a file", handler: redirect(307, "file:///etc/passwd"), want: unavailable, log: "redirects are not followed"},
		{name: "A07 to itself", handler: redirect(308, "/auth"), want: unavailable, log: "redirects are not followed"},
		{name: "A07 to nowhere", handler: redirect(301, "::::"+canary), want: unavailable, log: "cause=broken"},
		{name: "A03 closes at once", raw: func(net.Conn) {}, want: unavailable, log: "cause=broken"},
		{name: "A03 resets", raw: func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, want: unavailable, log: "cause=broken"},
		{name: "A03 not HTTP", raw: func(c net.Conn) { io.WriteString(c, "SSH-2.0-"+canary+"\r\n") }, want: unavailable, log: "cause=broken"},
		{name: "A03 bad status line", raw: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 "+canary+"\r\n\r\n") }, want: unavailable, log: "cause=broken"},
		{name: "A03 bad header", raw: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n"+canary+"\r\n\r\n") }, want: unavailable, log: "cause=broken"},
		{name: "A03 body cut", raw: func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"member_id\":42}")
		}, want: unavailable, log: "cause=broken"},
		{name: "A03 bad chunks", raw: func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"+canary)
		}, want: unavailable, log: "cause=broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log authtest.Log
			var requests atomic.Int32
			url := ""
			if c.raw != nil {
				url = serveRaw(t, func(conn net.Conn) { requests.Add(1); c.raw(conn) })
			} else {
				url = serve(t, func(w http.ResponseWriter, r *http.Request) { requests.Add(1); c.handler(w, r) })
			}
			if c.timeout > 0 {
				t.Parallel()
			} else {
				c.timeout = time.Minute // however busy the machine is
			}
			b := newCallback(t, auth.CallbackOptions{URL: url, Timeout: c.timeout, Logger: log.Logger()})
			_, err := authenticate(t, b, 42, canary)
			if got := verdictOf(err); got != c.want {
				t.Errorf("%s (%v), want %s", got, err, c.want)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("A03 the endpoint was asked %d times, want once", n)
			}
			checkComplaint(t, &log, err, c.log)
		})
	}
}

// endless writes until the peer is gone, and at most 1 GiB.
func endless(w io.Writer) {
	block := []byte(strings.Repeat(canary+" ", 1<<10))
	for sent := 0; sent < 1<<30; sent += len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// bomb is 8 MiB of zeros in 8 KiB.
var bomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(make([]byte, 8<<20))
	z.Close()
	return b.Bytes()
})

func TestA06EndlessBodyIsNotRead(t *testing.T) {
	sent := make(chan int, 1)
	b := newCallback(t, auth.CallbackOptions{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, block := 0, make([]byte, 32<<10)
		for n < 1<<30 {
			k, err := w.Write(block)
			n += k
			if err != nil {
				break
			}
		}
		sent <- n
	})})
	authenticate(t, b, 42, "right")
	if n := <-sent; n > 32<<20 { // what fits into the sockets' buffers
		t.Errorf("the endpoint got rid of %d bytes", n)
	}
}

func TestA07RedirectsAskNobodyElse(t *testing.T) {
	var asked atomic.Int32
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, `{"member_id":42}`)
	})
	for _, code := range []int{301, 302, 303, 307, 308} {
		b := newCallback(t, auth.CallbackOptions{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other, code)
		})})
		if _, err := authenticate(t, b, 42, "right"); verdictOf(err) != unavailable {
			t.Errorf("%d: %v", code, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests where the redirects point", n)
	}
}

func TestA01ConnectErrors(t *testing.T) {
	closed := servertest.FreeAddr(t)
	for name, c := range map[string]struct {
		dial auth.DialFunc
		url  string
		log  string
	}{
		"refused": {(&net.Dialer{}).DialContext, "http://" + closed, "connection refused"},
		"DNS fails": {func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "auth.invalid", IsNotFound: true}}
		}, "http://auth.invalid", "no such host"},
	} {
		t.Run(name, func(t *testing.T) {
			var log authtest.Log
			var dials atomic.Int32
			b := newCallback(t, auth.CallbackOptions{URL: c.url, Logger: log.Logger(),
				Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
					dials.Add(1)
					return c.dial(ctx, network, addr)
				}})
			_, err := authenticate(t, b, 42, canary)
			if verdictOf(err) != unavailable {
				t.Errorf("%v, want unavailable", err)
			}
			if n := dials.Load(); n != 2 {
				t.Errorf("A03 %d attempts to connect, want 2", n)
			}
			checkComplaint(t, &log, err, c.log)
		})
	}
}

// A connection that could not be made at first is made at the second attempt, with the
// whole question.
func TestA03RetryAfterConnectError(t *testing.T) {
	var dials atomic.Int32
	b := newCallback(t, auth.CallbackOptions{URL: serve(t, members),
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				return nil, &net.OpError{Op: "dial", Net: network, Err: errors.New("connection refused")}
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}})
	if _, err := authenticate(t, b, 42, "right"); err != nil {
		t.Error(err)
	}
}

func TestCallbackTLS(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(members))
	defer secure.Close()
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	plain := serve(t, members)
	for name, url := range map[string]string{
		"unknown authority": secure.URL,
		"http behind https": strings.Replace(plain, "http:", "https:", 1),
	} {
		t.Run(name, func(t *testing.T) {
			var log authtest.Log
			_, err := authenticate(t, newCallback(t, auth.CallbackOptions{URL: url, Logger: log.Logger()}), 42, "right")
			if verdictOf(err) != unavailable || !strings.Contains(log.String(), "cause=connect") {
				t.Errorf("%v, log:\n%s", err, log.String())
			}
		})
	}
}

// A08: the endpoint gets the token in JSON and nowhere else.
func TestA08TokenIsEncoded(t *testing.T) {
	var body, header string
	b := newCallback(t, auth.CallbackOptions{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		body, header = string(data), fmt.Sprint(r.URL, r.Header)
		io.WriteString(w, `{"member_id":42}`)
	})})
	if _, err := authenticate(t, b, 42, "\"},\r\nX-Evil: 1\x00<é\u2028>\\"); err != nil {
		t.Fatal(err)
	}
	if want := `{"member_id":42,"token":"\"},\r\nX-Evil: 1\u0000<é` + "\u2028" + `>\\"}`; body != want {
		t.Errorf("the endpoint was asked\n%s\nwant\n%s", body, want)
	}
	if strings.Contains(header, "Evil") {
		t.Errorf("the token is in %s", header)
	}
}

func TestCallbackIgnoresProxies(t *testing.T) { // which TestMain sets
	_, target, _ := strings.Cut(serve(t, members), "//")
	target, _, _ = strings.Cut(target, "/")
	b := newCallback(t, auth.CallbackOptions{URL: "http://auth.example/auth",
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "auth.example:80" {
				t.Errorf("connects to %s", addr)
			}
			return (&net.Dialer{}).DialContext(ctx, network, target)
		}})
	if _, err := authenticate(t, b, 42, "right"); err != nil {
		t.Error(err)
	}
}

func TestA08LongTokensAreNotSent(t *testing.T) {
	var asked atomic.Int32
	b := newCallback(t, auth.CallbackOptions{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, `{"member_id":42}`)
	})})
	for n, want := range map[int]verdict{4 << 10: accepted, 4<<10 + 1: refusedIt} {
		if _, err := authenticate(t, b, 42, session.Token(strings.Repeat("x", n))); verdictOf(err) != want {
			t.Errorf("%d bytes: %v, want %s", n, err, want)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

func TestCallbackKeepsConnections(t *testing.T) {
	var dials atomic.Int32
	b := newCallback(t, auth.CallbackOptions{URL: serve(t, members),
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}})
	for range 20 {
		for _, token := range []session.Token{"right", "wrong"} {
			authenticate(t, b, 42, token)
		}
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for 40 questions in a row", n)
	}
}

func TestCallbackSettings(t *testing.T) {
	for _, url := range []string{"", "auth.example/x", "/auth", "file:///etc/passwd", "ftp://example.com/", "http://", "http://a b/", "http://h/#f", "http://user:" + canary + "@/"} {
		_, err := auth.NewCallback(auth.CallbackOptions{URL: url})
		if err == nil || !strings.HasPrefix(err.Error(), "WSGW_AUTH_URL: ") || strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", url, err)
		}
	}
	for setting, o := range map[string]auth.CallbackOptions{
		"WSGW_AUTH_TIMEOUT":     {URL: "http://h/", Timeout: -1},
		"WSGW_AUTH_CONCURRENCY": {URL: "http://h/", Concurrency: -1},
	} {
		if _, err := auth.NewCallback(o); err == nil || !strings.HasPrefix(err.Error(), setting+": ") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}
