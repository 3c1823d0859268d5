package script_test

import (
	"testing"

	"ws-gateway/session/script"
	"ws-gateway/stat"
)

// Whatever a call writes outside the connection's context is gone before the next call.
func TestIsolationL02(t *testing.T) {
	const head = `
		local count = 0
		local cache = {n = 0, list = {1, 2, 3}}
		local guarded = setmetatable({}, {__newindex = cache})
		settings = {color = "red"}
		local module = require("lib")
		local words = ("first second"):gmatch("%a+")
		function helper() return "helper" end
	`
	for name, c := range map[string]struct{ write, read, want string }{
		"global":                 {`leak = msg.data`, `leak`, "nil"},
		"global through _G":      {`_G.leak = msg.data`, `leak`, "nil"},
		"global through rawset":  {`rawset(_G, "leak", msg.data)`, `leak`, "nil"},
		"global function":        {`function leak() end`, `leak`, "nil"},
		"global replaced":        {`settings = nil`, `settings and settings.color`, "red"},
		"function replaced":      {`helper = function() return "bad" end`, `helper()`, "helper"},
		"file variable":          {`count = count + 1`, `count`, "0"},
		"file table":             {`cache.x = msg.data`, `cache.x`, "nil"},
		"nested table":           {`cache.list[2] = msg.data`, `cache.list[2]`, "2"},
		"table.insert":           {`table.insert(cache.list, msg.data)`, `#cache.list`, "3"},
		"table.remove":           {`table.remove(cache.list, 1)`, `cache.list[1]`, "1"},
		"table.sort":             {`table.sort(cache.list, function(a, b) return a > b end)`, `cache.list[1]`, "1"},
		"setmetatable":           {`setmetatable(cache, {__index = function() return "bad" end})`, `cache.x`, "nil"},
		"metatable's field":      {`getmetatable(guarded).__index = {x = "bad"}`, `guarded.x`, "nil"},
		"__newindex":             {`guarded.x = msg.data`, `cache.x`, "nil"},
		"alias":                  {`local a = cache a.x = msg.data`, `cache.x`, "nil"},
		"through a call":         {`local function f() return cache end f().x = msg.data`, `cache.x`, "nil"},
		"method":                 {`function cache:m() return "bad" end`, `cache.m`, "nil"},
		"library":                {`string.leak = msg.data`, `string.leak`, "nil"},
		"library function":       {`string.upper = function() return "bad" end`, `("x"):upper()`, "X"},
		"mix":                    {`mix.leak = msg.data`, `mix.leak`, "nil"},
		"module":                 {`module.x = msg.data`, `require("lib").x`, "nil"},
		"module's variable":      {`module.set(msg.data)`, `module.get()`, "nil"},
		"module loaded now":      {`require("late").x = msg.data`, `require("late").x`, "nil"},
		"module's own global":    {`require("late")`, `late_global`, "nil"},
		"coroutine":              {`coroutine.wrap(function() cache.x = msg.data end)()`, `cache.x`, "nil"},
		"table kept by variable": {`cache = {x = msg.data}`, `cache.x`, "nil"},
		"iterator":               {`words()`, `words()`, "first"},
		"failed call":            {`cache.x = msg.data leak = 1 pcall(error)`, `cache.x or leak`, "nil"},
		"context":                {`mix.websocket():set_context_value("x", msg.data)`, `mix.websocket():context_value("x")`, "nil"},
		"message":                {`msg.x = msg.data`, `msg.x`, "nil"},
		"message's key":          {`msg.type = nil`, `msg.type`, "text"},
		"message's metatable":    {`setmetatable(msg, {__index = {x = "bad"}})`, `msg.x`, "nil"},
		"context of another":     {`mix.websocket():set_context({x = {y = msg.data}})`, `next(mix.websocket():context())`, "nil"},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFiles(t, map[string]string{
				"door.lua": head + `function on_message(msg)
					if msg.data == "read" then mix.websocket():send(tostring(` + c.read + `)) return end ` + c.write + ` mix.websocket():send("written") end`,
				"lib.lua":  `local v local M = {} function M.set(x) v = x end function M.get() return v end return M`,
				"late.lua": `late_global = 1 return {}`,
			}, script.Options{States: 1})
			a, b := f.connect(), f.connect()
			a.Receive("secret")
			if got := a.Next(); got != "written" {
				t.Fatalf("wrote %q", got)
			}
			b.Receive("read")
			if got := b.Next(); got != c.want {
				t.Errorf("another connection reads %q, want %q", got, c.want)
			}
		})
	}
}

