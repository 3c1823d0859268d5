package script_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/session/sessiontest"
	"ws-gateway/stat"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fixture is a host with one door, and what the host logs.
type fixture struct {
	t       *testing.T
	hub     *push.Hub
	gateway *session.Gateway
	host    *script.Host
	door    *script.Door
	file    string
	log     *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer  // guarded by mu
	news chan struct{} // closed by the next Write; guarded by mu
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.news != nil {
		close(b.news)
		b.news = nil
	}
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start opens a door whose script is lua.
func start(t *testing.T, lua string, opts script.Options) *fixture {
	t.Helper()
	return startFiles(t, map[string]string{"door.lua": lua}, opts)
}

// startFiles opens a door with the script door.lua and other files beside it.
func startFiles(t *testing.T, files map[string]string, opts script.Options) *fixture {
	t.Helper()
	return startHub(t, files, opts, push.Options{})
}

// startHub is startFiles with a hub that is told more.
func startHub(t *testing.T, files map[string]string, opts script.Options, hub push.Options) *fixture {
	t.Helper()
	f := &fixture{t: t, log: new(logBuffer)}
	dir := t.TempDir()
	for name, text := range files {
		write(t, filepath.Join(dir, name), text)
	}
	f.file = filepath.Join(dir, "door.lua")
	f.hub = push.NewHub(hub)
	t.Cleanup(f.hub.Close)
	f.gateway = session.NewGateway(session.Options{Hub: f.hub})
	opts.Hub, opts.Gateway = f.hub, f.gateway
	opts.Logger = slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if f.host, err = script.NewHost(opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.host.Close)
	if f.door, err = f.host.Door("/door", f.file); err != nil {
		t.Fatal(err)
	}
	return f
}

// write writes a file at once: whoever looks sees the old text or the new.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// connect opens a connection to the door.
func (f *fixture) connect() *sessiontest.Pipe {
	f.t.Helper()
	return f.request(httptest.NewRequest(http.MethodGet, "/door", nil))
}

func (f *fixture) request(r *http.Request) *sessiontest.Pipe {
	p := sessiontest.NewPipe(f.t)
	p.Attach(f.door.Open(p, r))
	f.t.Cleanup(func() { p.Hangup(session.CloseNormal) })
	return p
}

// run opens a connection to a door whose on_message sends what body returns, and returns
// what it sends; ok is false if the connection was closed instead.
func run(t *testing.T, body string) (answer string, code session.CloseCode) {
	t.Helper()
	return start(t, "function on_message(msg) mix.websocket():send(tostring((function() "+body+" end)())) end", script.Options{}).ask("x")
}

// ask connects, sends a message and returns what comes back, or the close code.
func (f *fixture) ask(message string) (answer string, code session.CloseCode) {
	f.t.Helper()
	p := f.connect()
	p.Receive(message)
	if got := p.Unread(); len(got) > 0 {
		return got[0].Text, 0
	}
	code, _ = p.Wait()
	return "", code
}

// changed waits until something is logged, or for a moment.
func (b *logBuffer) changed() {
	b.mu.Lock()
	if b.news == nil {
		b.news = make(chan struct{})
	}
	news := b.news
	b.mu.Unlock()
	select {
	case <-news:
	case <-time.After(10 * time.Millisecond):
	}
}

// A subscriber hands what an app gets to a function.
type subscriber struct{ f func(text string) }

func (s subscriber) Deliver(f *push.Frame) {
	messages, err := sessiontest.Decode(f.Data)
	if err != nil {
		panic(err)
	}
	for _, m := range messages {
		s.f(m.Text)
	}
}
func (s subscriber) Queue(f *push.Frame) { s.Deliver(f) }
func (s subscriber) Flush()              {}

// subscribe hands every text of an app to g.
func (f *fixture) subscribe(app string, g func(text string)) {
	rules, err := new(apps.Registry).Lookup(app)
	if err != nil {
		f.t.Fatal(err)
	}
	raw := &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte { return append(dst, m.Text...) }}
	sub, _ := f.hub.Subscribe(rules, subscriber{g}, push.SubscribeOptions{Member: apps.Anonymous, Encoding: raw})
	sub.Start()
	f.t.Cleanup(sub.Close)
}

// metric returns the value of the series of a metric that has a label of this value.
func metric(t *testing.T, m *stat.Metrics, name, label string) float64 {
	t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:6000/metrics", nil)
	r.RemoteAddr = "127.0.0.1:4000"
	stat.Handler(t.Context(), stat.HandlerOptions{Metrics: m}).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("metrics: %d %s", w.Code, w.Body)
	}
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, name+"{") && strings.Contains(line, `"`+label+`"`) {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	return 0
}
