package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// JWTOptions are the settings of [JWT]. Exactly one of Secret, KeyFile and JWKSURL is set.
type JWTOptions struct {
	Secret  string // WSGW_JWT_SECRET: at least 32 bytes, for HS256; 48 for HS384, 64 for HS512
	KeyFile string // WSGW_JWT_KEY_FILE: PEM with public keys or certificates
	JWKSURL string // WSGW_JWT_JWKS_URL: https, or http on loopback

	Algorithms  []string      // WSGW_JWT_ALGORITHMS; none: what goes with the type of each key
	Audience    string        // WSGW_JWT_AUDIENCE: needed
	Issuer      string        // WSGW_JWT_ISSUER; "": anybody who has the key
	MemberClaim string        // WSGW_JWT_MEMBER_CLAIM; "": sub
	Leeway      time.Duration // WSGW_JWT_LEEWAY: how wrong clocks may be

	Dial    DialFunc // for JWKSURL; nil: the system's
	Logger  *slog.Logger
	Metrics *stat.Metrics
}

// JWT vouches for members who bring a signed token (RFC 7519) that names them.
//
// Algorithms are pinned: a token's header chooses among those that go with a key, and its
// kid among the keys; jku, x5u, jwk and x5c are not looked at.
type JWT struct {
	opts       JWTOptions
	algorithms []jose.SignatureAlgorithm
	keys       keySource
}

// A keySource knows the keys that tokens may be signed with.
type keySource interface {
	// find returns the keys that a token with this kid ("": none) may be signed with. An
	// error is not a refusal: nobody can tell now.
	find(ctx context.Context, kid string) ([]key, error)
	reload() error
	close()
}

var (
	_ session.Authenticator = (*JWT)(nil)
	_ session.Quick         = (*JWT)(nil)
)

// NewJWT checks the settings and reads the keys; those of a URL are fetched in the
// background. Close must be called in the end.
func NewJWT(o JWTOptions) (*JWT, error) {
	sources := 0
	for _, s := range []string{o.Secret, o.KeyFile, o.JWKSURL} {
		if s != "" {
			sources++
		}
	}
	if sources != 1 {
		return nil, fmt.Errorf("WSGW_AUTH: jwt needs one of WSGW_JWT_SECRET, WSGW_JWT_KEY_FILE and WSGW_JWT_JWKS_URL, and has %d", sources)
	}
	if o.Audience == "" {
		return nil, errors.New("WSGW_JWT_AUDIENCE: is needed, so that tokens made for others are refused")
	}
	if o.Leeway < 0 {
		return nil, fmt.Errorf("WSGW_JWT_LEEWAY: %v is negative", o.Leeway)
	}
	if o.MemberClaim == "" {
		o.MemberClaim = "sub"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	allowed, err := parseAlgorithms(o.Algorithms)
	if err != nil {
		return nil, err
	}
	j := &JWT{opts: o, algorithms: allowed}
	if allowed == nil {
		j.algorithms = knownAlgorithms
	}
	switch {
	case o.Secret != "":
		j.keys, err = newSecret(o.Secret, allowed)
	case o.KeyFile != "":
		j.keys, err = newKeyFile(o.KeyFile, allowed)
	default:
		j.keys, err = newJWKS(o, allowed)
	}
	if err != nil {
		return nil, err
	}
	return j, nil
}

// Reload reads WSGW_JWT_KEY_FILE again. On an error the keys stay as they were.
func (j *JWT) Reload() error { return j.keys.reload() }

// Check waits until the keys of WSGW_JWT_JWKS_URL have come, which takes a few seconds at most, and
// returns an error if none of use did. Keys from elsewhere are what [NewJWT] has read.
func (j *JWT) Check(ctx context.Context) error {
	if s, ok := j.keys.(*jwks); ok {
		return s.check(ctx)
	}
	return nil
}

// Close ends what runs in the background.
func (j *JWT) Close() { j.keys.close() }

// Quick implements [session.Quick]. An HMAC is checked within microseconds; public keys take
// up to a few hundred, and those of a URL may have to be fetched.
func (j *JWT) Quick(session.Credentials) bool { return j.opts.Secret != "" }

const (
	errForm      refusal = "token is not a compact JWS with an allowed algorithm"
	errExtension refusal = "token asks for an extension (crit)"
	errKey       refusal = "token is signed with an unknown key"
	errSignature refusal = "token's signature is wrong"
	errClaims    refusal = "token's claims are not a JSON object with valid values"
	errSubject   refusal = "token names another member, or none"
	errAudience  refusal = "token is for another audience"
	errIssuer    refusal = "token is from another issuer"
	errNoExpiry  refusal = "token has no expiry"
	errNotYet    refusal = "token is not valid yet"
)

// Authenticate implements [session.Authenticator].
func (j *JWT) Authenticate(ctx context.Context, c session.Credentials) (session.Identity, error) {
	if len(c.Token) > maxToken {
		return session.Identity{}, errTooLong
	}
	payload, err := j.verify(ctx, string(c.Token))
	if err != nil {
		return session.Identity{}, err
	}
	return j.identify(payload, c.Member, time.Now())
}

// verify returns the payload of a token whose signature is right.
func (j *JWT) verify(ctx context.Context, token string) ([]byte, error) {
	if !isCompact(token) {
		return nil, errForm
	}
	jws, err := jose.ParseSignedCompact(token, j.algorithms)
	if err != nil {
		return nil, errForm
	}
	header := jws.Signatures[0].Protected
	if _, ok := header.ExtraHeaders["crit"]; ok {
		return nil, errExtension
	}
	keys, err := j.keys.find(ctx, header.KeyID)
	if err != nil {
		return nil, err
	}
	refused := errKey
	for _, k := range keys {
		if !slices.Contains(k.algorithms, jose.SignatureAlgorithm(header.Algorithm)) {
			continue
		}
		if payload, err := jws.Verify(k.material); err == nil {
			return payload, nil
		}
		refused = errSignature
	}
	return nil, refused
}

// isCompact reports whether s consists of three parts in canonical base64url. Go's decoder
// would skip line breaks and ignore the last bits, so that a token had many spellings.
func isCompact(s string) bool {
	parts := 0
	for part := range strings.SplitSeq(s, ".") {
		parts++
		if parts > 3 || strings.ContainsAny(part, "\r\n") {
			return false
		}
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part[len(part)&^3:]); err != nil {
			return false
		}
	}
	return parts == 3
}

