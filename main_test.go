package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/rogpeppe/go-internal/testscript"

	"ws-gateway/config"
)

// bin is the directory of the program under test, built as users would but with the race
// detector.
var bin string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if bin, err = os.MkdirTemp("", "ws-gateway"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(bin)
		build := exec.Command("go", "build", "-race", "-ldflags", "-X main.version=v0.0.0-test", "-o", filepath.Join(bin, "ws-gateway"), ".")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the program:", err)
			return 1
		}
		return m.Run()
	}())
}

// quick has the race detector not sleep for a second when the program ends.
const quick = "atexit_sleep_ms=0"

// TestCommandLine runs the scripts of the command line. For them, $KEYS publishes the key of RFC
// 8037, appendix A.2, and a set without any.
func TestCommandLine(t *testing.T) {
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/one":
			io.WriteString(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)
		case "/none":
			io.WriteString(w, `{"keys":[]}`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(keys.Close) // the scripts run in parallel, behind this function
	testscript.Run(t, testscript.Params{
		Dir: "config/testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("GORACE", quick)
			e.Setenv("KEYS", keys.URL)
			return nil
		},
	})
}

// patience is how long anything may take that is not itself about time. Nothing waits for it
// unless it fails.
const patience = time.Minute

// A process is a running gateway.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	ws   string // URLs, of what the greeting says
	http string
	stat string

	mu   sync.Mutex
	log  []string // lines; guarded by mu
	news chan struct{}
	done chan struct{} // closed when the process has ended and log is whole
}

// start runs the gateway with the given settings on free ports of loopback until the test
// ends, and waits until it has greeted. A data race in it fails the test.
func start(t *testing.T, env ...string) *process {
	t.Helper()
	return startAs(t, []string{filepath.Join(bin, "ws-gateway")}, env...)
}

// startAs is start for a command line of one's own.
func startAs(t *testing.T, argv []string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(argv[0], argv[1:]...), news: make(chan struct{}, 1), done: make(chan struct{})}
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "GORACE=" + quick, "WSGW_ADDR=127.0.0.1:0", "WSGW_STAT_ADDR=127.0.0.1:0", "WSGW_LOG_LEVEL=debug", "WSGW_DRAIN_WINDOW=0s",
	}, env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go p.read(stderr)
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", strings.Join(p.lines(), "\n"))
		}
	})
	var up struct{ Clients, Push, Stat string }
	if err := json.Unmarshal([]byte(p.wait(`"msg":"ws-gateway is up"`)), &up); err != nil {
		t.Fatal(err)
	}
	p.ws, p.http, p.stat = up.Clients, strings.TrimSuffix(up.Push, "/push"), strings.TrimSuffix(up.Stat, "/stat")
	return p
}

func (p *process) read(stderr io.Reader) {
	defer close(p.done)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		p.mu.Lock()
		p.log = append(p.log, lines.Text())
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
	p.cmd.Wait()
	if slices.ContainsFunc(p.lines(), func(l string) bool { return strings.Contains(l, "DATA RACE") }) {
		p.t.Error("the gateway has a data race")
	}
}

func (p *process) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.log)
}

// wait returns the first line of the log that has all of parts.
func (p *process) wait(parts ...string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for ended := false; ; {
		for _, l := range p.lines() {
			if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(l, part) }) {
				return l
			}
		}
		if ended {
			p.t.Fatalf("the gateway ended before it logged %q", parts)
		}
		select {
		case <-p.news:
		case <-p.done:
			ended = true // its last line may be news
		case <-timeout:
			p.t.Fatalf("the gateway did not log %q", parts)
		}
	}
}

// signal sends the process a signal.
func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// exit returns the exit code, -1 for a signal, once the process has ended.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatal("the gateway does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// get returns status and body of a GET.
func (p *process) get(url string) (int, string) {
	p.t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// push posts to /push with curl and returns status and body.
func (p *process) push(body string, args ...string) (status, answer string) {
	p.t.Helper()
	args = append([]string{"-sS", "-m", "60", "-w", "\n%{http_code}", "-H", "Content-Type: application/json", "-d", body, p.http + "/push"}, args...)
	out, err := exec.Command("curl", args...).Output()
	if err != nil {
		p.t.Fatalf("curl: %v", err)
	}
	answer, status, _ = strings.Cut(string(out), "\n")
	return status, answer
}

// A client is a WebSocket client.
type client struct {
	t *testing.T
	*websocket.Conn
}

// dial connects a client that is closed when the test ends.
func (p *process) dial() *client {
	p.t.Helper()
	c, _, err := websocket.Dial(within(p.t), p.ws, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.CloseNow() })
	return &client{p.t, c}
}

// login connects a client and authenticates it.
func (p *process) login(member int, token string) *client {
	p.t.Helper()
	c := p.dial()
	c.say(fmt.Sprintf(`{"member_id":%d,"token":%q}`, member, token))
	c.expect(fmt.Sprintf(`{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"hello %d\"}"}`, member))
	return c
}

// subscribe subscribes to app.
func (c *client) subscribe(app string) {
	c.t.Helper()
	c.say(`{"app":"` + app + `"}`)
	c.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"subscribe ` + app + ` success\"}"}`)
}

func (c *client) say(text string) {
	c.t.Helper()
	if err := c.Write(within(c.t), websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("say %s: %v", text, err)
	}
}

// expect fails unless the next message is exactly text.
func (c *client) expect(text string) {
	c.t.Helper()
	if _, got, err := c.Read(within(c.t)); err != nil {
		c.t.Fatalf("want %s: %v", text, err)
	} else if string(got) != text {
		c.t.Fatalf("\n got %s\nwant %s", got, text)
	}
}

// expectClose fails unless the connection is closed next, with code.
func (c *client) expectClose(code websocket.StatusCode) {
	c.t.Helper()
	_, got, err := c.Read(within(c.t))
	if err == nil {
		c.t.Fatalf("got %s, want close %d", got, code)
	}
	if websocket.CloseStatus(err) != code {
		c.t.Fatalf("closed: %v, want %d", err, code)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// run runs the program to its end.
func run(env []string, args ...string) (code int, stdout, stderr string) {
	return runAs(nil, env, args...)
}

// runAs is run with the rights of another user.
func runAs(user *syscall.Credential, env []string, args ...string) (code int, stdout, stderr string) {
	cmd := exec.Command(filepath.Join(bin, "ws-gateway"), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "GORACE=" + quick}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		panic(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestReadme plays the first minute of README.md: what its terminals show must come true,
// with other ports and whatever epoch.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, minute, _ := strings.Cut(string(data), "## The first minute")
	minute, _, _ = strings.Cut(minute, "\n## ")
	var blocks [][]string
	for i, part := range strings.Split(minute, "```") {
		if lines, ok := strings.CutPrefix(part, "console\n"); ok && i%2 == 1 {
			blocks = append(blocks, strings.Split(strings.TrimSuffix(lines, "\n"), "\n"))
		}
	}
	if len(blocks) != 4 || blocks[0][0] != "$ go run ." || blocks[1][0] != "$ make test" {
		t.Fatalf("the first minute is not two commands, a subscriber and a backend: %q", blocks)
	}
	p := start(t, "WSGW_LOG_LEVEL=info")
	here := strings.NewReplacer(
		"go run . sub match", "ws-gateway sub match --url "+p.ws,
		"http://127.0.0.1:5000", p.http, "http://127.0.0.1:6000", p.stat)
	shell := func(line string) *exec.Cmd {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			t.Fatalf("%q is not a command", line)
		}
		cmd := exec.CommandContext(within(t), "sh", "-c", "exec "+here.Replace(command))
		cmd.Env = []string{"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "GORACE=" + quick}
		return cmd
	}

	sub := shell(blocks[2][0])
	out, err := sub.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	sub.Stderr = sub.Stdout // as on a terminal
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	shown := bufio.NewScanner(out)
	next := func(want string) {
		t.Helper()
		if !shown.Scan() || shown.Text() != want {
			t.Errorf("the subscriber's terminal shows %q, README.md has %q", shown.Text(), want)
		}
	}
	next(blocks[2][1])
	epoch := regexp.MustCompile(`"epoch":"[^"]+"`)
	backend := blocks[3]
	for len(backend) > 0 {
		got, err := shell(backend[0]).Output()
		if err != nil {
			t.Fatalf("%s: %v", backend[0], err)
		}
		if got := strings.TrimSuffix(epoch.ReplaceAllString(string(got), `"epoch":"E"`), "\n"); got != backend[1] {
			t.Errorf("%s\nshows %s\nREADME.md has %s", backend[0], got, backend[1])
		}
		backend = backend[2:]
	}
	next(blocks[2][2])
	sub.Process.Signal(os.Interrupt)
	if err := sub.Wait(); err != nil {
		t.Errorf("sub ended with %v", err)
	}
}

