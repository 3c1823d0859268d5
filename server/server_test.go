package server_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"ws-gateway/push"
	"ws-gateway/server"
	"ws-gateway/server/servertest"
	"ws-gateway/session"
	"ws-gateway/stat/logging"
)

// What a client and a backend see of each other, through everything that is real.
func TestEndToEnd(t *testing.T) {
	g := servertest.Start(t)
	if g.Ready.Reason() != "" {
		t.Errorf("not ready: %s", g.Ready.Reason())
	}
	member, stranger := g.Dial("/"), g.Dial("/ws")
	member.Login(`{"member_id":123456,"token":"654321"}`, "123456")
	stranger.Login(`{"member_id":-1,"token":""}`, "stranger")
	for _, c := range []*servertest.Client{member, stranger} {
		c.Subscribe("match")
	}
	stranger.Send(`{"app":"im"}`)
	stranger.Want(servertest.Reply(`{"code":403,"message":"subscribe im forbidden"}`))
	member.Subscribe("im")

	for _, push := range []string{
		`{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`,
		`{"app":"match","member_id":123456,"text":"only you"}`,
		`{"app":"im","member_id":123456,"text":"psst"}`,
		`{"app":"match","text":"bye"}`,
	} {
		if status, answer := g.Push(push); status != 202 || !strings.HasPrefix(answer, `{"code":202,"app":"`) {
			t.Fatalf("push answered %d %s", status, answer)
		}
	}
	hello := `{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`
	bye := `{"app":"match","member_id":-1,"text":"bye"}`
	member.Want(hello, `{"app":"match","member_id":123456,"text":"only you"}`, `{"app":"im","member_id":123456,"text":"psst"}`, bye)
	stranger.Want(hello, bye)
	if got, want := g.Get(g.StatURL+"/stat"), "im 1\nmatch 2\n"; got != want {
		t.Errorf("/stat says %q, want %q", got, want)
	}
}

// C04: what cannot be listened on is named, and nothing else stays open.
func TestC04PortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()

	want := "listen on " + taken.Addr().String() + ": "
	if _, err := server.New(server.Options{Addr: taken.Addr().String()}); err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("client address in use: error %v, want %s...", err, want)
	}
	_, err = server.New(server.Options{Addr: addr, StatAddrs: []string{"127.0.0.1:0", taken.Addr().String()}, Stat: http.NotFoundHandler()})
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("stat address in use: error %v, want %s...", err, want)
	}
	again, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("the client listener was left open: %v", err)
	}
	again.Close()

	for _, bad := range []string{"127.0.0.1:99999", "127.0.0.1", "nowhere.invalid:1"} {
		if _, err := server.New(server.Options{Addr: bad}); err == nil || !strings.HasPrefix(err.Error(), "listen on "+bad+": ") {
			t.Errorf("address %q: error %v", bad, err)
		}
	}
}

