package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/auth/authtest"
)

func TestJWT(t *testing.T) {
	published := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, jwks(jwk("a", rsaKey(), nil), jwk("b", p256Key, nil), jwk("c", edKey, nil), jwk("d", otherRSA(), object{"alg": "PS256"})))
	})
	pems := pemFile(t, publicPEM(rsaKey().Public(), p256Key.Public(), p384Key.Public(), p521Key.Public()))
	for _, c := range []struct {
		name   string
		opts   auth.JWTOptions
		key    any
		header object
	}{
		{"HS256", auth.JWTOptions{Secret: hmacSecret}, []byte(hmacSecret), object{"alg": "HS256", "typ": "JWT"}},
		{"HS384", auth.JWTOptions{Secret: hmacSecret}, []byte(hmacSecret), object{"alg": "HS384"}},
		{"HS512", auth.JWTOptions{Secret: hmacSecret, Algorithms: []string{"HS512"}}, []byte(hmacSecret), object{"alg": "HS512"}},
		{"HS256 of 32 bytes", auth.JWTOptions{Secret: hmacSecret[:32]}, []byte(hmacSecret[:32]), object{"alg": "HS256"}},
		{"RS256 PEM", auth.JWTOptions{KeyFile: pems}, rsaKey(), object{"alg": "RS256", "kid": "ignored here"}},
		{"RS512 PEM", auth.JWTOptions{KeyFile: pems}, rsaKey(), object{"alg": "RS512"}},
		{"PS256 PEM", auth.JWTOptions{KeyFile: pems, Algorithms: []string{"PS256", "ES256", "ES384", "ES512"}}, rsaKey(), object{"alg": "PS256"}},
		{"ES256 PEM", auth.JWTOptions{KeyFile: pems}, p256Key, object{"alg": "ES256"}},
		{"ES384 PEM", auth.JWTOptions{KeyFile: pems}, p384Key, object{"alg": "ES384"}},
		{"ES512 PEM", auth.JWTOptions{KeyFile: pems}, p521Key, object{"alg": "ES512"}},
		{"EdDSA certificate", auth.JWTOptions{KeyFile: pemFile(t, certificatePEM())}, edKey, object{"alg": "EdDSA"}},
		{"RS256 JWKS", auth.JWTOptions{JWKSURL: published}, rsaKey(), object{"alg": "RS256", "kid": "a"}},
		{"ES256 JWKS", auth.JWTOptions{JWKSURL: published}, p256Key, object{"alg": "ES256", "kid": "b"}},
		{"EdDSA JWKS", auth.JWTOptions{JWKSURL: published}, edKey, object{"alg": "EdDSA", "kid": "c"}},
		{"PS256 JWKS", auth.JWTOptions{JWKSURL: published}, otherRSA(), object{"alg": "PS256", "kid": "d"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			authtest.Run(t, func(t *testing.T, l *slog.Logger) authtest.Backend {
				c.opts.Logger = l
				return authtest.Backend{Auth: newJWT(t, c.opts), Member: 42, Token: sign(c.key, c.header, claims(nil)), Roles: []string{"gold"}}
			})
		})
	}
}

