package auth_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/auth/authtest"
)

func writeFile(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newEntry(t *testing.T, member int64, token session.Token, roles ...string) auth.Entry {
	t.Helper()
	e, err := auth.NewEntry(member, token, roles...)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// newStatic starts a Static on a file of content and returns the file's name too.
func newStatic(t *testing.T, content string) (*auth.Static, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "members.yaml")
	writeFile(t, name, content)
	s, err := auth.NewStatic(auth.StaticOptions{File: name})
	if err != nil {
		t.Fatal(err)
	}
	return s, name
}

func membersFile(entries ...auth.Entry) string {
	var b strings.Builder
	b.WriteString("members:\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "  %v\n", e)
	}
	return b.String()
}

func authenticate(t *testing.T, a session.Authenticator, member int64, token session.Token) (session.Identity, error) {
	t.Helper()
	return a.Authenticate(t.Context(), session.Credentials{Member: member, Token: token, Remote: authtest.Local})
}

func TestStatic(t *testing.T) {
	made, chosen, other := newEntry(t, 42, "", "gold", "beta"), newEntry(t, 43, "swordfish"), newEntry(t, 44, "")
	t.Run("sha256", func(t *testing.T) {
		authtest.Run(t, func(t *testing.T, _ *slog.Logger) authtest.Backend {
			s, _ := newStatic(t, membersFile(made, other))
			return authtest.Backend{Auth: s, Member: 42, Token: made.Token, Roles: []string{"gold", "beta"}}
		})
	})
	t.Run("argon2id", func(t *testing.T) {
		authtest.Run(t, func(t *testing.T, _ *slog.Logger) authtest.Backend {
			s, _ := newStatic(t, "members:\n  43: {tokens: ["+secretArgon2+"]}\n  "+made.String())
			return authtest.Backend{Auth: s, Member: 43, Token: "secret"}
		})
	})
	t.Run("both kinds", func(t *testing.T) {
		s, _ := newStatic(t, membersFile(made, chosen))
		for _, e := range []auth.Entry{made, chosen} {
			if _, err := authenticate(t, s, e.Member, e.Token); err != nil {
				t.Errorf("member %d: %v", e.Member, err)
			}
		}
	})
}

// Hashes of "secret" by other programs: sha256sum, Debian's argon2, PHP's password_hash.
const (
	secretSHA256 = `"sha256:abc:a42178b773273f5c9f24387fbea546af537d08b8c06b23631e44878b9ce47f49"`
	secretArgon2 = `"$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$NwLSKyqrGIiZOR0o1xAodvQbqYvoClGXx5cYXiW9kDY"`
)

func TestStaticKnownAnswers(t *testing.T) {
	for name, proof := range map[string]string{
		"sha256sum":            secretSHA256,
		"sha256sum, uppercase": `"sha256:abc:A42178B773273F5C9F24387FBEA546AF537D08B8C06B23631E44878B9CE47F49"`,
		"argon2":               secretArgon2,
		"argon2, least cost":   `"$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$L1qnTgpsWMa/dMHjDHhQFw"`,
		"argon2, 4 lanes":      `"$argon2id$v=19$m=256,t=3,p=4$b3RoZXJzYWx0$/MkDVTaQ4U0ZkkYzR0LbM9uEtc25iIXi"`,
		"password_hash":        `"$argon2id$v=19$m=65536,t=4,p=1$Q2czTEwwWE1jRFRhSWUvWA$gWPWOl5wERSSVhN0gYQmR14g0JSqR26CauBbXygp8KM"`,
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newStatic(t, "members: {7: {tokens: ["+proof+"]}}")
			if _, err := authenticate(t, s, 7, "secret"); err != nil {
				t.Errorf("right token: %v", err)
			}
			if _, err := authenticate(t, s, 7, "Secret"); !errors.Is(err, session.ErrUnauthorized) {
				t.Errorf("wrong token: %v", err)
			}
		})
	}
}

func TestStaticTellsTheLogWhy(t *testing.T) {
	s, _ := newStatic(t, membersFile(newEntry(t, 42, "")))
	for member, want := range map[int64]string{42: "wrong token", 43: "unknown member"} {
		if _, err := authenticate(t, s, member, "x"); err == nil || err.Error() != "unauthorized: "+want {
			t.Errorf("member %d: %v, want %s", member, err, want)
		}
	}
}

func TestStaticAcceptsAnyOfSeveralTokens(t *testing.T) {
	old, next := newEntry(t, 42, ""), newEntry(t, 42, "")
	s, _ := newStatic(t, fmt.Sprintf("members: {42: {tokens: [%q, %q, %s]}}", old.Proof, next.Proof, secretArgon2))
	for _, token := range []session.Token{old.Token, next.Token, "secret"} {
		if _, err := authenticate(t, s, 42, token); err != nil {
			t.Error(err)
		}
	}
}

