// Package authtest holds the rules that every [session.Authenticator] keeps, as one suite: a
// backend's test is a call of [Run].
package authtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/session"
)

// A Backend is an authenticator and what it knows.
type Backend struct {
	Auth session.Authenticator
	// Member and Token are good, from a loopback peer. Member 0: nobody's are.
	Member int64
	Token  session.Token
	Roles  []string // of Member
}

// Canary is part of every wrong token that the suite tries; it must turn up nowhere.
const Canary = "canary-7c1f0b52"

// Local is the address that the suite's clients come from.
var Local = netip.MustParseAddr("127.0.0.1")

// A Log keeps what a logger writes, so that a test can look for what must not be there.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// String returns everything written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Logger returns a logger that writes everything, debug level included, to l.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Run checks the backend that start makes. start has to give it the logger.
func Run(t *testing.T, start func(*testing.T, *slog.Logger) Backend) {
	var log Log
	b := start(t, log.Logger())
	if b.Member != 0 {
		t.Run("good token", func(t *testing.T) { good(t, b) })
		t.Run("many at once", func(t *testing.T) { concurrent(t, b) })
		t.Run("context ended", func(t *testing.T) { ended(t, b) })
	}
	t.Run("wrong tokens", func(t *testing.T) { wrong(t, b) })
	t.Run("A09 no token in the log", func(t *testing.T) {
		for _, secret := range []string{Canary, string(b.Token)} {
			if secret != "" && strings.Contains(log.String(), secret) {
				t.Errorf("the log has %q in it:\n%s", secret, log.String())
			}
		}
	})
}

func (b Backend) authenticate(ctx context.Context, member int64, token session.Token) (session.Identity, error) {
	return b.Auth.Authenticate(ctx, session.Credentials{Member: member, Token: token, Remote: Local})
}

func (b Backend) checkGood(ctx context.Context) error {
	id, err := b.authenticate(ctx, b.Member, b.Token)
	switch {
	case err != nil:
		return fmt.Errorf("good token refused: %w", err)
	case !slices.Equal(id.Roles, b.Roles):
		return fmt.Errorf("roles %q, want %q", id.Roles, b.Roles)
	case !id.Expires.IsZero() && !id.Expires.After(time.Now()):
		return fmt.Errorf("accepted, but expired at %v", id.Expires)
	}
	return nil
}

func good(t *testing.T, b Backend) {
	for range 2 { // the second time from whatever the first one left behind
		if err := b.checkGood(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// wrong tries what must be refused: an error other than ErrUnauthorized would cost the
// client its connection.
func wrong(t *testing.T, b Backend) {
	member := max(b.Member, 1)
	other := member + 1
	tokens := map[string]session.Token{
		"empty":         "",
		"canary":        Canary,
		"A08 quotes":    Canary + `"}, {"member_id":1,"x":"`,
		"A08 CRLF":      Canary + "\r\nX-Evil: 1\r\n\r\n",
		"A08 NUL":       Canary + "\x00",
		"A08 not UTF-8": Canary + "\xff\xfe",
		"A08 4 KiB":     session.Token(strings.Repeat("x", 4<<10)),
		"A08 1 MiB":     session.Token(strings.Repeat(Canary, 1<<20/len(Canary))),
		"J05 dots":      session.Token(strings.Repeat(".", 1<<20)),
		"dots":          Canary + "." + Canary + "." + Canary,
	}
	if b.Token != "" {
		tokens["cut"] = b.Token[:len(b.Token)-1]
		tokens["longer"] = b.Token + "A"
		tokens["space before"] = " " + b.Token
		tokens["newline behind"] = b.Token + "\n"
		tokens["twice"] = b.Token + b.Token
	}
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			refused(t, b, member, token)
			refused(t, b, other, token)
		})
	}
	if b.Token != "" {
		t.Run("another member's", func(t *testing.T) { refused(t, b, other, b.Token) })
		t.Run("largest member's", func(t *testing.T) { refused(t, b, 1<<53-1, b.Token) })
	}
}

func refused(t *testing.T, b Backend, member int64, token session.Token) {
	t.Helper()
	id, err := b.authenticate(t.Context(), member, token)
	if !errors.Is(err, session.ErrUnauthorized) {
		t.Fatalf("member %d: error %v, want ErrUnauthorized", member, err)
	}
	if id.Roles != nil || !id.Expires.IsZero() {
		t.Errorf("member %d: refused with the identity %+v", member, id)
	}
	if strings.Contains(err.Error(), Canary) || b.Token != "" && strings.Contains(err.Error(), string(b.Token)) {
		t.Errorf("A09: the error shows the token: %v", err)
	}
}

// concurrent has members and strangers ask at once: each gets its own answer.
func concurrent(t *testing.T, b Backend) {
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if i%2 == 0 {
				if err := b.checkGood(t.Context()); err != nil {
					t.Error(err)
				}
				return
			}
			if _, err := b.authenticate(t.Context(), b.Member+int64(i), b.Token); !errors.Is(err, session.ErrUnauthorized) {
				t.Errorf("member %d with another's token: error %v, want ErrUnauthorized", b.Member+int64(i), err)
			}
		})
	}
	wg.Wait()
}

// ended asks without time to wait: the answer may be missing but not wrong, and what is
// quick does not need the time.
func ended(t *testing.T, b Backend) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := session.Credentials{Member: b.Member, Token: b.Token, Remote: Local}
	q, ok := b.Auth.(session.Quick)
	quick := ok && q.Quick(c)
	if err := b.checkGood(ctx); err != nil && (quick || errors.Is(err, session.ErrUnauthorized)) {
		t.Errorf("with an ended context: %v (quick: %t)", err, quick)
	}
	if err := b.checkGood(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
