package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/stat"
	"ws-gateway/stat/peer"
)

const (
	jwksTimeout = 3 * time.Second
	jwksSize    = 1 << 20          // bytes of the document
	jwksPause   = 10 * time.Second // between two fetches
	jwksRefresh = 5 * time.Minute  // a withdrawn key is good for so much longer at most
	jwksKept    = 24 * time.Hour   // while the URL fails
)

// A jwks holds the keys that a URL publishes (RFC 7517, section 5). They are fetched again
// when they are older than jwksRefresh, or when a token asks for one that is not among them,
// but not more often than every jwksPause.
type jwks struct {
	url       string
	allowed   []jose.SignatureAlgorithm
	client    *http.Client
	logger    *slog.Logger
	complaint *complaint
	metrics   *stat.Metrics

	ctx     context.Context // ends with close
	stop    context.CancelFunc
	flights sync.WaitGroup

	mu      sync.Mutex
	keys    map[string][]key // by kid; guarded by mu
	fetched time.Time        // when keys came; guarded by mu
	tried   time.Time        // when the last fetch began; guarded by mu
	failed  error            // of the last fetch; guarded by mu
	flight  chan struct{}    // closed when the fetch under way ends; nil: none is; guarded by mu
}

func newJWKS(o JWTOptions, allowed []jose.SignatureAlgorithm) (*jwks, error) {
	u, err := parseURL("WSGW_JWT_JWKS_URL", o.JWKSURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" && !peer.IsThisMachine(u.Hostname()) {
		return nil, errors.New("WSGW_JWT_JWKS_URL: want https: whoever can change these keys can be anybody")
	}
	for _, a := range allowed {
		if slices.Contains(knownAlgorithms[:3], a) {
			return nil, fmt.Errorf("WSGW_JWT_ALGORITHMS: %s needs a secret, and a URL has none", a)
		}
	}
	logger := o.Logger.With("backend", "jwt", "host", u.Host)
	s := &jwks{
		url:       o.JWKSURL,
		allowed:   allowed,
		client:    newClient(jwksTimeout, 1, o.Dial),
		logger:    logger,
		complaint: newComplaint(logger, "token keys cannot be fetched"),
		metrics:   o.Metrics,
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetch() // now, so that the log tells of a wrong URL before the first client comes
	return s, nil
}

func (s *jwks) reload() error { return nil }

func (s *jwks) close() {
	s.stop()
	s.flights.Wait()
	s.client.CloseIdleConnections()
}

// find implements keySource. It waits for a fetch only where the answer may depend on it.
func (s *jwks) find(ctx context.Context, kid string) ([]key, error) {
	s.mu.Lock()
	found, age := s.lookup(kid), time.Since(s.tried)
	stale := age >= jwksRefresh || s.failed != nil
	if s.flight == nil && age >= jwksPause && (stale || found == nil) {
		s.fetch()
	}
	flight := s.flight
	if s.failed != nil && found != nil {
		flight = nil // do not make members wait on a URL that just failed
	}
	s.mu.Unlock()

	if flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for token keys: %w", ctx.Err())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found = s.lookup(kid); found == nil && s.failed != nil {
		return nil, s.failed // the missing key may be one that could not be fetched
	}
	return found, nil
}

// check waits for the fetch under way and says what is wrong with what came.
func (s *jwks) check(ctx context.Context) error {
	s.mu.Lock()
	flight := s.flight
	s.mu.Unlock()
	if flight != nil {
		select {
		case <-flight:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var t *trouble
	switch {
	case errors.As(s.failed, &t):
		return fmt.Errorf("WSGW_JWT_JWKS_URL: %s", t.text)
	case s.failed == nil && len(s.keys) == 0:
		return errors.New("WSGW_JWT_JWKS_URL: has no key of use: a public key for an algorithm that is allowed")
	}
	return s.failed
}

// lookup returns the keys of kid; a token without one is for the only key. s.mu is held.
func (s *jwks) lookup(kid string) []key {
	if time.Since(s.fetched) >= jwksKept {
		return nil
	}
	if kid == "" && len(s.keys) == 1 {
		for _, keys := range s.keys {
			return keys
		}
	}
	return s.keys[kid]
}

// fetch begins a fetch. s.mu is held, and s.flight is nil.
func (s *jwks) fetch() {
	flight := make(chan struct{})
	s.flight, s.tried = flight, time.Now()
	s.flights.Go(func() {
		keys, err := s.get()
		outcome := "fetched"
		var t *trouble
		if errors.As(err, &t) {
			outcome = t.cause
			s.complaint.log(t)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.metrics.AuthBackend("jwt", outcome, time.Since(s.tried))
		if s.failed = err; err == nil {
			s.keys, s.fetched = keys, time.Now()
		}
		s.flight = nil
		close(flight)
	})
}

// get returns what the URL publishes now. Its error is a *trouble, unless s is closing.
func (s *jwks) get() (map[string][]key, error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, &trouble{causeConnect, "the request cannot be made"}
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "ws-gateway")
	status, body, err := fetch(s.ctx, s.client, req, jwksTimeout, jwksSize)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, &trouble{causeStatus, fmt.Sprintf("answered %d", status)}
	}
	keys, ignored, err := parseJWKS(body, s.allowed)
	if err == nil && len(keys) == 0 {
		s.logger.Warn("no key of the JWKS is of use: nobody can log in", "ignored", ignored)
	}
	return keys, err
}

// parseJWKS reads a document {"keys":[...]}. Keys that are not for checking signatures, or not
// understood, are ignored (RFC 7517, section 5); so are secrets and private keys, which
// nobody can rely on once they are published.
func parseJWKS(body []byte, allowed []jose.SignatureAlgorithm) (keys map[string][]key, ignored int, err error) {
	var set struct {
		Keys *[]jsontext.Value `json:"keys"`
	}
	if json.Unmarshal(body, &set) != nil || set.Keys == nil {
		return nil, 0, &trouble{causeAnswer, `answer is not a JWKS, {"keys":[...]}`}
	}
	keys = make(map[string][]key)
	for _, v := range *set.Keys {
		kid, k, ok := parseJWK(v, allowed)
		if !ok {
			ignored++
			continue
		}
		keys[kid] = append(keys[kid], k)
	}
	return keys, ignored, nil
}

func parseJWK(v jsontext.Value, allowed []jose.SignatureAlgorithm) (kid string, k key, ok bool) {
	var ops struct {
		KeyOps []string `json:"key_ops"`
	}
	var jwk jose.JSONWebKey
	if json.Unmarshal(v, &ops) != nil || jwk.UnmarshalJSON(v) != nil {
		return "", key{}, false
	}
	switch jwk.Key.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return "", key{}, false
	}
	if jwk.Use != "" && jwk.Use != "sig" || ops.KeyOps != nil && !slices.Contains(ops.KeyOps, "verify") {
		return "", key{}, false
	}
	if alg := jose.SignatureAlgorithm(jwk.Algorithm); alg != "" { // the publisher has pinned it
		if allowed != nil && !slices.Contains(allowed, alg) {
			return "", key{}, false
		}
		allowed = []jose.SignatureAlgorithm{alg}
	}
	k, err := newKey(jwk.Key, allowed)
	return jwk.KeyID, k, err == nil
}
