package push_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/push"
)

// A gate is POST /push behind keys, without a network between.
type gate struct {
	t       *testing.T
	keys    *push.Keys
	handler http.Handler
}

func newGate(t *testing.T, opts push.KeysOptions) *gate {
	t.Helper()
	keys, err := push.NewKeys(opts)
	if err != nil {
		t.Fatal(err)
	}
	hub := push.NewHub(push.Options{})
	t.Cleanup(hub.Close)
	return &gate{t, keys, push.Handler(push.HandlerOptions{Hub: hub, Keys: keys})}
}

// post pushes n messages from a peer; header is name and value in turn.
func (g *gate) post(peer string, n int, header ...string) *httptest.ResponseRecorder {
	g.t.Helper()
	const message = `{"app":"a","text":"x"}`
	body := message
	if n > 1 {
		body = "[" + strings.Repeat(message+",", n-1) + message + "]"
	}
	req := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:5000/push", strings.NewReader(body))
	req.RemoteAddr = peer
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		} else {
			req.Header.Add(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	g.handler.ServeHTTP(w, req)
	return w
}

func (g *gate) want(peer string, status int, message string, header ...string) {
	g.t.Helper()
	w := g.post(peer, 1, header...)
	if w.Code != status {
		g.t.Errorf("push from %s with %q answered %d %s, want %d", peer, header, w.Code, w.Body, status)
		return
	}
	if status == http.StatusAccepted {
		return
	}
	if want := refused(status, message); w.Body.String() != want {
		g.t.Errorf("push from %s with %q answered %s, want %s", peer, header, w.Body, want)
	}
	if status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") != "Bearer" {
		g.t.Errorf("401 without WWW-Authenticate (RFC 9110, section 15.5.2)")
	}
}

const (
	local  = "127.0.0.1:40000"
	remote = "192.0.2.1:40000"
)

func TestPushWithoutKeys(t *testing.T) {
	g := newGate(t, push.KeysOptions{})
	for _, c := range []struct {
		name, peer string
		header     []string
		status     int
		message    string
	}{
		{name: "this machine", peer: local, status: 202},
		{name: "this machine, IPv6", peer: "[::1]:1", status: 202},
		{name: "C05 this machine, IPv4 in IPv6", peer: "[::ffff:127.0.0.1]:1", status: 202},
		{name: "Host localhost", peer: local, header: []string{"Host", "LocalHost:5000"}, status: 202},
		{name: "Host ::1", peer: local, header: []string{"Host", "[::1]"}, status: 202},
		{name: "U03 rebound name", peer: local, header: []string{"Host", "evil.example:5000"}, status: 421, message: "without a push key, push to localhost or a loopback address"},
		{name: "U03 name that starts like it", peer: local, header: []string{"Host", "localhost.evil.example"}, status: 421, message: "without a push key, push to localhost or a loopback address"},
		{name: "U03 other address", peer: local, header: []string{"Host", "192.0.2.7:5000"}, status: 421, message: "without a push key, push to localhost or a loopback address"},
		{name: "Forwarded", peer: local, header: []string{"Forwarded", "for=127.0.0.1"}, status: 401, message: "push key missing: a request with Forwarded came through a proxy"},
		{name: "X-Forwarded-For", peer: local, header: []string{"X-Forwarded-For", "127.0.0.1"}, status: 401, message: "push key missing: a request with X-Forwarded-For came through a proxy"},
		{name: "X-Forwarded-Host", peer: local, header: []string{"x-forwarded-host", "localhost"}, status: 401, message: "push key missing: a request with X-Forwarded-Host came through a proxy"},
		{name: "X-Real-IP", peer: local, header: []string{"X-Real-IP", "127.0.0.1"}, status: 401, message: "push key missing: a request with X-Real-Ip came through a proxy"},
		{name: "Via", peer: local, header: []string{"Via", "1.1 varnish"}, status: 401, message: "push key missing: a request with Via came through a proxy"},
		{name: "other machine", peer: remote, status: 401, message: "push key missing: only this machine may push without"},
		{name: "no address", peer: "@", status: 401, message: "push key missing: only this machine may push without"},
		{name: "wrong key, though none is needed", peer: local, header: []string{"X-Push-Key", "x"}, status: 401, message: "wrong push key"},
		{name: "U03 page of another origin", peer: local, header: []string{"Origin", "http://localhost:3000"}, status: 403, message: "without a push key, a page of another origin may not push"},
		{name: "U03 page of no origin", peer: local, header: []string{"Origin", "null"}, status: 403, message: "without a push key, a page of another origin may not push"},
		{name: "same origin", peer: local, header: []string{"Origin", "http://127.0.0.1:5000"}, status: 202},
		{name: "another origin with a key", peer: local, header: []string{"Origin", "null", "X-Push-Key", g.keys.Generated()}, status: 202},
		{name: "generated key", peer: remote, header: []string{"X-Push-Key", g.keys.Generated(), "Host", "push.example", "Via", "x"}, status: 202},
	} {
		t.Run(c.name, func(t *testing.T) {
			(&gate{t, g.keys, g.handler}).want(c.peer, c.status, c.message, c.header...)
		})
	}
	if key := g.keys.Generated(); len(key) < 43 {
		t.Errorf("generated key %q is shorter than 32 bytes in base64", key)
	}
	if other := newGate(t, push.KeysOptions{}); other.keys.Generated() == g.keys.Generated() {
		t.Error("two gateways made the same key")
	}
}

