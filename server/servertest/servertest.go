// Package servertest runs whole gateways inside a test: real listeners on free ports, real
// sessions, hub, log and transport, wired as main does. It is for tests from outside, of any
// package, and fails them for what a gateway leaves behind.
package servertest

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/push/presence"
	"ws-gateway/server"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/script"
	"ws-gateway/stat"
)

// Options are what a test may change before a gateway starts. Start has filled in what every
// gateway needs, and wires Hub, Apps, Sessions, Metrics and the like by itself: setting those
// has no effect.
type Options struct {
	Apps      string // the apps file's text; "": none
	Push      push.Options
	Keys      push.KeysOptions
	Session   session.Options // Auth is auth.Demo
	Transport transport.Options
	Server    server.Options // addresses are free ports of 127.0.0.1
	Stat      stat.HandlerOptions
	TLS       *tls.Config // of clients and backends; nil: the system's
	Script    script.Options
	Doors     map[string]string // path -> file of a script
}

// A Gateway is running until its test ends.
type Gateway struct {
	URL      string // http://host:port, or https, of clients and backends
	StatURL  string // http://host:port of the stat server
	Apps     *apps.Registry
	Hub      *push.Hub
	Log      *log.Memory
	Keys     *push.Keys
	Sessions *session.Gateway
	Scripts  *script.Host
	Metrics  *stat.Metrics
	Tail     *stat.Tail
	Ready    *stat.Ready
	Server   *server.Server

	t    testing.TB
	stop context.CancelFunc
	done chan struct{} // closed when the gateway has ended
	http *http.Client
	once sync.Once
}