// A refusal does the same work whoever is asked for, so that its time does not tell who
// exists; and the work done for nothing proves nothing.
func TestStaticDecoys(t *testing.T) {
	one, three := newEntry(t, 1, ""), newEntry(t, 3, "")
	many := fmt.Sprintf("  3: {tokens: [%q, %q, %q]}\n", three.Proof, newEntry(t, 3, "").Proof, newEntry(t, 3, "").Proof)
	long := session.Token(strings.Repeat("x", 100)) // each digest of it needs memory: that can be counted
	fast, _ := newStatic(t, membersFile(one)+many)
	work := func(member int64) float64 {
		return testing.AllocsPerRun(100, func() {
			fast.Authenticate(context.Background(), session.Credentials{Member: member, Token: long})
		})
	}
	if a, b, c := work(1), work(3), work(999); a != b || b != c || a < 3 {
		t.Errorf("allocations: %v with one token, %v with three, %v for an unknown member; want the same", a, b, c)
	}

	slow, _ := newStatic(t, membersFile(one)+"  43: {tokens: ["+secretArgon2+"]}")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, member := range []int64{1, 43, 999} {
		_, err := slow.Authenticate(ended, session.Credentials{Member: member, Token: "wrong"})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("member %d: %v, want to wait for argon2", member, err)
		}
		if _, err := authenticate(t, slow, member, "secret"); (err == nil) != (member == 43) {
			t.Errorf("member %d with the token of 43: %v", member, err)
		}
	}
}

func TestStaticQuick(t *testing.T) {
	made := newEntry(t, 42, "")
	if s, _ := newStatic(t, membersFile(made)); !s.Quick(session.Credentials{}) {
		t.Error("a file of sha256 entries is not quick")
	}
	if s, _ := newStatic(t, membersFile(made)+"  43: {tokens: ["+secretArgon2+"]}"); s.Quick(session.Credentials{}) {
		t.Error("a file with an argon2id entry is quick, also for members without one")
	}
}

