package apps_test

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"ws-gateway/apps"
)

// only returns a registry that has no other apps than those that the keys stand for.
func only(keys ...string) (*apps.Registry, error) {
	var b strings.Builder
	b.WriteString("default: deny\napps:\n")
	for _, key := range keys {
		fmt.Fprintf(&b, "  %q: {}\n", key)
	}
	return apps.Parse("apps.yaml", []byte(b.String()))
}

func TestPatterns(t *testing.T) {
	deep := strings.Repeat("a*", 64)
	tests := []struct {
		pattern string
		yes     map[string]int64 // name: owner
		no      []string
	}{
		{"*", map[string]int64{"a": 0, "a:b/c": 0, strings.Repeat("z", 128): 0}, nil},
		{"video:*", map[string]int64{"video:1": 0, "video:": 0, "video:a:b/c": 0}, []string{"video", "Video:1", "xvideo:1"}},
		{"*:lobby", map[string]int64{":lobby": 0, "a:b:lobby": 0, ":lobby:lobby": 0}, []string{"lobby", "a:lobby:b"}},
		{"a*b*c", map[string]int64{"abc": 0, "axbxc": 0, "abbcc": 0}, []string{"ac", "acb", "abca"}},
		{"ab*ba", map[string]int64{"abba": 0, "ab:ba": 0}, []string{"aba", "ab"}},
		{deep, map[string]int64{strings.Repeat("a", 128): 0}, []string{strings.Repeat("a", 63), strings.Repeat("ab", 63)}},
		{"user:{member_id}",
			map[string]int64{"user:1": 1, "user:42": 42, "user:9007199254740991": 9007199254740991},
			[]string{"user:", "user:0", "user:007", "user:-1", "user:1.5", "user:1e3", "user:9007199254740992", "user:10000000000000000",
				"user:99999999999999999999999", "user:1:", "user:1x", "user:x1", "user:{member_id}"}},
		{"{member_id}", map[string]int64{"7": 7}, []string{"07", "a7", "7a"}},
		{"{member_id}:inbox", map[string]int64{"7:inbox": 7}, []string{"7:inbox:", ":inbox", "a:7:inbox"}},
		{"user:{member_id}:*", map[string]int64{"user:1:2": 1, "user:12:": 12}, []string{"user:1", "user::1", "user:01:2"}},
		{"*:{member_id}", map[string]int64{"a:1:2": 2, ":7": 7}, []string{"7", "a:07", "a:1:", "a:b7"}},
		{"*/{member_id}/in", map[string]int64{"a/1/2/in": 2}, []string{"a/1/in/", "1/in"}},
	}
	for _, tt := range tests {
		t.Run(tt.pattern, func(t *testing.T) {
			r, err := only(tt.pattern)
			if err != nil {
				t.Fatal(err)
			}
			for name, owner := range tt.yes {
				for range 2 { // resolved, then cached
					app, err := r.Lookup(name)
					if err != nil {
						t.Errorf("does not match %q", name)
					} else if app.Owner != owner || app.Name != name || app.Rule != tt.pattern || app.Named {
						t.Errorf("%q is %+v, want owner %d", name, app, owner)
					}
				}
			}
			for _, name := range tt.no {
				if app, err := r.Lookup(name); err == nil {
					t.Errorf("matches %q: %+v", name, app)
				}
			}
		})
	}
}

