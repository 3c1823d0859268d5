package apps

import (
	"cmp"
	"slices"
	"strings"
)

// A tie is two rules whose patterns are equally long and match the same name.
type tie struct {
	a, b *rule // in the order of the file
	name string
}

// findTie returns the tie in list that a reader of the file comes upon first, or nil. The list
// is in the order of the file.
func findTie(list []*rule) *tie {
	order := make(map[*rule]int, len(list))
	var patterns []*rule
	for i, r := range list {
		if r.pattern != nil {
			order[r] = i
			patterns = append(patterns, r)
		}
	}
	// Patterns that have a name in common have prefixes one of which begins with the other,
	// and those are neighbours in this order: nothing else has to be compared.
	slices.SortFunc(patterns, func(a, b *rule) int {
		return cmp.Or(longestLiteral(a, b), strings.Compare(a.pattern.prefix(), b.pattern.prefix()))
	})
	var first *tie
	for i, r := range patterns {
		for _, other := range patterns[i+1:] {
			if other.pattern.literal != r.pattern.literal || !strings.HasPrefix(other.pattern.prefix(), r.pattern.prefix()) {
				break
			}
			if a, b := r.pattern.suffix(), other.pattern.suffix(); !strings.HasSuffix(a, b) && !strings.HasSuffix(b, a) {
				continue
			}
			a, b := r, other
			if order[a] > order[b] {
				a, b = b, a
			}
			if first != nil && cmp.Or(cmp.Compare(order[first.b], order[b]), cmp.Compare(order[first.a], order[a])) < 0 {
				continue
			}
			if name, ok := overlap(a.pattern, b.pattern); ok {
				first = &tie{a, b, name}
			}
		}
	}
	return first
}

// overlap returns a shortest valid app name that both p and q match, if there is one. It
// walks both patterns at once, one byte of the name at a time, through every pair of places in
// them, so its cost is bounded by the product of their lengths.
func overlap(p, q *pattern) (name string, ok bool) {
	a, b := p.tokens(), q.tokens()
	type pair struct{ a, b place }
	type step struct {
		from pair
		c    byte // 0: without a byte of the name
	}
	type arrival struct {
		at  pair
		how step
	}
	seen := make(map[pair]step)
	now, next := []arrival{{}}, []arrival(nil)
	for n := 0; len(now) > 0 && n <= maxName; n++ {
		for len(now) > 0 {
			last := len(now) - 1
			at, how := now[last].at, now[last].how
			now = now[:last]
			if _, ok := seen[at]; ok {
				continue
			}
			seen[at] = how
			if at.a.token == len(a) && at.b.token == len(b) {
				var name []byte
				for at != (pair{}) {
					if c := seen[at].c; c != 0 {
						name = append(name, c)
					}
					at = seen[at].from
				}
				slices.Reverse(name)
				return string(name), true
			}
			if skipped, ok := a.skip(at.a); ok {
				now = append(now, arrival{pair{skipped, at.b}, step{at, 0}})
			}
			if skipped, ok := b.skip(at.b); ok {
				now = append(now, arrival{pair{at.a, skipped}, step{at, 0}})
			}
			for _, c := range candidates(a.at(at.a), b.at(at.b)) {
				na, ok := a.read(at.a, c)
				if !ok {
					continue
				}
				if nb, ok := b.read(at.b, c); ok {
					next = append(next, arrival{pair{na, nb}, step{at, c}})
				}
			}
		}
		now, next = next, now[:0]
	}
	return "", false
}

// tokens is a pattern as bytes of a name, with a star or an id where it has one.
type tokens []byte

const (
	star byte = '*'
	id   byte = '{'
	end  byte = 0
)

func (p *pattern) tokens() tokens {
	var t tokens
	for i := 0; i < len(p.text); i++ {
		t = append(t, p.text[i])
		if p.text[i] == id {
			i += len(memberPart) - 1
		}
	}
	return t
}

// A place is how far a name has been read: up to a token and, in an id, how many digits of it,
// and how these compare with as many of the greatest id.
type place struct {
	token  int
	digits int
	order  int
}

func (t tokens) at(p place) byte {
	if p.token == len(t) {
		return end
	}
	return t[p.token]
}

// skip moves on to the next token without reading.
func (t tokens) skip(p place) (place, bool) {
	switch t.at(p) {
	case star:
	case id:
		if p.digits == 0 || p.digits == len(maxMemberDigits) && p.order > 0 {
			return p, false
		}
	default:
		return p, false
	}
	return place{token: p.token + 1}, true
}

// read moves on by c, which the token at p matches.
func (t tokens) read(p place, c byte) (place, bool) {
	switch token := t.at(p); token {
	case star:
		return p, true
	case id:
		if !isDigit(c) || p.digits == 0 && c == '0' || p.digits == len(maxMemberDigits) {
			return p, false
		}
		if p.order == 0 {
			p.order = int(c) - int(maxMemberDigits[p.digits])
			p.order = max(-1, min(p.order, 1))
		}
		p.digits++
		return p, true
	case end:
		return p, false
	default:
		return place{token: p.token + 1}, c == token
	}
}

// candidates are the bytes worth reading where one pattern is at a and the other at b. What
// two stars would read together only makes the name longer.
func candidates(a, b byte) []byte {
	for _, t := range [...]byte{a, b} {
		if t != star && t != id && t != end {
			return []byte{t}
		}
	}
	if a == id || b == id {
		return []byte("0987654321") // the last is tried first
	}
	return nil
}
