package auth_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/auth/authtest"
)

// A publisher is a JWKS URL whose document changes.
type publisher struct {
	mu      sync.Mutex
	body    string // "": the server is in trouble; guarded by mu
	latency time.Duration
	fetches int // guarded by mu
}

func (p *publisher) publish(keys ...object) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body = jwks(keys...)
}

func (p *publisher) fail() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body = ""
}

func (p *publisher) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.fetches++
	body := p.body
	p.mu.Unlock()
	pause(r, p.latency)
	if body == "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, body)
}

// signed is a good token of key for member 42 for the next three days.
func signed(kid string, key any) session.Token {
	header := object{"alg": "ES256"}
	if kid != "" {
		header["kid"] = kid
	}
	return sign(key, header, claims(object{"exp": time.Now().Add(72 * time.Hour).Unix()}))
}

// rotation runs f in a bubble, with a JWT whose keys p publishes.
func rotation(t *testing.T, p *publisher, f func(t *testing.T, j *auth.JWT, log *authtest.Log)) {
	synctest.Test(t, func(t *testing.T) {
		var log authtest.Log
		j := newJWT(t, auth.JWTOptions{JWKSURL: "http://localhost/keys", Dial: servePipe(t, p.ServeHTTP), Logger: log.Logger()})
		f(t, j, &log)
	})
}

func expect(t *testing.T, when string, j *auth.JWT, token session.Token, want verdict) {
	t.Helper()
	if _, err := authenticate(t, j, 42, token); verdictOf(err) != want {
		t.Errorf("%s: %v, want %s", when, err, want)
	}
}

func TestJ03Rotation(t *testing.T) {
	p := &publisher{}
	p.publish(jwk("old", p256Key, nil))
	rotation(t, p, func(t *testing.T, j *auth.JWT, _ *authtest.Log) {
		old, next := signed("old", p256Key), signed("next", p256Key)
		expect(t, "at first", j, old, accepted)
		expect(t, "not published", j, next, refusedIt)

		time.Sleep(10 * time.Second)
		p.publish(jwk("old", p256Key, nil), jwk("next", p256Key, nil))
		expect(t, "published, 10 s after the last fetch", j, next, accepted)
		expect(t, "both", j, old, accepted)
		if n := p.count(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}

		p.publish(jwk("next", p256Key, nil))
		expect(t, "withdrawn, not fetched yet", j, old, accepted)
		time.Sleep(10 * time.Second)
		expect(t, "any unknown kid fetches", j, signed("x", p256Key), refusedIt)
		expect(t, "gone at the next fetch", j, old, refusedIt)
		expect(t, "the rest stays", j, next, accepted)

		p.publish(jwk("third", p256Key, nil))
		time.Sleep(5 * time.Minute)
		expect(t, "gone after 5 minutes without any unknown kid", j, next, refusedIt)
		expect(t, "the third", j, signed("third", p256Key), accepted)
		if n := p.count(); n != 4 {
			t.Errorf("%d fetches, want 4", n)
		}

		p.publish()
		time.Sleep(5 * time.Minute)
		expect(t, "everything withdrawn", j, signed("third", p256Key), refusedIt)
	})
}

func TestJ03UnknownKidFlood(t *testing.T) {
	p := &publisher{latency: 100 * time.Millisecond}
	p.publish(jwk("a", p256Key, nil))
	rotation(t, p, func(t *testing.T, j *auth.JWT, log *authtest.Log) {
		good := signed("a", p256Key)
		expect(t, "waits for the first fetch", j, good, accepted)
		time.Sleep(10 * time.Second)
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() { expect(t, "flood", j, signed(fmt.Sprint("kid", i), p256Key), refusedIt) })
		}
		wg.Wait()
		if n := p.count(); n != 2 {
			t.Errorf("%d fetches for 1 000 unknown kids at once, want 1", n-1)
		}
		for i := range 1000 {
			expect(t, "flood", j, signed(fmt.Sprint("kid", i), p256Key), refusedIt)
			time.Sleep(100 * time.Millisecond)
		}
		if n := p.count() - 2; n < 9 || n > 11 {
			t.Errorf("%d fetches in 100 s, want one every 10 s", n)
		}
		expect(t, "afterwards", j, good, accepted)
	})
}

