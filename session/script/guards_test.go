package script_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/stat"
)

// What would take forever, or all memory, costs its own connection and nothing else: the
// healthy one beside it is served by the same door at once.
func TestGuardsL01(t *testing.T) {
	for name, c := range map[string]struct{ body, log string }{
		"endless loop":         {`while true do end`, "running time exceeded"},
		"loop of pcall":        {`while true do pcall(function() while true do end end) end`, "running time exceeded"},
		"last word of pcall":   {`return pcall(function() while true do end end)`, "running time exceeded"},
		"loop in coroutine":    {`coroutine.wrap(function() while true do end end)()`, "running time exceeded"},
		"loop after yield":     {`local c = coroutine.create(function() while true do coroutine.yield() end end) while true do coroutine.resume(c) end`, "running time exceeded"},
		"loop in metamethod":   {`local t = setmetatable({}, {__index = function() while true do end end}) return t.x`, "running time exceeded"},
		"loop in error object": {`error(setmetatable({}, {__tostring = function() while true do end end}))`, ""},
		"loop in gsub":         {`return ("x"):gsub("x", function() while true do end end)`, "running time exceeded"},
		"loop in sort":         {`table.sort({3, 2, 1}, function() while true do end end)`, "running time exceeded"},
		"recursion":            {`local function f() return 1 + f() end return f()`, "stack overflow"},
		"recursion of pcall":   {`local function f() return pcall(f) end while true do f() end`, "running time exceeded"},
		"nested coroutines":    {`local function f() return select(2, coroutine.resume(coroutine.create(f))) end error(f())`, "nest too deep"},
		"nested wraps":         {`local function f() return coroutine.wrap(f)() end return f()`, "nest too deep"},
		"many coroutines":      {`local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end`, "exceeded"},
		"rep":                  {`return string.rep("x", 2^33)`, "too long"},
		"rep by method":        {`return ("x"):rep(2^20 + 1)`, "too long"},
		"rep kept":             {`local t = {} for i = 1, 1e9 do t[i] = ("x"):rep(2^20) end`, ""},
		"format width":         {`return string.format("%999999999d", 1)`, "too long"},
		"format precision":     {`return string.format("%.999999999f", 1)`, "too long"},
		"format width of s":    {`return string.format("%2147483647s", "x")`, "too long"},
		"concat":               {`local s = "x" while true do s = s .. s end`, "too long"},
		"concat of many":       {`local s = ("x"):rep(2^19) return s .. s .. s`, "too long"},
		"concat in table":      {`local t = {} for i = 1, 100 do t[i] = ("x"):rep(20000) end return table.concat(t)`, "too long"},
		"concat of separators": {`return table.concat({1, 2, 3}, ("x"):rep(2^19))`, "too long"},
		"gsub growth":          {`local s = ("x"):rep(2^10) return (s:gsub("x", s .. s))`, "too long"},
		"gsub captures":        {`local s = ("x"):rep(2^15) return (s:gsub(".*", "%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0"))`, "too long"},
		"find backtracking":    {`return ("a"):rep(1000):find(("a-"):rep(30) .. "b")`, "stopped"},
		"match backtracking":   {`return ("a"):rep(1000):match(("a*"):rep(30) .. "b")`, "stopped"},
		"gmatch backtracking":  {`for x in ("a"):rep(1000):gmatch(("a*"):rep(30) .. "b") do end`, "stopped"},
		"gsub backtracking":    {`return ("a"):rep(1000):gsub(("a-"):rep(30) .. "b", "")`, "stopped"},
		"long list":            {`local t = {} for i = 1, 1e9 do t[i] = i end`, ""},
		"large key":            {`local t = {} for i = 1, 1e9 do local u = {} u[65535] = 1 t[i] = u end`, ""},
		"tables in tables":     {`local t = {} while true do t = {t, {}, {}, {}} end`, ""},
		"map":                  {`local t = {} for i = 1, 1e9 do t["k" .. i] = i end`, ""},
		"closures":             {`local t = {} for i = 1, 1e9 do t[i] = function() return t end end`, ""},
		"varargs":              {`local t, u = {}, {} for i = 1, 8000 do u[i] = i end for i = 1, 1e9 do t[i] = {unpack(u)} end`, ""},
		"unpack":               {`return unpack({}, 1, 1e8)`, ""},
		"byte":                 {`return ("x"):rep(2^20):byte(1, -1)`, ""},
		"str_split":            {`local t = {} for i = 1, 1e9 do t[i] = mix.str_split(("x"):rep(2^20), "") end`, ""},
		"json":                 {`local t = {} t[1] = t return mix.json_encode(t), error("cyclic")`, "cyclic"},
		"json of many lists":   {`local s = "[" .. ("[],"):rep(2^18) .. "1]" while true do mix.json_decode(s) end`, "exceeded"},
		"sort":                 {`local t = {} for i = 1, 60000 do t[i] = -i end while true do table.sort(t) end`, "running time exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			var opts script.Options
			switch c.log {
			case "too long", "stack overflow", "nest too deep", "cyclic": // whatever time the machine takes to get there
				opts.Timeout = time.Minute
			}
			f := start(t, `function on_message(msg) if msg.data == "ctl" then mix.websocket():send("fine") return end local x = (function() `+c.body+` end)() mix.websocket():send(tostring(x)) end`, opts)
			healthy := f.connect()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			answer, code := f.ask("x")
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			if code != session.CloseInternal {
				t.Errorf("answer %.40q, code %d, want close code 1011", answer, code)
			}
			if took > 5*time.Second {
				t.Errorf("ended after %v", took)
			}
			if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 1<<30 {
				t.Errorf("heap grew by %d MiB", grown>>20)
			}
			if log := f.log.String(); !strings.Contains(log, c.log) || c.log != "" && !strings.Contains(log, "door.lua:1:") {
				t.Errorf("log does not say %q and the line:\n%s", c.log, log)
			}
			healthy.Receive("ctl")
			if got := healthy.Next(); got != "fine" {
				t.Errorf("the healthy connection got %q", got)
			}
		})
	}
}

