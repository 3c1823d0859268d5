package script

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/yuin/gopher-lua/pm"
)

func unbounded() bool { return true }

// find returns the first match of pattern in src with its captures, as text.
func find(src, pattern string, step func() bool) (string, error) {
	m := new(matcher)
	m.begin(src, pattern, step)
	for i := 0; i <= len(src); i++ {
		e, err := m.match(i)
		if err != nil {
			return "", err
		}
		if e >= 0 {
			out := fmt.Sprintf("%d-%d", i, e)
			for _, c := range m.captures {
				if c.length == capturePosition {
					out += fmt.Sprintf(" @%d", c.start)
				} else {
					out += fmt.Sprintf(" %q", src[c.start:c.start+c.length])
				}
			}
			return out, nil
		}
	}
	return "none", nil
}

func TestPattern(t *testing.T) {
	for _, c := range []struct{ src, pattern, want string }{
		{"hello world", "o w", "4-7"},
		{"hello", "", "0-0"},
		{"hello", "l+", "2-4"},
		{"hello", "l-o", "2-5"},
		{"hello", "(h)(.)", `0-2 "h" "e"`},
		{"hello", "()ll()", "2-4 @2 @4"},
		{"hello", "((l)l)", `2-4 "ll" "l"`},
		{"key = value", "^(%w+)%s*=%s*(%w+)$", "none"}, // ^ is the caller's business
		{"key = value", "(%w+)%s*=%s*(%w+)$", `0-11 "key" "value"`},
		{"f(a(b)c)d", "%b()", "1-8"},
		{"f(a(b", "%b()", "none"},
		{"THE (quick) fox", "%f[%a]%a+%f[%A]", "0-3"},
		{"[[x]]", "[]]+", "3-5"},
		{"a-z", "[a%-z]+", "0-3"},
		{"a]b", "[^]]+", "0-1"},
		{"abcabc", "(abc)%1", `0-6 "abc"`},
		{"12.5e3", "%d+%.?%d*", "0-4"},
		{"x\x00y", "%z", "1-2"},
		{"äö", "[\x80-\xff]+", "0-4"},
		{"aaa", "a?a?a?a", "0-3"},
		{"2024-01-02", "(%d+)-(%d+)-(%d+)", `0-10 "2024" "01" "02"`},
		{"a$", "a$", "none"},
		{"b", "[0--c]", "none"},
		{"c", "[0--c]", "0-1"},
		{"a$b", "a$b", "0-3"},
	} {
		if got, err := find(c.src, c.pattern, unbounded); err != nil || got != c.want {
			t.Errorf("%q in %q: %s, %v, want %s", c.pattern, c.src, got, err, c.want)
		}
	}
}

func TestPatternErrors(t *testing.T) {
	for pattern, want := range map[string]error{
		"%":                       errMalformedEnd,
		"[a":                      errMalformedSet,
		"[]":                      errMalformedSet,
		"[^]":                     errMalformedSet,
		"[%":                      errMalformedSet,
		"%f":                      errMissingSet,
		"%fa":                     errMissingSet,
		"%b":                      errUnbalanced,
		"%bx":                     errUnbalanced,
		"(a":                      errUnfinishedCapture,
		"a)":                      errInvalidPatCapture,
		"%1":                      errInvalidCapture,
		"(%1)":                    errInvalidCapture,
		strings.Repeat("()", 33):  errTooManyCaptures,
		strings.Repeat("a?", 300): errPatternTooComplex,
	} {
		if _, err := find(strings.Repeat("a", 400), pattern, unbounded); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", pattern, err, want)
		}
	}
}

// Patterns that take years are stopped within as many steps as are allowed.
func TestPatternL01Backtracking(t *testing.T) {
	for _, pattern := range []string{
		strings.Repeat("a-", 30) + "b", strings.Repeat("a*", 30) + "b", strings.Repeat("(a-)", 30) + "%1b",
		strings.Repeat("a?", 30) + strings.Repeat("a", 30) + "b", strings.Repeat(".-", 20) + "%bxy",
	} {
		steps := 0
		_, err := find(strings.Repeat("a", 1000), pattern, func() bool { steps++; return steps < 100000 })
		if !errors.Is(err, errStopped) || steps > 100001 {
			t.Errorf("%q: %v after %d steps, want %v", pattern, err, steps, errStopped)
		}
	}
}

// FuzzPattern compares with the matcher of gopher-lua, where that has an answer.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"hello world", "key = value", "f(a(b)c)d", "2024-01-02", "\x00\xff"} {
		for _, p := range []string{"l+o", "(%w+)%s*=%s*(%w+)", "%b()", "()(%d+)%-", "[^%s]-o", "%f[%w]%w+", "[]a-z]+$", "(.)%1"} {
			f.Add(s, p)
		}
	}
	f.Fuzz(func(t *testing.T, src, pattern string) {
		if len(src) > 24 || len(pattern) > 12 || strings.HasPrefix(pattern, "^") || known(pattern) {
			return
		}
		steps := 0
		got, err := find(src, pattern, func() bool { steps++; return steps < 50000 })
		if err != nil {
			return // gopher-lua accepts some malformed patterns
		}
		want, err := peer(src, pattern)
		if err != nil {
			return // it refuses some that are fine
		}
		if got != want {
			t.Errorf("%q in %q: %s, gopher-lua: %s", pattern, src, got, want)
		}
	})
}

// known reports whether pattern uses what gopher-lua does differently from Lua 5.1: balanced
// and frontier matches, references to position captures, %x- and x-% in a set and ranges to % and -.
func known(pattern string) bool {
	return escapedRange.MatchString(pattern) || strings.Contains(pattern, "%f") || strings.Contains(pattern, "%b") || strings.Contains(pattern, "()") && reference.MatchString(pattern)
}

var (
	reference    = regexp.MustCompile(`%[0-9]`)
	escapedRange = regexp.MustCompile(`(?s)\[.*(%.-|-%|--)`)
)

func peer(src, pattern string) (out string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	ms, err := pm.Find(pattern, []byte(src), 0, 1)
	if err != nil {
		return "", err
	}
	if len(ms) == 0 {
		return "none", nil
	}
	m := ms[0]
	out = fmt.Sprintf("%d-%d", m.Capture(0), m.Capture(1))
	for i := 2; i < m.CaptureLength(); i += 2 {
		if m.IsPosCapture(i) {
			out += fmt.Sprintf(" @%d", m.Capture(i)-1)
		} else {
			out += fmt.Sprintf(" %q", src[m.Capture(i):m.Capture(i+1)])
		}
	}
	return out, nil
}
