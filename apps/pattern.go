package apps

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// memberPart is the part of a pattern that stands for a member id.
const memberPart = "{member_id}"

// A pattern stands for many app names. In it, * matches any run of characters, the empty one
// and : and / too, and {member_id} a member id in its canonical spelling.
//
// What {member_id} matches decides who owns an app, so there must be one way only to read it
// out of a name: it does not touch a * or a digit, and * stands on one side of it only.
type pattern struct {
	text    string
	literal int  // bytes that are neither * nor {member_id}: the pattern with most wins
	owned   bool // has {member_id}
	before  glob // up to {member_id}, or everything
	after   glob // beyond {member_id}
}

// parsePattern checks text and splits it up. The error says what is wrong for people.
func parsePattern(text string) (*pattern, error) {
	before, after, owned := strings.Cut(text, memberPart)
	p := &pattern{text: text, owned: owned, before: strings.Split(before, "*"), after: strings.Split(after, "*")}
	for _, lit := range slices.Concat(p.before, p.after) {
		p.literal += len(lit)
		if strings.ContainsAny(lit, "{}") {
			if strings.Contains(after, memberPart) {
				return nil, errors.New(memberPart + " can be there only once")
			}
			return nil, errors.New("braces can only be " + memberPart)
		}
		if reason := badName(lit); lit != "" && lit != reserved && reason != "" {
			return nil, errors.New(reason)
		}
	}
	switch shortest := p.literal; {
	case strings.Contains(text, "**"):
		return nil, errors.New("** matches what * does: write *")
	case owned && shortest+1 > maxName, shortest > maxName:
		return nil, fmt.Errorf("matches no app name: they have at most %d bytes", maxName)
	case owned && len(p.before) > 1 && len(p.after) > 1:
		return nil, errors.New("* can stand on one side of " + memberPart + " only, or the member would be ambiguous")
	case owned && (touches(before, len(before)-1) || touches(after, 0)):
		return nil, errors.New(memberPart + " cannot touch * or a digit, or the member would be ambiguous")
	}
	return p, nil
}

// touches reports whether s[i], next to {member_id}, could be taken for a part of the id.
func touches(s string, i int) bool {
	return s != "" && (s[i] == '*' || isDigit(s[i]))
}

// misspelt is the owner of a name that has digits where its pattern has {member_id}, but no
// member id in its canonical spelling.
const misspelt = -1

// match reports whether name, which is valid, is one of p's, and whose it is: 0 where p has no
// {member_id}, and maybe misspelt.
func (p *pattern) match(name string) (owner int64, ok bool) {
	if !p.owned {
		return 0, p.before.match(name)
	}
	if len(p.before) == 1 {
		rest, ok := strings.CutPrefix(name, p.before[0])
		if !ok {
			return 0, false
		}
		n := 0
		for n < len(rest) && isDigit(rest[n]) {
			n++
		}
		return ownerOf(rest[:n]), n > 0 && p.after.match(rest[n:])
	}
	rest, ok := strings.CutSuffix(name, p.after[0])
	if !ok {
		return 0, false
	}
	n := len(rest)
	for n > 0 && isDigit(rest[n-1]) {
		n--
	}
	return ownerOf(rest[n:]), n < len(rest) && p.before.match(rest[:n])
}

func ownerOf(digits string) int64 {
	if id, ok := parseMember(digits); ok {
		return id
	}
	return misspelt
}

// prefix is the literal that every name of p begins with.
func (p *pattern) prefix() string { return p.before[0] }

// suffix is the literal that every name of p ends with.
func (p *pattern) suffix() string {
	if p.owned {
		return p.after[len(p.after)-1]
	}
	return p.before[len(p.before)-1]
}

// A glob is the literals around the stars of a pattern: a*b* is {"a", "b", ""}.
type glob []string

func (g glob) match(s string) bool {
	first, last := g[0], g[len(g)-1]
	if len(g) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, lit := range g[1 : len(g)-1] {
		i := strings.Index(s, lit) // the leftmost leaves most for the others
		if i < 0 {
			return false
		}
		s = s[i+len(lit):]
	}
	return true
}
