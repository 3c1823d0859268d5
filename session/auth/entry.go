package auth

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"ws-gateway/session"
)

// An Entry is one member as it stands in the members file of [Static].
type Entry struct {
	Member int64
	Token  session.Token // what the member logs in with; the file only gets Proof
	Proof  string        // "sha256:SALT:HEX", or an argon2id PHC string
	Roles  []string
}

// NewEntry makes the entry of a member. An empty token means that NewEntry makes one, of 256
// random bits. Of such a token a salted SHA-256 is safe to keep; one that was chosen by
// somebody may be guessable and gets argon2id, which costs some 20 ms at every login.
func NewEntry(member int64, token session.Token, roles ...string) (Entry, error) {
	switch {
	case member < 1 || member > maxMember:
		return Entry{}, fmt.Errorf("member %d: want 1 to %d", member, int64(maxMember))
	case len(token) > maxToken:
		return Entry{}, fmt.Errorf("token of %d bytes: want at most %d", len(token), maxToken)
	case !validRoles(roles):
		return Entry{}, fmt.Errorf("roles: want at most %d, each 1 to %d bytes without spaces", maxRoles, maxRole)
	}
	e := Entry{Member: member, Token: token, Roles: roles}
	salt := make([]byte, 16)
	rand.Read(salt)
	if token == "" {
		random := make([]byte, 32)
		rand.Read(random)
		e.Token = session.Token(base64.RawURLEncoding.EncodeToString(random))
		e.Proof = newDigest(hex.EncodeToString(salt), e.Token).String()
	} else {
		e.Proof = newStretched(salt, e.Token).String()
	}
	return e, nil
}

// String returns the entry as a line to put below "members:", without the token.
func (e Entry) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: {tokens: [%q]", e.Member, e.Proof)
	if len(e.Roles) > 0 {
		fmt.Fprintf(&b, ", roles: [%q", e.Roles[0])
		for _, r := range e.Roles[1:] {
			fmt.Fprintf(&b, ", %q", r)
		}
		b.WriteString("]")
	}
	b.WriteString("}")
	return b.String()
}

// errProof does not quote the entry: people do write their token there.
var errProof = errors.New(`want "sha256:SALT:HEX" with HEX = sha256(SALT + token), or "$argon2id$v=19$m=...,t=...,p=...$SALT$HASH"; ` +
	"`ws-gateway token --member ID` prints one")

// A proof is what a members file keeps of a token. Its types are comparable.
type proof interface {
	fmt.Stringer
	// matches takes the same time whatever the token, but for its length.
	matches(session.Token) bool
}

// parseProof reads one element of "tokens".
func parseProof(s string) (proof, error) {
	switch {
	case strings.HasPrefix(s, "sha256:"):
		return parseDigest(s)
	case strings.HasPrefix(s, "$argon2id$"):
		return parseStretched(s)
	}
	return nil, errProof
}