func TestStaticErrors(t *testing.T) {
	const secret = "canary-secret"
	for name, c := range map[string]struct{ file, want string }{
		"empty":             {"", "1:1: want one YAML document with the key members"},
		"comment only":      {"# soon\n", "1:1: want one YAML document with the key members"},
		"two documents":     {"members: {}\n---\nmembers: {}\n", "1:1: want one YAML document with the key members"},
		"no members":        {"{}", "1:1: want the key members"},
		"not a mapping":     {"[a]", "1:1: want a mapping (key: value)"},
		"members null":      {"members:\n", "1:9: want a mapping (key: value)"},
		"syntax":            {"members:\n  42: {tokens: [a]\n  43: {}\n", "3:3: "},
		"unknown key":       {"member: {}\n", `1:1: unknown key "member" (want members)`},
		"unknown inner key": {"members:\n  42:\n    token: [x]\n", `3:5: unknown key "token" (want tokens or roles)`},
		"member 0":          {"members:\n  0: {}\n", `2:3: member "0": want an integer from 1 to 9007199254740991`},
		"member -1":         {"members:\n  -1: {}\n", `2:3: member "-1": want an integer`},
		"member 2^53":       {"members:\n  9007199254740992: {}\n", `2:3: member "9007199254740992": want an integer`},
		"member octal":      {"members:\n  042: {}\n", `2:3: member "042": want an integer`},
		"member hex":        {"members:\n  0x2A: {}\n", `2:3: member "0x2A": want an integer`},
		"member name":       {"members:\n  bob: {}\n", `2:3: member "bob": want an integer`},
		"member twice":      {"members:\n  42: {tokens: [" + secretSHA256 + "]}\n  \"42\": {}\n", `3:3: "42" is already on line 2`},
		"key twice":         {"members:\n  42:\n    tokens: [" + secretSHA256 + "]\n    tokens: []\n", `4:5: "tokens" is already on line 3`},
		"key is a list":     {"members:\n  [42]: {}\n", `2:3: want a plain key`},
		"no tokens":         {"members:\n  42: {roles: [gold]}\n", `2:3: member 42 has no tokens`},
		"tokens empty":      {"members:\n  42: {tokens: []}\n", `2:3: member 42 has no tokens`},
		"tokens text":       {"members:\n  42: {tokens: " + secret + "}\n", `2:16: want a list`},
		"tokens null":       {"members:\n  42: {tokens: [null]}\n", `2:17: want a text`},
		"plain token":       {"members:\n  42: {tokens: [" + secret + "]}\n", `2:17: token: want "sha256:SALT:HEX"`},
		"no salt":           {"members:\n  42: {tokens: [\"sha256::a42178b773273f5c9f24387fbea546af537d08b8c06b23631e44878b9ce47f49\"]}\n", `2:17: token: sha256: want a salt of 1 to 64 bytes`},
		"short hash":        {"members:\n  42: {tokens: [\"sha256:" + secret + ":abcd\"]}\n", `2:17: token: want "sha256:SALT:HEX"`},
		"not hex":           {"members:\n  42: {tokens: [\"sha256:s:" + strings.Repeat("g", 64) + "\"]}\n", `2:17: token: want "sha256:SALT:HEX"`},
		"argon2i":           {"members:\n  42: {tokens: [\"$argon2i$v=19$m=64,t=2,p=1$c29tZXNhbHQ$NwLSKyqrGIiZOR0o1xAodv\"]}\n", `2:17: token: want "sha256:SALT:HEX"`},
		"argon2 too big":    {"members:\n  42: {tokens: [\"$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$NwLSKyqrGIiZOR0o1xAodg\"]}\n", `2:17: token: argon2id: want m=N with N from 8 to 131072`},
		"argon2 too long":   {"members:\n  42: {tokens: [\"$argon2id$v=19$m=64,t=200,p=1$c29tZXNhbHQ$NwLSKyqrGIiZOR0o1xAodg\"]}\n", `2:17: token: argon2id: want t=N with N from 1 to 16`},
		"argon2 order":      {"members:\n  42: {tokens: [\"$argon2id$v=19$t=2,m=64,p=1$c29tZXNhbHQ$NwLSKyqrGIiZOR0o1xAodg\"]}\n", `2:17: token: argon2id: want m=N`},
		"argon2 no salt":    {"members:\n  42: {tokens: [\"$argon2id$v=19$m=64,t=2,p=1$$NwLSKyqrGIiZOR0o1xAodg\"]}\n", `2:17: token: argon2id: want a salt`},
		"argon2 short hash": {"members:\n  42: {tokens: [\"$argon2id$v=19$m=64,t=2,p=1$c29tZXNhbHQ$NwLS\"]}\n", `2:17: token: argon2id: want a salt`},
		"role with a space": {"members:\n  42: {roles: [\"a b\"]}\n", `2:16: roles: want at most 64, each 1 to 128 bytes without spaces`},
		"too many roles":    {"members:\n  42: {roles: [" + manyRoles(65) + "]}\n", `roles: want at most 64`},
		"alias to itself":   {"members: &a\n  42: *a\n", `2:3: unknown key "42" (want tokens or roles)`},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "members.yaml")
			writeFile(t, file, c.file)
			_, err := auth.NewStatic(auth.StaticOptions{File: file})
			if err == nil {
				t.Fatal("accepted")
			}
			if want := "WSGW_MEMBERS_FILE: " + file + ":"; !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q and %q", err, want, c.want)
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error shows a token, or is not one line: %q", err)
			}
		})
	}
	if _, err := auth.NewStatic(auth.StaticOptions{}); err == nil || !strings.Contains(err.Error(), "WSGW_MEMBERS_FILE") {
		t.Errorf("no file: %v", err)
	}
	if _, err := auth.NewStatic(auth.StaticOptions{File: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

func manyRoles(n int) string {
	var roles []string
	for i := range n {
		roles = append(roles, fmt.Sprintf("r%d", i))
	}
	return strings.Join(roles, ", ")
}

func TestC02StaticReload(t *testing.T) {
	stays, goes, changes, joins := newEntry(t, 1, ""), newEntry(t, 2, ""), newEntry(t, 3, "", "gold"), newEntry(t, 4, "")
	second := newEntry(t, 5, "")
	two := fmt.Sprintf("  5: {tokens: [%q, %s]}\n", second.Proof, secretSHA256)
	var withdrawn []int64
	file := filepath.Join(t.TempDir(), "members.yaml")
	writeFile(t, file, membersFile(stays, goes, changes)+two)
	s, err := auth.NewStatic(auth.StaticOptions{File: file, Withdrawn: func(m int64) { withdrawn = append(withdrawn, m) }})
	if err != nil {
		t.Fatal(err)
	}

	writeFile(t, file, membersFile(stays)+"  oops")
	if err := s.Reload(); err == nil {
		t.Fatal("a bad file was accepted")
	}
	if _, err := authenticate(t, s, 2, goes.Token); err != nil {
		t.Errorf("after a bad reload: %v", err)
	}
	if withdrawn != nil {
		t.Errorf("a bad reload withdrew %v", withdrawn)
	}

	changes.Roles = nil
	writeFile(t, file, membersFile(stays, changes, joins, second))
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := authenticate(t, s, 2, goes.Token); !errors.Is(err, session.ErrUnauthorized) {
		t.Errorf("removed member: %v", err)
	}
	if _, err := authenticate(t, s, 5, "secret"); !errors.Is(err, session.ErrUnauthorized) {
		t.Errorf("removed token: %v", err)
	}
	if _, err := authenticate(t, s, 4, joins.Token); err != nil {
		t.Errorf("new member: %v", err)
	}
	slices.Sort(withdrawn)
	if !slices.Equal(withdrawn, []int64{2, 3, 5}) {
		t.Errorf("withdrawn %v, want 2 (gone), 3 (other roles), 5 (one token gone)", withdrawn)
	}
}

// A lateContext runs f once, when somebody begins to wait with it.
type lateContext struct {
	context.Context
	f func()
}

func (c *lateContext) Done() <-chan struct{} {
	if f := c.f; f != nil {
		c.f = nil
		f()
	}
	return c.Context.Done()
}

// C03: a reload takes a token away while argon2 is at it.
func TestStaticReloadDuringLogin(t *testing.T) {
	gone, stays := newEntry(t, 42, "swordfish"), newEntry(t, 43, "marlin")
	s, file := newStatic(t, membersFile(gone, stays))
	reload := func() {
		writeFile(t, file, membersFile(stays))
		if err := s.Reload(); err != nil {
			t.Error(err)
		}
	}
	_, err := s.Authenticate(&lateContext{t.Context(), reload}, session.Credentials{Member: 42, Token: "swordfish"})
	if !errors.Is(err, session.ErrUnauthorized) {
		t.Errorf("the member that is gone: %v", err)
	}
	_, err = s.Authenticate(&lateContext{t.Context(), reload}, session.Credentials{Member: 43, Token: "marlin"})
	if err != nil {
		t.Errorf("the member that stays: %v", err)
	}
}

// Everybody at once asks for argon2, some without the time to wait: nobody is refused for it.
func TestStaticArgon2Queue(t *testing.T) {
	chosen := newEntry(t, 43, "swordfish")
	s, _ := newStatic(t, membersFile(chosen))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := authenticate(t, s, 43, "swordfish"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Authenticate(ctx, session.Credentials{Member: 43, Token: "wrong"})
	if !errors.Is(err, context.Canceled) && !errors.Is(err, session.ErrUnauthorized) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestNewEntry(t *testing.T) {
	made := newEntry(t, 42, "", "gold", `qu"ote`)
	if !strings.HasPrefix(made.Proof, "sha256:") || len(made.Token) != 43 {
		t.Errorf("made %q, a token of %d bytes; want sha256 and 43", made.Proof, len(made.Token))
	}
	if chosen := newEntry(t, 42, "swordfish"); !strings.HasPrefix(chosen.Proof, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("chosen %q", chosen.Proof)
	}
	if again := newEntry(t, 42, ""); again.Token == made.Token || again.Proof == made.Proof {
		t.Error("the same token twice")
	}
	if shown := fmt.Sprint(made, &made); strings.Contains(shown, string(made.Token)) {
		t.Errorf("shows its token: %s", shown)
	}
	s, _ := newStatic(t, membersFile(made))
	if id, err := authenticate(t, s, 42, made.Token); err != nil || !slices.Equal(id.Roles, []string{"gold", `qu"ote`}) {
		t.Errorf("read back: %v, %v", id, err)
	}
	for name, make := range map[string]func() (auth.Entry, error){
		"member 0":    func() (auth.Entry, error) { return auth.NewEntry(0, "") },
		"member 2^53": func() (auth.Entry, error) { return auth.NewEntry(1<<53, "") },
		"long token":  func() (auth.Entry, error) { return auth.NewEntry(1, session.Token(strings.Repeat("x", 4097))) },
		"empty role":  func() (auth.Entry, error) { return auth.NewEntry(1, "", "") },
		"bad role":    func() (auth.Entry, error) { return auth.NewEntry(1, "", "a\nb") },
	} {
		if _, err := make(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func ExampleNewEntry() {
	e, err := auth.NewEntry(42, "", "gold")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("members:")
	fmt.Println("  " + strings.Replace(e.String(), e.Proof, "sha256:SALT:HEX", 1))
	// Output:
	// members:
	//   42: {tokens: ["sha256:SALT:HEX"], roles: ["gold"]}
}