func TestJ01ForgedSignatures(t *testing.T) {
	rsaPEM := publicPEM(rsaKey().Public())
	rsaDER := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsaKey().PublicKey)})
	good := claims(nil)
	byPEM := newJWT(t, auth.JWTOptions{KeyFile: pemFile(t, rsaPEM)})
	byEC := newJWT(t, auth.JWTOptions{KeyFile: pemFile(t, publicPEM(p256Key.Public(), p384Key.Public()))})
	bySecret := newJWT(t, auth.JWTOptions{Secret: hmacSecret})
	short := newJWT(t, auth.JWTOptions{Secret: hmacSecret[:32]})
	onlyRS512 := newJWT(t, auth.JWTOptions{KeyFile: pemFile(t, rsaPEM), Algorithms: []string{"RS512"}})
	byURL := newJWT(t, auth.JWTOptions{JWKSURL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, jwks(jwk("a", rsaKey(), object{"alg": "RS256"}), jwk("s", []byte(hmacSecret), object{"alg": "HS256"}),
			jwk("enc", otherRSA(), object{"use": "enc"}), jwk("ops", otherRSA(), object{"key_ops": []string{"sign"}}), jwk("small", smallRSA(), nil)))
	})})
	unsigned := func(alg string) session.Token {
		return session.Token(segment(object{"alg": alg}) + "." + segment(good) + ".")
	}
	right := sign(rsaKey(), object{"alg": "RS256"}, good)
	parts := strings.Split(string(right), ".")
	for name, c := range map[string]struct {
		auth  *auth.JWT
		token session.Token
	}{
		"alg none":                          {byPEM, unsigned("none")},
		"alg None":                          {byPEM, unsigned("None")},
		"alg NONE for a secret":             {bySecret, unsigned("NONE")},
		"alg none, signed":                  {byPEM, signAs("RS256", rsaKey(), object{"alg": "none"}, good)},
		"alg none, two parts":               {byPEM, session.Token(segment(object{"alg": "none"}) + "." + segment(good))},
		"alg empty":                         {byPEM, signAs("RS256", rsaKey(), object{"alg": ""}, good)},
		"alg missing":                       {byPEM, signAs("RS256", rsaKey(), object{"typ": "JWT"}, good)},
		"alg a number":                      {byPEM, signAs("RS256", rsaKey(), object{"alg": 1}, good)},
		"alg a list":                        {byPEM, signAs("RS256", rsaKey(), object{"alg": []string{"RS256"}}, good)},
		"alg lower case":                    {byPEM, signAs("RS256", rsaKey(), object{"alg": "rs256"}, good)},
		"alg twice":                         {byPEM, signAs("RS256", rsaKey(), `{"alg":"none","alg":"RS256"}`, good)},
		"HS256 with the PEM as secret":      {byPEM, sign([]byte(rsaPEM), object{"alg": "HS256"}, good)},
		"HS256 with the PEM, trimmed":       {byPEM, sign([]byte(strings.TrimSpace(rsaPEM)), object{"alg": "HS256"}, good)},
		"HS256 with the PKCS1 PEM":          {byPEM, sign(pkcs1, object{"alg": "HS256"}, good)},
		"HS256 with the DER as secret":      {byPEM, sign(rsaDER, object{"alg": "HS256"}, good)},
		"HS256 with the modulus":            {byURL, sign(rsaKey().N.Bytes(), object{"alg": "HS256", "kid": "a"}, good)},
		"HS256 with nothing as secret":      {byPEM, sign([]byte{}, object{"alg": "HS256"}, good)},
		"HS256 with a published secret":     {byURL, sign([]byte(hmacSecret), object{"alg": "HS256", "kid": "s"}, good)},
		"HS384 with a secret of 32 bytes":   {short, sign([]byte(hmacSecret[:32]), object{"alg": "HS384"}, good)},
		"RS256 for EC keys":                 {byEC, right},
		"RS256 for a secret":                {bySecret, right},
		"ES256 with P-384":                  {byEC, signAs("ES256", p384Key, object{"alg": "ES256"}, good)},
		"ES384 with P-256":                  {byEC, signAs("ES384", p256Key, object{"alg": "ES384"}, good)},
		"ES256 of zeros":                    {byEC, session.Token(segment(object{"alg": "ES256"}) + "." + segment(good) + "." + segment(strings.Repeat("\x00", 64)))},
		"RS256 where RS512 is pinned":       {onlyRS512, right},
		"PS256 where nothing is said":       {byPEM, sign(rsaKey(), object{"alg": "PS256"}, good)},
		"RS512 where the JWK says RS256":    {byURL, sign(rsaKey(), object{"alg": "RS512", "kid": "a"}, good)},
		"key for encryption":                {byURL, sign(otherRSA(), object{"alg": "RS256", "kid": "enc"}, good)},
		"key for signing only":              {byURL, sign(otherRSA(), object{"alg": "RS256", "kid": "ops"}, good)},
		"key of 1024 bits":                  {byURL, sign(smallRSA(), object{"alg": "RS256", "kid": "small"}, good)},
		"another key":                       {byPEM, sign(otherRSA(), object{"alg": "RS256"}, good)},
		"another kid's key":                 {byURL, sign(otherRSA(), object{"alg": "RS256", "kid": "a"}, good)},
		"another secret":                    {bySecret, sign([]byte(hmacSecret[1:]), object{"alg": "HS256"}, good)},
		"other claims":                      {byPEM, session.Token(parts[0] + "." + segment(claims(object{"roles": []string{"admin"}})) + "." + parts[2])},
		"other header":                      {byPEM, session.Token(segment(object{"alg": "RS256", "x": 1}) + "." + parts[1] + "." + parts[2])},
		"no signature":                      {byPEM, session.Token(parts[0] + "." + parts[1] + ".")},
		"signature cut":                     {byPEM, session.Token(parts[0] + "." + parts[1] + "." + parts[2][:100])},
		"padded":                            {byPEM, right + "=="},
		"standard base64":                   {byPEM, session.Token(strings.NewReplacer("-", "+", "_", "/").Replace(string(right)) + "/")},
		"line break inside":                 {byPEM, session.Token(parts[0] + "\n." + parts[1] + "." + parts[2])},
		"other spelling of the last byte":   {byPEM, respell(right)},
		"crit":                              {byPEM, sign(rsaKey(), object{"alg": "RS256", "crit": []string{"exp"}, "exp": 1}, good)},
		"crit b64":                          {byPEM, sign(rsaKey(), object{"alg": "RS256", "crit": []string{"b64"}, "b64": false}, good)},
		"crit b64, signed so":               {byPEM, unencoded(good)},
		"JSON serialization":                {byPEM, session.Token(fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2]))},
		"J05 nested JWE":                    {byPEM, session.Token(segment(object{"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT"}) + ".AAAA.AAAA.AAAA.AAAA")},
		"J05 five parts":                    {byPEM, right + ".AAAA.AAAA"},
		"J05 only dots":                     {byPEM, ".."},
		"J05 4 KiB and a byte, well signed": {bySecret, longToken(t, 4<<10+1)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := authenticate(t, c.auth, 42, c.token); !errors.Is(err, session.ErrUnauthorized) {
				t.Errorf("%v, want ErrUnauthorized", err)
			}
		})
	}
	// What all of the above are variations of is good.
	for name, c := range map[string]struct {
		auth  *auth.JWT
		token session.Token
	}{
		"RS256 PEM":      {byPEM, right},
		"RS256 JWKS":     {byURL, sign(rsaKey(), object{"alg": "RS256", "kid": "a"}, good)},
		"RS512 pinned":   {onlyRS512, sign(rsaKey(), object{"alg": "RS512"}, good)},
		"ES256":          {byEC, sign(p256Key, object{"alg": "ES256"}, good)},
		"HS256":          {bySecret, sign([]byte(hmacSecret), object{"alg": "HS256"}, good)},
		"HS256 short":    {short, sign([]byte(hmacSecret[:32]), object{"alg": "HS256"}, good)},
		"J05 4 KiB long": {bySecret, longToken(t, 4<<10)},
	} {
		if _, err := authenticate(t, c.auth, 42, c.token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// unencoded is a token whose signature is over the bare payload (RFC 7797), which is not for
// JWTs.
func unencoded(payload any) session.Token {
	header := segment(object{"alg": "RS256", "crit": []string{"b64"}, "b64": false})
	sum := sha256.Sum256([]byte(header + "." + string(must(json.Marshal(payload)))))
	sig := must(rsa.SignPKCS1v15(nil, rsaKey(), crypto.SHA256, sum[:]))
	return session.Token(header + "." + segment(payload) + "." + segment(string(sig)))
}

// longToken is a good token for hmacSecret of exactly n bytes.
func longToken(t *testing.T, n int) session.Token {
	t.Helper()
	for pad := n / 2; pad < n; pad++ {
		for _, typ := range []string{"", "x", "xx"} {
			token := sign([]byte(hmacSecret), object{"alg": "HS256", "typ": typ}, claims(object{"pad": strings.Repeat("x", pad)}))
			if len(token) == n {
				return token
			}
		}
	}
	t.Fatalf("no token of %d bytes", n)
	return ""
}

// respell changes bits of the last character that a lax base64 decoder ignores.
func respell(token session.Token) session.Token {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + session.Token(alphabet[last^1])
}

func TestJ02HeadersThatPointElsewhere(t *testing.T) {
	var asked, fetched atomic.Int32
	evil := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.WriteString(w, jwks(jwk("evil", otherRSA(), nil)))
	})
	j := newJWT(t, auth.JWTOptions{JWKSURL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		fetched.Add(1)
		io.WriteString(w, jwks(jwk("a", rsaKey(), nil), jwk("b", p256Key, nil)))
	})})
	if _, err := authenticate(t, j, 42, sign(rsaKey(), object{"alg": "RS256", "kid": "a"}, claims(nil))); err != nil {
		t.Fatal(err)
	}
	attacker := jwk("a", otherRSA(), nil)
	for name, header := range map[string]object{
		"kid a URL":       {"kid": evil},
		"kid a path":      {"kid": "../../../../dev/null"},
		"kid a query":     {"kid": "a?x=" + evil},
		"kid SQL":         {"kid": "a' OR '1'='1"},
		"kid a NUL":       {"kid": "a\x00"},
		"kid long":        {"kid": strings.Repeat("k", 2<<10)},
		"kid empty":       {"kid": ""},
		"kid missing":     {},
		"kid a number":    {"kid": 1},
		"kid null":        {"kid": nil},
		"kid of another":  {"kid": "b"},
		"jku":             {"kid": "a", "jku": evil},
		"jku, other kid":  {"kid": "evil", "jku": evil},
		"x5u":             {"kid": "a", "x5u": evil},
		"jwk":             {"kid": "a", "jwk": attacker},
		"jwk without kid": {"jwk": attacker},
		"x5c":             {"kid": "a", "x5c": []string{"AAAA"}},
		"all of them":     {"kid": evil, "jku": evil, "x5u": evil, "jwk": attacker, "url": evil, "iss": evil},
	} {
		header["alg"] = "RS256"
		if _, err := authenticate(t, j, 42, sign(otherRSA(), header, claims(nil))); !errors.Is(err, session.ErrUnauthorized) {
			t.Errorf("%s: %v, want ErrUnauthorized", name, err)
		}
	}
	// The same headers are no reason to refuse a token whose own kid has signed it.
	if _, err := authenticate(t, j, 42, sign(rsaKey(), object{"alg": "RS256", "kid": "a", "jku": evil, "x5u": evil, "jwk": attacker}, claims(nil))); err != nil {
		t.Error(err)
	}
	if asked.Load() != 0 {
		t.Errorf("%d requests to a URL out of a token", asked.Load())
	}
	if fetched.Load() != 1 {
		t.Errorf("%d fetches, want 1", fetched.Load())
	}
}

