// Package auth holds the backends that say whether a client is who it claims to be, one per
// file. Each is a [session.Authenticator]:
//
//   - [Demo] knows one member and lets it in from this machine only,
//   - [Static] reads a members file,
//   - [Callback] asks the operator's own HTTP endpoint,
//   - [JWT] checks signed tokens, with a secret, public keys or a JWKS URL,
//   - [None] lets nobody in.
//
// [Failures] bounds how often one address may guess. What an operator has to know about each
// is in AUTH.md.
//
// Whatever a backend cannot decide is an error other than [session.ErrUnauthorized]: trouble
// never turns a member into a stranger, nor a stranger into a member. No error and no log
// line of this package holds a token, or anything else that a client or a remote server
// could have put one into.
package auth

import (
	"unicode"
	"unicode/utf8"

	"ws-gateway/session"
)

const (
	// maxToken is the longest token looked at, as [session.Credentials] promises.
	maxToken = 4 << 10
	// maxMember is the largest member id: integers up to it survive JSON in every language.
	maxMember = 1<<53 - 1

	// Rules of the contract with backends, without settings.
	maxRoles = 64  // of one member: they are kept with each of its sessions
	maxRole  = 128 // bytes of one role's name
)

// A refusal is a cause of [session.ErrUnauthorized], for the log.
type refusal string

func (r refusal) Error() string { return session.ErrUnauthorized.Error() + ": " + string(r) }
func (r refusal) Unwrap() error { return session.ErrUnauthorized }

const (
	errToken   refusal = "wrong token"
	errMember  refusal = "unknown member"
	errTooLong refusal = "token is too long"
)

// validRole reports whether s can stand behind "role:" in the apps file.
func validRole(s string) bool {
	if s == "" || len(s) > maxRole || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsSpace(r) || unicode.IsControl(r) {
			return false
		}
	}
	return true
}

func validRoles(roles []string) bool {
	for _, r := range roles {
		if !validRole(r) {
			return false
		}
	}
	return len(roles) <= maxRoles
}
