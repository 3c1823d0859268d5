package bench_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"ws-gateway/stat/bench"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fault is what a gateway does wrong with one message to one of its subscribers.
type fault int

const (
	none fault = iota
	lose
	duplicate
	swap
	alter     // hand over another text than was pushed
	readdress // say that it is for another member
	hangUp
	everySwap // hand over two messages in the other order, to each subscriber but one

	// With one command of one client:
	ignore  // no answer
	repeat  // answer twice
	mistake // answer as if it were another
)

// spoiled is the number of the message that meets the fault.
const spoiled = 20

// A fakeGateway speaks as much of the protocol, and of that of barrage.lua at /barrage, as
// the generator does.
type fakeGateway struct {
	*httptest.Server
	fault fault

	mu     sync.Mutex
	conns  []*websocket.Conn
	subs   []*subscriber
	pushed int           // messages
	asked  int           // commands
	held   []byte        // the first of two messages to be swapped
	full   int           // pushes still to be refused with 429
	stall  time.Duration // of the push that has the spoiled message
}

type subscriber struct {
	*websocket.Conn
	app       string
	door      bool
	positions bool
}

func newFakeGateway(t *testing.T, f fault) *fakeGateway {
	return startFakeGateway(t, f, (*httptest.Server).Start)
}

func startFakeGateway(t *testing.T, f fault, start func(*httptest.Server)) *fakeGateway {
	g := &fakeGateway{fault: f}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", g.connect)
	mux.HandleFunc("GET /barrage", g.connect)
	mux.HandleFunc("POST /push", g.push)
	g.Server = httptest.NewUnstartedServer(mux)
	g.Server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that a test makes fail
	start(g.Server)
	t.Cleanup(func() {
		g.mu.Lock()
		for _, c := range g.conns {
			c.Close()
		}
		g.mu.Unlock()
		g.Close()
	})
	return g
}

// url is ws:// or wss://.
func (g *fakeGateway) url() string { return "ws" + strings.TrimPrefix(g.URL, "http") + "/" }

func reply(text string) []byte { return envelope("gateway", -1, text) }

func envelope(app string, member int64, text string) []byte {
	return fmt.Appendf(nil, `{"app":%q,"member_id":%d,"text":%q}`, app, member, text)
}

func (g *fakeGateway) connect(w http.ResponseWriter, r *http.Request) {
	c, err := new(websocket.Upgrader).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	g.mu.Lock()
	g.conns = append(g.conns, c)
	g.mu.Unlock()
	door := r.URL.Path == "/barrage"
	if !door {
		c.ReadMessage()
		c.WriteMessage(websocket.TextMessage, reply(`{"code":200,"message":"hello stranger"}`))
	}
	for {
		_, data, err := c.ReadMessage()
		if err != nil {
			return
		}
		var cmd struct {
			Op, App, Channel string
			Position         json.RawMessage
		}
		json.Unmarshal(data, &cmd)
		if door && cmd.Channel != "" {
			cmd.App = "video:" + strings.TrimSuffix(cmd.Channel, "@video")
		}
		g.mu.Lock()
		g.answer(c, g.command(&subscriber{Conn: c, app: cmd.App, door: door, positions: cmd.Position != nil}, cmd.Op))
		g.mu.Unlock()
	}
}

// command carries out a command for a subscription and returns the answer.
func (g *fakeGateway) command(s *subscriber, op string) []byte {
	i := slices.IndexFunc(g.subs, func(other *subscriber) bool { return other.Conn == s.Conn && other.app == s.app })
	switch {
	case s.door && s.app == "":
		return []byte(`{"code":1,"msg":"Invalid Message"}`)
	case op == "ping":
		return reply(`{"code":200,"message":"pong"}`)
	case op == "unsubscribe":
		if i >= 0 {
			g.subs = slices.Delete(g.subs, i, i+1)
		}
	case i < 0:
		g.subs = append(g.subs, s)
	}
	position := ""
	if s.positions {
		position = fmt.Sprintf(`,"position":{"epoch":"e","offset":%d}`, g.pushed)
	}
	if s.door {
		return []byte(`{"result":true}`)
	}
	if op == "" {
		op = "subscribe"
	}
	return reply(fmt.Sprintf(`{"code":200,"message":"%s %s success"%s}`, op, s.app, position))
}

