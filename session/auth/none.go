package auth

import (
	"context"

	"ws-gateway/session"
)

// None vouches for nobody: every client is anonymous. The zero value is ready.
type None struct{}

var (
	_ session.Authenticator = None{}
	_ session.Quick         = None{}
)

const errNoMembers refusal = "this gateway has no members"

// Authenticate implements [session.Authenticator].
func (None) Authenticate(context.Context, session.Credentials) (session.Identity, error) {
	return session.Identity{}, errNoMembers
}

// Quick implements [session.Quick].
func (None) Quick(session.Credentials) bool { return true }
