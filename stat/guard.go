package stat

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"ws-gateway/stat/peer"
)

// guard lets a request through to the stat server's routes when its sender may see numbers.
type guard struct {
	key     [sha256.Size]byte // the hash of the key, so that comparing takes the same time for every length
	keyless bool
	metrics *Metrics
	origins *http.CrossOriginProtection
}

func newGuard(key string, m *Metrics) *guard {
	return &guard{
		key:     sha256.Sum256([]byte(key)),
		keyless: key == "",
		metrics: m,
		origins: http.NewCrossOriginProtection(),
	}
}

// protect returns next behind the guard.
func (g *guard) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, reason, message := g.check(r); status != 0 {
			g.metrics.Refused(reason)
			if status == http.StatusUnauthorized && !g.keyless {
				w.Header().Add("WWW-Authenticate", "Bearer")
				w.Header().Add("WWW-Authenticate", `Basic realm="stat"`) // for people: a browser asks
			}
			fail(w, status, message)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// check returns status 0 for a request that may pass, else how and why it is refused.
func (g *guard) check(r *http.Request) (status int, reason, message string) {
	switch {
	case !g.keyless:
		if !g.hasKey(r) {
			return http.StatusUnauthorized, ReasonStatKey, "wrong or missing key"
		}
	case !peer.Addr(r).IsLoopback(), peer.Forwarded(r.Header) != "":
		return http.StatusUnauthorized, ReasonStatKey, "only loopback may see this without a key"
	case !peer.IsThisMachine(r.Host):
		// A page whose name was rebound to 127.0.0.1 looks like the same origin to its browser.
		return http.StatusMisdirectedRequest, ReasonHost, "Host must be a loopback name or address"
	}
	if g.foreign(r) {
		return http.StatusForbidden, ReasonOrigin, "request of a foreign origin"
	}
	return 0, "", ""
}

// hasKey reports whether r carries the key as a bearer token, or as the password of basic
// authentication under any name.
func (g *guard) hasKey(r *http.Request) bool {
	key, ok := "", false
	if scheme, token, found := strings.Cut(r.Header.Get("Authorization"), " "); found && strings.EqualFold(scheme, "Bearer") {
		key, ok = strings.TrimSpace(token), true
	} else if _, password, basic := r.BasicAuth(); basic {
		key, ok = password, true
	}
	sum := sha256.Sum256([]byte(key))
	return subtle.ConstantTimeCompare(sum[:], g.key[:]) == 1 && ok
}

// foreign reports whether a browser sent r on behalf of a page of another origin. Opening a
// link is allowed; anything else could not be read by that page, but would cost us.
func (g *guard) foreign(r *http.Request) bool {
	if g.origins.Check(r) != nil {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate"
}
