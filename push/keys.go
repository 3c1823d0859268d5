package push

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"ws-gateway/stat"
	"ws-gateway/stat/peer"
)

// KeysOptions configure [NewKeys].
type KeysOptions struct {
	Keys []string // each valid; several for rotation
	File string   // more keys, one a line; blank lines and lines starting with # are skipped
	// Rate is how many messages a second each key may push, in bursts of as many, or of one
	// full batch (1000) where that is more. 0: no limit.
	Rate float64
	// Remote returns the address of the client behind trusted proxies, against which wrong
	// keys are counted. nil: the TCP peer.
	Remote  func(*http.Request) netip.Addr
	Logger  *slog.Logger  // nil: discard
	Metrics *stat.Metrics // nil: none
}

// Keys decide who may push. Without a configured key these may: a peer on loopback that is
// no proxy, and whoever has the key that NewKeys made. Its methods may be called
// concurrently.
type Keys struct {
	opts      KeysOptions
	generated string
	set       atomic.Pointer[keySet]
	failures  failures
	open      *budget // of pushes without a key
}

// A keySet is what a reload replaces.
type keySet struct {
	keys       []key
	configured bool // or else keys holds the generated one
}

type key struct {
	hash   [sha256.Size]byte
	budget *budget
}

// A budget limits the messages of one key.
type budget struct {
	by        string        // whose idempotency keys come with it; "" where no key is configured
	limiter   *rate.Limiter // nil: no limit
	withdrawn atomic.Bool   // the key is no longer valid: said to links, which have it since before
}

// NewKeys returns the keys of opts, or one that it makes when there are none.
func NewKeys(opts KeysOptions) (*Keys, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	k := &Keys{opts: opts, failures: failures{by: make(map[netip.Prefix]*rate.Limiter)}}
	k.open = k.budget("")
	hashes, err := k.load()
	if err != nil {
		return nil, err
	}
	configured := len(hashes) > 0
	if !configured {
		secret := make([]byte, 32)
		rand.Read(secret) // never fails
		k.generated = base64.RawURLEncoding.EncodeToString(secret)
		hashes = append(hashes, sha256.Sum256([]byte(k.generated)))
	}
	set := &keySet{configured: configured}
	for _, h := range hashes {
		by := ""
		if configured {
			by = string(h[:])
		}
		set.keys = append(set.keys, key{h, k.budget(by)})
	}
	k.set.Store(set)
	return k, nil
}

// Generated returns the key that was made because none is configured, or "".
func (k *Keys) Generated() string { return k.generated }

// Reload reads the file of keys again. Keys that stay keep what is left of their budget. On
// error everything stays as it was.
func (k *Keys) Reload() error {
	if k.opts.File == "" {
		return nil
	}
	hashes, err := k.load()
	k.opts.Metrics.Reload("keys", err == nil)
	if err != nil {
		return err
	}
	old := k.set.Load()
	set := &keySet{configured: true}
	for _, h := range hashes {
		b := old.find(h)
		if b == nil {
			b = k.budget(string(h[:]))
		}
		set.keys = append(set.keys, key{h, b})
	}
	k.set.Store(set)
	for _, o := range old.keys {
		o.budget.withdrawn.Store(set.find(o.hash) == nil)
	}
	return nil
}

// load returns the hashes of the configured keys.
func (k *Keys) load() ([][sha256.Size]byte, error) {
	var hashes [][sha256.Size]byte
	for i, s := range k.opts.Keys {
		if !sendable(s) {
			return nil, fmt.Errorf("WSGW_PUSH_KEYS: key %d: must be visible ASCII without spaces", i+1)
		}
		hashes = append(hashes, sha256.Sum256([]byte(s)))
	}
	if k.opts.File == "" {
		return hashes, nil
	}
	data, err := os.ReadFile(k.opts.File)
	if err != nil {
		return nil, fmt.Errorf("WSGW_PUSH_KEYS_FILE: %w", err)
	}
	found := false
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		s := strings.TrimSpace(lines.Text())
		if s == "" || s[0] == '#' {
			continue
		}
		if !sendable(s) {
			return nil, fmt.Errorf("WSGW_PUSH_KEYS_FILE: %s:%d: must be visible ASCII without spaces", k.opts.File, n)
		}
		found = true
		hashes = append(hashes, sha256.Sum256([]byte(s)))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("WSGW_PUSH_KEYS_FILE: %s: %w", k.opts.File, err)
	}
	if !found { // must not mean that none is needed
		return nil, fmt.Errorf("WSGW_PUSH_KEYS_FILE: %s has no key", k.opts.File)
	}
	return hashes, nil
}

// sendable reports whether s can be a header's value as it stands.
func sendable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

func (k *Keys) budget(by string) *budget {
	b := &budget{by: by}
	if k.opts.Rate > 0 {
		b.limiter = rate.NewLimiter(rate.Limit(k.opts.Rate), max(maxBatch, int(math.Ceil(k.opts.Rate))))
	}
	return b
}