// TestDashboard is about the page of the program as it is started: it is where the greeting
// says, knows where clients connect, and pushes.
func TestDashboard(t *testing.T) {
	p := start(t)
	page := p.wait("look at it, and try it, in a browser: " + p.stat + "/")
	if _, body := p.get(p.stat + "/"); !strings.Contains(body, `src="/dashboard/app.js"`) {
		t.Errorf("%s: GET / is %s", page, body)
	}
	want := `{"gateway":"` + p.ws + `","member":123456,"token":"654321","push":true,"explain":true}` + "\n"
	if _, body := p.get(p.stat + "/dashboard/settings"); body != want {
		t.Errorf("settings %s, want %s", body, want)
	}
	if _, body := p.get(p.stat + "/dashboard/client.js"); !strings.Contains(body, "WSGateway") {
		t.Errorf("client.js is %.100s", body)
	}
	if _, body := p.get(p.stat + "/dashboard/explain?member=-1&action=subscribe&app=im"); !strings.Contains(body, `"allowed":false,"rule":"im"`) {
		t.Errorf("explain: %s", body)
	}

	c := p.login(123456, "654321")
	c.subscribe("match")
	resp, err := http.Post(p.stat+"/dashboard/push", "application/json", strings.NewReader(`{"app":"match","text":"from the page"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("push: %s", resp.Status)
	}
	c.expect(`{"app":"match","member_id":-1,"text":"from the page"}`)
}

// TestPortThatBrowsersRefuse is about the greeting where no browser would open the page.
func TestPortThatBrowsersRefuse(t *testing.T) {
	// All of 127.0.0.0/8 is loopback on Linux.
	start(t, "WSGW_STAT_ADDR=127.66.0.1:6000").wait("browsers refuse its port; add another address to WSGW_STAT_ADDR")

	p := start(t, "WSGW_STAT_ADDR=127.66.0.2:6000,127.66.0.2:6001")
	p.wait("in a browser: http://127.66.0.2:6001/")
	for _, addr := range []string{"http://127.66.0.2:6000", "http://127.66.0.2:6001"} {
		if status, body := p.get(addr + "/readyz"); status != 200 {
			t.Errorf("%s: %d %s", addr, status, body)
		}
	}
}

// TestDashboardShowsTokensOfTheDemoOnly is about what it fills in for whoever looks.
func TestDashboardShowsTokensOfTheDemoOnly(t *testing.T) {
	p := start(t, "WSGW_AUTH=none")
	if _, body := p.get(p.stat + "/dashboard/settings"); !strings.Contains(body, `"member":0,"token":""`) {
		t.Errorf("settings %s", body)
	}
}

const (
	unauthorized = `{"app":"gateway","member_id":-1,"text":"{\"code\":401,\"message\":\"unauthorized\"}"}`
	unavailable  = `{"app":"gateway","member_id":-1,"text":"{\"code\":503,\"message\":\"auth unavailable\"}"}`
)

// refuse connects a client whose token is refused; it stays as anonymous.
func (p *process) refuse(member int, token string) {
	p.t.Helper()
	c := p.dial()
	c.say(fmt.Sprintf(`{"member_id":%d,"token":%q}`, member, token))
	c.expect(unauthorized)
	c.subscribe("match")
}

func TestLoginByCallback(t *testing.T) {
	const canary = "canary-91be"
	var broken atomic.Bool
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, password, _ := r.BasicAuth()
		switch {
		case broken.Load():
			fmt.Fprintf(w, "Fatal error near %s", body)
		case password == canary && string(body) == `{"member_id":42,"token":"`+canary+`"}`:
			io.WriteString(w, `{"uid":42,"roles":["gold"]}`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer endpoint.Close()
	url := strings.Replace(endpoint.URL, "//", "//gateway:"+canary+"@", 1) + "/?key=" + canary
	p := start(t, "WSGW_AUTH=callback", "WSGW_AUTH_URL="+url, "HTTP_PROXY=http://192.0.2.1:1")
	p.login(42, canary)
	p.refuse(42, canary+"x")
	p.refuse(43, canary)
	broken.Store(true)
	c := p.dial()
	c.say(`{"member_id":42,"token":"` + canary + `"}`)
	c.expect(unavailable)
	c.expectClose(websocket.StatusTryAgainLater)
	p.wait(`"level":"WARN"`, "auth backend", "cause")
	if _, metrics := p.get(p.stat + "/metrics"); strings.Contains(metrics, canary) {
		t.Error("A09: /metrics tells a secret")
	}
	if log := strings.Join(p.lines(), "\n"); strings.Contains(log, canary) {
		t.Errorf("A09: the log tells a secret:\n%s", log)
	}
}

// A backlog is an endpoint that answers nobody, and knows how many wait.
type backlog struct {
	*httptest.Server
	want    int           // how many
	reached chan struct{} // closed when so many wait at once
	waiting atomic.Int32
	once    sync.Once
}

func newBacklog(t *testing.T, want int) *backlog {
	b := &backlog{want: want, reached: make(chan struct{})}
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or net/http does not see who leaves
		defer b.waiting.Add(-1)
		if b.waiting.Add(1) >= int32(want) {
			b.once.Do(func() { close(b.reached) })
		}
		<-r.Context().Done()
	}))
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

// await waits until so many wait as are wanted.
func (b *backlog) await(t *testing.T) {
	t.Helper()
	select {
	case <-b.reached:
	case <-time.After(patience):
		t.Fatalf("%d calls wait at once, want %d", b.waiting.Load(), b.want)
	}
}

// An auth backend that does not answer is asked as many questions at once as
// WSGW_AUTH_CONCURRENCY says, and those that wait for it, or for their turn, keep nobody else
// from what he missed, nor a script from answering.
func TestA02SlowAuthBackend(t *testing.T) {
	const questions, queued = 300, 30
	backend := newBacklog(t, questions)
	p := start(t, "WSGW_AUTH=callback", "WSGW_AUTH_URL="+backend.URL, "WSGW_AUTH_TIMEOUT=1m", "WSGW_AUTH_DEADLINE=10m",
		fmt.Sprint("WSGW_AUTH_CONCURRENCY=", questions), "WSGW_DOORS=/barrage=session/script/doors/barrage.lua", "WSGW_LOG_LEVEL=info")
	long := strings.Repeat("x", 60<<10) // each fills a page, and a client is given the next when it has taken one
	for range 3 {
		if status, body := p.push(`{"app":"match","text":"` + long + `"}`); status != "202" {
			t.Fatalf("push: %s %s", status, body)
		}
	}
	missed := p.dial()
	missed.SetReadLimit(1 << 20)
	missed.say(`{"member_id":-1,"token":""}`)
	missed.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"hello stranger\"}"}`)
	for range questions + queued {
		p.dial().say(`{"member_id":42,"token":"t"}`)
	}
	backend.await(t)

	missed.say(`{"app":"match","last":3}`)
	missed.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"subscribe match success\"}"}`)
	for range 3 {
		missed.expect(`{"app":"match","member_id":-1,"text":"` + long + `"}`)
	}
	p.ws += "barrage"
	c := p.dial()
	c.say(`{"op":"subscribe","channel":"100001@video"}`)
	c.expect(`{"result":true}`)
	if n := backend.waiting.Load(); n != questions {
		t.Errorf("in the end %d questions wait, want %d", n, questions)
	}
}

// Scripts that wait for an answer have as many calls under way as their door has states.
func TestSlowServerOfADoor(t *testing.T) {
	const calls = 160 // more than there are places for what computes
	backend := newBacklog(t, calls)
	script := filepath.Join(t.TempDir(), "ask.lua")
	write(t, script, `local mix = require "mix"
function on_message(msg)
	mix.http.request("GET", "`+backend.URL+`")
	mix.websocket():send("no answer")
end`)
	p := start(t, "WSGW_DOORS=/ask="+script, fmt.Sprint("WSGW_DOORS_STATES=", calls), "WSGW_LOG_LEVEL=info")
	p.ws += "ask"
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for range calls {
		c := p.dial()
		clients.Go(func() { // asks again whenever the script has given up, which it does after 3 s
			for c.Write(ctx, websocket.MessageText, []byte("ask")) == nil {
				if _, _, err := c.Read(ctx); err != nil {
					return
				}
			}
		})
	}
	backend.await(t)
}

func TestLoginByJWT(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("canary-52aa", 4)
	sign := func(member int, ttl time.Duration) string {
		b64 := base64.RawURLEncoding.EncodeToString
		claims := fmt.Sprintf(`{"sub":"%d","aud":"gateway","exp":%d}`, member, time.Now().Add(ttl).Unix())
		token := b64([]byte(`{"alg":"HS256"}`)) + "." + b64([]byte(claims))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(token))
		return token + "." + b64(mac.Sum(nil))
	}
	p := start(t, "WSGW_AUTH=jwt", "WSGW_JWT_SECRET="+secret, "WSGW_JWT_AUDIENCE=gateway")
	p.login(42, sign(42, time.Hour))
	p.refuse(43, sign(42, time.Hour))
	p.refuse(42, sign(42, -time.Second))
	p.refuse(123456, "654321")
	c := p.login(42, sign(42, 10*time.Second))
	c.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":401,\"message\":\"token expiring\"}"}`)
	c.subscribe("match")
	c.expectClose(4015)
	if _, body := p.push(`{"app":"match","member_id":42,"text":"too late"}`); !strings.Contains(body, `"subscribers":0`) {
		t.Errorf("J06: a push after the token's end is answered %s", body)
	}
	if log := strings.Join(p.lines(), "\n"); strings.Contains(log, secret[:11]) || strings.Contains(log, "eyJhbGci") {
		t.Errorf("A09: the log tells a secret:\n%s", log)
	}
}

