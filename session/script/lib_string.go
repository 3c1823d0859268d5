package script

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// The functions of the string library whose results or running time have no bound in
// gopher-lua. Cases are those of ASCII: strings are bytes.

func (s *state) stringRep(L *lua.LState) int {
	str, n := L.CheckString(1), max(L.CheckInt(2), 0)
	if n > 0 && len(str) > maxString/n {
		L.RaiseError("resulting string too long")
	}
	s.b.charge(L, len(str)*n)
	L.Push(lua.LString(strings.Repeat(str, n)))
	return 1
}

func (s *state) stringReverse(L *lua.LState) int {
	str := L.CheckString(1)
	s.b.charge(L, len(str))
	out := make([]byte, len(str))
	for i := range len(str) {
		out[len(str)-1-i] = str[i]
	}
	L.Push(lua.LString(out))
	return 1
}

func (s *state) stringLower(L *lua.LState) int { return s.mapBytes(L, 'A', 'Z') }
func (s *state) stringUpper(L *lua.LState) int { return s.mapBytes(L, 'a', 'z') }

// mapBytes changes the case of the letters from first to last.
func (s *state) mapBytes(L *lua.LState, first, last byte) int {
	out := []byte(L.CheckString(1))
	s.b.charge(L, len(out))
	for i, c := range out {
		if first <= c && c <= last {
			out[i] ^= 0x20
		}
	}
	L.Push(lua.LString(out))
	return 1
}

// stringFormat is C's sprintf as Lua has it: a width or precision has two digits at most.
func (s *state) stringFormat(L *lua.LState) int {
	format := L.CheckString(1)
	var out []byte
	arg := 1
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			out = append(out, format[i])
			continue
		}
		if i++; i < len(format) && format[i] == '%' {
			out = append(out, '%')
			continue
		}
		start := i
		for i < len(format) && strings.IndexByte("-+ #0", format[i]) >= 0 {
			i++
		}
		flags := format[start:i]
		width, i2 := digits(format, i)
		precision := ""
		if i = i2; i < len(format) && format[i] == '.' {
			precision, i = digits(format, i+1)
			precision = "." + precision
		}
		if len(flags) > 5 || len(width) > 2 || len(precision) > 3 {
			L.RaiseError("invalid format (width or precision too long)")
		}
		if i == len(format) {
			L.RaiseError("invalid option '%%' to 'format'")
		}
		arg++
		verb := "%" + flags + width + precision
		switch c := format[i]; c {
		case 'c':
			out = append(out, byte(L.CheckInt(arg)))
		case 'd', 'i':
			out = fmt.Appendf(out, verb+"d", int64(L.CheckNumber(arg)))
		case 'o', 'x', 'X':
			out = fmt.Appendf(out, verb+string(c), uint64(int64(L.CheckNumber(arg))))
		case 'u':
			out = fmt.Appendf(out, verb+"d", uint64(int64(L.CheckNumber(arg))))
		case 'e', 'E', 'f', 'g', 'G':
			if precision == "" {
				verb += ".6"
			}
			out = fmt.Appendf(out, verb+string(c), float64(L.CheckNumber(arg)))
		case 'q':
			out = appendQuoted(out, L.CheckString(arg))
		case 's':
			str := L.ToStringMeta(L.CheckAny(arg)).String()
			if verb == "%" {
				out = append(out, str...)
			} else {
				out = fmt.Appendf(out, verb+"s", str)
			}
		default:
			L.RaiseError("invalid option '%%%c' to 'format'", c)
		}
		if len(out) > maxString {
			break
		}
	}
	s.b.charge(L, len(out))
	L.Push(lua.LString(out))
	return 1
}

// digits returns the run of digits at i and where it ends.
func digits(s string, i int) (string, int) {
	start := i
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return s[start:i], i
}

// appendQuoted appends s as a literal that Lua reads back as s.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\', '\n':
			dst = append(dst, '\\', c)
		case '\r':
			dst = append(dst, `\r`...)
		case 0:
			dst = append(dst, `\000`...)
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}

// appendNumber appends n as tostring shows it.
func appendNumber(dst []byte, n float64) []byte {
	if i := int64(n); float64(i) == n && math.Abs(n) < 1<<62 {
		return strconv.AppendInt(dst, i, 10)
	}
	return append(dst, lua.LNumber(n).String()...)
}

// A search is what find, match, gmatch and gsub share.
type search struct {
	*matcher
	L        *lua.LState
	anchored bool
}

// search prepares m to match pattern against src; anchor says whether ^ at the start of the
// pattern means the start of the search.
func (s *state) search(L *lua.LState, m *matcher, src, pattern string, anchor bool) search {
	anchored := anchor && strings.HasPrefix(pattern, "^")
	if anchored {
		pattern = pattern[1:]
	}
	m.begin(src, pattern, s.step)
	return search{m, L, anchored}
}

// at matches at position i and returns the end of the match, or -1.
func (m search) at(i int) int {
	e, err := m.match(i)
	if err != nil {
		m.L.RaiseError("%s", err.Error())
	}
	return e
}

// next returns the first match at or after i, or -1, -1.
func (m search) next(i int) (start, end int) {
	for ; i <= len(m.src); i++ {
		if e := m.at(i); e >= 0 {
			return i, e
		}
		if m.anchored {
			break
		}
	}
	return -1, -1
}