func TestPushKeys(t *testing.T) {
	g := newGate(t, push.KeysOptions{Keys: []string{"new-key", "old-key"}})
	if g.keys.Generated() != "" {
		t.Error("a key was made although some are configured")
	}
	g.want(remote, 202, "", "Authorization", "Bearer new-key")
	g.want(remote, 202, "", "Authorization", "bearer  old-key")
	g.want(remote, 202, "", "X-Push-Key", "old-key", "Host", "push.example", "X-Forwarded-For", "192.0.2.9")
	g.want(local, 401, "push key missing")
	g.want("192.0.2.2:1", 401, "wrong push key", "X-Push-Key", "new-ke")
	g.want("192.0.2.2:1", 401, "wrong push key", "X-Push-Key", "new-key ")
	g.want("192.0.2.2:1", 401, "wrong push key", "Authorization", "Bearer new-key,old-key")
	g.want("192.0.2.2:1", 401, "Authorization must be Bearer and a push key", "Authorization", "Basic bmV3LWtleQ==")
	g.want("192.0.2.2:1", 401, "Authorization must be Bearer and a push key", "Authorization", "Bearer ")
	g.want("192.0.2.2:1", 401, "more than one push key", "X-Push-Key", "new-key", "Authorization", "Bearer wrong")
}

// U04: guessing is slowed down for the address that guesses, and for no other.
func TestPushKeyGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, push.KeysOptions{Keys: []string{"right"}})
		guess := func(peer string, n int) {
			for range n {
				g.want(peer, 401, "wrong push key", "X-Push-Key", "wrong")
			}
		}
		const tooMany = "too many wrong keys from this address"
		guess("[2001:db8:1:2::1]:1", 5)
		guess("[2001:db8:1:2:ffff::2]:1", 5) // C05: the same /64
		g.want("[2001:db8:1:2::3]:1", 429, tooMany, "X-Push-Key", "wrong")
		g.want("[2001:db8:1:2::3]:1", 429, tooMany, "X-Push-Key", "right") // or else guessing would go on
		g.want("[2001:db8:1:3::1]:1", 202, "", "X-Push-Key", "right")
		g.want(remote, 202, "", "X-Push-Key", "right")
		if w := g.post("[2001:db8:1:2::1]:1", 1); w.Header().Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q, want 1", w.Header().Get("Retry-After"))
		}

		time.Sleep(time.Second) // in the bubble
		g.want("[2001:db8:1:2::3]:1", 202, "", "X-Push-Key", "right")
		guess("[2001:db8:1:2::1]:1", 10)
		g.want("[2001:db8:1:2::1]:1", 429, tooMany, "X-Push-Key", "wrong")

		// Many addresses cannot fill the memory, nor make a guesser's place permanent.
		for i := range 5000 {
			guess(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()+":1", 1)
		}
		g.want(remote, 202, "", "X-Push-Key", "right")
	})
}