func TestLoginByNobody(t *testing.T) {
	p := start(t, "WSGW_AUTH=none")
	p.refuse(123456, "654321")
}

// The settings that AUTH.md speaks of exist.
func TestAuthDocument(t *testing.T) {
	text, err := os.ReadFile("session/auth/AUTH.md")
	if err != nil {
		t.Fatal(err)
	}
	var known []string
	for _, s := range config.Settings() {
		known = append(known, s.Name)
	}
	names := regexp.MustCompile(`WSGW_[A-Z_]+`).FindAllString(string(text), -1)
	if len(names) == 0 {
		t.Error("AUTH.md names no setting")
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			t.Errorf("AUTH.md names %s, which is no setting", name)
		}
	}
}

func TestQuickStart(t *testing.T) {
	p := start(t)
	c := p.login(123456, "654321")
	c.subscribe("match")

	status, body := p.push(`{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`)
	var receipt struct {
		Code, Offset, Subscribers int
		App, Epoch, Durability    string
	}
	if err := json.Unmarshal([]byte(body), &receipt); err != nil || status != "202" || receipt.App != "match" || receipt.Subscribers != 1 || receipt.Durability != "memory" {
		t.Errorf("push: %s %s %v", status, body, err)
	}
	c.expect(`{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`)

	if _, body := p.get(p.stat + "/stat"); body != "match 1\n" {
		t.Errorf("/stat is %q, want %q", body, "match 1\n")
	}
	if code, _ := p.get(p.stat + "/readyz"); code != 200 {
		t.Errorf("/readyz is %d, want 200", code)
	}
	c.Close(websocket.StatusNormalClosure, "")
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestGreeting(t *testing.T) {
	p := start(t, "WSGW_LOG_FORMAT=auto")
	l := p.wait(`"msg":"push is open to this machine`)
	var made struct{ Key string }
	if err := json.Unmarshal([]byte(l), &made); err != nil || len(made.Key) < 40 {
		t.Fatalf("no push key in %s", l)
	}
	// Through a proxy the key is needed, and the one that was logged is good.
	forwarded := []string{"-H", "X-Forwarded-For: 192.0.2.1"}
	if status, body := p.push(`{"app":"match","text":""}`, forwarded...); status != "401" {
		t.Errorf("forwarded push without key: %s %s, want 401", status, body)
	}
	if status, body := p.push(`{"app":"match","text":""}`, append(forwarded, "-H", "X-Push-Key: "+made.Key)...); status != "202" {
		t.Errorf("forwarded push with the logged key: %s %s, want 202", status, body)
	}
	if n := len(p.lines()); n > 12 {
		t.Errorf("%d lines of log, and nothing has happened yet", n)
	}
}

// The command that the log shows for the first push is good as it stands, but for one's own key.
func TestGreetingPushes(t *testing.T) {
	for _, env := range [][]string{nil, {"WSGW_PUSH_KEYS=my-key"}} {
		p := start(t, env...)
		var said struct{ Msg string }
		if err := json.Unmarshal([]byte(p.wait(`and in another terminal: curl `)), &said); err != nil {
			t.Fatal(err)
		}
		_, command, _ := strings.Cut(said.Msg, ": ")
		out, err := exec.Command("sh", "-c", strings.Replace(command, "ONE_OF_YOURS", "my-key", 1)).Output()
		if err != nil || !strings.HasPrefix(string(out), `{"code":202,"app":"match",`) {
			t.Errorf("%s: %s, %v", command, out, err)
		}
	}
}

func TestDoor(t *testing.T) {
	p := start(t, "WSGW_DOORS=/barrage=session/script/doors/barrage.lua", "WSGW_PUSH_KEYS=key")
	p.ws += "barrage"
	c := p.dial()
	c.say(`{"op":"subscribe","channel":"100001@video"}`)
	c.expect(`{"result":true}`)
	if status, body := p.push(`{"app":"video:100001","text":"{\"hello\":1}"}`, "-H", "X-Push-Key: key"); status != "202" {
		t.Fatalf("push: %s %s", status, body)
	}
	c.expect(`{"hello":1}`) // as it is, without the envelope
	if _, body := p.get(p.stat + "/stat"); body != "video:100001 1\n" {
		t.Errorf("/stat is %q", body)
	}
}

// A door's limits are what its settings say, and a call that reaches one is counted.
func TestLimitsOfADoor(t *testing.T) {
	t.Parallel()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, strings.Repeat("x", 2000)) }))
	defer backend.Close()
	script := filepath.Join(t.TempDir(), "door.lua")
	write(t, script, `function on_message(msg)
	local conn = mix.websocket()
	local function taken(key, value) return (pcall(conn.set_context_value, conn, key, value)) end
	local long, first, second = taken("a", ("x"):rep(2000)), taken("a", 1), taken("b", 1)
	conn:send(mix.json_encode({long, first, second, select(2, mix.http.request("GET", "`+backend.URL+`"))}))
	conn:wait_context_value("never")
end`)
	p := start(t, "WSGW_DOORS=/limits="+script, "WSGW_DOORS_CONTEXT_BYTES=1KiB", "WSGW_DOORS_CONTEXT_KEYS=1", "WSGW_DOORS_HTTP_BYTES=1KiB", "WSGW_DOORS_WAIT=1s")
	p.ws += "limits"
	c := p.dial()
	c.say("x")
	c.expect(`[false,true,false,"answer is larger than 1024 bytes"]`)
	c.expectClose(websocket.StatusInternalError)
	_, metrics := p.get(p.stat + "/metrics")
	for reason, n := range map[string]int{"script_context": 2, "script_answer": 1, "script_wait": 1} {
		if want := fmt.Sprintf("wsgateway_refused_total{reason=%q} %d\n", reason, n); !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// N02: a script that waits for ever holds up a stop no longer than its limit.
func TestN02DoorThatWaits(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	script := filepath.Join(t.TempDir(), "door.lua")
	text := fmt.Sprintf(`function on_message(msg) while true do mix.http.request("GET", "http://%s/") end end`, silent.Addr())
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "WSGW_DOORS=/wait="+script, "WSGW_DOORS_WAIT=10m", "WSGW_DRAIN_WINDOW=0s")
	p.ws += "wait"
	p.dial().say("x")
	if _, err := silent.Accept(); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestC04Refuses(t *testing.T) {
	taken := start(t)
	addr := strings.TrimPrefix(taken.http, "http://")
	pem := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(pem, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		env  []string
		code int
		want string // in the one line of stderr
	}{
		{"port in use", []string{"WSGW_ADDR=" + addr}, 1, addr + ": bind: address already in use; WSGW_ADDR and WSGW_STAT_ADDR choose others"},
		{"stat port in use", []string{"WSGW_ADDR=127.0.0.1:0", "WSGW_STAT_ADDR=" + addr}, 1, addr + ": bind: address already in use; WSGW_ADDR and WSGW_STAT_ADDR choose others"},
		{"not an address of this machine", []string{"WSGW_ADDR=192.0.2.1:0"}, 1, "192.0.2.1:0: "},
		{"bad TLS pair", []string{"WSGW_ADDR=127.0.0.1:0", "WSGW_TLS_CERT=" + pem, "WSGW_TLS_KEY=" + pem}, 1, pem},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := run(append([]string{"WSGW_STAT_ADDR=127.0.0.1:0", "WSGW_LOG_LEVEL=error"}, tt.env...))
			if code != tt.code || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit %d, stdout %q, stderr %q; want exit %d and one line with %q", code, stdout, stderr, tt.code, tt.want)
			}
		})
	}
}

