package transport_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// TestHandshakeRefusals is P07.
func TestHandshakeRefusals(t *testing.T) {
	s := serve(t, transport.ModeAuto, transport.Options{}, nil)
	without := func(line string) string { return strings.Replace(handshake, line+"\r\n", "", 1) }
	const version, key = "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
	tests := map[string]struct {
		request string
		status  int
		header  [2]string
	}{
		"plain GET":        {"GET / HTTP/1.1\r\nHost: localhost\r\n", 426, [2]string{"Upgrade", "websocket"}},
		"HTTP/1.0":         {strings.Replace(without("Connection: Upgrade"), "1.1", "1.0", 1), 426, [2]string{"Upgrade", "websocket"}},
		"POST":             {strings.Replace(handshake, "GET", "POST", 1), 405, [2]string{"Allow", "GET"}},
		"no key":           {without(key), 400, [2]string{}},
		"key of 3 bytes":   {strings.Replace(handshake, key, "Sec-WebSocket-Key: YWJj", 1), 400, [2]string{}},
		"key not base64":   {strings.Replace(handshake, key, "Sec-WebSocket-Key: !", 1), 400, [2]string{}},
		"version 12":       {strings.Replace(handshake, version, "Sec-WebSocket-Version: 12", 1), 426, [2]string{"Sec-Websocket-Version", "13"}},
		"no version":       {without(version), 426, [2]string{"Sec-Websocket-Version", "13"}},
		"other upgrade":    {strings.Replace(handshake, "websocket", "h2c", 1), 426, [2]string{"Upgrade", "websocket"}},
		"no Upgrade token": {strings.Replace(handshake, "Connection: Upgrade", "Connection: close", 1), 426, [2]string{"Upgrade", "websocket"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := s.connect()
			c.t = t
			c.write(test.request + "\r\n")
			res, err := http.ReadResponse(c.br, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != test.status || len(body) == 0 || len(body) > 200 {
				t.Errorf("answered %s %q, %v; want %d with a short text", res.Status, body, err, test.status)
			}
			if got := res.Header.Get(test.header[0]); got != test.header[1] {
				t.Errorf("header %s is %q, want %q", test.header[0], got, test.header[1])
			}
			if err := wait(t, s.errs, "error"); err == nil {
				t.Error("Upgrade returned nil")
			}
		})
	}
}

// TestEarlyFrames is P21: frames in the same segment as the handshake.
func TestEarlyFrames(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, nil)
		c := s.connect()
		c.write(handshake + "\r\n" + text("early"))
		res, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); res.StatusCode != 400 || !strings.Contains(string(body), "before the handshake") {
			t.Errorf("answered %s %q, want 400", res.Status, body)
		}
		wait(t, s.errs, "error")
		if len(s.conns) != 0 {
			t.Error("a session was opened")
		}
	})
}

// A failingWriter is a ResponseWriter whose connection breaks at some point of the handshake.
type failingWriter struct {
	http.ResponseWriter
	hijack func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error)
}

func (w failingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return w.hijack(nc, brw)
}

