package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-jose/go-jose/v4"
)

// A key is what signatures are checked with, and the algorithms that it is for.
type key struct {
	material   any // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	algorithms []jose.SignatureAlgorithm
}

var knownAlgorithms = []jose.SignatureAlgorithm{
	jose.HS256, jose.HS384, jose.HS512,
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// parseAlgorithms reads WSGW_JWT_ALGORITHMS. Nil: nothing is said.
func parseAlgorithms(names []string) (list []jose.SignatureAlgorithm, err error) {
	for _, n := range names {
		alg := jose.SignatureAlgorithm(n)
		if !slices.Contains(knownAlgorithms, alg) {
			return nil, fmt.Errorf("WSGW_JWT_ALGORITHMS: %q is not one of %v", n, knownAlgorithms)
		}
		list = append(list, alg)
	}
	return list, nil
}

// newKey pins material to the algorithms that go with it, out of the allowed ones. Where
// nothing is allowed expressly, an RSA key is for PKCS #1 v1.5 only: one key is not for two
// schemes.
func newKey(material any, allowed []jose.SignatureAlgorithm) (key, error) {
	var fitting, usual []jose.SignatureAlgorithm
	switch m := material.(type) {
	case []byte:
		// RFC 7518, section 3.2: a secret at least as long as the hash.
		for i, size := range []int{32, 48, 64} {
			if len(m) >= size {
				fitting = append(fitting, knownAlgorithms[i])
			}
		}
		usual = fitting
	case *rsa.PublicKey:
		if bits := m.N.BitLen(); bits < 2048 || bits > 8192 {
			return key{}, fmt.Errorf("RSA key of %d bits: want 2048 to 8192", bits)
		}
		usual = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512}
		fitting = append(usual, jose.PS256, jose.PS384, jose.PS512)
	case *ecdsa.PublicKey:
		switch m.Curve.Params().Name {
		case "P-256":
			fitting = []jose.SignatureAlgorithm{jose.ES256}
		case "P-384":
			fitting = []jose.SignatureAlgorithm{jose.ES384}
		case "P-521":
			fitting = []jose.SignatureAlgorithm{jose.ES512}
		}
		usual = fitting
	case ed25519.PublicKey:
		fitting = []jose.SignatureAlgorithm{jose.EdDSA}
		usual = fitting
	}
	k := key{material, usual}
	if allowed != nil {
		k.algorithms = slices.DeleteFunc(slices.Clone(fitting), func(a jose.SignatureAlgorithm) bool {
			return !slices.Contains(allowed, a)
		})
	}
	if len(k.algorithms) == 0 {
		return key{}, errors.New("no allowed algorithm goes with this key")
	}
	return k, nil
}

// covered says which allowed algorithm none of the keys is for.
func covered(keys []key, allowed []jose.SignatureAlgorithm) error {
	for _, a := range allowed {
		if !slices.ContainsFunc(keys, func(k key) bool { return slices.Contains(k.algorithms, a) }) {
			return fmt.Errorf("WSGW_JWT_ALGORITHMS: %s does not go with the key that is set", a)
		}
	}
	return nil
}

// A secret is the one key of WSGW_JWT_SECRET.
type secret []key

func newSecret(s string, allowed []jose.SignatureAlgorithm) (secret, error) {
	if len(s) < 32 {
		return nil, fmt.Errorf("WSGW_JWT_SECRET: has %d bytes; at least 32 are needed", len(s))
	}
	k, err := newKey([]byte(s), allowed)
	if err != nil {
		return nil, fmt.Errorf("WSGW_JWT_ALGORITHMS: %w", err)
	}
	return secret{k}, covered([]key{k}, allowed)
}

func (s secret) find(context.Context, string) ([]key, error) { return s, nil }
func (secret) reload() error                                 { return nil }
func (secret) close()                                        {}

// A keyFile holds the public keys of WSGW_JWT_KEY_FILE. PEM has no kid: a token may be signed
// with any of them.
type keyFile struct {
	name    string
	allowed []jose.SignatureAlgorithm
	keys    atomic.Pointer[[]key]
}

func newKeyFile(name string, allowed []jose.SignatureAlgorithm) (*keyFile, error) {
	f := &keyFile{name: name, allowed: allowed}
	return f, f.reload()
}

func (f *keyFile) find(context.Context, string) ([]key, error) { return *f.keys.Load(), nil }
func (f *keyFile) close()                                      {}

func (f *keyFile) reload() error {
	data, err := os.ReadFile(f.name)
	if err != nil {
		return fmt.Errorf("WSGW_JWT_KEY_FILE: %w", err)
	}
	keys, err := parsePEM(data, f.allowed)
	if err != nil {
		return fmt.Errorf("WSGW_JWT_KEY_FILE: %s: %w", f.name, err)
	}
	if err := covered(keys, f.allowed); err != nil {
		return err
	}
	f.keys.Store(&keys)
	return nil
}

// maxPEMKeys bounds how many signatures are checked for one token.
const maxPEMKeys = 16

func parsePEM(data []byte, allowed []jose.SignatureAlgorithm) ([]key, error) {
	var keys []key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		material, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
		}
		k, err := newKey(material, allowed)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 || len(keys) > maxPEMKeys {
		return nil, fmt.Errorf("has %d keys in PEM: want 1 to %d", len(keys), maxPEMKeys)
	}
	return keys, nil
}

func parseBlock(b *pem.Block) (any, error) {
	switch {
	case b.Type == "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(b.Bytes)
	case b.Type == "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(b.Bytes)
	case b.Type == "CERTIFICATE":
		cert, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case strings.HasSuffix(b.Type, "PRIVATE KEY"):
		return nil, errors.New("is a private key: the gateway only needs the public one, and nobody else should have this")
	}
	return nil, fmt.Errorf("is a %q: want a PUBLIC KEY or CERTIFICATE", b.Type)
}