// TestC01Files is about each setting that names a file, and each kind of thing that may be
// where it should be. check says so in a line, with the setting and the path.
func TestC01Files(t *testing.T) {
	var nobody *syscall.Credential
	if os.Getuid() == 0 { // who may read everything
		nobody = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	dir, err := os.MkdirTemp("", "files")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, d := range []string{bin, dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.WriteFile(there("empty"), nil, 0o644),
		os.WriteFile(there("secret"), nil, 0),
		os.Mkdir(there("folder"), 0o755),
		os.Mkdir(there("closed"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s := httptest.NewTLSServer(nil)
	s.Close()
	write(t, there("cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	if err := os.Chmod(there("cert.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	files := []string{there("missing"), there("folder"), there("empty"), there("secret"), there("empty/file"), there("closed/file"), os.DevNull}
	for _, setting := range []struct {
		name  string
		env   []string // beside it
		value string   // before the file
		bad   []string
	}{
		{name: "WSGW_APPS_FILE", bad: files},
		{name: "WSGW_MEMBERS_FILE", env: []string{"WSGW_AUTH=static"}, bad: files},
		{name: "WSGW_JWT_KEY_FILE", env: []string{"WSGW_AUTH=jwt", "WSGW_JWT_AUDIENCE=gateway"}, bad: files},
		{name: "WSGW_PUSH_KEYS_FILE", bad: files},
		{name: "WSGW_TLS_CERT", env: []string{"WSGW_TLS_KEY=" + there("cert.pem")}, bad: files},
		{name: "WSGW_TLS_KEY", env: []string{"WSGW_TLS_CERT=" + there("cert.pem")}, bad: files},
		{name: "WSGW_DOORS", value: "/door=", bad: files},
		{name: "WSGW_STATE_DIR", bad: []string{there("empty"), there("secret"), there("empty/state"), there("closed"), there("closed/state"), os.DevNull}},
	} {
		for _, path := range setting.bad {
			t.Run(setting.name+"="+strings.TrimPrefix(path, dir+"/"), func(t *testing.T) {
				code, stdout, stderr := runAs(nobody, append(setting.env, setting.name+"="+setting.value+path), "check")
				if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, setting.name) || !strings.Contains(stderr, path) {
					t.Errorf("exit %d, stdout %q, stderr %q; want exit 2 and one line with the setting and %s", code, stdout, stderr, path)
				}
			})
		}
	}
}

func TestC05Addresses(t *testing.T) {
	for _, tt := range []struct {
		addr, url string // of WSGW_ADDR, and how the URL in the greeting begins
		reach     []string
	}{
		{"127.0.0.1:0", "http://127.0.0.1:", []string{"127.0.0.1"}},
		{"[::1]:0", "http://[::1]:", []string{"[::1]"}},
		{":0", "http://127.0.0.1:", []string{"127.0.0.1", "[::1]"}},
		{"[::ffff:127.0.0.1]:0", "http://127.0.0.1:", []string{"127.0.0.1"}},
		{"localhost:0", "http://", []string{"localhost"}},
	} {
		t.Run(tt.addr, func(t *testing.T) {
			p := start(t, "WSGW_ADDR="+tt.addr)
			if !strings.HasPrefix(p.http, tt.url) {
				t.Errorf("greets with %s, want %s...", p.http, tt.url)
			}
			port := p.http[strings.LastIndex(p.http, ":"):]
			for _, host := range tt.reach {
				p.http, p.ws = "http://"+host+port, "ws://"+host+port
				p.login(123456, "654321") // the demo member: this is loopback
				if status, body := p.push(`{"app":"match","text":""}`); status != "202" {
					t.Errorf("push to %s: %s %s", host, status, body)
				}
			}
		})
	}
}

func TestN02Drain(t *testing.T) {
	t.Parallel()
	p := start(t, "WSGW_DRAIN_DELAY=10s", "WSGW_DRAIN_WINDOW=500ms") // all of the below fits in, on any machine
	var clients []*client
	for range 20 {
		c := p.login(123456, "654321")
		c.subscribe("match")
		clients = append(clients, c)
	}
	p.signal(syscall.SIGTERM)
	p.wait(`"msg":"draining"`)

	// For the delay it is not ready, and yet serves those who come.
	if code, _ := p.get(p.stat + "/readyz"); code != 503 {
		t.Errorf("/readyz is %d while draining, want 503", code)
	}
	if code, _ := p.get(p.stat + "/healthz"); code != 200 {
		t.Errorf("/healthz is %d while draining, want 200", code)
	}
	late := p.login(123456, "654321")
	late.subscribe("match")
	clients = append(clients, late)
	const messages = 1000
	var batch []string
	for i := range messages {
		batch = append(batch, fmt.Sprintf(`{"app":"match","text":"%d"}`, i))
	}
	if status, body := p.push("[" + strings.Join(batch, ",") + "]"); status != "202" {
		t.Fatalf("push while draining: %s %s", status, body)
	}

	// What was accepted arrives before the close.
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for i := range messages {
				_, got, err := c.Read(within(t))
				if want := fmt.Sprintf(`{"app":"match","member_id":-1,"text":"%d"}`, i); err != nil || string(got) != want {
					t.Errorf("got %s %v, want %s", got, err, want)
					return
				}
			}
			if _, _, err := c.Read(within(t)); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
				t.Errorf("closed: %v, want 1012", err)
			}
		})
	}
	wg.Wait()
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// A client resumes over a planned restart; after a kill it is told that it cannot.
func TestN02WarmRestart(t *testing.T) {
	dir := "WSGW_STATE_DIR=" + filepath.Join(t.TempDir(), "state")
	position := func(app string, epoch string, offset int) string {
		return fmt.Sprintf(`{"app":"%s","position":{"epoch":"%s","offset":%d}}`, app, epoch, offset)
	}
	push := func(p *process, text string) (epoch string) {
		t.Helper()
		status, body := p.push(`{"app":"match","text":"` + text + `"}`)
		var receipt struct{ Epoch string }
		if err := json.Unmarshal([]byte(body), &receipt); err != nil || status != "202" {
			t.Fatalf("push: %s %s", status, body)
		}
		return receipt.Epoch
	}
	p := start(t, dir)
	epoch := push(p, "one")
	push(p, "two")
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	p = start(t, dir)
	if again := push(p, "three"); again != epoch {
		t.Errorf("the epoch is %s after a planned restart, was %s", again, epoch)
	}
	c := p.login(123456, "654321")
	c.say(position("match", epoch, 1))
	c.expect(fmt.Sprintf(`{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"subscribe match success\",\"position\":{\"epoch\":\"%s\",\"offset\":3},\"recovered\":true}"}`, epoch))
	c.expect(`{"app":"match","member_id":-1,"text":"two","offset":2,"prev":1}`)
	c.expect(`{"app":"match","member_id":-1,"text":"three","offset":3,"prev":2}`)
	p.signal(syscall.SIGKILL)
	p.exit()

	p = start(t, dir)
	if again := push(p, "four"); again == epoch {
		t.Errorf("the epoch goes on after a kill: offsets are given twice")
	}
	p.signal(syscall.SIGTERM)
	p.exit()
}

// A disk that is full when the gateway stops costs the resumes over that restart, and says so: no
// part of a log is left to be taken over.
func TestD01DiskFull(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p := startAs(t, []string{"bash", "-c", "ulimit -f 16 && exec " + filepath.Join(bin, "ws-gateway")}, "WSGW_STATE_DIR="+dir) // blocks of 1 KiB
	for range 2 {
		if status, body := p.push(`{"app":"match","text":"` + strings.Repeat("x", 60<<10) + `"}`); status != "202" {
			t.Fatalf("push: %s %s", status, body)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	p.wait(`"level":"ERROR"`, "the next start begins a new epoch", "file too large")
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "lock" {
		t.Errorf("the directory has %v, %v", left, err)
	}
	start(t, "WSGW_STATE_DIR="+dir).wait("no log to take over: new epoch")
}

func TestN08StateDirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "WSGW_STATE_DIR="+dir)
	want := fmt.Sprintf("ws-gateway: WSGW_STATE_DIR: %s/lock: another gateway uses this directory, process %d\n", dir, p.cmd.Process.Pid)
	code, stdout, stderr := run([]string{"WSGW_ADDR=127.0.0.1:0", "WSGW_STAT_ADDR=127.0.0.1:0", "WSGW_LOG_LEVEL=error", "WSGW_STATE_DIR=" + dir})
	if code != 1 || stdout != "" || stderr != want {
		t.Errorf("exit %d, stdout %q, stderr %q; want exit 1 and %q", code, stdout, stderr, want)
	}
}

// A client that comes back to all its apps at once passes with the default settings; one that
// floods is closed, and a third does not notice.
func TestP18CommandFlood(t *testing.T) {
	p := start(t, "WSGW_LOG_LEVEL=info")
	flood, beside := p.login(123456, "654321"), p.login(123456, "654321")
	for i := range 128 {
		flood.say(fmt.Sprintf(`{"app":"room:%d"}`, i))
	}
	for i := range 128 {
		flood.expect(fmt.Sprintf(`{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"subscribe room:%d success\"}"}`, i))
	}
	const ping, pong = `{"op":"ping"}`, `{"app":"gateway","member_id":-1,"text":"{\"code\":200,\"message\":\"pong\"}"}`
	ctx, cancel := context.WithCancel(t.Context())
	var flooding sync.WaitGroup
	flooding.Go(func() {
		for flood.Write(ctx, websocket.MessageText, []byte(ping)) == nil {
		}
	})
	answers := 0
	for {
		_, got, err := flood.Read(within(t))
		if err != nil {
			if code := websocket.CloseStatus(err); code != 4013 {
				t.Errorf("the flood ended with %v, want 4013", err)
			}
			break
		}
		if string(got) != pong {
			t.Fatalf("got %s", got)
		}
		if answers++; answers%16 == 0 {
			beside.say(ping)
			beside.expect(pong)
		}
	}
	cancel()
	flooding.Wait()
	if answers < 128 { // what is left of 256
		t.Errorf("closed after %d commands of the flood", answers)
	}
	if n := p.metric(`wsgateway_refused_total{reason="command_rate"}`); n != 1 {
		t.Errorf("%v refusals are counted, want 1", n)
	}
	beside.say(ping)
	beside.expect(pong)
}

// A11: with the default settings an address behind a trusted proxy has 60 guesses a minute.
func TestA11Guessing(t *testing.T) {
	p := start(t, "WSGW_TRUSTED_PROXIES=127.0.0.1/32", "WSGW_LOG_LEVEL=info")
	from := func(addr string) (*client, int) {
		c, resp, err := websocket.Dial(within(t), p.ws, &websocket.DialOptions{HTTPHeader: http.Header{"X-Forwarded-For": {addr}}})
		if err != nil {
			return nil, resp.StatusCode
		}
		t.Cleanup(func() { c.CloseNow() })
		return &client{t, c}, resp.StatusCode
	}
	guesser, _ := from("192.0.2.66")
	for i := range 60 {
		if i == 59 { // the last but one does not lock anybody out
			if _, status := from("192.0.2.66"); status != 101 {
				t.Errorf("a handshake after 59 guesses: %d", status)
			}
		}
		guesser.say(fmt.Sprintf(`{"member_id":123456,"token":"%d"}`, i))
		guesser.expect(unauthorized)
	}
	if _, status := from("192.0.2.66"); status != 429 {
		t.Errorf("a handshake after 60 guesses: %d, want 429", status)
	}
	if _, status := from("192.0.2.67"); status != 101 {
		t.Errorf("a handshake of another address: %d", status)
	}
	guesser.subscribe("match") // who is connected stays so
	p.login(123456, "654321")  // and this machine is exempt
}

// N03: a process that was stopped for longer than any of its timers goes on where it was: who is
// late is told so, nobody is given up for a silence that was the gateway's own, and what was
// pushed meanwhile arrives.
func TestN03Frozen(t *testing.T) {
	t.Parallel()
	p := start(t, "WSGW_PING_INTERVAL=1s", "WSGW_PONG_TIMEOUT=3s", "WSGW_AUTH_DEADLINE=3s", "WSGW_WRITE_TIMEOUT=3s")
	var clients []*client
	messages := make(chan string, 100)
	var reading sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer reading.Wait()
	defer cancel()
	for range 20 {
		c := p.login(123456, "654321")
		c.subscribe("match")
		clients = append(clients, c)
		reading.Go(func() { // which answers pings
			for {
				_, m, err := c.Read(ctx)
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("a client was given up: %v", err)
						messages <- ""
					}
					return
				}
				messages <- string(m)
			}
		})
	}
	late := p.dial()
	p.signal(syscall.SIGSTOP)
	pushed := make(chan string, 1)
	go func() {
		resp, err := http.Post(p.http+"/push", "application/json", strings.NewReader(`{"app":"match","text":"meanwhile"}`))
		if err != nil {
			pushed <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		pushed <- resp.Status + " " + string(body)
	}()
	<-time.After(5 * time.Second)
	p.signal(syscall.SIGCONT)
	late.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":400,\"message\":\"missing auth message\"}"}`)
	late.expectClose(4500)
	if got := <-pushed; !strings.HasPrefix(got, "202 ") || !strings.Contains(got, `"subscribers":20`) {
		t.Errorf("the push is answered %s", got)
	}
	<-time.After(5 * time.Second) // in which all are pinged, and have to answer
	for range clients {
		if m := <-messages; m != `{"app":"match","member_id":-1,"text":"meanwhile"}` {
			t.Errorf("a client got %s", m)
		}
	}
	if n := p.metric(`wsgateway_sessions{kind="members"}`); n != 20 {
		t.Errorf("%v of 20 sessions are left", n)
	}
}

func TestN02SecondSignalEndsAtOnce(t *testing.T) {
	p := start(t, "WSGW_DRAIN_DELAY=1h")
	p.signal(syscall.SIGTERM)
	p.wait(`"msg":"draining"`)
	p.signal(syscall.SIGINT)
	p.exit()
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("ended with %v, want by SIGINT", p.cmd.ProcessState)
	}
}

// write writes a file of a test's directory anew, as editors do: atomically.
func write(t *testing.T, path, data string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	rules, members, keys := filepath.Join(dir, "apps.yaml"), filepath.Join(dir, "members.yaml"), filepath.Join(dir, "keys")
	entry := func(member int) (line, token string) {
		code, stdout, stderr := run(nil, "token", "--member", fmt.Sprint(member))
		if code != 0 {
			t.Fatal(stderr)
		}
		return stdout, strings.TrimSpace(stderr[strings.LastIndex(stderr, " ")+1:])
	}
	line42, token42 := entry(42)
	line43, token43 := entry(43)
	write(t, rules, "apps: {vip: {subscribe: [members]}, old: {}, left: {}}")
	write(t, members, "members:\n"+line42+line43)
	write(t, keys, "first-key\n")
	p := start(t, "WSGW_APPS_FILE="+rules, "WSGW_AUTH=static", "WSGW_MEMBERS_FILE="+members, "WSGW_PUSH_KEYS_FILE="+keys)
	c42, c43 := p.login(42, token42), p.login(43, token43)
	c42.subscribe("vip")
	c43.subscribe("vip")
	failed := func() string {
		_, metrics := p.get(p.stat + "/metrics")
		for l := range strings.Lines(metrics) {
			if strings.HasPrefix(l, `wsgateway_reload_failed{what="apps"}`) {
				return strings.TrimSpace(l[strings.LastIndex(l, " "):])
			}
		}
		return "missing"
	}

	const series = "wsgateway_app_subscriptions"
	numbers := func() string {
		_, lines := p.get(p.stat + "/stat")
		_, metrics := p.get(p.stat + "/metrics")
		for l := range strings.Lines(metrics) {
			if strings.HasPrefix(l, series+"{") {
				lines += l
			}
		}
		return lines
	}
	c43.subscribe("left")
	for _, app := range []string{"old", "left", "left"} {
		if status, body := p.push(`{"app":"`+app+`","text":"x"}`, "-H", "X-Push-Key: first-key"); status != "202" {
			t.Fatalf("push: %s %s", status, body)
		}
	}
	c43.expect(`{"app":"left","member_id":-1,"text":"x"}`)
	c43.expect(`{"app":"left","member_id":-1,"text":"x"}`)
	want := "left 1\nold 0\nvip 2\n" + series + `{app="left"} 1` + "\n" + series + `{app="old"} 0` + "\n" + series + `{app="other"} 0` + "\n" + series + `{app="vip"} 2` + "\n"
	if got := numbers(); got != want {
		t.Errorf("before any reload:\n%swant\n%s", got, want)
	}

	t.Run("C02 a bad file changes nothing", func(t *testing.T) {
		write(t, rules, "apps: {vip: {subscribe: [43], whatever: 1}}")
		p.signal(syscall.SIGHUP)
		p.wait(`"level":"ERROR"`, "apps.yaml:1:", "whatever")
		if got := failed(); got != "1" {
			t.Errorf("reload_failed is %s, want 1", got)
		}
		if status, body := p.push(`{"app":"vip","text":"still"}`, "-H", "X-Push-Key: first-key"); status != "202" {
			t.Fatalf("push: %s %s", status, body)
		}
		for _, c := range []*client{c42, c43} {
			c.expect(`{"app":"vip","member_id":-1,"text":"still"}`)
		}
	})
	t.Run("C03 tighter rules reach live sessions", func(t *testing.T) {
		write(t, rules, "apps: {vip: {subscribe: [43]}}")
		changed := time.Now()
		p.signal(syscall.SIGHUP)
		c42.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":403,\"message\":\"subscribe vip forbidden\"}"}`)
		if took := time.Since(changed); took > 2*time.Second {
			t.Errorf("the session heard of it after %v", took)
		}
		if got := failed(); got != "0" {
			t.Errorf("reload_failed is %s, want 0", got)
		}
	})
	t.Run("C03 what they no longer name has no numbers of its own", func(t *testing.T) {
		want := "left 1\nvip 1\n" + series + `{app="other"} 1` + "\n" + series + `{app="vip"} 1` + "\n"
		if got := numbers(); got != want {
			t.Errorf("after the reload:\n%swant\n%s", got, want)
		}
	})
	t.Run("C03 so do keys", func(t *testing.T) {
		write(t, keys, "second-key\n")
		resp, err := http.Post(p.stat+"/reload", "", nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("POST /reload: %v %v", resp, err)
		}
		resp.Body.Close()
		for key, want := range map[string]string{"first-key": "401", "second-key": "202"} {
			if status, body := p.push(`{"app":"vip","text":"new"}`, "-H", "Authorization: Bearer "+key); status != want {
				t.Errorf("push with %s: %s %s, want %s", key, status, body, want)
			}
		}
		c43.expect(`{"app":"vip","member_id":-1,"text":"new"}`)
	})
	t.Run("C03 and members", func(t *testing.T) {
		write(t, members, "members:\n"+line42)
		p.signal(syscall.SIGHUP)
		c43.expectClose(4015) // to come back, and be refused
		again := p.dial()
		again.say(fmt.Sprintf(`{"member_id":43,"token":%q}`, token43))
		again.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":401,\"message\":\"unauthorized\"}"}`)
		c42.subscribe("match") // the other member never noticed
	})
}

// C02: a SIGHUP that comes while the gateway starts is carried out when it is up.
func TestReloadBeforeTheStart(t *testing.T) {
	dir := t.TempDir()
	rules, pid := filepath.Join(dir, "apps.yaml"), filepath.Join(dir, "pid")
	if err := syscall.Mkfifo(rules, 0o600); err != nil {
		t.Fatal(err)
	}
	give := func(text string, before func()) {
		f, err := os.OpenFile(rules, os.O_WRONLY, 0) // waits until the gateway reads it
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		before()
		if _, err := f.WriteString(text); err != nil {
			t.Error(err)
		}
	}
	go give("apps: {first: {}}", func() {
		b, err := os.ReadFile(pid)
		if err != nil {
			t.Error(err)
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		if err := syscall.Kill(n, syscall.SIGHUP); err != nil {
			t.Error(err)
		}
	})
	p := startAs(t, []string{"bash", "-c", "echo $$ >" + pid + " && exec " + filepath.Join(bin, "ws-gateway")}, "WSGW_APPS_FILE="+rules)
	give("apps: {second: {}}", func() {})
	p.wait(`"msg":"reloaded"`)
	if _, stat := p.get(p.stat + "/stat"); stat != "second 0\n" {
		t.Errorf("apps after the reload: %q", stat)
	}
}

func TestR01OpenFiles(t *testing.T) {
	p := startAs(t, []string{"bash", "-c", "ulimit -n 256 && exec " + filepath.Join(bin, "ws-gateway")}, "WSGW_MAX_HANDSHAKES=0")
	const allowed = 256 - 64 // the reserve is more than 10 % of so few
	var first *client
	for range allowed {
		c := p.dial()
		if first == nil {
			first = c
		}
	}
	for range 10 {
		_, resp, err := websocket.Dial(within(t), p.ws, nil)
		if err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("connection too many: %v %v, want 503 with Retry-After", resp, err)
		}
	}
	if status, body := p.push(`{"app":"match","text":""}`); status != "202" {
		t.Errorf("push: %s %s, want 202", status, body)
	}
	if _, metrics := p.get(p.stat + "/metrics"); !strings.Contains(metrics, `wsgateway_refused_total{reason="connections"} 10`) {
		t.Error("the refusals are not counted")
	}
	first.Close(websocket.StatusNormalClosure, "")
	p.wait(`"msg":"session closed"`, `"code":1000`)
	p.login(123456, "654321") // a seat is free again
}

func TestR02MemoryLimit(t *testing.T) {
	const limit = "go_gc_gomemlimit_bytes"
	if got := start(t).metric(limit); got <= 0 || got >= math.MaxInt64 {
		t.Errorf("the memory limit is %v by default, want 90 %% of what there is", got)
	}
	if got := start(t, "GOMEMLIMIT=1GiB").metric(limit); got != 1<<30 {
		t.Errorf("the memory limit is %v with GOMEMLIMIT=1GiB", got)
	}
}

func TestR02Collections(t *testing.T) {
	const percent, next = "go_gc_gogc_percent", "go_memstats_next_gc_bytes"
	p := start(t, "WSGW_PPROF=true")
	collected := func(ok func(percent, next float64) bool) {
		t.Helper()
		p.heap()
		for deadline := time.Now().Add(patience); !ok(p.metric(percent), p.metric(next)); {
			if time.Now().After(deadline) {
				t.Fatalf("GOGC is %v, and the next collection begins at %v bytes", p.metric(percent), p.metric(next))
			}
		}
	}
	collected(func(percent, next float64) bool { return percent > 120 && next > 14<<20 && next < 18<<20 })
	text := strings.Repeat("x", 60<<10)
	for i := range 400 { // 24 MB are live
		p.push(fmt.Sprintf(`{"app":"log%d","text":"%s"}`, i%4, text))
	}
	collected(func(percent, next float64) bool { return percent < 120 && next > 48e6 }) // small corrections are not made

	if got := start(t, "GOGC=50").metric(percent); got != 50 {
		t.Errorf("GOGC is %v, want the 50 that was asked for", got)
	}
}

func TestA09SecretsStayInside(t *testing.T) {
	const canary = "canary-7f3a"
	p := start(t, "WSGW_PUSH_KEYS="+canary+"-key", "WSGW_STAT_KEY=")
	c := p.dial()
	c.say(`{"member_id":123456,"token":"` + canary + `-token"}`)
	c.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":401,\"message\":\"unauthorized\"}"}`)
	c.subscribe("match")
	p.push(`{"app":"match","text":"`+canary+`-text"}`, "-H", "X-Push-Key: "+canary+"-key")
	c.expect(`{"app":"match","member_id":-1,"text":"` + canary + `-text"}`)
	p.push(`{"app":"match","text":"`+canary+`-text"}`, "-H", "X-Push-Key: "+canary+"-wrong")
	p.push(`{"app":"match","text":"`+canary+`-broken`, "-H", "X-Push-Key: "+canary+"-key")
	c.say(`{"op":"` + canary + `-op"`)
	c.expect(`{"app":"gateway","member_id":-1,"text":"{\"code\":400,\"message\":\"bad subscribe message\"}"}`)
	for _, path := range []string{"/stat", "/metrics"} {
		if _, body := p.get(p.stat + path); strings.Contains(body, canary) {
			t.Errorf("%s tells a secret:\n%s", path, body)
		}
	}
	c.Close(websocket.StatusNormalClosure, "")
	p.signal(syscall.SIGTERM)
	p.exit()
	if log := strings.Join(p.lines(), "\n"); strings.Contains(log, canary) {
		t.Errorf("the log tells a secret:\n%s", log)
	}
}

