package push_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/stat"
)

// backlog takes a server's hub and handler, and what a subscriber of all apps received.
type backend struct {
	t      testing.TB
	hub    *push.Hub
	log    *log.Memory
	server *httptest.Server
}

// newBackend serves POST /push of a hub whose apps are those of the given file.
func newBackend(t testing.TB, opts push.HandlerOptions, file string) *backend {
	t.Helper()
	registry := (*apps.Registry)(nil)
	if file != "" {
		var err error
		if registry, err = apps.Parse("apps.yaml", []byte(file)); err != nil {
			t.Fatal(err)
		}
	}
	b := &backend{t: t, log: log.NewMemory(log.Options{})}
	b.hub = push.NewHub(push.Options{Apps: registry, Log: b.log})
	opts.Hub = b.hub
	b.server = httptest.NewServer(push.Handler(opts))
	t.Cleanup(func() {
		b.server.CloseClientConnections()
		b.server.Close()
		b.hub.Close()
		b.log.Close()
	})
	return b
}

// kept returns the texts that the app's log has, whoever they are for.
func (b *backend) kept(app string, member int64) (texts []string) {
	b.t.Helper()
	page, err := b.log.Since(b.t.Context(), push.Query{App: app, Member: member, Last: 2000})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, m := range page.Messages {
		texts = append(texts, m.Text)
	}
	return texts
}

// epoch returns the epoch of the app's log.
func (b *backend) epoch(app string) string { return b.log.Top(app).Epoch }

// post sends body as it is; header is name and value in turn.
func (b *backend) post(body string, header ...string) (*http.Response, string) {
	b.t.Helper()
	req, err := http.NewRequest(http.MethodPost, b.server.URL+"/push", strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	return b.do(req)
}

func (b *backend) do(req *http.Request) (*http.Response, string) {
	b.t.Helper()
	resp, err := b.server.Client().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp, string(answer)
}

// A reader is subscribed to an app and keeps the texts that it gets, of less than 126 bytes.
type reader struct{ texts []string }

func (r *reader) Deliver(f *push.Frame) {
	for data := f.Data; len(data) > 0; {
		end := 2 + int(data[1])
		r.texts = append(r.texts, string(data[2:end]))
		data = data[end:]
	}
}
func (r *reader) Queue(f *push.Frame) { r.Deliver(f) }
func (r *reader) Flush()              {}

var textOnly = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte { return append(dst, m.Text...) }}

func (b *backend) subscribe(app string, member int64) *reader {
	b.t.Helper()
	r := new(reader)
	s, _ := b.hub.Subscribe(&apps.App{Name: app}, r, push.SubscribeOptions{Member: member, Encoding: textOnly})
	s.Start()
	b.t.Cleanup(s.Close)
	return r
}

// accepted is the answer to one message.
func accepted(app, epoch string, offset, subscribers int) string {
	return fmt.Sprintf(`{"code":202,"app":%q,"epoch":%q,"offset":%d,"durability":"memory","subscribers":%d}`, app, epoch, offset, subscribers)
}

func refused(code int, message string) string {
	quoted, _ := json.Marshal(message)
	return fmt.Sprintf(`{"code":%d,"message":%s}`, code, quoted)
}

func TestPush(t *testing.T) {
	b := newBackend(t, push.HandlerOptions{}, "")
	all := b.subscribe("match", push.Everybody)
	one := b.subscribe("match", 42)

	resp, got := b.post(`{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`)
	if want := accepted("match", b.epoch("match"), 1, 2); resp.StatusCode != 202 || got != want {
		t.Errorf("public push: %d %s, want 202 %s", resp.StatusCode, got, want)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type of the answer is %q", got)
	}
	resp, got = b.post(`{"app":"match","member_id":42,"text":"only you"}`)
	if want := accepted("match", b.epoch("match"), 2, 1); resp.StatusCode != 202 || got != want {
		t.Errorf("private push: %d %s, want 202 %s", resp.StatusCode, got, want)
	}
	b.hub.Flush()
	if want := []string{`{"hello":"world"}`}; !slices.Equal(all.texts, want) {
		t.Errorf("everybody got %q, want %q", all.texts, want)
	}
	if want := []string{`{"hello":"world"}`, "only you"}; !slices.Equal(one.texts, want) {
		t.Errorf("member 42 got %q, want %q", one.texts, want)
	}
}

