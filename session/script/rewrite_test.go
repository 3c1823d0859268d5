package script

import (
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// Whatever compiles as it is compiles rewritten, and does the same.
func TestRewriteKeepsMeaning(t *testing.T) {
	for name, text := range map[string]string{
		"order of evaluation": `local log = {} local function f(x) table.insert(log, x) return x end
			local t = {} t[f("a")], t[f("b")] = f("c"), f("d") .. f("e") .. f("f") return table.concat(log)`,
		"shadowed locals":      `x = 1 local x = 2 do local x = 3 x = 4 end x = 5 return x .. _G.x`,
		"local in its own end": `local x = 1 local x = x + 1 return x`,
		"recursive local":      `local function f(n) if n == 0 then return 0 end return n + f(n - 1) end return f(10)`,
		"local f is not seen":  `f = function() return "global" end local f = f() return f`,
		"repeat sees locals":   `local n = 0 repeat local done = n == 3 n = n + 1 until done return n`,
		"for variables":        `i = "global" for i = 1, 3 do i = i * 2 end for k, v in pairs({1}) do k = v end return i`,
		"nested functions":     `local a = 1 local function f() a = a + 1 b = a local function g() b = b + 1 a = b end g() return a .. b end return f() .. a .. b`,
		"global function":      `function f() return "f" end local t = {} function t.g() return "g" end function t.h() return "h" end return f() .. t.g() .. t.h()`,
		"methods":              `local t = {a = {b = {}}} function t.a.b:m(x) self.x = x return self end return t.a.b:m(5).x`,
		"self is local":        `local t = {} function t:m() self = 7 return self end return t:m() .. tostring(rawget(_G, "self"))`,
		"varargs":              `local function f(...) local a, b = ... return a .. b .. select("#", ...) end return f("x", "y", "z")`,
		"arg":                  `local function f(...) arg = {1, 2} return #arg end return f() .. tostring(rawget(_G, "arg"))`,
		"calls are cut to one": `local function f() return "a", "b" end return f() .. (f()) .. #{f() .. ""}`,
		"call in a target":     `local t = {n = 0} local function f() t.n = t.n + 1 return t end f().x = 1 f()["y"] = 2 return t.n .. t.x .. t.y`,
		"vararg as a target":   `local function f(...) (...).x = 3 end local t = {} f(t) return t.x`,
		"string as an object":  `local ok, err = pcall(function() local s = "x" s.y = 1 end) return tostring(ok)`,
		"nil as an object":     `return (pcall(function() local s s.y = 1 end))`,
		"newindex":             `local log = "" local t = setmetatable({}, {__newindex = function(t, k, v) log = log .. k .. v end}) t.a = 1 t.b = 2 return log`,
		"numbers":              `return 1 .. 2.5 .. -3 .. 1e100 .. 2^53 .. 0.1`,
		"goto":                 `local s = "" for i = 1, 3 do if i == 2 then goto continue end s = s .. i ::continue:: end return s`,
		"comparison and logic": `return tostring("a" .. "b" == "ab" and not ("a" .. "" < "a")) .. #("x" .. "y")`,
		"empty":                ``,
	} {
		t.Run(name, func(t *testing.T) {
			plain := lua.NewState()
			defer plain.Close()
			if err := plain.DoString("return (function(...) " + text + "\nend)()"); err != nil {
				t.Fatal(err)
			}
			proto, err := compileText([]byte(text), "test")
			if err != nil {
				t.Fatal(err)
			}
			s := newLoader(t)
			s.L.Push(s.L.NewFunction(func(L *lua.LState) int { s.run(L, proto); return 1 }))
			if err := s.L.PCall(0, 1, nil); err != nil {
				t.Fatal(err)
			}
			if got, want := s.L.Get(-1).String(), plain.Get(-1).String(); got != want {
				t.Errorf("rewritten: %s, want %s", got, want)
			}
		})
	}
}

// newLoader returns a state with the libraries and no script.
func newLoader(t testing.TB) *state {
	t.Helper()
	h, err := NewHost(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	s := &state{L: lua.NewState(lua.Options{SkipOpenLibs: true}), door: &Door{host: h, logger: h.opts.Logger}, loaded: make(map[string]lua.LValue)}
	s.openLibs()
	s.L.SetContext(&s.b)
	s.b.start(loadTime, 0)
	return s
}

// FuzzRewrite looks for text that is Lua, but not after rewriting.
func FuzzRewrite(f *testing.F) {
	for _, s := range []string{
		`local a = {b = {1, 2, c = "x" .. y}} a.b[1], z = 2, function(...) return ... end`,
		`for i = 1, 10, 2 do while true do break end repeat local x until x end`,
		`function a.b.c:d(e, ...) self.x = arg return (e)() end`,
		`if a then goto x elseif not b then f"x" else g{1} end ::x::`,
		`return -a ^ 2 .. #b .. (c or d and e) .. [[long]]`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 400 {
			return
		}
		chunk, err := parse.Parse(strings.NewReader(text), "plain")
		if err != nil {
			return
		}
		if _, err := lua.Compile(chunk, "plain"); err != nil {
			return
		}
		if _, err := compileText([]byte(text), "rewritten"); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}
