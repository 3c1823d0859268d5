package auth

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"ws-gateway/session"
)

// Inside the package, because through a file each round would cost a file.

func FuzzParseProof(f *testing.F) {
	f.Add("sha256:abc:a42178b773273f5c9f24387fbea546af537d08b8c06b23631e44878b9ce47f49")
	f.Add("$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$NwLSKyqrGIiZOR0o1xAodvQbqYvoClGXx5cYXiW9kDY")
	f.Add("$argon2id$v=19$m=08,t=2,p=+1$c29tZXNhbHQ=$$")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseProof(s)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("error of two lines: %q", err)
			}
			return
		}
		again, err := parseProof(p.String())
		if err != nil || again != p {
			t.Errorf("%q reads as %q, which reads as %v, %v", s, p, again, err)
		}
	})
}

func FuzzParseMembers(f *testing.F) {
	const proof = `"sha256:abc:a42178b773273f5c9f24387fbea546af537d08b8c06b23631e44878b9ce47f49"`
	f.Add("members: {42: {tokens: [" + proof + "], roles: [gold]}}")
	f.Add("members: &a {1: *a, 2: *b}")
	f.Add("? [a]\n: b\n---\n")
	f.Fuzz(func(t *testing.T, s string) {
		file, err := parseMembers("members.yaml", []byte(s))
		if err != nil {
			if !strings.HasPrefix(err.Error(), "members.yaml:") {
				t.Errorf("error without a position: %q", err)
			}
			return
		}
		for id, m := range file.members {
			if id < 1 || id > maxMember || len(m.digests)+len(m.stretched) == 0 || !validRoles(m.roles) {
				t.Errorf("member %d: %+v", id, m)
			}
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"member_id":42,"expires_at":1800000000,"roles":["gold"]}`))
	f.Add([]byte(`{"uid":42,"member_id":null,"x":{"a":[1,2,{}]}}`))
	f.Add([]byte("{\"member_id\":42,\"a\":\"\xff\"}"))
	now := time.Unix(1700000000, 0)
	f.Fuzz(func(t *testing.T, body []byte) {
		id, err := parseAnswer(body, 42, now)
		var trouble *trouble
		switch {
		case err == nil:
			if !bytes.Contains(body, []byte("42")) || !validRoles(id.Roles) || !id.Expires.IsZero() && !now.Before(id.Expires) {
				t.Errorf("%q is accepted as %+v", body, id)
			}
			if !json.Valid(body) {
				t.Errorf("%q is accepted and not even JSON", body)
			}
		case errors.As(err, &trouble) == errors.Is(err, session.ErrUnauthorized):
			t.Errorf("%q: %v is neither a trouble nor a refusal", body, err)
		}
	})
}

func FuzzJWT(f *testing.F) {
	secret := strings.Repeat("s", 64)
	j, err := NewJWT(JWTOptions{Secret: secret, Audience: "gateway", Issuer: "i"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(`{"alg":"HS256","typ":"JWT","kid":"a"}`, `{"sub":"42","aud":["gateway"],"iss":"i","exp":4000000000,"nbf":1.5,"roles":["a"]}`)
	f.Add(`{"alg":"none","crit":["exp"],"jwk":{"kty":"EC"},"x5c":["AA"]}`, `{"exp":1e999}`)
	f.Fuzz(func(t *testing.T, header, payload string) {
		b64 := base64.RawURLEncoding.EncodeToString
		input := b64([]byte(header)) + "." + b64([]byte(payload))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(input))
		right := session.Token(input + "." + b64(mac.Sum(nil)))
		for _, token := range []session.Token{right, session.Token(input) + ".AAAA", session.Token(header), session.Token(payload)} {
			id, err := j.Authenticate(context.Background(), session.Credentials{Member: 42, Token: token})
			switch {
			case err != nil && !errors.Is(err, session.ErrUnauthorized):
				t.Errorf("%q: %v is no refusal", token, err)
			case err == nil && (token != right || !json.Valid([]byte(header)) || !json.Valid([]byte(payload))):
				t.Errorf("%q is accepted", token)
			case err == nil && (id.Expires.IsZero() || !time.Now().Before(id.Expires) || !validRoles(id.Roles)):
				t.Errorf("%q is accepted as %+v", token, id)
			}
		}
	})
}

func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},{"kty":"oct","k":"AA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB","x5c":["AA"],"key_ops":["verify"]}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, _, err := parseJWKS(body, nil)
		if err != nil {
			return
		}
		for kid, list := range keys {
			for _, k := range list {
				if _, secret := k.material.([]byte); secret || len(k.algorithms) == 0 {
					t.Errorf("key %q: %+v", kid, k)
				}
			}
		}
	})
}