func TestPatternsRefused(t *testing.T) {
	for pattern, want := range map[string]string{
		"**":                           "** matches what * does: write *",
		"a**b":                         "** matches what * does: write *",
		"{id}":                         "braces can only be {member_id}",
		"a}":                           "braces can only be {member_id}",
		"{member_id}:{member_id}":      "{member_id} can be there only once",
		"*{member_id}":                 "{member_id} cannot touch * or a digit, or the member would be ambiguous",
		"{member_id}*":                 "{member_id} cannot touch * or a digit, or the member would be ambiguous",
		"a1{member_id}":                "{member_id} cannot touch * or a digit, or the member would be ambiguous",
		"{member_id}0:*":               "{member_id} cannot touch * or a digit, or the member would be ambiguous",
		"*:{member_id}:*":              "* can stand on one side of {member_id} only, or the member would be ambiguous",
		"a b*":                         "' ' cannot be in an app name, only letters, digits and _ . : @ / -",
		"é*":                           "'é' cannot be in an app name, only letters, digits and _ . : @ / -",
		strings.Repeat("a", 129) + "*": "longer than 128 bytes",
		strings.Repeat("a:*", 65):      "matches no app name: they have at most 128 bytes",
		strings.Repeat("a", 127) + ":{member_id}": "matches no app name: they have at most 128 bytes",
	} {
		if _, err := only(pattern); err == nil || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%.40q: %v, want %q", pattern, err, want)
		}
	}
	for _, pattern := range []string{"gateway*", strings.Repeat("a", 128) + "*", strings.Repeat("a", 126) + ":{member_id}"} {
		if _, err := only(pattern); err != nil {
			t.Errorf("%.40q is refused: %v", pattern, err)
		}
	}
}

func TestLongestLiteralWins(t *testing.T) {
	r, err := only("*", "a*", "a:*", "*:room", "a:*:room", "a:1:room", "{member_id}:rooms", "a:{member_id}:rooms")
	if err != nil {
		t.Fatal(err)
	}
	for name, rule := range map[string]string{
		"b": "*", "a": "a*", "ab": "a*", "a:b": "a:*", "b:room": "*:room", "a:b:room": "a:*:room",
		"a:1:room": "a:1:room", "a:2:room": "a:*:room", "7:b": "*",
		"7:rooms": "{member_id}:rooms", "a:7:rooms": "a:{member_id}:rooms", "a:x7:rooms": "a:*",
	} {
		app, err := r.Lookup(name)
		if err != nil || app.Rule != rule {
			t.Errorf("%s is decided by %v, %v; want %s", name, app, err, rule)
		}
	}
}

// What looks like a member's own app, but for its number, is nobody's: no more general entry
// makes it an app. What the file has a name or a longer pattern for is the operator's choice.
func TestMisspeltMember(t *testing.T) {
	r, err := apps.Parse("apps.yaml", []byte(`apps:
  "user:{member_id}": {visibility: private, subscribe: [owner]}
  "a:*": {}
  "a:{member_id}:rooms": {}
  "*/{member_id}/in": {}
  "user:007": {}
  "user:00*": {}
  "vip:{member_id}": {}
  "*:012": {}
`))
	if err != nil {
		t.Fatal(err)
	}
	for name, rule := range map[string]string{
		"user:0":                  "user:{member_id}",
		"user:01":                 "user:{member_id}",
		"user:9007199254740992":   "user:{member_id}",
		"user:100000000000000000": "user:{member_id}",
		"a:07:rooms":              "a:{member_id}:rooms",
		"b/c/0/in":                "*/{member_id}/in",
	} {
		want := "apps: bad app name for " + rule + ": its number is no member's id, 1 to 9007199254740991 without leading zeros"
		for range 2 {
			if app, err := r.Lookup(name); !errors.Is(err, apps.ErrBadName) || err.Error() != want {
				t.Errorf("%s: %+v, %v", name, app, err)
			}
		}
		var denied *apps.DeniedError
		if app, err := r.Authorize(apps.Member{ID: 1}, apps.Subscribe, name); !errors.As(err, &denied) || denied.Rule != rule {
			t.Errorf("member 1 may subscribe to %s: %+v, %v", name, app, err)
		}
	}
	for name, rule := range map[string]string{
		"user:1": "user:{member_id}", "user:": "default", "user:x1": "default", "user:1x": "default", "user:-1": "default", "users:01": "default",
		"user:007": "user:007", "user:008": "user:00*", "a:07": "a:*", "a:07:room": "a:*", "vip:012": "*:012",
	} {
		if app, err := r.Lookup(name); err != nil || app.Rule != rule {
			t.Errorf("%s is decided by %+v, %v; want %s", name, app, err, rule)
		}
	}
}