func TestPushAccepts(t *testing.T) {
	metrics := stat.New(stat.Options{})
	b := newBackend(t, push.HandlerOptions{Metrics: metrics}, "")
	long := strings.Repeat("ü", 32<<10) // 64 KiB
	for _, c := range []struct{ name, body, text string }{
		{"missing member_id is everybody", `{"app":"a","text":"x"}`, "x"},
		{"empty text is a text", `{"app":"a","text":""}`, ""},
		{"any order, any white space", " {\n\"text\" :\t\"y\" ,\"member_id\":-1, \"app\":\"a\"}\r\n ", "y"},
		{"escapes", `{"\u0061pp":"\u0061","text":"\u00fc\n\ud83d\ude00\"\\\/"}`, "ü\n😀\"\\/"},
		{"U02 unknown keys are ignored", `{"app":"a","id":[1,{"x":null}],"text":"z","v":{"app":7,"t":[[]]}}`, "z"},
		{"depth 32", `{"app":"a","text":"deep","x":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, "deep"},
		{"text of 64 KiB", `{"app":"a","text":"` + long + `"}`, long},
		{"U06 no subscriber, unknown member", `{"app":"a","member_id":9007199254740991,"text":"far"}`, "far"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, got := b.post(c.body)
			if resp.StatusCode != 202 {
				t.Fatalf("answered %d %s", resp.StatusCode, got)
			}
			texts := b.kept("a", 9007199254740991)
			if got := texts[len(texts)-1]; got != c.text {
				t.Errorf("kept %.40q, want %.40q", got, c.text)
			}
		})
	}
	page, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "http://127.0.0.1/metrics", nil)
	r.RemoteAddr = "127.0.0.1:1"
	stat.Handler(t.Context(), stat.HandlerOptions{Metrics: metrics}).ServeHTTP(page, r)
	if want := "wsgateway_push_unknown_keys_total 3\n"; !strings.Contains(page.Body.String(), want) {
		t.Errorf("U02: the metrics lack %q", want)
	}
}

func TestPushRefuses(t *testing.T) {
	b := newBackend(t, push.HandlerOptions{}, "default: deny\napps:\n  a: {}\n  \"own:{member_id}\": {}\n  im: {visibility: private}\n")
	const memberRule = "member_id must be -1 or an integer from 1 to 2^53-1"
	for _, c := range []struct {
		name, body string
		status     int
		message    string
	}{
		{"U02 empty body", ``, 400, "bad JSON: it ends too early"},
		{"U02 cut off", `{"app":"a","text":"x"`, 400, "bad JSON: it ends too early"},
		{"U02 not JSON", `app=a&text=x`, 400, "bad JSON: invalid character 'a' at start of value, at byte 0"},
		{"U02 a string", `"a"`, 400, "the body must be a JSON object, or an array of them"},
		{"U02 null", `null`, 400, "the body must be a JSON object, or an array of them"},
		{"U02 no app", `{"text":"x"}`, 400, "app is missing"},
		{"U02 no text", `{"app":"a"}`, 400, "text is missing"},
		{"U02 app not a string", `{"app":1,"text":"x"}`, 400, "app must be a string"},
		{"U02 app null", `{"app":null,"text":"x"}`, 400, "app must be a string"},
		{"U02 text an object", `{"app":"a","text":{"hello":"world"}}`, 400, "text must be a string"},
		{"U02 text null", `{"app":"a","text":null}`, 400, "text must be a string"},
		{"U02 trailing bytes", `{"app":"a","text":"x"} x`, 400, "bad JSON: data after the end, at byte 22"},
		{"U02 two objects", `{"app":"a","text":"x"}{"app":"a","text":"y"}`, 400, "bad JSON: data after the end, at byte 22"},
		{"P13 duplicate key", `{"app":"a","app":"b","text":"x"}`, 400, "bad JSON: duplicate key in an object"},
		{"P13 duplicate key by escape", `{"app":"a","\u0061pp":"b","text":"x"}`, 400, "bad JSON: duplicate key in an object"},
		{"P13 duplicate unknown key", `{"app":"a","text":"x","y":{"z":1,"z":2}}`, 400, "bad JSON: duplicate key in an object"},
		{"P13 wrong case", `{"App":"a","text":"x"}`, 400, `key "App" must be written "app"`},
		{"P13 wrong case beside the right one", `{"app":"a","text":"x","TEXT":"y"}`, 400, `key "TEXT" must be written "text"`},
		{"P13 wrong case by folding", `{"app":"a","text":"x","member_İd":1,"Member_ID":1}`, 400, `key "Member_ID" must be written "member_id"`},
		{"P13 lone surrogate", `{"app":"a","text":"\ud800"}`, 400, "bad JSON: invalid surrogate pair `\\ud800\"}` in string, at byte 19"},
		{"P13 bad UTF-8", "{\"app\":\"a\",\"text\":\"\xff\"}", 400, "bad JSON: invalid UTF-8, at byte 19"},
		{"P13 byte order mark", "\ufeff" + `{"app":"a","text":"x"}`, 400, "bad JSON: invalid character '\\ufeff' at start of value, at byte 0"},
		{"P14 depth 33", `{"app":"a","text":"x","x":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`, 400, "bad JSON: nested deeper than 32, at byte 58"},
		{"P14 depth 500 000", `{"x":` + strings.Repeat("[", 500_000), 400, "bad JSON: nested deeper than 32, at byte 37"},
		{"P15 bad app name", `{"app":"a b","text":"x"}`, 400, "bad app name"},
		{"P15 empty app name", `{"app":"","text":"x"}`, 400, "bad app name"},
		{"P15 reserved app name", `{"app":"gateway","text":"x"}`, 400, "bad app name"},
		{"P12 member 042 in an app name", `{"app":"own:042","text":"x"}`, 400, "bad app name for own:{member_id}: its number is no member's id, 1 to 9007199254740991 without leading zeros"},
		{"P12 member 0", `{"app":"a","member_id":0,"text":"x"}`, 400, memberRule},
		{"P12 member -2", `{"app":"a","member_id":-2,"text":"x"}`, 400, memberRule},
		{"P12 member -0", `{"app":"a","member_id":-0,"text":"x"}`, 400, memberRule},
		{"P12 member 1.0", `{"app":"a","member_id":1.0,"text":"x"}`, 400, memberRule},
		{"P12 member 1e3", `{"app":"a","member_id":1e3,"text":"x"}`, 400, memberRule},
		{"P12 member 2^53", `{"app":"a","member_id":9007199254740992,"text":"x"}`, 400, memberRule},
		{"P12 member 2^64", `{"app":"a","member_id":18446744073709551616,"text":"x"}`, 400, memberRule},
		{"P12 member string", `{"app":"a","member_id":"42","text":"x"}`, 400, memberRule},
		{"P12 member null", `{"app":"a","member_id":null,"text":"x"}`, 400, memberRule},
		{"private app to everybody", `{"app":"im","text":"x"}`, 400, "app is private: member_id must be positive"},
		{"app that does not exist", `{"app":"b","text":"x"}`, 404, "unknown app"},
		{"U01 text over 64 KiB", `{"app":"a","text":"` + strings.Repeat("x", 64<<10+1) + `"}`, 413, "text is over 65536 bytes"},
		{"U01 body over 1 MiB", `{"app":"a","text":"x"}` + strings.Repeat(" ", 1<<20), 413, "the body is over 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, got := b.post(c.body)
			if want := refused(c.status, c.message); resp.StatusCode != c.status || got != want {
				t.Errorf("answered %d %s\nwant     %d %s", resp.StatusCode, got, c.status, want)
			}
		})
	}
	for _, app := range []string{"a", "b", "im"} {
		if kept := b.kept(app, 42); len(kept) > 0 {
			t.Errorf("app %s kept %.100q of refused pushes", app, kept)
		}
	}
}

