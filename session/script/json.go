package script

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"
)

// maxDepth is how deep tables and JSON values may be nested.
const maxDepth = 32

var (
	errJSON  = errors.New("not valid JSON")
	errDepth = fmt.Errorf("nested more than %d deep", maxDepth)
)

// null is mix.null: what null is in JSON, where nil would leave no trace. All states share it, as
// nothing can change it.
var null = &lua.LUserData{Metatable: nullMeta()}

func nullMeta() *lua.LTable {
	t := newTable(0, 2)
	t.RawSetString("__tostring", &lua.LFunction{IsG: true, GFunction: func(L *lua.LState) int {
		L.Push(lua.LString("null"))
		return 1
	}})
	t.RawSetString("__metatable", lua.LFalse)
	return t
}

// decodeJSON turns one JSON text into a Lua value. It builds tables directly, which takes a
// third of the time of encoding/json's any. null is nil; of duplicate keys the last counts.
func decodeJSON(text string) (lua.LValue, error) {
	return decodeInto(nil, text, lua.LNil, func() bool { return true })
}

// decodeInto is decodeJSON with a table for the outermost object, if its keys are l's, and with
// nulls for null. step is asked before each value.
func decodeInto(l *last, text string, nulls lua.LValue, step func() bool) (lua.LValue, error) {
	d := decoder{text: text, nulls: nulls, last: l, step: step}
	d.space()
	v, err := d.value(0)
	if err != nil {
		return lua.LNil, err
	}
	d.space()
	if d.i != len(text) {
		return lua.LNil, d.bad()
	}
	return v, nil
}

type decoder struct {
	text  string
	i     int
	nulls lua.LValue // what null becomes
	last  *last      // nil: every table is a new one
	step  func() bool
}

func (d *decoder) bad() error { return fmt.Errorf("%w at byte %d", errJSON, d.i) }