func TestTies(t *testing.T) {
	a64, b64 := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, tt := range []struct{ a, b, name string }{
		{"a*", "*a", "a"},
		{"a:*", "*:b", "a:b"},
		{"user:{member_id}", "user:*", "user:1"},
		{"*", "{member_id}", "1"},
		{"x{member_id}", "*x", ""},
		{"ab*", "a*b", "ab"},
		{"a*b*", "a*b", "ab"},
		{"room:*", "user:*", ""},
		{"a*a", "b*b", ""},
		{a64 + "*", "*" + b64, a64 + b64},
		{a64 + "*", "a" + b64[1:] + "*", ""},
		{a64 + "a*", "*b" + b64, ""}, // would be 130 bytes
		// The name would have to end in a number above 2^53-1, or just not.
		{"aaaaaaaaaaaaaaaa:{member_id}", "*:9007199254740992", ""},
		{"aaaaaaaaaaaaaaaa:{member_id}", "*:9007199254740991", "aaaaaaaaaaaaaaaa:9007199254740991"},
		{"aaaaaaaaaaaaaaaaa:{member_id}", "*:10000000000000000", ""},
		{"aaa:{member_id}", "*:012", ""},
	} {
		_, err := only(tt.a, tt.b)
		if _, swapped := only(tt.b, tt.a); (err == nil) != (swapped == nil) {
			t.Errorf("%s and %s: %v one way, %v the other", tt.a, tt.b, err, swapped)
		}
		if tt.name == "" {
			if err != nil {
				t.Errorf("%s and %s: %v", tt.a, tt.b, err)
			}
			continue
		}
		want := fmt.Sprintf("apps.yaml:4:3: apps.%s: ties with %s of line 3: both match %s with equally long literal parts", tt.b, tt.a, tt.name)
		if err == nil || err.Error() != want {
			t.Errorf("%s and %s: %v, want\n%s", tt.a, tt.b, err, want)
		}
	}
}

func TestFirstTieIsReported(t *testing.T) {
	for _, tt := range []struct {
		keys []string
		want string
	}{
		{[]string{"a*", "*a", "xx*", "*xx"}, "apps.yaml:4:3: apps.*a: ties with a* of line 3"},
		{[]string{"xx*", "*xx", "a*", "*a"}, "apps.yaml:4:3: apps.*xx: ties with xx* of line 3"},
		{[]string{"b*", "a*", "*c", "*d"}, "apps.yaml:5:3: apps.*c: ties with b* of line 3"},
	} {
		if _, err := only(tt.keys...); err == nil || !strings.HasPrefix(err.Error(), tt.want+":") {
			t.Errorf("%q: %v, want %s", tt.keys, err, tt.want)
		}
	}
}

// TestTiesAreComplete compares ties of all short patterns with what short names say.
func TestTiesAreComplete(t *testing.T) {
	var names []string
	for n, from := 1, []string{""}; n <= 6; n++ {
		var longer []string
		for _, s := range from {
			longer = append(longer, s+"a", s+"b", s+"1")
		}
		names, from = append(names, longer...), longer
	}
	type pattern struct {
		text    string
		matches map[string]bool
	}
	byLiteral := make(map[int][]pattern)
	total := 0
	for n, from := 1, []string{""}; n <= 4; n++ {
		var longer []string
		for _, s := range from {
			longer = append(longer, s+"a", s+"1", s+"*", s+"{member_id}")
		}
		from = longer
		for _, text := range longer {
			r, err := only(text)
			if err != nil || !strings.ContainsAny(text, "*{") {
				continue
			}
			p := pattern{text, make(map[string]bool)}
			for _, name := range names {
				if _, err := r.Lookup(name); err == nil {
					p.matches[name] = true
				}
			}
			literal := len(strings.NewReplacer("*", "", "{member_id}", "").Replace(text))
			byLiteral[literal] = append(byLiteral[literal], p)
			total++
		}
	}
	if total < 60 {
		t.Fatalf("only %d patterns were accepted", total)
	}
	for _, patterns := range byLiteral {
		for i, p := range patterns {
			for _, q := range patterns[i+1:] {
				common := ""
				for _, name := range names {
					if p.matches[name] && q.matches[name] {
						common = name
						break
					}
				}
				_, err := only(p.text, q.text)
				if (err != nil) != (common != "") {
					t.Errorf("%s and %s both match %q, Parse says %v", p.text, q.text, common, err)
				}
			}
		}
	}
}