func TestPushBatch(t *testing.T) {
	metrics := stat.New(stat.Options{})
	b := newBackend(t, push.HandlerOptions{Metrics: metrics}, "")
	message := func(text string) string { return `{"app":"a","text":"` + text + `"}` }
	batch := func(n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(message("x")+",", n), ",") + "]"
	}

	t.Run("accepted in order", func(t *testing.T) {
		resp, got := b.post("[" + message("one") + `, {"app":"im","member_id":7,"text":"two"},` + message("three") + "]")
		want := "[" + accepted("a", b.epoch("a"), 1, 0) + "," + accepted("im", b.epoch("im"), 1, 0) + "," + accepted("a", b.epoch("a"), 2, 0) + "]"
		if resp.StatusCode != 202 || got != want {
			t.Errorf("answered %d %s\nwant     202 %s", resp.StatusCode, got, want)
		}
		if got, want := b.kept("a", push.Everybody), []string{"one", "three"}; !slices.Equal(got, want) {
			t.Errorf("kept %q, want %q", got, want)
		}
	})
	t.Run("empty", func(t *testing.T) {
		if resp, got := b.post("[]"); resp.StatusCode != 202 || got != "[]" {
			t.Errorf("answered %d %s, want 202 []", resp.StatusCode, got)
		}
	})
	t.Run("1000", func(t *testing.T) {
		resp, got := b.post(batch(1000))
		if n := strings.Count(got, `"code":202`); resp.StatusCode != 202 || n != 1000 {
			t.Errorf("answered %d with %d receipts, want 202 with 1000", resp.StatusCode, n)
		}
	})
	before := b.log.Top("a")
	for _, c := range []struct {
		name, body string
		status     int
		message    string
	}{
		{"1001", batch(1001), 400, "a batch is at most 1000 messages"},
		{"names the one without text", "[" + message("x") + "," + message("y") + `,{"app":"a"}]`, 400, "message 2: text is missing"},
		{"names the one that the rules refuse", "[" + message("x") + `,{"app":"im","text":"x"}]`, 400, "message 1: app is private: member_id must be positive"},
		{"names the one that is too long", "[" + message(strings.Repeat("x", 64<<10+1)) + "]", 413, "message 0: text is over 65536 bytes"},
		{"names the one that is no object", "[" + message("x") + `,[]]`, 400, "message 1: must be a JSON object"},
		{"not closed", "[" + message("x"), 400, "message 1: bad JSON: it ends too early"},
		{"trailing", "[" + message("x") + "]]", 400, "bad JSON: data after the end, at byte 24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, got := b.post(c.body)
			if want := refused(c.status, c.message); resp.StatusCode != c.status || got != want {
				t.Errorf("answered %d %.200s\nwant     %d %s", resp.StatusCode, got, c.status, want)
			}
		})
	}
	if got := metrics.Snapshot().Refused[stat.ReasonPushBatch]; got != 1 {
		t.Errorf("%d batches are counted as too long, want 1", got)
	}
	if after := b.log.Top("a"); after != before {
		t.Errorf("a refused batch moved the log from %v to %v: not all or nothing", before, after)
	}
}