func TestJ04Claims(t *testing.T) {
	now := time.Now().Unix()
	plain := newJWT(t, auth.JWTOptions{Secret: hmacSecret})
	strict := newJWT(t, auth.JWTOptions{Secret: hmacSecret, Issuer: "https://issuer.example", MemberClaim: "https://example.com/uid"})
	lenient := newJWT(t, auth.JWTOptions{Secret: hmacSecret, Leeway: time.Minute})
	for _, c := range []struct {
		name    string
		auth    *auth.JWT
		payload any
		want    verdict
	}{
		{"all", plain, claims(nil), accepted},
		{"sub a number", plain, claims(object{"sub": 42}), accepted},
		{"aud a list", plain, claims(object{"aud": []string{"other", "gateway"}}), accepted},
		{"another issuer, none set", plain, claims(object{"iss": "x"}), accepted},
		{"no issuer, none set", plain, claims(object{"iss": nil}), accepted},
		{"no roles", plain, claims(object{"roles": nil}), accepted},
		{"exp with a fraction", plain, claims(object{"exp": float64(now) + 100.5}), accepted},
		{"nbf past", plain, claims(object{"nbf": now - 1, "iat": now}), accepted},
		{"iat of a clock ahead", plain, claims(object{"iat": now + 30}), accepted},
		{"unknown claims", plain, claims(object{"x": object{"y": []int{1}}}), accepted},
		{"member claim", strict, claims(object{"sub": "bob", "https://example.com/uid": 42}), accepted},
		{"exp just past, leeway", lenient, claims(object{"exp": now - 30}), accepted},
		{"nbf just ahead, leeway", lenient, claims(object{"nbf": now + 30}), accepted},

		{"no exp", plain, claims(object{"exp": nil}), refusedIt},
		{"exp past", plain, claims(object{"exp": now - 1}), refusedIt},
		{"exp now", plain, claims(object{"exp": now}), refusedIt},
		{"exp past the leeway", lenient, claims(object{"exp": now - 61}), refusedIt},
		{"exp 0", plain, claims(object{"exp": 0}), refusedIt},
		{"exp negative", plain, claims(object{"exp": -1}), refusedIt},
		{"exp text", plain, claims(object{"exp": fmt.Sprint(now + 100)}), refusedIt},
		{"exp true", plain, claims(object{"exp": true}), refusedIt},
		{"exp in ms", plain, claims(object{"exp": (now + 100) * 1000}), refusedIt},
		{"exp 2^63", plain, `{"sub":"42","aud":"gateway","exp":9223372036854775808}`, refusedIt},
		{"exp 2^64+", plain, `{"sub":"42","aud":"gateway","exp":18446744073709551616}`, refusedIt},
		{"exp 1e300", plain, `{"sub":"42","aud":"gateway","exp":1e300}`, refusedIt},
		{"exp 1e999", plain, `{"sub":"42","aud":"gateway","exp":1e999}`, refusedIt},
		{"exp null", plain, `{"sub":"42","aud":"gateway","exp":null}`, refusedIt},
		{"exp twice", plain, fmt.Sprintf(`{"sub":"42","aud":"gateway","exp":1,"exp":%d}`, now+100), refusedIt},
		{"Exp", plain, fmt.Sprintf(`{"sub":"42","aud":"gateway","Exp":%d}`, now+100), refusedIt},
		{"no aud", plain, claims(object{"aud": nil}), refusedIt},
		{"aud other", plain, claims(object{"aud": "gateway2"}), refusedIt},
		{"aud other case", plain, claims(object{"aud": "Gateway"}), refusedIt},
		{"aud empty", plain, claims(object{"aud": ""}), refusedIt},
		{"aud empty list", plain, claims(object{"aud": []string{}}), refusedIt},
		{"aud others", plain, claims(object{"aud": []string{"a", "b"}}), refusedIt},
		{"aud mixed", plain, claims(object{"aud": []any{"gateway", 1}}), refusedIt},
		{"aud number", plain, claims(object{"aud": 1}), refusedIt},
		{"nbf ahead", plain, claims(object{"nbf": now + 100}), refusedIt},
		{"nbf past the leeway", lenient, claims(object{"nbf": now + 100}), refusedIt},
		{"nbf text", plain, claims(object{"nbf": "1"}), refusedIt},
		{"iat ahead", plain, claims(object{"iat": now + 100}), refusedIt},
		{"iat text", plain, claims(object{"iat": "1"}), refusedIt},
		{"no issuer", strict, claims(object{"https://example.com/uid": 42, "iss": nil}), refusedIt},
		{"wrong issuer", strict, claims(object{"https://example.com/uid": 42, "iss": "https://issuer.example/"}), refusedIt},
		{"issuer a list", strict, claims(object{"https://example.com/uid": 42, "iss": []string{"https://issuer.example"}}), refusedIt},
		{"member claim missing", strict, claims(nil), refusedIt},
		{"no sub", plain, claims(object{"sub": nil}), refusedIt},
		{"sub null", plain, `{"sub":null,"aud":"gateway","exp":4000000000}`, refusedIt},
		{"sub of another", plain, claims(object{"sub": "43"}), refusedIt},
		{"sub a fraction", plain, claims(object{"sub": 42.5}), refusedIt},
		{"sub 42.0", plain, `{"sub":42.0,"aud":"gateway","exp":4000000000}`, refusedIt},
		{"sub 4.2e1", plain, `{"sub":4.2e1,"aud":"gateway","exp":4000000000}`, refusedIt},
		{"sub zeros", plain, claims(object{"sub": "042"}), refusedIt},
		{"sub plus", plain, claims(object{"sub": "+42"}), refusedIt},
		{"sub space", plain, claims(object{"sub": "42 "}), refusedIt},
		{"sub list", plain, claims(object{"sub": []int{42}}), refusedIt},
		{"sub twice", plain, `{"sub":"43","sub":"42","aud":"gateway","exp":4000000000}`, refusedIt},
		{"roles a text", plain, claims(object{"roles": "gold"}), refusedIt},
		{"roles numbers", plain, claims(object{"roles": []int{1}}), refusedIt},
		{"roles with a space", plain, claims(object{"roles": []string{"a b"}}), refusedIt},
		{"too many roles", plain, claims(object{"roles": slices.Repeat([]string{"r"}, 65)}), refusedIt},
		{"not JSON", plain, "x", refusedIt},
		{"empty", plain, "", refusedIt},
		{"null", plain, "null", refusedIt},
		{"a list", plain, "[]", refusedIt},
		{"trailing", plain, `{"sub":"42","aud":"gateway","exp":4000000000} x`, refusedIt},
		{"invalid UTF-8", plain, "{\"sub\":\"42\",\"aud\":\"gateway\",\"exp\":4000000000,\"x\":\"\xff\"}", refusedIt},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := authenticate(t, c.auth, 42, sign([]byte(hmacSecret), object{"alg": "HS256"}, c.payload))
			if got := verdictOf(err); got != c.want {
				t.Errorf("%s (%v), want %s", got, err, c.want)
			}
			if c.name == "no exp" && !strings.Contains(err.Error(), "no expiry") {
				t.Errorf("cause %v", err)
			}
		})
	}
}