// The address that guesses is the one behind the proxy.
func TestPushKeyGuessingBehindProxy(t *testing.T) {
	g := newGate(t, push.KeysOptions{Keys: []string{"right"}, Remote: func(r *http.Request) netip.Addr {
		return netip.MustParseAddr(r.Header.Get("X-Forwarded-For"))
	}})
	for range 20 {
		g.post(local, 1, "X-Push-Key", "wrong", "X-Forwarded-For", "192.0.2.66")
	}
	g.want(local, 429, "too many wrong keys from this address", "X-Push-Key", "right", "X-Forwarded-For", "192.0.2.66")
	g.want(local, 202, "", "X-Push-Key", "right", "X-Forwarded-For", "192.0.2.67")
}

func TestPushRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, push.KeysOptions{Keys: []string{"a", "b"}, Rate: 2000})
		post := func(key string, n, status int, retry string) {
			t.Helper()
			w := g.post(remote, n, "X-Push-Key", key)
			if w.Code != status || w.Header().Get("Retry-After") != retry {
				t.Errorf("%d messages with key %s answered %d, Retry-After %q; want %d, %q", n, key, w.Code, w.Header().Get("Retry-After"), status, retry)
			}
		}
		post("a", 1000, 202, "")
		post("a", 999, 202, "")
		post("a", 2, 429, "1")
		post("a", 1, 202, "") // what was refused cost nothing
		post("b", 1000, 202, "")
		time.Sleep(500 * time.Millisecond)
		post("a", 1000, 202, "")
		post("a", 1, 429, "1")
	})
}

func TestPushRateWithoutKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, push.KeysOptions{Rate: 10})
		if w := g.post(local, 1000); w.Code != 202 { // a full batch always fits
			t.Errorf("a batch answered %d %s", w.Code, w.Body)
		}
		w := g.post(local, 1000)
		if want := refused(429, "too many messages for this push key"); w.Code != 429 || w.Body.String() != want || w.Header().Get("Retry-After") != "100" {
			t.Errorf("a second batch answered %d %s, Retry-After %s; want 429 %s, 100", w.Code, w.Body, w.Header().Get("Retry-After"), want)
		}
	})
}

func TestPushKeysFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# rotation\r\none\n\n  two  \n")
	g := newGate(t, push.KeysOptions{File: file, Keys: []string{"set"}, Rate: 1})
	for _, key := range []string{"one", "two", "set"} {
		g.want(remote, 202, "", "X-Push-Key", key)
	}
	g.want(remote, 401, "wrong push key", "X-Push-Key", "# rotation")
	if w := g.post(remote, 1000, "X-Push-Key", "one"); w.Code != 429 {
		t.Fatalf("key over its rate answered %d", w.Code)
	}

	write("one\nthree\n")
	if err := g.keys.Reload(); err != nil {
		t.Fatal(err)
	}
	g.want(remote, 202, "", "X-Push-Key", "three")
	g.want(remote, 202, "", "X-Push-Key", "set")
	g.want(remote, 401, "wrong push key", "X-Push-Key", "two")
	if w := g.post(remote, 1000, "X-Push-Key", "one"); w.Code != 429 {
		t.Errorf("a reload gave a key a new budget: answered %d", w.Code)
	}

	// C02: a bad file changes nothing, and no error shows a key.
	for content, want := range map[string]string{
		"":                           " has no key",
		"# all gone\n":               " has no key",
		"four\nsecret five\n":        ":2: must be visible ASCII without spaces",
		"four\nsécret\n":             ":2: must be visible ASCII without spaces",
		"four\n\x00\n":               ":2: must be visible ASCII without spaces",
		strings.Repeat("x", 100_000): ": bufio.Scanner: token too long",
	} {
		write(content)
		err := g.keys.Reload()
		if err == nil || err.Error() != "WSGW_PUSH_KEYS_FILE: "+file+want {
			t.Errorf("reload of %.20q: %v, want ...%s", content, err, want)
		}
		g.want(remote, 202, "", "X-Push-Key", "three")
		g.want(remote, 401, "wrong push key", "X-Push-Key", "four")
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := g.keys.Reload(); err == nil {
		t.Error("reload of a missing file succeeded")
	}
	g.want(remote, 401, "wrong push key", "X-Push-Key", "two")
}

func TestNewKeysRefuses(t *testing.T) {
	for _, opts := range []push.KeysOptions{
		{Keys: []string{"good", "not good"}},
		{Keys: []string{""}},
		{File: filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := push.NewKeys(opts); err == nil || strings.Contains(err.Error(), "not good") {
			t.Errorf("NewKeys(%+v): error %v", opts, err)
		}
	}
}