// value returns capture i of a match from start to end; capture 0 of a pattern without
// captures is the whole match.
func (m search) value(i, start, end int) lua.LValue {
	if i >= len(m.captures) {
		if i > 0 {
			m.L.RaiseError("%s", errInvalidCapture.Error())
		}
		return lua.LString(m.src[start:end])
	}
	c := m.captures[i]
	if c.length == capturePosition {
		return lua.LNumber(c.start + 1)
	}
	return lua.LString(m.src[c.start : c.start+c.length])
}

// push pushes all captures and returns how many they are: at least one if whole is true,
// which then is the whole match.
func (m search) push(start, end int, whole bool) int {
	n := len(m.captures)
	if n == 0 && whole {
		n = 1
	}
	for i := range n {
		m.L.Push(m.value(i, start, end))
	}
	return n
}

// start reads the optional argument that says where a search begins, from 0.
func searchStart(L *lua.LState, arg, size int) int {
	i := L.OptInt(arg, 1)
	if i < 0 {
		i += size + 1
	}
	return min(max(i-1, 0), size)
}

func (s *state) stringFind(L *lua.LState) int {
	src, pattern := L.CheckString(1), L.CheckString(2)
	start := searchStart(L, 3, len(src))
	if lua.LVAsBool(L.Get(4)) || !strings.ContainsAny(pattern, "^$*+?.([%-") {
		i := strings.Index(src[start:], pattern)
		if i < 0 {
			L.Push(lua.LNil)
			return 1
		}
		L.Push(lua.LNumber(start + i + 1))
		L.Push(lua.LNumber(start + i + len(pattern)))
		return 2
	}
	m := s.search(L, &s.matcher, src, pattern, true)
	i, e := m.next(start)
	if i < 0 {
		L.Push(lua.LNil)
		return 1
	}
	L.Push(lua.LNumber(i + 1))
	L.Push(lua.LNumber(e))
	return 2 + m.push(i, e, false)
}

func (s *state) stringMatch(L *lua.LState) int {
	src, pattern := L.CheckString(1), L.CheckString(2)
	m := s.search(L, &s.matcher, src, pattern, true)
	i, e := m.next(searchStart(L, 3, len(src)))
	if i < 0 {
		L.Push(lua.LNil)
		return 1
	}
	return m.push(i, e, true)
}

// stringGmatch keeps its place in a variable of the function, where a snapshot finds it.
func (s *state) stringGmatch(L *lua.LState) int {
	src, pattern := L.CheckString(1), L.CheckString(2)
	L.Push(L.NewClosure(func(L *lua.LState) int {
		pos := int(lua.LVAsNumber(L.Get(lua.UpvalueIndex(1))))
		m := s.search(L, &s.matcher, src, pattern, false)
		i, e := m.next(pos)
		switch {
		case i < 0:
			pos = len(src) + 1
		case i == e:
			pos = e + 1 // an empty match must not be found again
		default:
			pos = e
		}
		L.Replace(lua.UpvalueIndex(1), lua.LNumber(pos))
		if i < 0 {
			return 0
		}
		return m.push(i, e, true)
	}, lua.LNumber(0)))
	return 1
}

func (s *state) stringGsub(L *lua.LState) int {
	src, pattern, repl := L.CheckString(1), L.CheckString(2), L.Get(3)
	switch repl.Type() {
	case lua.LTString, lua.LTNumber, lua.LTTable, lua.LTFunction:
	default:
		L.ArgError(3, "string/function/table expected")
	}
	limit := L.OptInt(4, len(src)+1)
	m := s.search(L, new(matcher), src, pattern, true) // what it calls may search, too
	var out []byte
	count, pos := 0, 0
	for count < limit {
		e := m.at(pos)
		if e >= 0 {
			count++
			out = s.replace(m, out, repl, pos, e)
		}
		if e > pos {
			pos = e
		} else if pos < len(src) {
			out = append(out, src[pos])
			pos++
		} else {
			break
		}
		if m.anchored || len(out) > maxString {
			break
		}
	}
	if pos < len(src) {
		out = append(out, src[pos:]...)
	}
	s.b.charge(L, len(out))
	L.Push(lua.LString(out))
	L.Push(lua.LNumber(count))
	return 2
}

// replace appends what gsub puts in place of the match from start to end.
func (s *state) replace(m search, out []byte, repl lua.LValue, start, end int) []byte {
	L := m.L
	var v lua.LValue
	switch r := repl.(type) {
	case *lua.LTable:
		v = L.GetTable(r, m.value(0, start, end))
	case *lua.LFunction:
		L.Push(r)
		L.Call(m.push(start, end, true), 1)
		v = L.Get(-1)
		L.Pop(1)
	default:
		text := lua.LVAsString(r)
		for i := 0; i < len(text); i++ {
			switch {
			case text[i] != '%' || i+1 == len(text):
				out = append(out, text[i])
			case !isDigit(text[i+1]):
				i++
				out = append(out, text[i])
			default:
				i++
				if text[i] == '0' {
					out = append(out, m.src[start:end]...)
				} else {
					out = appendString(out, m.value(int(text[i]-'1'), start, end))
				}
			}
			if len(out) > maxString {
				break
			}
		}
		return out
	}
	if lua.LVIsFalse(v) {
		return append(out, m.src[start:end]...)
	}
	if !lua.LVCanConvToString(v) {
		L.RaiseError("invalid replacement value (a %s)", v.Type())
	}
	return appendString(out, v)
}