// Start starts a gateway, and stops it when the test ends. At the end the test fails if the
// gateway did not stop in an orderly way.
func Start(t testing.TB, change ...func(*Options)) *Gateway {
	t.Helper()
	var o Options
	o.Session.Auth = auth.Demo{}
	o.Server.Addr, o.Server.StatAddrs = "127.0.0.1:0", []string{"127.0.0.1:0"}
	for _, f := range change {
		f(&o)
	}
	g := &Gateway{
		t:       t,
		Metrics: stat.New(stat.Options{Node: "test"}),
		Tail:    new(stat.Tail),
		Ready:   new(stat.Ready),
		Log:     log.NewMemory(log.Options{}),
		done:    make(chan struct{}),
		http:    &http.Client{Transport: &http.Transport{TLSClientConfig: o.TLS}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	logger := slog.New(slog.NewTextHandler(newTestLog(t), &slog.HandlerOptions{Level: slog.LevelDebug}))
	or := func(l *slog.Logger) *slog.Logger {
		if l != nil {
			return l
		}
		return logger
	}
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	var err error
	if o.Apps != "" {
		g.Apps, err = apps.Parse("apps.yaml", []byte(o.Apps))
		fatal(err)
	}
	o.Push.Apps, o.Push.Log, o.Push.Metrics, o.Push.Logger = g.Apps, g.Log, g.Metrics, or(o.Push.Logger)
	o.Push.Presence, o.Push.Tail = presence.NewMemory(), g.Tail
	g.Hub = push.NewHub(o.Push)

	o.Session.Hub, o.Session.Apps, o.Session.Metrics, o.Session.Logger = g.Hub, g.Apps, g.Metrics, or(o.Session.Logger)
	o.Session.Tail = g.Tail
	g.Sessions = session.NewGateway(o.Session)

	o.Transport.Metrics, o.Transport.Logger = g.Metrics, or(o.Transport.Logger)
	o.Server.Transport, err = transport.New(o.Transport)
	fatal(err)

	o.Keys.Metrics, o.Keys.Logger = g.Metrics, or(o.Keys.Logger)
	if o.Keys.Remote == nil {
		o.Keys.Remote = o.Server.Proxies.Remote
	}
	g.Keys, err = push.NewKeys(o.Keys)
	fatal(err)

	o.Script.Gateway, o.Script.Hub, o.Script.Metrics, o.Script.Logger = g.Sessions, g.Hub, g.Metrics, or(o.Script.Logger)
	g.Scripts, err = script.NewHost(o.Script)
	fatal(err)
	o.Server.Mesh = script.NewMesh(g.Scripts, g.Keys)
	if o.Server.Doors == nil {
		o.Server.Doors = make(map[string]server.Door)
	}
	for path, file := range o.Doors {
		door, err := g.Scripts.Door(path, file)
		fatal(err)
		o.Server.Doors[path] = door.Open
	}

	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	o.Stat.Metrics, o.Stat.Tail, o.Stat.Ready = g.Metrics, g.Tail, g.Ready
	g.Metrics.AddSource(g.Sessions.Fill)
	g.Metrics.AddSource(g.Hub.Fill)

	o.Server.Hub, o.Server.Sessions, o.Server.Keys, o.Server.Ready = g.Hub, g.Sessions, g.Keys, g.Ready
	o.Server.Metrics, o.Server.Logger = g.Metrics, or(o.Server.Logger)
	o.Server.Stat = stat.Handler(ctx, o.Stat)
	g.Server, err = server.New(o.Server)
	fatal(err)
	g.URL = "http://" + g.Server.Addr().String()
	if o.Server.TLSCert != "" {
		g.URL = "https://" + g.Server.Addr().String()
	}
	g.StatURL = "http://" + g.Server.StatAddrs()[0].String()

	go func() {
		defer close(g.done)
		if err := g.Server.Serve(ctx); err != nil {
			t.Errorf("serve: %v", err)
		}
		g.Scripts.Close()
		g.Hub.Close()
		g.Log.Close()
	}()
	t.Cleanup(g.Stop)
	g.Get(g.StatURL + "/healthz") // it serves
	return g
}

// Drain begins an orderly stop, as SIGTERM does, and returns at once.
func (g *Gateway) Drain() { g.stop() }

// Done is closed when the gateway has stopped.
func (g *Gateway) Done() <-chan struct{} { return g.done }

// Stop stops the gateway and returns when it has. It may be called more than once.
func (g *Gateway) Stop() {
	g.t.Helper()
	g.once.Do(func() {
		g.stop()
		limit := time.NewTimer(30 * time.Second) // N02
		defer limit.Stop()
		select {
		case <-g.done:
		case <-limit.C:
			g.t.Error("the gateway did not stop within 30 s")
		}
		g.http.CloseIdleConnections()
	})
}

// Push POSTs body to /push and returns status and answer. header is name and value in turn.
func (g *Gateway) Push(body string, header ...string) (int, string) {
	g.t.Helper()
	status, answer, err := g.TryPush(body, header...)
	if err != nil {
		g.t.Fatal(err)
	}
	return status, answer
}

// TryPush is Push for a gateway that may be gone.
func (g *Gateway) TryPush(body string, header ...string) (int, string, error) {
	g.t.Helper()
	resp, answer, err := g.do(http.MethodPost, g.URL+"/push", body, append([]string{"Content-Type", "application/json"}, header...)...)
	if err != nil {
		return 0, "", err
	}
	return resp.StatusCode, answer, nil
}

// Get GETs url, and fails the test unless the status is 200.
func (g *Gateway) Get(url string) string {
	g.t.Helper()
	resp, body := g.Do(http.MethodGet, url, "")
	if resp.StatusCode != http.StatusOK {
		g.t.Fatalf("GET %s: %s: %s", url, resp.Status, body)
	}
	return body
}

// Do makes any request and returns its response and body. header is name and value in turn;
// Host sets the request's own.
func (g *Gateway) Do(method, url, body string, header ...string) (*http.Response, string) {
	g.t.Helper()
	resp, answer, err := g.do(method, url, body, header...)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp, answer
}

func (g *Gateway) do(method, url, body string, header ...string) (*http.Response, string, error) {
	g.t.Helper()
	req, err := http.NewRequestWithContext(g.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body == "" {
		req.Body = http.NoBody
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Add(header[i], header[i+1])
		}
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp, string(answer), err
}

// A testLog writes to the test's own log, until the test is over: net/http waits for no
// goroutine of a connection that was hijacked or cut, and may speak of it late.
type testLog struct {
	t    testing.TB
	mu   sync.Mutex
	over bool // guarded by mu
}

func newTestLog(t testing.TB) *testLog {
	l := &testLog{t: t}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
	})
	return l
}

func (l *testLog) Write(p []byte) (int, error) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		l.t.Log(strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}