// answer sends what a command is answered, faultily when it is its turn.
func (g *fakeGateway) answer(c *websocket.Conn, text []byte) {
	send := func(text []byte) { c.WriteMessage(websocket.TextMessage, text) }
	g.asked++
	switch {
	case g.asked != spoiled || g.fault < ignore:
		send(text)
	case g.fault == repeat:
		send(text)
		send(text)
	case g.fault == mistake:
		send(bytes.Replace(text, []byte("s"), []byte("z"), 1))
	}
}

func (g *fakeGateway) push(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	body.ReadFrom(r.Body)
	type push struct {
		App    string `json:"app"`
		Member int64  `json:"member_id"`
		Text   string `json:"text"`
	}
	var batch []push
	if body.Bytes()[0] != '[' {
		batch = make([]push, 1)
		json.Unmarshal(body.Bytes(), &batch[0])
	} else {
		json.Unmarshal(body.Bytes(), &batch)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.full > 0 {
		g.full--
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	for _, p := range batch {
		g.pushed++
		if g.pushed == spoiled {
			time.Sleep(g.stall)
		}
		i := 0
		for _, c := range g.subs {
			if c.app != p.App {
				continue
			}
			message := envelope(p.App, p.Member, p.Text)
			switch {
			case c.door:
				message = []byte(p.Text)
			case c.positions:
				message = fmt.Appendf(message[:len(message)-1], `,"offset":%d,"prev":%d}`, g.pushed, g.pushed-1)
			}
			g.deliver(c.Conn, i, p.App, message)
			i++
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

// deliver hands message over to the i'th subscriber, faultily when it is its turn.
func (g *fakeGateway) deliver(c *websocket.Conn, i int, app string, message []byte) {
	send := func(m []byte) { c.WriteMessage(websocket.TextMessage, m) }
	first := i == 0
	switch {
	case g.fault == everySwap && i > 0, g.fault == swap && first:
		if g.pushed == spoiled {
			g.held = message
			return
		}
		send(message)
		if g.pushed == spoiled+1 {
			send(g.held)
		}
	case g.pushed != spoiled || !first:
		send(message)
	case g.fault == none, g.fault == everySwap, g.fault >= ignore:
		send(message)
	case g.fault == lose:
	case g.fault == duplicate:
		send(message)
		send(message)
	case g.fault == alter:
		send(envelope(app, -1, "something else, that was never pushed"))
	case g.fault == readdress:
		send(envelope(app, 7, "for another member"))
	case g.fault == hangUp:
		c.Close()
	}
}

// fanout runs a short fan-out against g and returns the exit code and the report.
func fanout(t *testing.T, g *fakeGateway, args ...string) (code int, r bench.Report) {
	t.Helper()
	return run(t, g, "fanout", args...)
}

// run is fanout for any scenario.
func run(t *testing.T, g *fakeGateway, scenario string, args ...string) (code int, r bench.Report) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{scenario, "--url", g.url(), "--connections", "3", "--warmup", "10ms", "--duration", "1s", "--patience", "3s", "--json"}, args...)
	code = bench.Run(t.Context(), args, &stdout, &stderr)
	if stdout.Len() > 0 {
		if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
			t.Fatalf("the report is no JSON: %v\n%s", err, &stdout)
		}
	}
	t.Logf("%s%s", &stdout, &stderr)
	return code, r
}

func TestRunFindsPlantedFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fault
		want  bench.Verdict
	}{
		{"none", none, bench.Verdict{}},
		{"one lost", lose, bench.Verdict{Lost: 1}},
		{"one twice", duplicate, bench.Verdict{Duplicated: 1}},
		{"two swapped", swap, bench.Verdict{Misordered: 1}},
		{"another text", alter, bench.Verdict{Lost: 1, Misaddressed: 1}},
		{"another member's", readdress, bench.Verdict{Lost: 1, Misaddressed: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			code, r := fanout(t, newFakeGateway(t, test.fault), "--pushers", "1")
			if want := b2i(test.fault != none); code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
			if r.Verdict != test.want {
				t.Errorf("verdict %+v, want %+v", r.Verdict, test.want)
			}
		})
	}
}