// oracle is a pattern as a regular expression with the member id as a group.
func oracle(pattern, run string) *regexp.Regexp {
	s := regexp.QuoteMeta(pattern)
	s = strings.Replace(s, regexp.QuoteMeta("{member_id}"), "([1-9][0-9]{0,15})", 1)
	return regexp.MustCompile("^" + strings.ReplaceAll(s, `\*`, run) + "$")
}

func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{
		{"video:*", "video:1"}, {"user:{member_id}", "user:42"}, {"*:{member_id}", "a:1:2"}, {"{member_id}:*", "7:8"},
		{"a*b*c", "abbc"}, {"*a*aa*", "aaaa"}, {"{member_id}", "9007199254740992"}, {"u:{member_id}/*a", "u:1/1/a"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if !strings.ContainsAny(pattern, "*{}") {
			return
		}
		r, err := only(pattern)
		if err != nil {
			return
		}
		var owner int64
		want := apps.ValidName(name)
		for _, run := range []string{".*", ".*?"} { // the member must not depend on who is greedy
			groups := oracle(pattern, run).FindStringSubmatch(name)
			want = want && groups != nil
			if want && len(groups) > 1 {
				id, err := strconv.ParseInt(groups[1], 10, 64)
				if owner != 0 && id != owner {
					t.Fatalf("%q says that %q belongs to %d or to %d", pattern, name, owner, id)
				}
				want, owner = err == nil && id <= apps.MaxMember, id
			}
		}
		app, err := r.Lookup(name)
		if (err == nil) != want {
			t.Fatalf("%q matches %q: %v, the regular expression says %v", pattern, name, err == nil, want)
		}
		if want && app.Owner != owner {
			t.Fatalf("%q says that %q belongs to %d, the regular expression %d", pattern, name, app.Owner, owner)
		}
	})
}

func FuzzTies(f *testing.F) {
	f.Add("a*b", "*b", "ab")
	f.Add("a:{member_id}", "*:1", "a:1")
	f.Add("a*b*a", "*aba*", "aba")
	literal := strings.NewReplacer("*", "", "{member_id}", "")
	f.Fuzz(func(t *testing.T, a, b, name string) {
		ra, errA := only(a)
		rb, errB := only(b)
		if errA != nil || errB != nil || a == b || !strings.ContainsAny(a, "*{") || !strings.ContainsAny(b, "*{") {
			return
		}
		equal := len(literal.Replace(a)) == len(literal.Replace(b))
		both := func(name string) bool {
			_, errA := ra.Lookup(name)
			_, errB := rb.Lookup(name)
			return errA == nil && errB == nil
		}
		_, err := only(a, b)
		if err == nil {
			if equal && both(name) {
				t.Fatalf("%q and %q both match %q and are no tie", a, b, name)
			}
			return
		}
		_, rest, ok := strings.Cut(err.Error(), ": both match ")
		common, _, _ := strings.Cut(rest, " with")
		if !ok || !equal || !both(common) {
			t.Fatalf("%q and %q do not both match %q: %v", a, b, common, err)
		}
	})
}
