package script

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

func TestDecodeJSON(t *testing.T) {
	for text, want := range map[string]string{
		`{"b":[1,-2.5,1e3],"a":{"x":null,"y":true}}`: `{"a":{"y":true},"b":[1,-2.5,1000]}`,
		` [ ] `:                      `[]`,
		`{}`:                         `[]`, // Lua has one empty table
		`"\u00e4\ud83d\ude00\n\/\\"`: `"ä😀\n/\\"`,
		`"ä"`:                        `"ä"`,
		`false`:                      `false`,
		`null`:                       `null`,
		`0`:                          `0`,
		`-0`:                         `0`,
		`9007199254740991`:           `9007199254740991`,
		`1e300`:                      `1e+300`,
		`{"a":1,"a":2}`:              `{"a":2}`,
		`{"10":1,"9":2}`:             `{"10":1,"9":2}`,
	} {
		v, err := decodeJSON(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := appendJSON(nil, v, 0, unbounded); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}

// A list is one, however long it is.
func TestDecodeJSONLongList(t *testing.T) {
	v, err := decodeJSON("[" + strings.Repeat("true,", lua.MaxArrayIndex) + "true]")
	if err != nil {
		t.Fatal(err)
	}
	if n := v.(*lua.LTable).Len(); n != lua.MaxArrayIndex+1 {
		t.Errorf("%d elements, want %d", n, lua.MaxArrayIndex+1)
	}
}

func TestDecodeJSONErrors(t *testing.T) {
	for _, text := range []string{
		``, ` `, `{`, `[`, `[1`, `[1,`, `[1,]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `'a'`, `"a`, `"\`, `"\x"`, `"\u12"`, `"\ud800"`, `"\ud800\u0041"`,
		`"\udc00"`, "\"\x01\"", "\"\xff\"", "\"\\n\xff\"", `01`, `-`, `1.`, `.5`, `1e`, `+1`, `0x1`, `NaN`, `1e999`, `tru`, `nul`, `1 2`, `{} x`,
		strings.Repeat("[", 100) + strings.Repeat("]", 100),
	} {
		if v, err := decodeJSON(text); err == nil {
			t.Errorf("%s: %v, want an error", text, v)
		}
	}
}

func TestEncodeJSON(t *testing.T) {
	gaps, mixed, keyed, cycle := newTable(0, 0), newTable(0, 0), newTable(0, 0), newTable(0, 0)
	gaps.RawSetInt(3, lua.LTrue)
	mixed.RawSetInt(1, lua.LTrue)
	mixed.RawSetString("x", lua.LTrue)
	keyed.RawSetH(lua.LTrue, lua.LTrue)
	cycle.RawSetInt(1, cycle)
	for name, v := range map[string]lua.LValue{
		"gaps": gaps, "list and map": mixed, "other keys": keyed, "cycle": cycle, "function": &lua.LFunction{},
		"NaN": lua.LNumber(nan()), "long": lua.LString(strings.Repeat("x", maxString)),
	} {
		list := newTable(0, 0)
		list.RawSetInt(1, v)
		list.RawSetInt(2, v)
		if got, err := appendJSON(nil, list, 0, unbounded); err == nil {
			t.Errorf("%s: %.40s, want an error", name, got)
		}
	}
	for in, want := range map[string]string{"\x00\x1f\"\\\n\r\t\x7f<>&": `"\u0000\u001f\"\\\n\r\t` + "\x7f" + `<>&"`, "a\xffb": "\"a\uFFFDb\"", "ä\u2028": "\"ä\u2028\""} {
		if got := string(appendJSONString(nil, in)); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

// FuzzJSON compares with encoding/json: what is valid, and what it means.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e-3,"\u00e4\n"],"b":{"c":null}}`, `[true,false,null,-0]`, `[null]`, `"\ud83d\ude00"`, `{"a":1,"a":2}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := decodeJSON(text)
		whole, wholeErr := decodeInto(nil, text, null, unbounded)
		if (err == nil) != (wholeErr == nil) {
			t.Fatalf("%q: %v, with mix.null %v", text, err, wholeErr)
		}
		var want any
		peerErr := json.Unmarshal([]byte(text), &want)
		if err != nil {
			return // it is stricter: UTF-8, surrogates, depth, range of numbers
		}
		if peerErr != nil {
			t.Fatalf("%q is taken, encoding/json: %v", text, peerErr)
		}
		compare := func(v lua.LValue, nulls bool) {
			out, err := appendJSON(nil, v, 0, unbounded)
			if err != nil && !nulls {
				return // nulls in lists
			}
			var got any
			if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil {
				t.Fatalf("%q became %q: %v", text, out, err)
			}
			if !reflect.DeepEqual(plain(got, nulls), plain(want, nulls)) {
				t.Errorf("%q became %q", text, out)
			}
		}
		compare(v, false)
		compare(whole, true)
	})
}

// plain makes of a decoded value what Lua can tell apart: there is one empty table, no negative
// zero, and unless nulls no null in a table.
func plain(v any, nulls bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if e != nil || nulls {
				out[k] = plain(e, nulls)
			}
		}
		if len(out) > 0 {
			return out
		}
		return "empty"
	case []any:
		for len(v) > 0 && v[len(v)-1] == nil && !nulls {
			v = v[:len(v)-1]
		}
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = plain(e, nulls)
		}
		if len(out) > 0 {
			return out
		}
		return "empty"
	case float64:
		return v + 0
	}
	return v
}