func TestPushMediaTypes(t *testing.T) {
	b := newBackend(t, push.HandlerOptions{}, "")
	const body = `{"app":"a","text":"x"}`
	for _, c := range []struct {
		name   string
		header []string
		status int
	}{
		{"charset", []string{"Content-Type", "", "Content-Type", "application/json; charset=UTF-8"}, 202},
		{"case", []string{"Content-Type", "", "Content-Type", "Application/JSON"}, 202},
		{"U03 none", []string{"Content-Type", ""}, 415},
		{"U03 form", []string{"Content-Type", "", "Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"U03 text", []string{"Content-Type", "", "Content-Type", "text/plain"}, 415},
		{"U03 text that smuggles", []string{"Content-Type", "", "Content-Type", "text/plain; application/json"}, 415},
		{"two", []string{"Content-Type", "application/json"}, 415},
		{"other charset", []string{"Content-Type", "", "Content-Type", "application/json; charset=utf-16"}, 415},
		{"compressed", []string{"Content-Encoding", "gzip"}, 415},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, got := b.post(body, c.header...)
			if resp.StatusCode != c.status {
				t.Errorf("answered %d %s, want %d", resp.StatusCode, got, c.status)
			}
			if c.status == 415 && got != refused(415, "Content-Type must be application/json, without Content-Encoding") {
				t.Errorf("answered %s", got)
			}
		})
	}
}