// identify reads the claims. They are signed, so none of them is the client's own word.
func (j *JWT) identify(payload []byte, member int64, now time.Time) (session.Identity, error) {
	var claims map[string]jsontext.Value
	if json.Unmarshal(payload, &claims) != nil {
		return session.Identity{}, errClaims
	}
	exp, err1 := numericDate(claims["exp"])
	nbf, err2 := numericDate(claims["nbf"])
	iat, err3 := numericDate(claims["iat"])
	roles, err4 := stringList(claims["roles"])
	audience, err5 := audienceList(claims["aud"])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil || !validRoles(roles) {
		return session.Identity{}, errClaims
	}
	// RFC 7519, section 4.1.4: not accepted "on or after" exp.
	expires := exp.Add(j.opts.Leeway)
	switch {
	case !isMember(claims[j.opts.MemberClaim], member):
		return session.Identity{}, errSubject
	case !slices.Contains(audience, j.opts.Audience):
		return session.Identity{}, errAudience
	case j.opts.Issuer != "" && !isString(claims["iss"], j.opts.Issuer):
		return session.Identity{}, errIssuer
	case exp.IsZero():
		return session.Identity{}, errNoExpiry
	case !now.Before(expires):
		return session.Identity{}, errExpired
	case now.Add(j.opts.Leeway).Before(nbf), now.Add(j.opts.Leeway + maxFuture).Before(iat):
		return session.Identity{}, errNotYet
	}
	return session.Identity{Roles: roles, Expires: expires}, nil
}

// maxFuture is how far ahead iat may be, which says when a token was made and not, as nbf
// does, from when it is good. An issuer's clock is seldom off by more.
const maxFuture = time.Minute

// numericDate reads seconds since 1970, with or without a fraction (RFC 7519, section 2).
// The zero Time stands for a missing value.
func numericDate(v jsontext.Value) (time.Time, error) {
	if v == nil {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseFloat(string(v), 64)
	if err != nil || seconds < 0 || seconds > maxUnix {
		return time.Time{}, errClaims
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}

func stringList(v jsontext.Value) (list []string, err error) {
	if v != nil {
		err = json.Unmarshal(v, &list)
	}
	return list, err
}

// audienceList reads a list or a single string (RFC 7519, section 4.1.3).
func audienceList(v jsontext.Value) ([]string, error) {
	if v.Kind() != '"' {
		return stringList(v)
	}
	var one string
	err := json.Unmarshal(v, &one)
	return []string{one}, err
}

func isString(v jsontext.Value, want string) bool {
	var got string
	return v.Kind() == '"' && json.Unmarshal(v, &got) == nil && got == want
}

// isMember reports whether v is member as a JSON integer, or as a decimal string.
func isMember(v jsontext.Value, member int64) bool {
	id := strconv.FormatInt(member, 10)
	return string(v) == id || isString(v, id)
}