func TestJ03OutageKeepsKeysForADay(t *testing.T) {
	p := &publisher{}
	p.publish(jwk("a", p256Key, nil))
	rotation(t, p, func(t *testing.T, j *auth.JWT, log *authtest.Log) {
		good := signed("a", p256Key)
		expect(t, "before", j, good, accepted)
		p.fail()
		for hours := range 24 {
			time.Sleep(59 * time.Minute)
			expect(t, fmt.Sprintf("%d h into the outage", hours), j, good, accepted)
			time.Sleep(time.Minute - 1)
		}
		time.Sleep(24 * time.Nanosecond)
		expect(t, "after 24 h", j, good, unavailable)
		if n := strings.Count(log.String(), "level=WARN"); n == 0 || n > 25 {
			t.Errorf("%d warnings:\n%s", n, log.String())
		}
		p.publish(jwk("a", p256Key, nil))
		time.Sleep(10 * time.Second)
		expect(t, "afterwards", j, good, accepted)
	})
}

// While the URL fails, a kid that is not known may well be good: nobody can tell.
func TestJ03UnknownKidInAnOutage(t *testing.T) {
	p := &publisher{}
	rotation(t, p, func(t *testing.T, j *auth.JWT, log *authtest.Log) {
		good := signed("a", p256Key)
		expect(t, "down from the start", j, good, unavailable)
		for range 99 {
			time.Sleep(100 * time.Millisecond)
			expect(t, "still down", j, good, unavailable)
		}
		if n := p.count(); n != 1 {
			t.Errorf("%d fetches in 9.9 s, want 1", n)
		}
		p.publish(jwk("a", p256Key, nil))
		time.Sleep(100 * time.Millisecond)
		expect(t, "back", j, good, accepted)
		p.fail()
		time.Sleep(5 * time.Minute)
		expect(t, "down again", j, good, accepted)
		expect(t, "new kid", j, signed("new", p256Key), unavailable)
		expect(t, "forged", j, signed("a", p384Key), refusedIt)
		before := p.count()
		for range 31 {
			time.Sleep(time.Second)
			expect(t, "known kid", j, good, accepted)
		}
		if n := p.count() - before; n != 3 {
			t.Errorf("%d fetches in 31 s of outage without an unknown kid, want 3", n)
		}
		if !strings.Contains(log.String(), "token keys cannot be fetched") || !strings.Contains(log.String(), "answered 503") {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// Members whose key is known do not wait behind a URL that hangs, but for the first of them.
func TestJ03SlowURL(t *testing.T) {
	p := &publisher{}
	p.publish(jwk("a", p256Key, nil))
	rotation(t, p, func(t *testing.T, j *auth.JWT, log *authtest.Log) {
		good := signed("a", p256Key)
		expect(t, "before", j, good, accepted)
		p.latency = time.Hour
		time.Sleep(5 * time.Minute)
		for i, want := range []time.Duration{3 * time.Second, 0, 0} {
			began := time.Now()
			expect(t, "slow", j, good, accepted)
			if took := time.Since(began); took != want {
				t.Errorf("login %d took %v, want %v", i+1, took, want)
			}
		}
		time.Sleep(10 * time.Second)
		began := time.Now()
		expect(t, "10 s later", j, good, accepted)
		if took := time.Since(began); took != 0 {
			t.Errorf("10 s later a login took %v", took)
		}
		time.Sleep(10 * time.Second)
		began = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := j.Authenticate(ctx, session.Credentials{Member: 42, Token: signed("new", p256Key)})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("a client that leaves: %v after %v", err, time.Since(began))
		}
	})
}

// Check waits no longer than a login would.
func TestJWKSCheckTakesItsTime(t *testing.T) {
	p := &publisher{latency: time.Hour}
	rotation(t, p, func(t *testing.T, j *auth.JWT, _ *authtest.Log) {
		began := time.Now()
		if err := j.Check(t.Context()); err == nil || err.Error() != "WSGW_JWT_JWKS_URL: no answer within 3s" || time.Since(began) != 3*time.Second {
			t.Errorf("Check of a URL that hangs: %v after %v", err, time.Since(began))
		}
	})
	rotation(t, p, func(t *testing.T, j *auth.JWT, _ *authtest.Log) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := j.Check(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Check that is not waited for: %v", err)
		}
	})
}

func TestJWKSTokensWithoutKid(t *testing.T) {
	p := &publisher{}
	p.publish(jwk("only", p256Key, nil))
	rotation(t, p, func(t *testing.T, j *auth.JWT, _ *authtest.Log) {
		expect(t, "one key", j, signed("", p256Key), accepted)
		p.publish(jwk("only", p256Key, nil), jwk("other", p384Key, nil))
		time.Sleep(5 * time.Minute)
		expect(t, "two keys", j, signed("", p256Key), refusedIt)
		expect(t, "two keys, named", j, signed("only", p256Key), accepted)
	})
}

// Faults of a real server at the first fetch: tokens are neither refused nor accepted.
func TestJ03Faults(t *testing.T) {
	key := jwks(jwk("a", p256Key, nil))
	write := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) }
	}
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		raw     func(net.Conn)
		want    verdict
		log     string
		check   string // what Check says; "": as log
	}{
		{name: "good", handler: write(key), want: accepted},
		{name: "unusable keys beside it", want: accepted, handler: write(jwks(
			object{"kty": "unknown"}, object{}, object{"kty": "RSA", "n": "AA", "e": "AQAB"}, object{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
			object{"kty": "RSA", "kid": 1}, object{"kty": "OKP", "crv": "X25519", "x": "AAAA"}, jwk("a", p256Key, nil)))},
		{name: "1 MiB", handler: write(key + strings.Repeat(" ", 1<<20-len(key))), want: accepted},
		{name: "a byte more", handler: write(key + strings.Repeat(" ", 1<<20-len(key)+1)), want: unavailable, log: "larger than 1048576"},
		{name: "endless", handler: func(w http.ResponseWriter, r *http.Request) { endless(w) }, want: unavailable, log: "larger than 1048576"},
		{name: "gzip bomb", want: unavailable, log: "larger than 1048576", handler: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb())
		}},
		{name: "500", handler: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); io.WriteString(w, key) }, want: unavailable, log: "answered 500"},
		{name: "404", handler: http.NotFound, want: unavailable, log: "answered 404"},
		{name: "redirect", handler: func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/keys" {
				io.WriteString(w, key)
				return
			}
			http.Redirect(w, r, "/keys", http.StatusFound)
		}, want: unavailable, log: "answered 302"},
		{name: "closes", raw: func(net.Conn) {}, want: unavailable, log: "cause=broken", check: "it closed the connection"},
		{name: "empty", handler: write(""), want: unavailable, log: "not a JWKS"},
		{name: "HTML", handler: write("<html>"), want: unavailable, log: "not a JWKS"},
		{name: "a single key", handler: write(key[len(`{"keys":[`) : len(key)-2]), want: unavailable, log: "not a JWKS"},
		{name: "keys null", handler: write(`{"keys":null}`), want: unavailable, log: "not a JWKS"},
		{name: "keys twice", handler: write(`{"keys":[],"keys":[]}`), want: unavailable, log: "not a JWKS"},
		{name: "no keys", handler: write(`{"keys":[]}`), want: refusedIt, log: "nobody can log in", check: "has no key of use"},
		{name: "a private key", handler: write(jwks(jwk("a", p256Key, object{"d": "AAAA"}))), want: refusedIt, log: "nobody can log in", check: "has no key of use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log authtest.Log
			var requests atomic.Int32
			url := ""
			if c.raw != nil {
				url = serveRaw(t, func(conn net.Conn) { requests.Add(1); c.raw(conn) })
			} else {
				url = serve(t, func(w http.ResponseWriter, r *http.Request) { requests.Add(1); c.handler(w, r) })
			}
			j := newJWT(t, auth.JWTOptions{JWKSURL: url, Logger: log.Logger()})
			if err := j.Check(t.Context()); (err == nil) != (c.want == accepted) ||
				err != nil && (!strings.HasPrefix(err.Error(), "WSGW_JWT_JWKS_URL: ") || !strings.Contains(err.Error(), cmp.Or(c.check, c.log))) {
				t.Errorf("Check: %v", err)
			}
			_, err := authenticate(t, j, 42, signed("a", p256Key))
			if got := verdictOf(err); got != c.want {
				t.Errorf("%s (%v), want %s", got, err, c.want)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
			checkComplaint(t, &log, err, c.log)
		})
	}
}