// J06: the session's own timer needs to know until when a token is good.
func TestJ06Expires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exp := time.Now().Add(10 * time.Second)
		token := sign([]byte(hmacSecret), object{"alg": "HS256"}, claims(object{"exp": exp.Unix()}))
		for _, leeway := range []time.Duration{0, 5 * time.Second} {
			j := newJWT(t, auth.JWTOptions{Secret: hmacSecret, Leeway: leeway})
			id, err := authenticate(t, j, 42, token)
			if err != nil || !id.Expires.Equal(exp.Add(leeway)) {
				t.Errorf("leeway %v: expires %v, %v; want %v", leeway, id.Expires, err, exp.Add(leeway))
			}
			time.Sleep(time.Until(exp.Add(leeway - time.Nanosecond)))
			if _, err := authenticate(t, j, 42, token); err != nil {
				t.Errorf("leeway %v: just before its end: %v", leeway, err)
			}
			time.Sleep(time.Nanosecond)
			if _, err := authenticate(t, j, 42, token); !errors.Is(err, session.ErrUnauthorized) {
				t.Errorf("leeway %v: at its end: %v", leeway, err)
			}
		}
	})
}

func TestJWTSettings(t *testing.T) {
	rsaPEM := publicPEM(rsaKey().Public())
	private := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(p256Key))}))
	for _, c := range []struct {
		name string
		opts auth.JWTOptions
		want string
	}{
		{"nothing", auth.JWTOptions{Audience: "a"}, "WSGW_AUTH: jwt needs one of WSGW_JWT_SECRET, WSGW_JWT_KEY_FILE and WSGW_JWT_JWKS_URL, and has 0"},
		{"two", auth.JWTOptions{Audience: "a", Secret: hmacSecret, JWKSURL: "https://h/"}, "WSGW_AUTH: jwt needs one of"},
		{"no audience", auth.JWTOptions{Secret: hmacSecret}, "WSGW_JWT_AUDIENCE: is needed"},
		{"short secret", auth.JWTOptions{Audience: "a", Secret: hmacSecret[:31]}, "WSGW_JWT_SECRET: has 31 bytes; at least 32 are needed"},
		{"negative leeway", auth.JWTOptions{Audience: "a", Secret: hmacSecret, Leeway: -1}, "WSGW_JWT_LEEWAY: "},
		{"alg none", auth.JWTOptions{Audience: "a", Secret: hmacSecret, Algorithms: []string{"none"}}, `WSGW_JWT_ALGORITHMS: "none" is not one of`},
		{"alg of another key", auth.JWTOptions{Audience: "a", Secret: hmacSecret, Algorithms: []string{"RS256"}}, "WSGW_JWT_ALGORITHMS: no allowed algorithm goes with this key"},
		{"alg too long for the secret", auth.JWTOptions{Audience: "a", Secret: hmacSecret[:32], Algorithms: []string{"HS256", "HS512"}}, "WSGW_JWT_ALGORITHMS: HS512 does not go with the key"},
		{"HS256 with a public key", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, rsaPEM), Algorithms: []string{"RS256", "HS256"}}, "WSGW_JWT_ALGORITHMS: HS256 does not go with the key"},
		{"HS256 with a URL", auth.JWTOptions{Audience: "a", JWKSURL: "https://h/", Algorithms: []string{"HS256"}}, "WSGW_JWT_ALGORITHMS: HS256 needs a secret"},
		{"no file", auth.JWTOptions{Audience: "a", KeyFile: "/nonexistent"}, "WSGW_JWT_KEY_FILE: open /nonexistent"},
		{"not PEM", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, "x")}, "has 0 keys in PEM: want 1 to 16"},
		{"too many", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, strings.Repeat(rsaPEM, 17))}, "has 17 keys in PEM"},
		{"private", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, rsaPEM+private)}, "key 2: is a private key"},
		{"other block", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, "-----BEGIN X-----\nAAAA\n-----END X-----\n")}, `key 1: is a "X"`},
		{"broken block", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")}, "key 1: "},
		{"broken certificate", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}, "key 1: "},
		{"small RSA", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, publicPEM(smallRSA().Public()))}, "RSA key of 1024 bits: want 2048 to 8192"},
		{"P-224", auth.JWTOptions{Audience: "a", KeyFile: pemFile(t, publicPEM(must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public()))}, "no allowed algorithm goes with this key"},
		{"http", auth.JWTOptions{Audience: "a", JWKSURL: "http://issuer.example/"}, "WSGW_JWT_JWKS_URL: want https"},
		{"http to a name that looks local", auth.JWTOptions{Audience: "a", JWKSURL: "http://localhost.example/"}, "WSGW_JWT_JWKS_URL: want https"},
		{"no URL", auth.JWTOptions{Audience: "a", JWKSURL: "keys.json"}, "WSGW_JWT_JWKS_URL: want a URL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := auth.NewJWT(c.opts)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "WSGW_") {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), hmacSecret[:31]) {
				t.Errorf("shows the secret: %v", err)
			}
		})
	}
}

