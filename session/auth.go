package session

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// A Token is a client's secret. It hides itself from logs and from fmt.
type Token string

// LogValue implements [slog.LogValuer].
func (Token) LogValue() slog.Value { return slog.StringValue("[hidden]") }

// String hides the token; convert it to string to get it.
func (Token) String() string { return "[hidden]" }

// Credentials are what a client's first frame claims.
type Credentials struct {
	Member int64      // always positive: anonymous clients are not asked for proof
	Token  Token      // at most 4 KiB, may be empty
	Remote netip.Addr // as [Conn.Remote]
}

// An Identity is what an Authenticator vouches for.
type Identity struct {
	Roles   []string  // for the principals role:NAME of the apps file
	Expires time.Time // zero: never; a session ends with it (close 4015)
}

// ErrUnauthorized is returned by an [Authenticator] that refuses the credentials. It may be
// wrapped with the cause, which is logged and never shown to the client.
var ErrUnauthorized = errors.New("unauthorized")

// An Authenticator decides whether a client is who it claims to be. It is called from many
// goroutines at once. An error that is not ErrUnauthorized means that nobody can tell now
// (503, close 1013). ctx ends with the client's deadline or its connection.
type Authenticator interface {
	Authenticate(ctx context.Context, c Credentials) (Identity, error)
}

// Quick is implemented by authenticators some of whose answers need no waiting.
type Quick interface {
	// Quick reports whether Authenticate will answer c from memory within about 50 us, so
	// that it may be called on a goroutine that serves many connections.
	Quick(c Credentials) bool
}