// TestFailuresAfterHijack breaks the handshake when the connection is no longer the HTTP
// server's, so that nobody but the transport can close it.
func TestFailuresAfterHijack(t *testing.T) {
	opened := func(session.Conn) session.Handler { return &peer{closed: make(chan session.CloseCode, 1)} }
	pong := push.NewFrame(push.OpPong, nil)
	var leaked session.Conn // of a panic
	tests := map[string]struct {
		hijack func(net.Conn, *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error)
		open   func(session.Conn) session.Handler
	}{
		"response can't be written": {func(nc net.Conn, brw *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error) {
			nc.SetWriteDeadline(time.Unix(1, 0))
			return stuckDeadline{nc}, brw, nil
		}, opened},
		"connection is closed already": {func(nc net.Conn, brw *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error) {
			nc.Close()
			return nc, brw, nil
		}, opened},
		"open panics": {func(nc net.Conn, brw *bufio.ReadWriter) (net.Conn, *bufio.ReadWriter, error) {
			return nc, brw, nil
		}, func(c session.Conn) session.Handler {
			leaked = c
			panic("no session")
		}},
	}
	for _, mode := range []string{transport.ModeAuto, transport.ModeGoroutine} {
		for name, test := range tests {
			t.Run(mode+" "+name, func(t *testing.T) {
				before := descriptors()
				tr, err := transport.New(transport.Options{Mode: mode})
				if err != nil {
					t.Fatal(err)
				}
				failed := make(chan error, 1)
				hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					failed <- tr.Upgrade(failingWriter{w, test.hijack}, r, netip.Addr{}, test.open)
				}))
				s := &server{t: t, addr: hs.Listener.Addr().String()}
				c := s.connect()
				c.write(handshake + "\r\n")
				if err := wait(t, failed, "result of Upgrade"); err == nil {
					t.Error("Upgrade returned nil")
				}
				if rest, err := io.ReadAll(c.br); err != nil && !isReset(err) {
					t.Errorf("client read %q, %v; want the end of the stream", rest, err)
				}
				if leaked != nil {
					if err := leaked.Send(pong); err != session.ErrClosed {
						t.Errorf("Send on a connection that could not be opened: %v, want ErrClosed", err)
					}
				}
				c.Close()
				hs.Close()
				tr.Close()
				wantDescriptors(t, before)
			})
		}
	}
}

// A stuckDeadline does not let its deadline be changed.
type stuckDeadline struct{ net.Conn }

func (stuckDeadline) SetDeadline(time.Time) error { return nil }

func TestUpgradeAfterClose(t *testing.T) {
	m := stat.New(stat.Options{})
	tr, err := transport.New(transport.Options{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	tr.Close()
	w := httptest.NewRecorder()
	if err := tr.Upgrade(w, httptest.NewRequest("GET", "/", nil), netip.Addr{}, nil); !errors.Is(err, transport.ErrClosed) || w.Code != 503 {
		t.Errorf("Upgrade after Close: %v, status %d; want ErrClosed, 503", err, w.Code)
	}
	if n := m.Snapshot().Refused[stat.ReasonDraining]; n != 1 {
		t.Errorf("counted %d times", n)
	}
}

func TestUnknownMode(t *testing.T) {
	if _, err := transport.New(transport.Options{Mode: "threads"}); err == nil || !strings.Contains(err.Error(), "threads") {
		t.Errorf("New with mode threads: %v, want an error that names it", err)
	}
}

// TestOpen uses the connection before its handler is known.
func TestOpen(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		var use func(c session.Conn)
		s := serveOpen(t, kind, transport.Options{}, func(c session.Conn) *peer {
			use(c)
			return new(peer)
		})
		t.Run("Send", func(t *testing.T) {
			use = func(c session.Conn) { c.Send(push.NewFrame(push.OpText, []byte("welcome"))) }
			c, p := s.dial()
			c.want(push.OpText, "welcome")
			c.Close()
			p.wantClosed(t, session.CloseAbnormal)
		})
		t.Run("Send more than the socket takes", func(t *testing.T) {
			big := strings.Repeat("x", 8<<20)
			use = func(c session.Conn) { c.Send(push.NewFrame(push.OpText, []byte(big))) }
			c, p := s.dial()
			c.want(push.OpText, big)
			c.Close()
			p.wantClosed(t, session.CloseAbnormal)
		})
		t.Run("Close", func(t *testing.T) {
			use = func(c session.Conn) { c.Close(session.CloseTryLater, "full") }
			c, p := s.dial()
			c.wantClose(session.CloseTryLater)
			p.wantClosed(t, session.CloseTryLater)
		})
		t.Run("Abort", func(t *testing.T) {
			use = func(c session.Conn) { c.Abort(session.CloseTryLater) }
			c, p := s.dial()
			c.wantClose(session.CloseTryLater)
			p.wantClosed(t, session.CloseTryLater)
		})
		t.Run("Remote", func(t *testing.T) {
			use = func(c session.Conn) {}
			c, p := s.dial()
			if got := p.conn.Remote(); got != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("Remote is %v, want 127.0.0.1", got)
			}
			c.Close()
		})
	})
}