// TestA09SettingsStayInside is about the settings that hold secrets: nothing that a gateway
// says shows one, of logins and doors that fail neither.
func TestA09SettingsStayInside(t *testing.T) {
	const canary = "canary-c3d1-0123456789-0123456789-0123456789"
	door := filepath.Join(t.TempDir(), "door.lua")
	write(t, door, `function on_message(msg)
		local reply, err = mix.redis.connection("main"):command("get", mix.server.option("key"))
		mix.websocket():send(tostring(err))
	end`)
	all := []string{
		"WSGW_STAT_KEY=" + canary, "WSGW_PUSH_KEYS=" + canary, "WSGW_DOORS=/door=" + door, "WSGW_DOORS_OPTIONS=key=" + canary,
		"WSGW_REDIS=main=redis://user:" + canary + "@127.0.0.1:1/?client_name=" + canary, "WSGW_PPROF=true",
	}
	tested := make(map[string]bool)
	for name, login := range map[string][]string{
		"callback": {"WSGW_AUTH=callback", "WSGW_AUTH_URL=http://user:" + canary + "@127.0.0.1:1/" + canary + "?key=" + canary},
		"secret":   {"WSGW_AUTH=jwt", "WSGW_JWT_AUDIENCE=gateway", "WSGW_JWT_SECRET=" + canary},
		"keys":     {"WSGW_AUTH=jwt", "WSGW_JWT_AUDIENCE=gateway", "WSGW_JWT_JWKS_URL=http://user:" + canary + "@127.0.0.1:1/" + canary + "?key=" + canary},
	} {
		for _, s := range slices.Concat(all, login) {
			setting, _, _ := strings.Cut(s, "=")
			tested[setting] = true
		}
		t.Run(name, func(t *testing.T) {
			env := slices.Concat(all, login)
			want := 0
			if name == "keys" { // nobody listens there
				want = 2
			}
			if code, stdout, stderr := run(env, "check"); code != want || strings.Contains(stdout+stderr, canary) {
				t.Errorf("check: exit %d, %s%s", code, stdout, stderr)
			}
			p := start(t, env...)
			for frame, path := range map[string]string{`{"member_id":42,"token":"eyJhbGciOiJIUzI1NiJ9.e30.c2ln"}`: "", "x": "door"} {
				c, _, err := websocket.Dial(within(t), p.ws+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer c.CloseNow()
				if err := c.Write(within(t), websocket.MessageText, []byte(frame)); err != nil {
					t.Fatal(err)
				}
				if _, reply, err := c.Read(within(t)); err != nil || strings.Contains(string(reply), canary) {
					t.Errorf("%s is answered %s, %v", frame, reply, err)
				}
			}
			p.signal(syscall.SIGHUP)
			p.wait(`"msg":"reloaded"`)
			with := strings.Replace(p.stat, "//", "//x:"+canary+"@", 1)
			for _, path := range []string{"/", "/stat", "/metrics", "/dashboard/settings", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
				if status, body := p.get(with + path); status != 200 || strings.Contains(body, canary) {
					t.Errorf("%s is answered %d: %s", path, status, body)
				}
			}
			p.signal(syscall.SIGQUIT) // which shows all stacks, as a crash does
			p.exit()
			log := strings.Join(p.lines(), "\n")
			if !strings.Contains(log, "SIGQUIT") {
				t.Error("there are no stacks")
			}
			if strings.Contains(log, canary) {
				t.Errorf("the log tells a secret:\n%s", log)
			}
		})
	}
	for _, s := range config.Settings() {
		if s.Secret && !tested[s.Name] {
			t.Errorf("%s is not tested", s.Name)
		}
	}
}

// Each setting is handed to a part, or else somebody sets it in vain.
func TestEverySettingIsUsed(t *testing.T) {
	source, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		if !regexp.MustCompile(`\bc\.` + field.Name + `\b`).Match(source) {
			t.Errorf("nothing in main.go uses WSGW_%s, %s", field.Tag.Get("env"), field.Name)
		}
	}
}