// Two messages of different pushers have no order of their own, but all subscribers must
// see the same one.
func TestRunFindsSubscribersThatDisagree(t *testing.T) {
	t.Parallel()
	code, r := fanout(t, newFakeGateway(t, everySwap), "--pushers", "2", "--batch", "1", "--connections", "2")
	if code != 1 || r.Misordered == 0 || r.Lost+r.Duplicated+r.Misaddressed > 0 {
		t.Errorf("exit code %d, verdict %+v, want 1 and only misordered", code, r.Verdict)
	}
}

// A client whose subscription comes and goes checks what it gets by offset and prev.
func TestChurnFindsPlantedFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fault
		want  bench.Verdict
	}{
		{"none", none, bench.Verdict{}},
		{"one lost", lose, bench.Verdict{Lost: 1}},
		{"one twice", duplicate, bench.Verdict{Duplicated: 1}},
		{"two swapped", swap, bench.Verdict{Lost: 1, Misordered: 1}}, // the later one told of a gap
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			code, r := run(t, newFakeGateway(t, test.fault), "churn", "--rate", "200")
			if want := b2i(test.fault != none); code != want || r.Verdict != test.want {
				t.Errorf("exit code %d, verdict %+v, want %d, %+v", code, r.Verdict, want, test.want)
			}
		})
	}
}

// Clients of a door are held to the same as those of the native protocol.
func TestRunFindsPlantedFaultsBehindADoor(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fault
		want  bench.Verdict
	}{
		{"none", none, bench.Verdict{}},
		{"one lost", lose, bench.Verdict{Lost: 1}},
		{"one twice", duplicate, bench.Verdict{Duplicated: 1}},
		{"two swapped", swap, bench.Verdict{Misordered: 1}},
		{"another text", alter, bench.Verdict{Lost: 1, Misaddressed: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			code, r := fanout(t, newFakeGateway(t, test.fault), "--pushers", "1", "--door", "/barrage")
			if want := b2i(test.fault != none); code != want || r.Verdict != test.want {
				t.Errorf("exit code %d, verdict %+v, want %d, %+v", code, r.Verdict, want, test.want)
			}
		})
	}
}

// Every command has one answer, and pushes come beside them.
func TestCommandsFindsPlantedFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault fault
		want  bench.Verdict
	}{
		{"none", none, bench.Verdict{}},
		{"one not answered", ignore, bench.Verdict{Lost: 1}},
		{"one answered twice", repeat, bench.Verdict{Duplicated: 1}},
		{"a push lost", lose, bench.Verdict{Lost: 1}},
	} {
		for _, args := range [][]string{nil, {"--door", "/barrage"}} {
			t.Run(test.name+strings.Join(args, " "), func(t *testing.T) {
				t.Parallel()
				code, r := run(t, newFakeGateway(t, test.fault), "commands", append(args, "--rate", "200")...)
				if want := b2i(test.fault != none); code != want || r.Verdict != test.want {
					t.Errorf("exit code %d, verdict %+v, want %d, %+v", code, r.Verdict, want, test.want)
				}
				if n, _ := r.Value("commands"); n <= 0 {
					t.Errorf("%v commands a second", n)
				}
			})
		}
	}
	t.Run("one answered as another", func(t *testing.T) {
		t.Parallel()
		if code, _ := run(t, newFakeGateway(t, mistake), "commands"); code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
	})
}

