package auth_test

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"go.uber.org/goleak"

	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/auth/authtest"
)

func TestMain(m *testing.M) {
	// net/http reads these once in a process; no backend may use them.
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		os.Setenv(name, "http://192.0.2.1:9")
	}
	goleak.VerifyTestMain(m)
}

func TestNone(t *testing.T) {
	authtest.Run(t, func(*testing.T, *slog.Logger) authtest.Backend {
		return authtest.Backend{Auth: auth.None{}}
	})
}

func TestDemo(t *testing.T) {
	authtest.Run(t, func(*testing.T, *slog.Logger) authtest.Backend {
		return authtest.Backend{Auth: auth.Demo{}, Member: auth.DemoMember, Token: auth.DemoToken}
	})
}

func TestDemoIsForLoopback(t *testing.T) {
	for remote, want := range map[string]error{
		"127.0.0.1":        nil,
		"127.9.9.9":        nil,
		"::1":              nil,
		"::ffff:127.0.0.1": nil,
		"192.0.2.7":        session.ErrUnauthorized,
		"10.0.0.1":         session.ErrUnauthorized,
		"::ffff:192.0.2.7": session.ErrUnauthorized,
		"fe80::1%lo":       session.ErrUnauthorized,
		"::":               session.ErrUnauthorized,
		"":                 session.ErrUnauthorized, // no address at all
	} {
		addr, _ := netip.ParseAddr(remote)
		_, err := auth.Demo{}.Authenticate(t.Context(), session.Credentials{Member: 123456, Token: "654321", Remote: addr})
		if !errors.Is(err, want) {
			t.Errorf("from %q: %v, want %v", remote, err, want)
		}
	}
}