func TestViewersAreBounded(t *testing.T) {
	p := start(t, "WSGW_MAX_VIEWERS=1")
	for i, path := range []string{"/stat/stream", "/stat/tail"} {
		watch := func() *http.Response {
			resp, err := http.Get(p.stat + path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			return resp
		}
		if first := watch(); first.StatusCode != 200 {
			t.Errorf("%s: %s", path, first.Status)
		}
		if more := watch(); more.StatusCode != 503 || more.Header.Get("Retry-After") == "" {
			t.Errorf("%s, a viewer too many: %s", path, more.Status)
		}
		if n := p.metric(`wsgateway_refused_total{reason="stat_viewers"}`); int(n) != i+1 {
			t.Errorf("%v refusals are counted, want %d", n, i+1)
		}
	}
}

// U07: no key is forgotten before its time to make room for another.
func TestU07IdempotencyKeysAreBounded(t *testing.T) {
	p := start(t, "WSGW_MAX_IDEMPOTENCY_KEYS=1000")
	batch := "[" + strings.Repeat(`{"app":"match","text":"x"},`, 999) + `{"app":"match","text":"x"}]`
	once := func(key string) (status, answer string) { return p.push(batch, "-H", "Idempotency-Key: "+key) }
	for i := range 7 { // each counts as 126 keys
		if status, answer := once(strconv.Itoa(i)); status != "202" {
			t.Fatalf("batch %d: %s %s", i, status, answer)
		}
	}
	if status, answer := once("one more"); status != "429" || answer != `{"code":429,"message":"too many idempotency keys to remember"}` {
		t.Errorf("over the limit: %s %.200s", status, answer)
	}
	if status, answer := once("0"); status != "202" || strings.Count(answer, `"duplicate":true`) != 1000 {
		t.Errorf("a retry at the limit: %s %.200s", status, answer)
	}
	if n := p.metric(`wsgateway_refused_total{reason="push_idempotency"}`); n != 1 {
		t.Errorf("%v refusals are counted, want 1", n)
	}
}

// metric returns the value of a metric; name includes its labels.
func (p *process) metric(name string) float64 {
	p.t.Helper()
	_, metrics := p.get(p.stat + "/metrics")
	for l := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(l, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return v
		}
	}
	p.t.Fatalf("no metric %s", name)
	return 0
}