// The fake does not care whom a message is for.
func TestPrivateFindsWhoGotAnothersMessage(t *testing.T) {
	t.Parallel()
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("1 a\n2 b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, r := run(t, newFakeGateway(t, none), "private", "--tokens", tokens, "--connections", "4", "--pushers", "2")
	if code != 1 || r.Misaddressed == 0 || r.Lost+r.Duplicated+r.Misordered > 0 {
		t.Errorf("exit code %d, verdict %+v, want 1 and only misaddressed", code, r.Verdict)
	}
}

// While the gateway stalls, messages fall due; that they could not even be sent is its
// latency too (no coordinated omission), and none of them is left out.
func TestLatencyCountsFromWhenAMessageWasDue(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t, none)
	g.stall = time.Second
	code, r := run(t, g, "latency", "--rate", "100", "--pushers", "1", "--warmup", "1ms", "--duration", "3s")
	p50, _ := r.Value("p50")
	p99, _ := r.Value("p99")
	if code != 0 || p99 < 500 || p50 > p99/2 {
		t.Errorf("exit code %d, p50 %v ms, p99 %v ms, want 0 and a p99 near the stall of 1 s, which hits a third of the messages", code, p50, p99)
	}
}

func TestRunFailsWhenAClientIsDropped(t *testing.T) {
	t.Parallel()
	code, _ := fanout(t, newFakeGateway(t, hangUp))
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}

// Over TLS, and on systems without epoll, every connection is read by its own goroutine.
func TestRunOverTLS(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		fault fault
		args  []string
		code  int
		want  bench.Verdict
	}{
		{"clean", none, []string{"--insecure"}, 0, bench.Verdict{}},
		{"one lost", lose, []string{"--insecure", "--pushers", "1"}, 1, bench.Verdict{Lost: 1}},
		{"a certificate of nobody", none, nil, 1, bench.Verdict{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := startFakeGateway(t, test.fault, (*httptest.Server).StartTLS)
			code, r := fanout(t, g, test.args...)
			if code != test.code || r.Verdict != test.want {
				t.Errorf("exit code %d, verdict %+v, want %d, %+v", code, r.Verdict, test.code, test.want)
			}
		})
	}
}

// A push that is refused with 429 is tried again, and nothing is lost by that.
func TestRunRetriesRefusedPushes(t *testing.T) {
	t.Parallel()
	g := newFakeGateway(t, none)
	g.full = 3
	code, r := fanout(t, g, "--pushers", "2")
	if refused, _ := r.Value("refused"); code != 0 || refused != 3 || !r.Clean() {
		t.Errorf("exit code %d, %v refused, verdict %+v, want 0, 3, clean", code, refused, r.Verdict)
	}
}

func TestRunRefusesBadArguments(t *testing.T) {
	for _, args := range []string{
		"", "nonsense", "fanout --connections 0", "fanout --nonsense", "fanout more", "fanout --batch 1001",
		"fanout --size 27", "fanout --rate 0", "fanout --member -1",
		"churn --door /barrage", "fanout --door barrage", "fanout --door /barrage --member 1", "fanout --door /barrage --app a:b",
	} {
		t.Run(strconv.Quote(args), func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := bench.Run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 2 || stderr.Len() == 0 {
				t.Errorf("exit code %d, said %q, want 2 and why", code, &stderr)
			}
		})
	}
}

func TestRunFailsWithoutGateway(t *testing.T) {
	g := newFakeGateway(t, none)
	g.Close()
	for _, args := range [][]string{
		{"fanout", "--url", g.url()},
		{"fanout", "--url", "gopher://127.0.0.1"},
		{"fanout", "--url", g.url(), "--tokens", "no-such-file"},
	} {
		var stdout, stderr bytes.Buffer
		if code := bench.Run(t.Context(), args, &stdout, &stderr); code != 1 || stderr.Len() == 0 {
			t.Errorf("%q: exit code %d, said %q, want 1 and why", args, code, &stderr)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