// take spends n messages of b, or says how long to wait until it can.
func (b *budget) take(n int) (wait time.Duration) {
	if b.limiter == nil || n == 0 {
		return 0
	}
	now := time.Now()
	r := b.limiter.ReserveN(now, n)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// find returns the budget of the key with this hash, or nil. It takes the same time whichever
// key it is.
func (s *keySet) find(hash [sha256.Size]byte) *budget {
	var found *budget
	for i := range s.keys {
		if subtle.ConstantTimeCompare(s.keys[i].hash[:], hash[:]) == 1 {
			found = s.keys[i].budget
		}
	}
	return found
}

// Authorize says whether r may push, by the rules of POST /push: for other endpoints that
// push. take spends n messages of the key's budget, or says how long to wait until it can; valid
// becomes false when the key is withdrawn. The error is a *RefusedError.
func (k *Keys) Authorize(r *http.Request) (take func(n int) (wait time.Duration), valid func() bool, err error) {
	b, err := k.authorize(r)
	if err != nil {
		return nil, nil, err
	}
	return b.take, b.valid, nil
}

// valid reports whether b's key has not been withdrawn since it was authorized.
func (b *budget) valid() bool { return !b.withdrawn.Load() }

// authorize says whether r may push, and from which budget. The error is a *RefusedError.
func (k *Keys) authorize(r *http.Request) (*budget, error) {
	set := k.set.Load()
	secret, err := presented(r)
	if err != nil {
		k.opts.Metrics.Refused(stat.ReasonPushKey)
		return nil, err
	}
	if secret == "" && !set.configured {
		return k.authorizeLocal(r)
	}
	from := k.remote(r)
	if wait := k.failures.wait(from); wait > 0 {
		k.opts.Metrics.Refused(stat.ReasonPushKeyFailures)
		return nil, &RefusedError{Status: http.StatusTooManyRequests, Message: "too many wrong keys from this address", RetryAfter: wait}
	}
	if b := set.find(sha256.Sum256([]byte(secret))); b != nil {
		return b, nil
	}
	k.failures.add(from)
	k.opts.Metrics.Refused(stat.ReasonPushKey)
	message := "wrong push key"
	if secret == "" {
		message = "push key missing"
	}
	return nil, unauthorized(message)
}

// authorizeLocal decides about r, which has no key, where none is configured.
func (k *Keys) authorizeLocal(r *http.Request) (*budget, error) {
	message := ""
	if !peer.Addr(r).IsLoopback() {
		message = "push key missing: only this machine may push without"
	} else if name := peer.Forwarded(r.Header); name != "" {
		message = "push key missing: a request with " + name + " came through a proxy"
	}
	if message != "" {
		k.opts.Metrics.Refused(stat.ReasonPushKey)
		return nil, unauthorized(message)
	}
	if !peer.IsThisMachine(r.Host) {
		// A web page whose name was rebound to loopback sends its own name.
		k.opts.Metrics.Refused(stat.ReasonPushHost)
		return nil, &RefusedError{Status: http.StatusMisdirectedRequest, Message: "without a push key, push to localhost or a loopback address"}
	}
	if !sameOrigin(r) {
		// A browser asks nobody before it opens a WebSocket to a foreign host.
		k.opts.Metrics.Refused(stat.ReasonOrigin)
		return nil, &RefusedError{Status: http.StatusForbidden, Message: "without a push key, a page of another origin may not push"}
	}
	return k.open, nil
}

// sameOrigin reports whether r comes from no web page, or from one of the very host that it
// is addressed to.
func sameOrigin(r *http.Request) bool {
	origins := r.Header["Origin"]
	if len(origins) == 0 {
		return true
	}
	from, err := url.Parse(origins[0])
	return err == nil && len(origins) == 1 && strings.EqualFold(from.Host, r.Host)
}

func (k *Keys) remote(r *http.Request) netip.Addr {
	if k.opts.Remote != nil {
		return k.opts.Remote(r)
	}
	return peer.Addr(r)
}

func unauthorized(message string) error {
	return &RefusedError{Status: http.StatusUnauthorized, Message: message}
}

// presented returns the key that r carries, or "".
func presented(r *http.Request) (string, error) {
	auth, own := r.Header["Authorization"], r.Header["X-Push-Key"]
	switch {
	case len(auth)+len(own) == 0:
		return "", nil
	case len(auth)+len(own) > 1:
		return "", unauthorized("more than one push key")
	case len(own) == 1:
		return own[0], nil
	}
	const scheme = "Bearer "
	if s := auth[0]; len(s) > len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
		return strings.TrimLeft(s[len(scheme):], " "), nil
	}
	return "", unauthorized("Authorization must be Bearer and a push key")
}

// failures counts wrong keys by address: 10 a second are answered, the rest is not even
// looked at.
type failures struct {
	some atomic.Bool // by is not empty: lets everybody else pass without the lock

	mu sync.Mutex
	by map[netip.Prefix]*rate.Limiter // guarded by mu; of addresses that failed lately
}

// Bounds of guessing. They have no setting: nobody has a use for more wrong keys.
const (
	failureRate     = 10      // per second and address
	failureCapacity = 4 << 10 // addresses; beyond it, all are forgotten
)

// wait returns how long addr has to wait until its next key is looked at.
func (f *failures) wait(addr netip.Addr) time.Duration {
	if !f.some.Load() {
		return 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	network := peer.Network(addr)
	l := f.by[network]
	if l == nil {
		return 0
	}
	tokens := l.TokensAt(now)
	if tokens >= failureRate { // forgiven
		delete(f.by, network)
		f.some.Store(len(f.by) > 0)
	}
	if tokens >= 1 {
		return 0
	}
	return time.Duration((1 - tokens) / failureRate * float64(time.Second))
}

// add counts a wrong key from addr.
func (f *failures) add(addr netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	network := peer.Network(addr)
	l := f.by[network]
	if l == nil {
		if len(f.by) >= failureCapacity {
			clear(f.by)
		}
		l = rate.NewLimiter(failureRate, failureRate)
		f.by[network] = l
		f.some.Store(true)
	}
	l.Allow()
}
