package auth

import (
	"context"
	"crypto/subtle"

	"ws-gateway/session"
)

// The one member that [Demo] knows, and its token. They are public.
const (
	DemoMember int64         = 123456
	DemoToken  session.Token = "654321"
)

// Demo vouches for [DemoMember], to loopback peers only, so that a gateway without settings
// can be tried and nothing more. The zero value is ready.
type Demo struct{}

var (
	_ session.Authenticator = Demo{}
	_ session.Quick         = Demo{}
)

const errNotLocal refusal = "the demo member is for loopback peers only"

// Authenticate implements [session.Authenticator].
func (Demo) Authenticate(_ context.Context, c session.Credentials) (session.Identity, error) {
	switch {
	case c.Member != DemoMember:
		return session.Identity{}, errMember
	case subtle.ConstantTimeCompare([]byte(c.Token), []byte(DemoToken)) == 0:
		return session.Identity{}, errToken
	case !c.Remote.IsLoopback():
		return session.Identity{}, errNotLocal
	}
	return session.Identity{}, nil
}

// Quick implements [session.Quick].
func (Demo) Quick(session.Credentials) bool { return true }
