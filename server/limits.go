package server

import (
	"context"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"golang.org/x/time/rate"

	"ws-gateway/session"
	"ws-gateway/stat"
	"ws-gateway/stat/peer"
)

// Limits bound the client connections. 0 is no limit, everywhere.
type Limits struct {
	Connections   int     // at once; a push is answered beyond it too
	PerAddress    int     // connections of one address at once; of IPv6, one /64
	Handshakes    int     // at once, of one endpoint; more wait, for up to 5 s
	HandshakeRate float64 // a second, in bursts of as many
	// Memory is the bytes that the process may have. At 85 % of it in use there are no new
	// connections.
	Memory int64
}

const (
	handshakeWait = 5 * time.Second
	memoryShare   = 0.85
	memoryAge     = 250 * time.Millisecond // of a reading
)

// reservedFiles is how many file descriptors are kept for pushes, files and other servers.
const reservedFiles = 64

// DefaultConnections returns how many connections the limit of open files allows for: 90 % of
// it, and no fewer than 64 left over. 0 means that there is no such limit.
func DefaultConnections() int {
	files := maxFiles()
	if files == 0 {
		return 0
	}
	return max(1, min(files/10*9, files-reservedFiles))
}

// A refusal is the answer to a handshake that is not accepted.
type refusal struct {
	status  int
	message string
	reason  string // for the metric; "": none
	retry   time.Duration
}

// limiter holds the state of Limits.
type limiter struct {
	Limits
	memory  memory
	rate    *rate.Limiter // nil: no limit
	seats   atomic.Int64
	mu      sync.Mutex
	crowded map[netip.Prefix]*crowd // guarded by mu
}

// A crowd is the connections of one address.
type crowd struct {
	network netip.Prefix
	n       int // guarded by limiter.mu
}

func newLimiter(l Limits) *limiter {
	x := &limiter{Limits: l, crowded: make(map[netip.Prefix]*crowd)}
	x.memory.limit = float64(l.Memory) * memoryShare
	if l.HandshakeRate > 0 {
		x.rate = rate.NewLimiter(rate.Limit(l.HandshakeRate), max(1, int(l.HandshakeRate)))
	}
	return x
}

// A seat is one connection's place under the limits, and stands in front of its handler to
// learn when the connection is gone.
type seat struct {
	session.Handler
	limiter *limiter // nil once given up
	crowd   *crowd   // nil without a limit per address
}

// Closed implements [session.Handler].
func (s *seat) Closed(code session.CloseCode) {
	s.giveUp()
	s.Handler.Closed(code)
}

// giveUp frees the seat for others.
func (s *seat) giveUp() {
	l := s.limiter
	if l == nil {
		return
	}
	s.limiter = nil
	l.seats.Add(-1)
	if s.crowd == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.crowd.n--; s.crowd.n == 0 {
		delete(l.crowded, s.crowd.network)
	}
}

// take returns a seat for a connection from remote. Whoever gets one calls giveUp.
func (l *limiter) take(remote netip.Addr) (*seat, *refusal) {
	if l.memory.short() {
		return nil, busy("not enough memory for more connections", stat.ReasonMemory)
	}
	if l.rate != nil && !l.rate.Allow() {
		return nil, busy("too many handshakes", stat.ReasonHandshakeRate)
	}
	if n := l.seats.Add(1); l.Connections > 0 && n > int64(l.Connections) {
		l.seats.Add(-1)
		return nil, busy("too many connections", stat.ReasonConnections)
	}
	s := &seat{limiter: l}
	if l.PerAddress <= 0 {
		return s, nil
	}
	network := peer.Network(remote)
	l.mu.Lock()
	c := l.crowded[network]
	if c == nil {
		c = &crowd{network: network}
		l.crowded[network] = c
	}
	if c.n < l.PerAddress {
		c.n++
		s.crowd = c
	}
	l.mu.Unlock()
	if s.crowd == nil {
		s.giveUp()
		return nil, &refusal{http.StatusTooManyRequests, "too many connections from this address", stat.ReasonAddressConnections, retryLater()}
	}
	return s, nil
}

// turns has an item for each handshake of one endpoint under way; nil is no limit. Each endpoint
// has its own, for a door's script may wait for others before its handshake is over, and no
// other client has to wait for that.
type turns chan struct{}

func newTurns(n int) turns {
	if n <= 0 {
		return nil
	}
	return make(turns, n)
}

// take waits for a turn, which done ends.
func (t turns) take(ctx context.Context) *refusal {
	if t == nil {
		return nil
	}
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeWait)
	defer cancel()
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return busy("too many handshakes", stat.ReasonHandshakes)
	}
}

func (t turns) done() {
	if t != nil {
		<-t
	}
}

func busy(message, reason string) *refusal {
	return &refusal{http.StatusServiceUnavailable, message, reason, retryLater()}
}

// retryLater spreads those who were refused together.
func retryLater() time.Duration { return time.Duration(1+rand.IntN(10)) * time.Second }

// memory tells when the process nears its limit. It is read when somebody asks, at most
// every memoryAge.
type memory struct {
	limit float64 // bytes; 0: none
	low   atomic.Bool

	mu      sync.Mutex
	read    time.Time         // guarded by mu
	samples [4]metrics.Sample // guarded by mu
}

// short reports whether less memory is left than a further connection should find.
func (m *memory) short() bool {
	if m.limit <= 0 {
		return false
	}
	if m.mu.TryLock() {
		if now := time.Now(); now.Sub(m.read) >= memoryAge {
			m.read = now
			m.low.Store(m.used() > m.limit)
		}
		m.mu.Unlock()
	}
	return m.low.Load()
}

// used returns the bytes that a garbage collection could not give back: what the runtime
// holds, without the garbage and the free memory in it. m.mu is held.
func (m *memory) used() float64 {
	for i, name := range [...]string{
		"/memory/classes/total:bytes",
		"/memory/classes/heap/released:bytes",
		"/memory/classes/heap/free:bytes",
		"/memory/classes/heap/objects:bytes",
	} {
		m.samples[i].Name = name
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(m.samples[:])
	metrics.Read(live)
	v := func(i int) float64 { return float64(m.samples[i].Value.Uint64()) }
	objects, kept := v(3), float64(live[0].Value.Uint64())
	return v(0) - v(1) - v(2) - max(0, objects-kept)
}

// LimitMemory has the garbage collector keep to 90 % of the memory that the cgroup or the
// machine has, unless GOMEMLIMIT says otherwise, and returns how many bytes there are; 0 if
// that can't be told.
func LimitMemory(l *slog.Logger) int64 {
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))
	if err != nil {
		l.Warn("memory limit unknown: set GOMEMLIMIT", "err", err)
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit / 9 * 10
}