func TestC02JWTReload(t *testing.T) {
	name := pemFile(t, publicPEM(rsaKey().Public()))
	j := newJWT(t, auth.JWTOptions{KeyFile: name})
	old, next := sign(rsaKey(), object{"alg": "RS256"}, claims(nil)), sign(edKey, object{"alg": "EdDSA"}, claims(nil))
	check := func(when string, oldWant, nextWant verdict) {
		t.Helper()
		_, err1 := authenticate(t, j, 42, old)
		_, err2 := authenticate(t, j, 42, next)
		if verdictOf(err1) != oldWant || verdictOf(err2) != nextWant {
			t.Errorf("%s: %v and %v, want %s and %s", when, err1, err2, oldWant, nextWant)
		}
	}
	check("at first", accepted, refusedIt)
	writeFile(t, name, publicPEM(rsaKey().Public(), edKey.Public()))
	if err := j.Reload(); err != nil {
		t.Fatal(err)
	}
	check("both", accepted, accepted)
	writeFile(t, name, "-----BEGIN PUBLIC")
	if err := j.Reload(); err == nil {
		t.Error("a bad file was accepted")
	}
	check("after a bad file", accepted, accepted)
	writeFile(t, name, publicPEM(edKey.Public()))
	if err := j.Reload(); err != nil {
		t.Fatal(err)
	}
	check("rotated", refusedIt, accepted)
}
