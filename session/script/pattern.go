package script

import "errors"

// Lua patterns (Lua 5.1 Reference Manual, section 5.4.1), matched by backtracking. The
// matcher that gopher-lua brings cannot be stopped, and some short patterns take years on
// short subjects; this one asks before each step whether it may go on.

const (
	maxCaptures = 32 // as in the reference implementation
	maxNesting  = 200
)

// Lengths that stand for something else.
const (
	captureOpen     = -1 // not closed yet
	capturePosition = -2 // ()
)

var (
	errStopped           = errors.New("stopped")
	errPatternTooComplex = errors.New("pattern too complex")
	errMalformedEnd      = errors.New("malformed pattern (ends with '%')")
	errMalformedSet      = errors.New("malformed pattern (missing ']')")
	errMissingSet        = errors.New("missing '[' after '%f' in pattern")
	errUnbalanced        = errors.New("unbalanced pattern")
	errInvalidCapture    = errors.New("invalid capture index")
	errInvalidPatCapture = errors.New("invalid pattern capture")
	errTooManyCaptures   = errors.New("too many captures")
	errUnfinishedCapture = errors.New("unfinished capture")
)

type capture struct{ start, length int }

// A matcher matches one pattern against one subject.
type matcher struct {
	src, pat string
	step     func() bool // asked before each step; false ends the match with errStopped
	captures []capture
	room     [4]capture
	depth    int
	err      error
}

// begin makes m match pat against src.
func (m *matcher) begin(src, pat string, step func() bool) {
	*m = matcher{src: src, pat: pat, step: step}
	m.captures = m.room[:0]
}

// match tries to match the whole pattern at position s of the subject. It returns the end of
// the match, or -1. The captures are then in m.
func (m *matcher) match(s int) (int, error) {
	m.captures, m.depth, m.err = m.captures[:0], 0, nil
	e := m.do(s, 0)
	if m.err != nil {
		return -1, m.err
	}
	if e >= 0 {
		for _, c := range m.captures {
			if c.length == captureOpen {
				return -1, errUnfinishedCapture
			}
		}
	}
	return e, nil
}

func (m *matcher) fail(err error) int {
	if m.err == nil {
		m.err = err
	}
	return -1
}

// do matches the rest of the pattern from p at s.
func (m *matcher) do(s, p int) int {
	if m.depth++; m.depth > maxNesting {
		return m.fail(errPatternTooComplex)
	}
	e := m.rest(s, p)
	m.depth--
	return e
}

// rest is do, which has counted the nesting.
func (m *matcher) rest(s, p int) int {
	for {
		if m.err != nil {
			return -1
		}
		if !m.step() {
			return m.fail(errStopped)
		}
		if p == len(m.pat) {
			return s
		}
		switch m.pat[p] {
		case '(':
			if p+1 < len(m.pat) && m.pat[p+1] == ')' {
				return m.open(s, p+2, capturePosition)
			}
			return m.open(s, p+1, captureOpen)
		case ')':
			return m.close(s, p+1)
		case '$':
			if p+1 == len(m.pat) {
				if s == len(m.src) {
					return s
				}
				return -1
			}
		case '%':
			if p+1 < len(m.pat) {
				switch c := m.pat[p+1]; {
				case c == 'b':
					if s = m.balanced(s, p+2); s < 0 {
						return -1
					}
					p += 4
					continue
				case c == 'f':
					end := m.frontier(s, p+2)
					if end < 0 {
						return -1
					}
					p = end
					continue
				case '0' <= c && c <= '9':
					if s = m.back(s, c); s < 0 {
						return -1
					}
					p += 2
					continue
				}
			}
		}
		end := m.classEnd(p)
		if end < 0 {
			return -1
		}
		var suffix byte
		if end < len(m.pat) {
			suffix = m.pat[end]
		}
		switch suffix {
		case '?':
			if m.single(s, p, end) {
				if e := m.do(s+1, end+1); e >= 0 {
					return e
				}
			}
			p = end + 1
		case '*':
			return m.greedy(s, p, end)
		case '+':
			if !m.single(s, p, end) {
				return -1
			}
			return m.greedy(s+1, p, end)
		case '-':
			return m.lazy(s, p, end)
		default:
			if !m.single(s, p, end) {
				return -1
			}
			s++
			p = end
		}
	}
}

// greedy matches as many of the class at p as it can, then the rest after end.
func (m *matcher) greedy(s, p, end int) int {
	n := 0
	for m.single(s+n, p, end) {
		if n++; !m.step() {
			return m.fail(errStopped)
		}
	}
	for ; n >= 0; n-- {
		if e := m.do(s+n, end+1); e >= 0 || m.err != nil {
			return e
		}
	}
	return -1
}

// lazy matches as few of the class at p as it can, then the rest after end.
func (m *matcher) lazy(s, p, end int) int {
	for {
		if e := m.do(s, end+1); e >= 0 || m.err != nil {
			return e
		}
		if !m.single(s, p, end) {
			return -1
		}
		s++
	}
}