func (d *decoder) space() {
	for d.i < len(d.text) {
		switch d.text[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

// take skips c, and spaces before it, if it comes next.
func (d *decoder) take(c byte) bool {
	d.space()
	if d.i < len(d.text) && d.text[d.i] == c {
		d.i++
		return true
	}
	return false
}

func (d *decoder) value(depth int) (lua.LValue, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	if !d.step() {
		return nil, errStopped
	}
	if d.i == len(d.text) {
		return nil, d.bad()
	}
	switch c := d.text[d.i]; c {
	case '{':
		d.i++
		return d.object(depth)
	case '[':
		d.i++
		return d.array(depth)
	case '"':
		s, err := d.string()
		return lua.LString(s), err
	case 't':
		return lua.LTrue, d.word("true")
	case 'f':
		return lua.LFalse, d.word("false")
	case 'n':
		return d.nulls, d.word("null")
	}
	return d.number()
}

func (d *decoder) word(w string) error {
	if !strings.HasPrefix(d.text[d.i:], w) {
		return d.bad()
	}
	d.i += len(w)
	return nil
}

func (d *decoder) object(depth int) (lua.LValue, error) {
	if d.take('}') {
		return newTable(0, 0), nil
	}
	var keys [maxLast]string
	var values [maxLast]lua.LValue
	var t *lua.LTable // nil while all keys are in keys
	for n := 0; ; n++ {
		key, v, err := d.member(depth)
		if err != nil {
			return nil, err
		}
		if t == nil && (n == maxLast || depth > 0 || d.last == nil) {
			t = newTable(0, 4)
			for i := range n {
				t.RawSetString(keys[i], values[i])
			}
		}
		if t != nil {
			t.RawSetString(key, v)
		} else {
			keys[n], values[n] = key, v
		}
		if d.take('}') {
			if t == nil {
				t = d.last.fill(keys[:n+1], values[:n+1], d.text)
			}
			return t, nil
		}
		if !d.take(',') {
			return nil, d.bad()
		}
	}
}

// member reads a key and its value.
func (d *decoder) member(depth int) (string, lua.LValue, error) {
	d.space()
	if d.i == len(d.text) || d.text[d.i] != '"' {
		return "", nil, d.bad()
	}
	key, err := d.string()
	if err != nil {
		return "", nil, err
	}
	if !d.take(':') {
		return "", nil, d.bad()
	}
	d.space()
	v, err := d.value(depth + 1)
	return key, v, err
}

func (d *decoder) array(depth int) (lua.LValue, error) {
	t := newTable(0, 0)
	if d.take(']') {
		return t, nil
	}
	dense := true
	for i := 1; ; i++ {
		d.space()
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		if dense = dense && v != lua.LNil; dense {
			t.Append(v) // unlike RawSetInt beyond lua.MaxArrayIndex, too
		} else {
			t.RawSetInt(i, v)
		}
		if d.take(']') {
			return t, nil
		}
		if !d.take(',') {
			return nil, d.bad()
		}
	}
}

// string reads a string whose opening quote comes next. Without escapes the result shares
// the text's memory.
func (d *decoder) string() (string, error) {
	d.i++
	start := d.i
	ascii := true
	for d.i < len(d.text) {
		switch c := d.text[d.i]; {
		case c == '"':
			s := d.text[start:d.i]
			if !ascii && !utf8.ValidString(s) {
				return "", d.bad()
			}
			d.i++
			return s, nil
		case c == '\\':
			return d.escaped(start)
		case c < ' ':
			return "", d.bad()
		case c >= utf8.RuneSelf:
			ascii = false
		}
		d.i++
	}
	return "", d.bad()
}

// escaped goes on with a string that began at start and has an escape at d.i.
func (d *decoder) escaped(start int) (string, error) {
	out := []byte(d.text[start:d.i])
	for d.i < len(d.text) {
		c := d.text[d.i]
		switch {
		case c == '"':
			d.i++
			if !utf8.Valid(out) {
				return "", d.bad()
			}
			return string(out), nil
		case c < ' ':
			return "", d.bad()
		case c != '\\':
			out = append(out, c)
			d.i++
			continue
		}
		if d.i += 2; d.i > len(d.text) {
			return "", d.bad()
		}
		switch c := d.text[d.i-1]; c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := d.hex()
			if ok && utf16.IsSurrogate(r) {
				if ok = strings.HasPrefix(d.text[d.i:], `\u`); ok {
					var low rune
					d.i += 2
					low, ok = d.hex()
					r = utf16.DecodeRune(r, low)
					ok = ok && r != utf8.RuneError
				}
			}
			if !ok {
				return "", d.bad()
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", d.bad()
		}
	}
	return "", d.bad()
}

// hex reads the four digits of \u.
func (d *decoder) hex() (rune, bool) {
	if d.i+4 > len(d.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(d.text[d.i:d.i+4], 16, 16)
	d.i += 4
	return rune(n), err == nil
}

func (d *decoder) number() (lua.LValue, error) {
	start := d.i
	digits := func() bool {
		from := d.i
		for d.i < len(d.text) && isDigit(d.text[d.i]) {
			d.i++
		}
		return d.i > from
	}
	is := func(cs string) bool {
		if d.i < len(d.text) && strings.IndexByte(cs, d.text[d.i]) >= 0 {
			d.i++
			return true
		}
		return false
	}
	is("-")
	if !is("0") && !digits() {
		return nil, d.bad()
	}
	if s := d.text[start:d.i]; len(s) < 16 && (d.i == len(d.text) || strings.IndexByte(".eE", d.text[d.i]) < 0) {
		n, err := strconv.ParseInt(s, 10, 64)
		return lua.LNumber(n), err
	}
	if is(".") && !digits() {
		return nil, d.bad()
	}
	if is("eE") {
		is("+-")
		if !digits() {
			return nil, d.bad()
		}
	}
	f, err := strconv.ParseFloat(d.text[start:d.i], 64)
	if err != nil {
		return nil, d.bad()
	}
	return lua.LNumber(f), nil
}

// newTable returns a table with room for so many elements and string keys.
func newTable(array, keys int) *lua.LTable { return (*lua.LState)(nil).CreateTable(array, keys) }

// appendJSON appends v as JSON: a table with nothing but elements 1..n is an array, and so
// is the empty table; one with nothing but string keys is an object, its keys sorted. step is
// asked before each value.
func appendJSON(dst []byte, v lua.LValue, depth int, step func() bool) ([]byte, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	if len(dst) > maxString || !step() {
		return nil, errors.New("too long")
	}
	switch v := v.(type) {
	case *lua.LNilType:
		return append(dst, "null"...), nil
	case lua.LBool:
		return strconv.AppendBool(dst, bool(v)), nil
	case lua.LNumber:
		f := float64(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errors.New("no JSON for an infinite number")
		}
		if f == math.Trunc(f) && math.Abs(f) < 1e15 {
			return strconv.AppendInt(dst, int64(f), 10), nil
		}
		b, err := json.Marshal(f)
		return append(dst, b...), err
	case lua.LString:
		return appendJSONString(dst, string(v)), nil
	case *lua.LTable:
		return appendTable(dst, v, depth, step)
	case *lua.LUserData:
		if v == null {
			return append(dst, "null"...), nil
		}
	}
	return nil, fmt.Errorf("no JSON for a %s", v.Type())
}

func appendTable(dst []byte, t *lua.LTable, depth int, step func() bool) ([]byte, error) {
	n := t.Len()
	var keys []string
	elements := 0
	var err error
	t.ForEach(func(k, _ lua.LValue) {
		switch k := k.(type) {
		case lua.LString:
			keys = append(keys, string(k))
		case lua.LNumber:
			if f := float64(k); f != math.Trunc(f) || f < 1 || f > float64(n) {
				err = fmt.Errorf("no JSON for a table with the key %v: a list has no gaps, a map has strings as keys", k)
			}
			elements++
		default:
			err = fmt.Errorf("no JSON for a key that is a %s", k.Type())
		}
	})
	switch {
	case err != nil:
		return nil, err
	case elements > 0 && len(keys) > 0:
		return nil, errors.New("no JSON for a table that is both a list and a map")
	case len(keys) == 0:
		dst = append(dst, '[')
		for i := 1; i <= n; i++ {
			if i > 1 {
				dst = append(dst, ',')
			}
			v := t.RawGetInt(i)
			if v == lua.LNil {
				return nil, fmt.Errorf("no JSON for a list without element %d: for null it is mix.null", i)
			}
			if dst, err = appendJSON(dst, v, depth+1, step); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	}
	slices.Sort(keys)
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, k), ':')
		if dst, err = appendJSON(dst, t.RawGetString(k), depth+1, step); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// appendJSONString appends s quoted. Bytes that are not UTF-8 become U+FFFD.
func appendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(append(dst, s[start:i]...), "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}