// However often a script waits, and for whatever, one call has so much time for it, and the wait
// that is on is cut short.
func TestWaitingIsBoundedL01(t *testing.T) {
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer hang.Close()
	redis := startRedis(t)
	for name, body := range map[string]string{
		"http":          `mix.http.request("GET", hang)`,
		"loop of http":  `while true do mix.http.request("GET", hang, {timeout = "1ms"}) end`,
		"context value": `mix.websocket():wait_context_value("never")`,
		"redis":         `redis:command("blpop", "nothing", "0")`,
		"pcall":         `while true do pcall(mix.http.request, "GET", hang) end`,
		"last word":     `return pcall(mix.http.request, "GET", hang)`,
		"last xpcall":   `return xpcall(function() mix.http.request("GET", hang) end, print)`,
		"last resume":   `return coroutine.resume(coroutine.create(function() mix.http.request("GET", hang) end))`,
		"coroutine":     `while true do coroutine.resume(coroutine.create(function() mix.http.request("GET", hang) end)) end`,
	} {
		t.Run(name, func(t *testing.T) {
			m := stat.New(stat.Options{})
			f := start(t, fmt.Sprintf("local hang, redis = %q, mix.redis.connection() function on_message(msg) %s end", hang.URL, body),
				script.Options{Timeout: time.Minute, Wait: 50 * time.Millisecond, Redis: map[string]string{"default": redis}, Metrics: m})
			began := time.Now()
			if _, code := f.ask("x"); code != session.CloseInternal {
				t.Errorf("close code %d, want 1011", code)
			}
			if took := time.Since(began); took >= 3*time.Second { // what one wait may take
				t.Errorf("ended after %v", took)
			}
			if log := f.log.String(); !strings.Contains(log, "waiting time exceeded: door.lua:1: ") {
				t.Errorf("log does not say what was exceeded and the line:\n%s", log)
			}
			refused, timeouts := metric(t, m, "wsgateway_refused_total", stat.ReasonScriptWait), metric(t, m, "wsgateway_script_duration_seconds_count", "timeout")
			if refused != 1 || timeouts != 1 {
				t.Errorf("counted %v refusals and %v timeouts, want 1 and 1", refused, timeouts)
			}
		})
	}
}