func (m *matcher) open(s, p, length int) int {
	if len(m.captures) == maxCaptures {
		return m.fail(errTooManyCaptures)
	}
	n := len(m.captures)
	m.captures = append(m.captures, capture{s, length})
	e := m.do(s, p)
	if e < 0 {
		m.captures = m.captures[:n]
	}
	return e
}

func (m *matcher) close(s, p int) int {
	for i := len(m.captures) - 1; i >= 0; i-- {
		if m.captures[i].length == captureOpen {
			m.captures[i].length = s - m.captures[i].start
			e := m.do(s, p)
			if e < 0 {
				m.captures[i].length = captureOpen
			}
			return e
		}
	}
	return m.fail(errInvalidPatCapture)
}

// balanced matches %bxy, whose x and y are at p.
func (m *matcher) balanced(s, p int) int {
	if p+1 >= len(m.pat) {
		return m.fail(errUnbalanced)
	}
	if s >= len(m.src) || m.src[s] != m.pat[p] {
		return -1
	}
	open, shut, nested := m.pat[p], m.pat[p+1], 1
	for i := s + 1; i < len(m.src); i++ {
		if !m.step() {
			return m.fail(errStopped)
		}
		switch m.src[i] {
		case shut:
			if nested--; nested == 0 {
				return i + 1
			}
		case open:
			nested++
		}
	}
	return -1
}

// frontier matches %f[set], whose set is at p, and returns where the set ends in the pattern.
func (m *matcher) frontier(s, p int) int {
	if p >= len(m.pat) || m.pat[p] != '[' {
		return m.fail(errMissingSet)
	}
	end := m.classEnd(p)
	if end < 0 {
		return -1
	}
	var before, here byte
	if s > 0 {
		before = m.src[s-1]
	}
	if s < len(m.src) {
		here = m.src[s]
	}
	if m.set(before, p, end-1) || !m.set(here, p, end-1) {
		return -1
	}
	return end
}

// back matches %1 to %9: what that capture holds.
func (m *matcher) back(s int, digit byte) int {
	i := int(digit - '1')
	if i < 0 || i >= len(m.captures) || m.captures[i].length == captureOpen {
		return m.fail(errInvalidCapture)
	}
	c := m.captures[i]
	n := c.length
	if n < 0 || len(m.src)-s < n || m.src[c.start:c.start+n] != m.src[s:s+n] {
		return -1
	}
	return s + n
}

// classEnd returns where the single class at p ends.
func (m *matcher) classEnd(p int) int {
	c := m.pat[p]
	p++
	switch c {
	case '%':
		if p == len(m.pat) {
			return m.fail(errMalformedEnd)
		}
		return p + 1
	case '[':
		if p < len(m.pat) && m.pat[p] == '^' {
			p++
		}
		for first := true; first || p < len(m.pat) && m.pat[p] != ']'; first = false {
			if p >= len(m.pat) {
				return m.fail(errMalformedSet)
			}
			if m.pat[p] == '%' {
				p++ // what is escaped does not end the set
			}
			p++
		}
		if p >= len(m.pat) {
			return m.fail(errMalformedSet)
		}
		return p + 1
	}
	return p
}

// single reports whether the character at s belongs to the class at p.
func (m *matcher) single(s, p, end int) bool {
	if s >= len(m.src) {
		return false
	}
	c := m.src[s]
	switch m.pat[p] {
	case '.':
		return true
	case '%':
		return inClass(c, m.pat[p+1])
	case '[':
		return m.set(c, p, end-1)
	}
	return m.pat[p] == c
}

// set reports whether c belongs to the set from p, where its [ is, to end, where its ] is.
func (m *matcher) set(c byte, p, end int) bool {
	in := true
	p++
	if m.pat[p] == '^' {
		in = false
		p++
	}
	for ; p < end; p++ {
		switch {
		case m.pat[p] == '%':
			p++
			if inClass(c, m.pat[p]) {
				return in
			}
		case p+2 < end && m.pat[p+1] == '-':
			if m.pat[p] <= c && c <= m.pat[p+2] {
				return in
			}
			p += 2
		case m.pat[p] == c:
			return in
		}
	}
	return !in
}

// inClass reports whether c belongs to the class %class. Letters are those of ASCII.
func inClass(c, class byte) bool {
	lower := class | 0x20
	var in bool
	switch lower {
	case 'a':
		in = isLetter(c)
	case 'c':
		in = c < 32 || c == 127
	case 'd':
		in = isDigit(c)
	case 'l':
		in = 'a' <= c && c <= 'z'
	case 'p':
		in = isPunct(c)
	case 's':
		in = c == ' ' || '\t' <= c && c <= '\r'
	case 'u':
		in = 'A' <= c && c <= 'Z'
	case 'w':
		in = isLetter(c) || isDigit(c)
	case 'x':
		in = isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f'
	case 'z':
		in = c == 0
	default:
		return class == c
	}
	if !isLetter(class) {
		return class == c
	}
	return in == (class == lower) // an upper case class is the complement
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isPunct(c byte) bool  { return '!' <= c && c <= '~' && !isLetter(c) && !isDigit(c) }