// C05: IPv6 and both families at once.
func TestC05Addresses(t *testing.T) {
	for _, addr := range []string{"[::1]:0", ":0", "127.0.0.1:0"} {
		probe, err := net.Listen("tcp", addr)
		if err != nil {
			t.Logf("no %s on this machine: %v", addr, err)
			continue
		}
		probe.Close()
		g := servertest.Start(t, func(o *servertest.Options) { o.Server.Addr = addr })
		_, port, err := net.SplitHostPort(g.Server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		hosts := map[string][]string{"[::1]:0": {"::1"}, ":0": {"127.0.0.1", "::1"}, "127.0.0.1:0": {"127.0.0.1"}}[addr]
		for _, host := range hosts {
			to := net.JoinHostPort(host, port)
			c, _, err := g.TryDial("http://" + to)
			if err != nil {
				if host == "::1" && addr == ":0" {
					t.Logf("no IPv6 on this machine: %v", err)
					continue
				}
				t.Errorf("listening on %s, dialing %s: %v", addr, to, err)
				continue
			}
			c.Login(`{"member_id":123456,"token":"654321"}`, "123456") // loopback, in whatever form
			if resp, answer := g.Do("POST", "http://"+to+"/push", `{"app":"a","text":"x"}`, "Content-Type", "application/json"); resp.StatusCode != 202 {
				t.Errorf("listening on %s, push to %s: %d %s", addr, to, resp.StatusCode, answer)
			}
		}
	}
}

// R03: a panic costs one connection or request.
func TestR03Panic(t *testing.T) {
	var log syncBuffer
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Server.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.Server.Doors = map[string]server.Door{"/panic": func(session.Conn, *http.Request) session.Handler { panic("injected") }}
		o.Stat.Dashboard = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("injected too") })
		o.Server.Limits.Connections = 2
	})
	healthy := g.Subscriber("match")
	deadline := time.Now().Add(time.Minute)
	for panics := 0; panics < 3; { // a seat that was not given back would be missed
		_, r := raw(t, g, "GET /panic HTTP/1.1\r\n"+goodHandshake+"\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err == nil && resp.StatusCode == 503 && time.Now().Before(deadline) {
			continue // the one before has just ended
		}
		if err != nil || resp.StatusCode != 101 {
			t.Fatalf("handshake: %v, %v", resp, err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatalf("the connection did not end: %v", err)
		}
		panics++
	}
	resp, body := g.Do("GET", g.StatURL+"/", "")
	if resp.StatusCode != 500 || body != `{"code":500,"message":"internal error"}` {
		t.Errorf("a handler that panicked: %d %s", resp.StatusCode, body)
	}
	if got := log.String(); strings.Count(got, "injected too") != 1 || !strings.Contains(got, "goroutine") {
		t.Errorf("the log has not one stack of it: %s", got)
	}
	for _, want := range []string{`wsgateway_panics_total{where="stat"} 1`, `wsgateway_panics_total{where="open"} 3`} {
		if !strings.Contains(g.Get(g.StatURL+"/metrics"), want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	g.Push(`{"app":"match","text":"still here"}`)
	healthy.Want(`{"app":"match","member_id":-1,"text":"still here"}`)
}

// M04, X05: nothing that a stranger sends reaches the log raw or at length, and no token does.
func TestM04StrangersInTheLog(t *testing.T) {
	const hostile, canary = "\x1b[2J\r\n\u009b31m\u202e\x00time=forged level=ERROR", "canary-52d0"
	var log syncBuffer
	g := servertest.Start(t, func(o *servertest.Options) {
		logger := logging.New(&log, logging.Options{Level: slog.LevelDebug, Format: "text"})
		o.Server.Logger, o.Session.Logger, o.Transport.Logger, o.Push.Logger, o.Keys.Logger = logger, logger, logger, logger, logger
		o.Server.Proxies = server.NewProxies(nil, logger)
	})
	long := strings.Repeat("x", 60<<10)
	header := strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(hostile)
	legal := strings.ReplaceAll(header, "\x1b", "")
	for _, request := range []string{
		"GET /?token=" + canary + "&" + long[:10<<10] + " HTTP/1.1\r\n" + goodHandshake + "X-Forwarded-For: " + legal + "\r\nCookie: token=" + canary + "\r\nUser-Agent: " + long[:4<<10] + "\r\n\r\n",
		"GET / HTTP/1.1\r\n" + goodHandshake + "Origin: " + header + "\r\n\r\n",
		"GET / HTTP/1.1\r\n" + goodHandshake + "Origin: " + legal + "\r\n\r\n",
		"GET / HTTP/1.1\r\n" + goodHandshake + header + ": x\r\n\r\n",
		header + " / HTTP/1.1\r\nHost: " + header + "\r\n\r\n",
		"GET /" + header + " HTTP/1.1\r\n" + goodHandshake + "\r\n",
		hostile + "\r\n\r\n",
	} {
		conn, r := raw(t, g, request)
		http.ReadResponse(r, nil) // whatever it is
		conn.Close()
	}
	quoted, _ := json.Marshal(hostile)
	for _, body := range []string{`{"app":` + string(quoted) + `,"text":"x"}`, `{"app":"a","text":"` + canary + `"`, hostile} {
		g.Push(body, "X-Push-Key", canary)
		g.Push(body)
	}
	c := through(t, g.Server.Addr().String(), "/", "")
	c.send(push.OpText, `{"member_id":7,"token":"`+canary+`"}`)
	for _, m := range []string{hostile, `{"app":` + string(quoted) + `}`, `{"op":"push","app":"im","text":` + string(quoted) + `}`} {
		c.send(push.OpText, m)
	}
	c.send(push.OpClose, "\x03\xe8"+hostile)
	io.Copy(io.Discard, c.r)
	g.Stop()
	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	for _, l := range lines {
		if strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.Contains(l, canary) || len(l) > 2000 || !strings.HasPrefix(l, "20") {
			t.Errorf("the log has %q", l)
		}
	}
	for _, want := range []string{"forwarded address ignored", "token refused", "denied", "session closed"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not speak of it at all: no %q in\n%s", want, log.String())
		}
	}
}

// A syncBuffer is a log that is read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