// U01: a body without a length is counted as it comes.
func TestPushChunked(t *testing.T) {
	b := newBackend(t, push.HandlerOptions{MaxBody: 10_000}, "")
	push := func(body string) (*http.Response, string) {
		req, err := http.NewRequest(http.MethodPost, b.server.URL, io.NopCloser(strings.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		return b.do(req)
	}
	fill := func(n int) string {
		return `{"app":"a","text":"` + strings.Repeat("x", n-len(`{"app":"a","text":""}`)) + `"}`
	}
	if resp, got := push(fill(10_000)); resp.StatusCode != 202 {
		t.Errorf("10 000 bytes: answered %d %s, want 202", resp.StatusCode, got)
	}
	if resp, got := push(fill(10_001)); resp.StatusCode != 413 || got != refused(413, "the body is over 10000 bytes") {
		t.Errorf("10 001 bytes: answered %d %s, want 413", resp.StatusCode, got)
	}
	if kept := b.kept("a", -1); len(kept) != 1 {
		t.Errorf("%d messages kept, want 1", len(kept))
	}
}

// A body that ends before its announced length is never taken for a shorter one.
func TestPushCutOff(t *testing.T) {
	b := newBackend(t, push.HandlerOptions{}, "")
	conn, err := net.Dial("tcp", b.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"app":"a","text":"x"}`
	fmt.Fprintf(conn, "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body)
	conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || string(got) != refused(400, "the body did not arrive complete") {
		t.Errorf("answered %d %s, want 400", resp.StatusCode, got)
	}
	if kept := b.kept("a", -1); len(kept) > 0 {
		t.Errorf("kept %q", kept)
	}
}

// U05: what subscribers cannot take in time is refused, not accepted and dropped.
func TestPushBacklog(t *testing.T) {
	hub := push.NewHub(push.Options{MaxQueueTime: time.Nanosecond, Shards: 1})
	defer hub.Close()
	stuck := &stuckReader{entered: make(chan struct{}), leave: make(chan struct{})}
	for range 100 { // too many for a publisher to serve itself
		s, _ := hub.Subscribe(&apps.App{Name: "a"}, stuck, push.SubscribeOptions{Member: -1, Encoding: textOnly})
		s.Start()
		defer s.Close()
	}
	defer close(stuck.leave)
	handler := push.Handler(push.HandlerOptions{Hub: hub})
	post := func() *httptest.ResponseRecorder {
		req := httptest.NewRequest(http.MethodPost, "http://localhost/push", strings.NewReader(`{"app":"a","text":"x"}`))
		req.Header.Set("Content-Type", "application/json")
		req.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		return w
	}
	if w := post(); w.Code != 202 {
		t.Fatalf("first push answered %d %s", w.Code, w.Body)
	}
	<-stuck.entered
	if w := post(); w.Code != 202 {
		t.Fatalf("a push behind a fan-out answered %d %s", w.Code, w.Body)
	}
	w := post()
	if want := refused(429, "too many pushes: subscribers are being served"); w.Code != 429 || w.Body.String() != want || w.Header().Get("Retry-After") != "1" {
		t.Errorf("push into a backlog answered %d %s, Retry-After %q, want 429 %s, 1", w.Code, w.Body, w.Header().Get("Retry-After"), want)
	}
}

type stuckReader struct {
	entered, leave chan struct{}
	once           bool
}

func (r *stuckReader) Deliver(*push.Frame) {
	if !r.once {
		r.once = true
		close(r.entered)
		<-r.leave
	}
}
func (r *stuckReader) Queue(f *push.Frame) { r.Deliver(f) }
func (r *stuckReader) Flush()              {}

// The outcomes of a log that fails are told apart (U08, U09).
func TestPushLogFails(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		body string
		want string
	}{
		{"U09 surely not stored", io.ErrShortWrite, `{"app":"a","text":"x"}`,
			`{"code":503,"message":"log unavailable","outcome":"rejected"}`},
		{"U08 nobody knows", push.ErrUnknownOutcome, `{"app":"a","text":"x"}`,
			`{"code":503,"message":"outcome unknown","outcome":"unknown"}`},
		{"in the middle of a batch", io.ErrShortWrite, `[{"app":"ok","text":"x"},{"app":"a","text":"x"}]`,
			`{"code":503,"message":"log unavailable; the first 1 messages were accepted","outcome":"unknown"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			memory := log.NewMemory(log.Options{})
			defer memory.Close()
			hub := push.NewHub(push.Options{Log: failingLog{memory, c.err}})
			defer hub.Close()
			req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/push", strings.NewReader(c.body))
			req.Header.Set("Content-Type", "application/json")
			req.RemoteAddr = "127.0.0.1:1"
			w := httptest.NewRecorder()
			push.Handler(push.HandlerOptions{Hub: hub}).ServeHTTP(w, req)
			if w.Code != 503 || w.Body.String() != c.want || w.Header().Get("Retry-After") != "1" {
				t.Errorf("answered %d %s, Retry-After %q\nwant     503 %s, 1", w.Code, w.Body, w.Header().Get("Retry-After"), c.want)
			}
		})
	}
}

// failingLog is a log that cannot keep messages of the app a.
type failingLog struct {
	push.Log
	err error
}

func (l failingLog) Append(ctx context.Context, app *apps.App, ms []push.Message) (string, int, error) {
	if app.Name == "a" {
		return "", 0, l.err
	}
	return l.Log.Append(ctx, app, ms)
}

// A miserly body says that it is long and then sends little. It notes how much room it is given.
type miserly struct{ room int }

func (m *miserly) Read(p []byte) (int, error) {
	m.room = max(m.room, len(p))
	return 0, io.ErrUnexpectedEOF
}

// S04: a body takes the memory of what has come, not of what was announced.
func TestS04AnnouncedBody(t *testing.T) {
	hub := push.NewHub(push.Options{})
	defer hub.Close()
	var body miserly
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/push", &body)
	r.RemoteAddr, r.ContentLength = "127.0.0.1:1", 1<<20
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	push.Handler(push.HandlerOptions{Hub: hub}).ServeHTTP(w, r)
	if w.Code != http.StatusBadRequest || body.room == 0 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if body.room > 32<<10 {
		t.Errorf("%d bytes of memory for a body of which nothing came", body.room)
	}
}