// What reaches files, processes, the loader or the debugger is not there, and what all
// scripts share cannot be changed.
func TestSandboxL02(t *testing.T) {
	for _, name := range []string{"io", "os", "debug", "package", "loadfile", "dofile", "load", "loadstring", "getfenv", "setfenv", "module", "newproxy", "string.dump", "_printregs"} {
		t.Run(name, func(t *testing.T) {
			if got, _ := run(t, `return type(`+name+`)`); got != "nil" {
				t.Errorf("type is %q, want nil", got)
			}
		})
	}
	for name, c := range map[string]struct{ body, want string }{
		"metatable of strings": {`return getmetatable("")`, "false"},
		"set it":               {`return pcall(setmetatable, "", {})`, "false"},
		"of a connection":      {`return getmetatable(mix.websocket())`, "false"},
		"globals are there":    {`return _G.on_message == on_message and _G._G == _G`, "true"},
		"bit":                  {`return bit == require("bit") and bit.tohex(bit.bxor(0xff00ff00, -1))`, "00ff00ff"},
		"getn":                 {`return table.getn({1, 2, 3})`, "3"},
		"gmatch":               {`local n = 0 for a, b in ("k=v, x=y"):gmatch("(%w+)=(%w+)") do n = n + #a + #b end return n`, "4"},
		"gsub":                 {`return (("hello world"):gsub("o", "0", 1))`, "hell0 world"},
		"gsub of table":        {`return (("$a $b"):gsub("%$(%w+)", {a = "1"}))`, "1 $b"},
		"format":               {`return ("%5.2f|%-4d|%x|%q|%s|%g|%%"):format(3.14159, 42, 255, 'a"b', true, 1e20)`, ` 3.14|42  |ff|"a\"b"|true|1e+20|%`},
		"concat":               {`return 1 .. "-" .. 2.5 .. (("x") .. "y")`, "1-2.5xy"},
		"concat metamethod":    {`return "a" .. setmetatable({}, {__concat = function(a, b) return a .. "!" end})`, "a!"},
		"concat of calls":      {`local function f() return 1, 2 end return f() .. f()`, "11"},
		"method definition":    {`local t = {x = {}} function t.x:m(y) return self == t.x and y end return t.x:m(7)`, "7"},
		"multiple assignment":  {`local t, i = {1, 2}, 1 i, t[i] = i + 1, 20 return t[1] .. i`, "202"},
		"swap":                 {`local t = {1, 2} t[1], t[2] = t[2], t[1] return t[1] .. t[2]`, "21"},
		"sort":                 {`local t = {5, 3, 9, 1, 7} table.sort(t) return table.concat(t, ",")`, "1,3,5,7,9"},
		"sort by function":     {`local t = {5, 3, 9, 1, 7} table.sort(t, function(a, b) return a > b end) return table.concat(t, ",")`, "9,7,5,3,1"},
		"coroutine":            {`local f = coroutine.wrap(function(a) local b = coroutine.yield(a + 1) return b * 2 end) return f(1) .. f(5)`, "210"},
		"error in coroutine":   {`local ok, e = pcall(coroutine.wrap(function() error("no", 0) end)) return tostring(ok) .. e`, "falseno"},
		"remove":               {`local t = {1, 2, 3} return table.remove(t, 1) .. table.remove(t) .. #t`, "131"},
		"upper":                {`return ("äbc\255"):upper() == "äBC\255"`, "true"},
		"vararg":               {`local function f(...) return select("#", ...) .. table.concat({...}) end return f(1, 2, 3)`, "3123"},
	} {
		t.Run(name, func(t *testing.T) {
			if got, code := run(t, c.body); got != c.want {
				t.Errorf("got %q (close code %d), want %q", got, code, c.want)
			}
		})
	}
}