// heap returns the bytes of live objects: the heap's size right after a collection, before
// making the answer adds to it. The gateway needs WSGW_PPROF.
func (p *process) heap() float64 {
	p.t.Helper()
	_, profile := p.get(p.stat + "/debug/pprof/heap?gc=1&debug=1")
	_, size, _ := strings.Cut(profile, "\n# HeapAlloc = ")
	size, _, _ = strings.Cut(size, "\n")
	v, err := strconv.ParseFloat(size, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

func TestS05NothingIsLeftOfConnections(t *testing.T) {
	const connections = 3000
	for _, transport := range []string{"event", "goroutine"} {
		t.Run(transport, func(t *testing.T) {
			p := start(t, "WSGW_TRANSPORT="+transport, "WSGW_PPROF=true", "WSGW_LOG_LEVEL=info")
			comeAndGo := func() {
				code, stdout, stderr := run(nil, "bench", "connect", "-url", p.ws, "-connections", fmt.Sprint(connections), "-warmup", "0s", "-duration", "1ms")
				if code != 0 {
					t.Fatal(stdout, stderr)
				}
				deadline := time.After(patience)
				for _, left := p.get(p.stat + "/stat"); left != ""; _, left = p.get(p.stat + "/stat") {
					select {
					case <-deadline:
						t.Fatalf("subscribers that are gone: %s", left)
					default:
					}
				}
			}
			measure := func() (goroutines, files, heap float64) {
				p.heap() // what pools have kept goes with the second collection
				return p.metric("go_goroutines"), p.metric("process_open_fds"), p.heap()
			}
			comeAndGo() // what is kept for the next, as buffers are
			goroutines, files, heap := measure()
			// The runtime keeps what as many goroutines as there ever were at once need, and there may
			// be more of them than before: but what leaks does so every time.
			var before, after float64
			for range 3 {
				before = heap
				comeAndGo()
				for deadline := time.Now().Add(patience); ; {
					var goroutines2, files2 float64
					goroutines2, files2, after = measure()
					if goroutines2 <= goroutines+5 && files2 <= files+5 {
						break
					}
					if time.Now().After(deadline) { // the last of them are not just ending
						t.Fatalf("before and after %d connections: %v and %v goroutines, %v and %v files",
							connections, goroutines, goroutines2, files, files2)
					}
				}
				if after <= before+connections*500 {
					return
				}
				heap = after
			}
			t.Errorf("before and after %d connections, again and again: %v and %v bytes of heap", connections, before, after)
		})
	}
}
