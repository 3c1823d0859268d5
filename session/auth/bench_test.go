package auth_test

import (
	"testing"

	"ws-gateway/session"
	"ws-gateway/session/auth"
)

// What Quick promises is some 50 us at most.
func BenchmarkAuthenticate(b *testing.B) {
	made := must(auth.NewEntry(42, ""))
	file := b.TempDir() + "/members.yaml"
	writeFile(b, file, membersFile(made))
	keys := b.TempDir() + "/keys.pem"
	writeFile(b, keys, publicPEM(rsaKey().Public(), p256Key.Public(), edKey.Public()))
	byFile := must(auth.NewJWT(auth.JWTOptions{KeyFile: keys, Audience: "gateway"}))
	for _, c := range []struct {
		name  string
		auth  session.Authenticator
		token session.Token
	}{
		{"backend=static", must(auth.NewStatic(auth.StaticOptions{File: file})), made.Token},
		{"backend=jwt/alg=HS256", must(auth.NewJWT(auth.JWTOptions{Secret: hmacSecret, Audience: "gateway"})), sign([]byte(hmacSecret), object{"alg": "HS256"}, claims(nil))},
		{"backend=jwt/alg=RS256", byFile, sign(rsaKey(), object{"alg": "RS256"}, claims(nil))},
		{"backend=jwt/alg=ES256", byFile, sign(p256Key, object{"alg": "ES256"}, claims(nil))},
		{"backend=jwt/alg=EdDSA", byFile, sign(edKey, object{"alg": "EdDSA"}, claims(nil))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.auth.Authenticate(b.Context(), session.Credentials{Member: 42, Token: c.token}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
