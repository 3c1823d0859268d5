package auth_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"hash"
	"maps"
	"math/big"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/session"
	"ws-gateway/session/auth"
)

// Tokens are signed by hand here, so that the library under test does not vouch for itself.

var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	otherRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	smallRSA = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	p256Key  = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384Key  = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521Key  = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	edKey    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
)

const hmacSecret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" // 64 bytes

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type object = map[string]any

// claims are good ones for member 42, with changes.
func claims(changes object) object {
	c := object{"sub": "42", "aud": "gateway", "iss": "https://issuer.example", "exp": time.Now().Add(time.Hour).Unix(), "roles": []string{"gold"}}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func segment(v any) string {
	data, raw := v.(string)
	if !raw {
		data = string(must(json.Marshal(v)))
	}
	return base64.RawURLEncoding.EncodeToString([]byte(data))
}

// sign makes a token. A header or payload that is a string stands for itself.
func sign(key any, header, payload any) session.Token {
	alg := ""
	if h, ok := header.(object); ok {
		alg, _ = h["alg"].(string)
	}
	return signAs(alg, key, header, payload)
}

func signAs(alg string, key any, header, payload any) session.Token {
	input := segment(header) + "." + segment(payload)
	newHash, hashID := sha256.New, crypto.SHA256
	switch {
	case strings.HasSuffix(alg, "384"):
		newHash, hashID = sha512.New384, crypto.SHA384
	case strings.HasSuffix(alg, "512"):
		newHash, hashID = sha512.New, crypto.SHA512
	}
	sum := digestOf(newHash, input)
	var sig []byte
	switch k := key.(type) {
	case []byte:
		mac := hmac.New(newHash, k)
		mac.Write([]byte(input))
		sig = mac.Sum(nil)
	case *rsa.PrivateKey:
		if strings.HasPrefix(alg, "PS") {
			sig = must(rsa.SignPSS(rand.Reader, k, hashID, sum, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		} else {
			sig = must(rsa.SignPKCS1v15(nil, k, hashID, sum))
		}
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, k, sum)
		if err != nil {
			panic(err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		sig = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case ed25519.PrivateKey:
		sig = ed25519.Sign(k, []byte(input))
	}
	return session.Token(input + "." + base64.RawURLEncoding.EncodeToString(sig))
}

func digestOf(h func() hash.Hash, s string) []byte {
	d := h()
	d.Write([]byte(s))
	return d.Sum(nil)
}

func publicPEM(keys ...any) string {
	var b strings.Builder
	for _, k := range keys {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(k))}))
	}
	return b.String()
}

func certificatePEM() string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}}
	der := must(x509.CreateCertificate(rand.Reader, template, template, edKey.Public(), edKey))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func pemFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys.pem")
	writeFile(t, name, content)
	return name
}

func newJWT(t *testing.T, o auth.JWTOptions) *auth.JWT {
	t.Helper()
	if o.Audience == "" {
		o.Audience = "gateway"
	}
	j, err := auth.NewJWT(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

// jwk is the public half of key as JSON.
func jwk(kid string, key any, changes object) object {
	b64 := base64.RawURLEncoding.EncodeToString
	k := object{"kid": kid, "use": "sig"}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		maps.Copy(k, object{"kty": "RSA", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())})
	case *ecdsa.PrivateKey:
		point := must(key.PublicKey.Bytes())[1:]
		maps.Copy(k, object{"kty": "EC", "crv": key.Params().Name, "x": b64(point[:len(point)/2]), "y": b64(point[len(point)/2:])})
	case ed25519.PrivateKey:
		maps.Copy(k, object{"kty": "OKP", "crv": "Ed25519", "x": b64(key.Public().(ed25519.PublicKey))})
	case []byte:
		maps.Copy(k, object{"kty": "oct", "k": b64(key)})
	}
	maps.Copy(k, changes)
	return k
}

func jwks(keys ...object) string {
	if keys == nil {
		keys = []object{}
	}
	return string(must(json.Marshal(object{"keys": keys})))
}
