package auth

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"

	"ws-gateway/session"
)

// A digest is sha256(salt + token): for tokens that nobody can guess.
type digest struct {
	salt string
	sum  [sha256.Size]byte
}

const maxSalt = 64

func newDigest(salt string, t session.Token) digest {
	return digest{salt, sha256.Sum256([]byte(salt + string(t)))}
}

func parseDigest(s string) (proof, error) {
	salt, sum, ok := strings.Cut(strings.TrimPrefix(s, "sha256:"), ":")
	if !ok || len(sum) != 2*sha256.Size {
		return nil, errProof
	}
	if salt == "" || len(salt) > maxSalt {
		return nil, fmt.Errorf("sha256: want a salt of 1 to %d bytes", maxSalt)
	}
	d := digest{salt: salt}
	if _, err := hex.Decode(d.sum[:], []byte(sum)); err != nil {
		return nil, errProof
	}
	return d, nil
}

func (d digest) matches(t session.Token) bool {
	got := newDigest(d.salt, t)
	return subtle.ConstantTimeCompare(got.sum[:], d.sum[:]) == 1
}

func (d digest) String() string { return fmt.Sprintf("sha256:%s:%x", d.salt, d.sum) }

// A stretched is an argon2id hash (RFC 9106), written as a PHC string.
type stretched struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
	salt    string
	key     string
}

// Bounds on what an entry may ask for, so that a mistyped one cannot stall logins. The
// defaults are OWASP's minimum for argon2id.
const (
	minMemory, defaultMemory, maxMemory = 8, 19 << 10, 128 << 10
	defaultTime, maxTime                = 2, 16
	defaultThreads, maxThreads          = 1, 16
	keySize                             = 32
)

func newStretched(salt []byte, t session.Token) stretched {
	s := stretched{memory: defaultMemory, time: defaultTime, threads: defaultThreads, salt: string(salt)}
	s.key = s.derive(t, keySize)
	return s
}

func (s stretched) derive(t session.Token, size int) string {
	return string(argon2.IDKey([]byte(t), []byte(s.salt), s.time, s.memory, s.threads, uint32(size)))
}

func (s stretched) matches(t session.Token) bool {
	return subtle.ConstantTimeCompare([]byte(s.derive(t, len(s.key))), []byte(s.key)) == 1
}

// cost orders hashes by how long they take.
func (s stretched) cost() int { return int(s.memory) * int(s.time) }

func (s stretched) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, s.memory, s.time, s.threads,
		b64.EncodeToString([]byte(s.salt)), b64.EncodeToString([]byte(s.key)))
}

func parseStretched(text string) (proof, error) {
	f := strings.Split(text, "$") // "", argon2id, v=19, m=,t=,p=, salt, key
	if len(f) != 6 || f[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, errProof
	}
	costs := strings.Split(f[3], ",")
	if len(costs) != 3 {
		return nil, errProof
	}
	var s stretched
	var errs [3]error
	var n [3]int
	n[0], errs[0] = parseCost(costs[0], "m=", minMemory, maxMemory)
	n[1], errs[1] = parseCost(costs[1], "t=", 1, maxTime)
	n[2], errs[2] = parseCost(costs[2], "p=", 1, maxThreads)
	if err := cmp.Or(errs[:]...); err != nil {
		return nil, err
	}
	s.memory, s.time, s.threads = uint32(n[0]), uint32(n[1]), uint8(n[2])
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(f[4])
	key, err2 := base64.RawStdEncoding.Strict().DecodeString(f[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(salt) > maxSalt || len(key) < 16 || len(key) > 64 {
		return nil, fmt.Errorf("argon2id: want a salt of 8 to %d and a hash of 16 to 64 bytes, in base64 without padding", maxSalt)
	}
	s.salt, s.key = string(salt), string(key)
	return s, nil
}

func parseCost(s, name string, low, high int) (int, error) {
	digits, ok := strings.CutPrefix(s, name)
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || strconv.Itoa(n) != digits || n < low || n > high {
		return 0, fmt.Errorf("argon2id: want %sN with N from %d to %d", name, low, high)
	}
	return n, nil
}