// A message is decoded into the table of the one before if it has the same keys; no script
// can tell.
func TestDecodedTables(t *testing.T) {
	for name, c := range map[string]struct{ first, second, want string }{
		"values":         {``, `mix.json_encode(m)`, `{"a":3,"b":4}`},
		"added":          {`m.x = 1`, `mix.json_encode(m)`, `{"a":3,"b":4}`},
		"removed":        {`m.a = nil`, `mix.json_encode(m)`, `{"a":3,"b":4}`},
		"rawset":         {`rawset(m, "x", 1)`, `mix.json_encode(m)`, `{"a":3,"b":4}`},
		"array":          {`table.insert(m, 1)`, `#m`, "0"},
		"metatable":      {`setmetatable(m, {__index = {x = "bad"}})`, `tostring(m.x)`, "nil"},
		"order":          {``, `(function() local s = "" for k, v in pairs(m) do s = s .. k .. v end return s end)()`, "a3b4"},
		"kept":           {`kept = m; mix.websocket():set_context_value("m", m)`, `mix.json_encode({kept or 0, mix.websocket():context_value("m")})`, `[0,{"a":1,"b":2}]`},
		"twice":          {``, `mix.json_encode({m, mix.json_decode('{"a":5,"b":6}')})`, `[{"a":3,"b":4},{"a":5,"b":6}]`},
		"null":           {``, `mix.json_encode(mix.json_decode('{"a":null,"b":6}'))`, `{"b":6}`},
		"nested":         {``, `mix.json_encode(mix.json_decode('{"a":{"a":1,"b":2},"b":[{"a":7}]}'))`, `{"a":{"a":1,"b":2},"b":[{"a":7}]}`},
		"other keys":     {`mix.json_decode('{"b":1}')`, `mix.json_encode(m)`, `{"a":3,"b":4}`},
		"many keys":      {``, `#mix.json_encode(mix.json_decode('{"1":1,"2":2,"3":3,"4":4,"5":5,"6":6,"7":7,"8":8,"9":9,"10":10}'))`, "63"},
		"bad after good": {`mix.json_decode('{"a":1,"b":2}x')`, `mix.json_encode(m)`, `{"a":3,"b":4}`},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, `local constant = mix.json_decode('{"a":8,"b":9}')
				function on_message(msg)
					assert(constant.a == 8 and constant.b == 9)
					local m = mix.json_decode(msg.data)
					if m.a == 1 then `+c.first+` mix.websocket():send("first") return end
					mix.websocket():send(tostring(`+c.second+`))
				end`, script.Options{States: 1})
			p := f.connect()
			for range 2 {
				p.Receive(`{"a":1,"b":2}`)
				if got := p.Next(); got != "first" {
					t.Fatalf("first call: %q", got)
				}
			}
			p.Receive(`{"a":3,"b":4}`)
			if got := p.Next(); got != c.want {
				t.Errorf("second call: %s, want %s", got, c.want)
			}
		})
	}
}

