//go:build unix

package checker_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"ws-gateway/push/pushtest/checker"
)

var (
	duration = flag.Duration("duration", 60*time.Second, "of load and faults")
	seed     = flag.Uint64("seed", 0, "of all that is random; 0: a new one")
	lines    = flag.String("lines", "", "file that gets every event as a line of JSON")
)

// binary is the gateway's program.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "checker")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "ws-gateway")
	if out, err := exec.Command("go", "build", "-o", binary, "ws-gateway").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the gateway: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// TestDelivery runs random load against a gateway that is killed, restarted and stopped, and
// names FAULTS U05, U06, H02, D03, N02, N03, S01.
func TestDelivery(t *testing.T) {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d: run again with -seed=%[1]d", s)
	o := checker.Options{Binary: binary, Dir: t.TempDir(), Seed: s, Duration: *duration, Faults: []checker.FaultKind{checker.Kill, checker.Restart, checker.Restart, checker.Stop}}
	if *lines != "" {
		f, err := os.Create(*lines)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		o.Lines = f
	}
	// A run with too little in it proves nothing.
	minute := duration.Seconds() / 60
	o.Enough = enough(int(5000*minute), int(500*minute), int(100_000*minute), int(5*minute))
	h, err := checker.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	v := checker.Judge(h.Events())
	t.Log(v)
	if !v.OK() {
		t.Error("a promise was broken")
	}
	if !o.Enough(h) {
		t.Errorf("the run is vacuous")
	}
	if v.Unknown > (v.Accepted+v.Unknown)/20 {
		t.Errorf("%d of %d pushes have an unknown outcome", v.Unknown, v.Accepted+v.Unknown)
	}
}

// enough reports whether a history has so much in it.
func enough(accepted, resumed, receipts, faults int) func(*checker.History) bool {
	return func(h *checker.History) bool {
		return h.Count(checker.Accepted) >= accepted && h.Count(checker.Resumed) >= resumed &&
			h.Count(checker.Received) >= receipts && h.Count(checker.Fault) >= faults
	}
}

// TestWarmRestart restarts the gateway in order, and nothing else: every client that comes back
// has to find what it missed.
func TestWarmRestart(t *testing.T) {
	s := rand.Uint64()
	h, err := checker.Run(t.Context(), checker.Options{
		Binary: binary, Dir: t.TempDir(), Seed: s, Duration: 6 * time.Second, Faults: []checker.FaultKind{checker.Restart},
		Enough: enough(1, 1, 1, 1),
	})
	if err != nil {
		t.Fatalf("seed %d: %v", s, err)
	}
	v := checker.Judge(h.Events())
	t.Logf("seed %d: %v", s, v)
	if !v.OK() || v.Unresumed > 0 || v.Resumed == 0 || v.Faults == 0 {
		t.Error("a client could not resume over an orderly restart")
	}
}

// TestPlantedBugs puts a bug between the gateway and everybody else, and expects the checker
// to find it, three times each.
func TestPlantedBugs(t *testing.T) {
	for _, c := range []struct {
		name, wrong string
		faults      []checker.FaultKind
		bug         func() checker.Tamper
	}{
		{"drops one in a thousand", "lost", nil, func() checker.Tamper { return new(dropper) }},
		{"swaps two", "order", nil, func() checker.Tamper { return &swapper{held: map[string][]byte{}} }},
		{"skips deduplication", "duplicate", nil, func() checker.Tamper { return deaf{} }},
		{"keeps its epoch after a crash", "offset reuse", []checker.FaultKind{checker.Kill}, func() checker.Tamper { return forger{} }},
		{"leaves a hole behind a resume", "lost", nil, func() checker.Tamper { return &holer{open: map[string]bool{}} }},
		{"leaks a private message", "wrong member", nil, func() checker.Tamper { return new(leaker) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() {
					s := rand.Uint64()
					o := checker.Options{Binary: binary, Dir: t.TempDir(), Seed: s, Duration: 4 * time.Second, Patience: 5 * time.Second, Faults: c.faults, Tamper: c.bug()}
					o.Enough = enough(200, 50, 3000, 0) // every bug has shown by then
					if len(c.faults) > 0 {
						o.Enough = enough(200, 0, 3000, 1) // a forged epoch resumes nothing
					}
					h, err := checker.Run(t.Context(), o)
					if err != nil {
						t.Errorf("seed %d: %v", s, err)
						return
					}
					if v := checker.Judge(h.Events()); len(v.Wrong[c.wrong]) == 0 {
						t.Errorf("seed %d: not caught: %v", s, v)
					}
				})
			}
			wg.Wait()
		})
	}
}

// honest changes nothing; the planted bugs are made of it.
type honest struct{}

func (honest) Receive(_ string, frame []byte) [][]byte { return [][]byte{frame} }
func (honest) Send(*http.Request)                      {}
func (honest) Answer(body []byte) []byte               { return body }

func isMessage(frame []byte) bool { return !bytes.HasPrefix(frame, []byte(`{"app":"gateway"`)) }

type dropper struct {
	honest
	mu sync.Mutex
	n  int
}

func (d *dropper) Receive(_ string, frame []byte) [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if isMessage(frame) {
		if d.n++; d.n%1000 == 0 {
			return nil
		}
	}
	return [][]byte{frame}
}

type swapper struct {
	honest
	mu   sync.Mutex
	n    int
	held map[string][]byte
}

func (s *swapper) Receive(client string, frame []byte) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if held := s.held[client]; held != nil && isMessage(frame) {
		delete(s.held, client)
		return [][]byte{frame, held}
	}
	// Often: of one who was cut off in between the message comes twice, which hides its place.
	if s.n++; isMessage(frame) && s.n%100 == 0 {
		s.held[client] = frame
		return nil
	}
	return [][]byte{frame}
}

type deaf struct{ honest }

func (deaf) Send(r *http.Request) { r.Header.Del("Idempotency-Key") }

var epoch = regexp.MustCompile(`(\\?"epoch\\?":\\?")[^"\\]+`)

// forger calls every epoch by one name, towards the clients; to the gateway it says what the
// gateway would expect of its own.
type forger struct{ honest }

func (forger) Receive(_ string, frame []byte) [][]byte {
	return [][]byte{epoch.ReplaceAll(frame, []byte("${1}E"))}
}
func (forger) Answer(body []byte) []byte { return epoch.ReplaceAll(body, []byte("${1}E")) }

type holer struct {
	honest
	mu   sync.Mutex
	open map[string]bool // by client: it has just resumed
}

func (h *holer) Receive(client string, frame []byte) [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !isMessage(frame) {
		if bytes.Contains(frame, []byte(`\"recovered\":true`)) {
			h.open[client] = true
		}
		return [][]byte{frame}
	}
	if h.open[client] {
		delete(h.open, client)
		return nil
	}
	return [][]byte{frame}
}

type leaker struct {
	honest
	mu     sync.Mutex
	stolen []byte
	member float64
}

func (l *leaker) Receive(_ string, frame []byte) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var m map[string]any
	if err := json.Unmarshal(frame, &m); err != nil {
		return [][]byte{frame}
	}
	member, _ := m["member_id"].(float64)
	if member > 0 {
		l.stolen, l.member = frame, member
	} else if l.stolen != nil && isMessage(frame) {
		stolen := l.stolen
		l.stolen = nil
		return [][]byte{frame, stolen}
	}
	return [][]byte{frame}
}