// A context belongs to its connection, and what is taken from it is a copy.
func TestContext(t *testing.T) {
	f := start(t, `function on_message(msg)
		local conn = mix.websocket()
		if msg.data == "set" then
			local t = {deep = {1, 2}}
			conn:set_context_value("t", t)
			t.deep[1] = "changed"
			conn:context().t.deep[1] = "changed"
			conn:set_context({name = "ann", n = 1.5, yes = true})
			conn:set_context_value("gone", 1)
			conn:set_context_value("gone", nil)
		end
		conn:send(mix.json_encode(conn:context()))
	end`, script.Options{States: 1})
	a, b := f.connect(), f.connect()
	a.Receive("set")
	const want = `{"n":1.5,"name":"ann","t":{"deep":[1,2]},"yes":true}`
	if got := a.Next(); got != want {
		t.Errorf("context %s, want %s", got, want)
	}
	b.Receive("get")
	if got := b.Next(); got != "[]" {
		t.Errorf("context of another connection: %s, want []", got)
	}
	a.Receive("get")
	if got := a.Next(); got != want {
		t.Errorf("context in the next call %s, want %s", got, want)
	}
}

func TestContextLimits(t *testing.T) {
	for name, c := range map[string]struct {
		opts    script.Options
		body    string
		refused float64
	}{
		"size":        {body: `mix.websocket():set_context_value("x", ("x"):rep(2^16))`, refused: 1},
		"in parts":    {body: `for i = 1, 100 do mix.websocket():set_context_value("x" .. i, ("x"):rep(2^10)) end`, refused: 1},
		"in a table":  {body: `local t = {} for i = 1, 100 do t[i] = ("x"):rep(2^10) end mix.websocket():set_context({x = t})`, refused: 1},
		"growing":     {body: `for i = 10, 20 do mix.websocket():set_context_value("x", ("x"):rep(2^i)) end`, refused: 1},
		"keys":        {body: `for i = 1, 129 do mix.websocket():set_context_value("x" .. i, 1) end`, refused: 1},
		"set to less": {script.Options{ContextBytes: 1000}, `mix.websocket():set_context_value("x", ("x"):rep(1000))`, 1},
		"fewer keys":  {script.Options{ContextKeys: 2}, `mix.websocket():set_context({a = 1, b = 2, c = 3})`, 1},
		"function":    {body: `mix.websocket():set_context_value("x", print)`},
		"cycle":       {body: `local t = {} t.t = t mix.websocket():set_context_value("x", t)`},
	} {
		t.Run(name, func(t *testing.T) {
			c.opts.Metrics = stat.New(stat.Options{})
			f := start(t, `function on_message(msg) mix.websocket():send(tostring((pcall(function() `+c.body+` end)))) end`, c.opts)
			if got, code := f.ask("x"); got != "false" {
				t.Errorf("set: %q (close code %d), want an error", got, code)
			}
			if got := metric(t, c.opts.Metrics, "wsgateway_refused_total", stat.ReasonScriptContext); got != c.refused {
				t.Errorf("refusals counted: %v, want %v", got, c.refused)
			}
		})
	}
	t.Run("all of it", func(t *testing.T) {
		f := start(t, `function on_message(msg)
			local conn = mix.websocket()
			for i = 1, 2 do conn:set_context_value("a", ("x"):rep(900)) end
			conn:set_context_value("b", 1)
			conn:send(tostring(#conn:context_value("a")))
		end`, script.Options{ContextKeys: 2, ContextBytes: 1000})
		if got, code := f.ask("x"); got != "900" {
			t.Errorf("got %q (close code %d), want 900", got, code)
		}
	})
	t.Run("no room for the member", func(t *testing.T) {
		f := start(t, `function on_message(msg)
			local conn = mix.websocket()
			if pcall(function() conn:set_context({a = 1, b = 2, c = 3}) end) or pcall(function() conn:set_context_value("uid", 7) end) then
				conn:send("set")
				return
			end
			conn:send(tostring(conn:subscribe("im")))
		end`, script.Options{ContextKeys: 2})
		if got, code := f.ask("x"); got != "subscribe im forbidden" {
			t.Errorf("after a refused uid: %q (close code %d), want a client that is nobody's", got, code)
		}
	})
}
