package script_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/session/sessiontest"
)

func TestHandshake(t *testing.T) {
	f := start(t, `
		function on_handshake(client_id, headers, server)
			local url, err = mix.parse_url(server["RequestUri"])
			mix.websocket():send(mix.json_encode({
				same = client_id == mix.websocket():client_id(), agent = headers["User-Agent"], err = err, query = url.query, path = url.path,
				method = server.Method, proto = server.ServerProtocol, host = server.Host, remote = server.RemoteAddr == mix.websocket():remote_addr(),
			}))
		end
		function on_message(msg) end`, script.Options{})
	r := httptest.NewRequest(http.MethodGet, "http://example.com/door?foo=bar&x=1&foo=2", nil)
	r.RequestURI = "/door?foo=bar&x=1&foo=2"
	r.Header.Set("User-Agent", "browser")
	p := f.request(r)
	const want = `{"agent":"browser","host":"example.com","method":"GET","path":"/door","proto":"HTTP/1.1","query":{"foo":"bar","x":"1"},"remote":true,"same":true}`
	if got := p.Next(); got != want {
		t.Errorf("handshake saw %s, want %s", got, want)
	}
}

func TestHandshakeFails(t *testing.T) {
	f := start(t, `function on_handshake() error("go away") end function on_message(msg) end`, script.Options{})
	if code, _ := f.connect().Wait(); code != session.CloseInternal {
		t.Errorf("closed with %d, want 1011", code)
	}
}

func TestClose(t *testing.T) {
	f := start(t, `
		function on_message(msg) mix.websocket():set_context_value("name", msg.data) end
		function on_close(client_id, err)
			local conn = mix.websocket()
			mix.mesh.publish("closed", conn:context_value("name") .. "," .. tostring(err) .. "," .. tostring(conn:send("x")) .. "," .. tostring(client_id == conn:client_id()))
		end`, script.Options{})
	closed := f.watch("closed")
	for code, want := range map[session.CloseCode]string{
		session.CloseNormal:   "ann,nil,connection is closed,true",
		session.CloseAbnormal: "ann,connection lost,connection is closed,true",
	} {
		p := f.connect()
		p.Receive("ann")
		p.Hangup(code)
		if got := closed(); got != want {
			t.Errorf("on_close after %d: %s, want %s", code, got, want)
		}
	}
}

// watch subscribes to an app at the hub; next waits for its next text.
func (f *fixture) watch(app string) (next func() string) {
	texts := make(chan string, 100)
	f.subscribe(app, func(text string) { texts <- text })
	return func() string {
		f.t.Helper()
		select {
		case text := <-texts:
			return text
		case <-time.After(20 * time.Second):
			f.t.Fatalf("nothing came for %s", app)
			return ""
		}
	}
}

// Who comes through a proxy that is not trusted, on this machine, has no address.
func TestRemoteAddr(t *testing.T) {
	file := filepath.Join(t.TempDir(), "door.lua")
	write(t, file, `
		function on_handshake(client_id, headers, server) mix.websocket():send("from " .. server.RemoteAddr) end
		function on_message() mix.websocket():send("from " .. mix.websocket():remote_addr()) end`)
	g := servertest.Start(t, func(o *servertest.Options) { o.Doors = map[string]string{"/door": file} })
	for want, header := range map[string][]string{"from 127.0.0.1": nil, "from ": {"X-Forwarded-For", "192.0.2.7"}} {
		c := g.Dial("/door", header...)
		c.Want(want)
		c.Send("x")
		c.Want(want)
	}
}

func TestMessageTypes(t *testing.T) {
	f := start(t, `function on_message(msg) mix.websocket():send(msg.type .. #msg.data, msg.type) end`, script.Options{})
	p := f.connect()
	p.ReceiveFrame(push.OpText, []byte("abc"))
	p.ReceiveFrame(push.OpBinary, []byte("\x00\xff"))
	got := p.Unread()
	if len(got) != 2 || got[0].Op != push.OpText || got[0].Text != "text3" || got[1].Op != push.OpBinary || got[1].Text != "binary2" {
		t.Errorf("received %v", got)
	}
}

// An answer that is sent in the call that subscribes precedes what comes for the channel.
func TestAnswerPrecedesPush(t *testing.T) {
	f := start(t, `function on_message(msg)
		local conn = mix.websocket()
		conn:subscribe("room")
		mix.mesh.publish("room", "push")
		conn:send("answer")
	end`, script.Options{})
	p := f.connect()
	p.Receive("x")
	if got := p.Next() + p.Next(); got != "answerpush" {
		t.Errorf("received %q", got)
	}
}

// An answer may leave with others once its call is over, but not after what takes long.
func TestAnswersLeave(t *testing.T) {
	f := start(t, `
		function on_handshake() mix.websocket():send("hello") end
		function on_message(msg)
			local conn = mix.websocket()
			conn:send(msg.data)
			if msg.data == "wait" then conn:send(tostring(conn:wait_context_value("x"))) end
			if msg.data == "compute" then for i = 1, 1e6 do end end
		end`, script.Options{Timeout: 10 * time.Second})
	p := sessiontest.NewPipe(t)
	h := f.door.Open(p, httptest.NewRequest(http.MethodGet, "/door", nil))
	p.Attach(h)
	t.Cleanup(func() { p.Hangup(session.CloseNormal) })
	unread := func() (texts string) {
		for _, m := range p.Unread() {
			texts += m.Text
		}
		return texts
	}
	if got := unread(); got != "hello" {
		t.Errorf("after the handshake the client has %q", got)
	}
	for _, c := range [][2]string{{"quick", ""}, {"compute", "quickcompute"}} {
		h.Receive(push.OpText, []byte(c[0]))()
		if got := unread(); got != c[1] {
			t.Errorf("after %s the client has %q, want %q", c[0], got, c[1])
		}
	}
	p.Flush()
	waited := make(chan struct{})
	go func() { defer close(waited); p.Receive("wait") }()
	if got := p.Next(); got != "wait" {
		t.Errorf("before the call waits the client has %q", got)
	}
	select {
	case <-waited:
		t.Error("the call is over")
	default:
	}
	f.host.Interrupt()
	<-waited
}

// uid in the context makes the connection that member's, for private pushes and rules.
func TestMember(t *testing.T) {
	f := start(t, `function on_message(msg)
		local conn = mix.websocket()
		if msg.data ~= "sub" then conn:set_context_value("uid", tonumber(msg.data) or msg.data) end
		conn:send(conn:subscribe("im") and "denied" or "subscribed")
	end`, script.Options{})
	p := f.connect()
	for _, c := range [][2]string{{"sub", "denied"}, {"x", "denied"}, {"0", "denied"}, {"1.5", "denied"}, {"-3", "denied"}, {"42", "subscribed"}} {
		p.Receive(c[0])
		if got := p.Next(); got != c[1] {
			t.Errorf("uid %s: %s, want %s", c[0], got, c[1])
		}
	}
	for _, m := range []push.Message{{App: "im", Member: 43, Text: "other"}, {App: "im", Member: 42, Text: "mine"}} {
		if _, err := f.hub.Publish(context.Background(), m); err != nil {
			t.Fatal(err)
		}
	}
	if got := p.Next(); got != "mine" {
		t.Errorf("received %q", got)
	}
	p.Receive("43") // another member: an error of the script
	if code, _ := p.Wait(); code != session.CloseInternal {
		t.Errorf("closed with %d", code)
	}
}

// Messages of one connection are dealt with in order, whatever the others do.
func TestOrderAndConcurrency(t *testing.T) {
	f := start(t, `function on_message(msg)
		local conn = mix.websocket()
		local n = (conn:context_value("n") or 0) + 1
		conn:set_context_value("n", n)
		conn:send(msg.data .. ":" .. n)
	end`, script.Options{States: 3})
	var wg sync.WaitGroup
	for c := range 8 {
		p := f.connect()
		wg.Go(func() {
			for i := 1; i <= 100; i++ {
				p.Receive(fmt.Sprint("c", c))
				if got, want := p.Next(), fmt.Sprintf("c%d:%d", c, i); got != want {
					t.Errorf("received %s, want %s", got, want)
				}
			}
		})
	}
	wg.Wait()
}

// More connections wait for something than there are states: those behind them are served
// once one is free, and the ones that wait keep nobody from running.
func TestStatesAreBounded(t *testing.T) {
	f := start(t, room, script.Options{States: 2})
	a, b := f.connect(), f.connect()
	a.Receive("id")
	id := a.Next()
	waited := make(chan struct{})
	go func() { defer close(waited); a.Receive("wait go") }()
	b.Receive("id") // the other state
	b.Next()
	link := f.connectLink()
	link.Receive(`{"m":"conn.call","p":{"c":"` + id + `","f":"set_context_value","a":["go",1]},"i":1}`)
	link.Next()
	<-waited
	if got := a.Next(); got != "1" {
		t.Errorf("waited for %s", got)
	}
}

func TestRequire(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.lua")
	write(t, outside, `return "outside"`)
	for name, c := range map[string]struct{ body, want string }{
		"module":            {`return require("lib").name`, "lib"},
		"in a directory":    {`return require("utils.list").name .. require("utils/list").name`, "utils.listutils/list"},
		"init":              {`return require("pack")`, "pack"},
		"once":              {`return require("lib") == require("lib")`, "true"},
		"built in":          {`return require("string") == string and require("mix") == mix`, "true"},
		"missing":           {`return select(2, pcall(require, "nothing"))`, "door.lua:1: module 'nothing': no such module"},
		"parent":            {`return (pcall(require, "../outside"))`, "false"},
		"parent with dots":  {`return (pcall(require, "...outside"))`, "false"},
		"absolute":          {`return (pcall(require, "` + strings.TrimSuffix(outside, ".lua") + `"))`, "false"},
		"does not compile":  {`return (pcall(require, "bad"))`, "false"},
		"requires itself":   {`return (pcall(require, "selfish"))`, "false"},
		"runtime error":     {`return select(2, pcall(require, "fails"))`, "fails.lua:1: no luck"},
		"after its failure": {`pcall(require, "fails") return select(2, pcall(require, "fails"))`, "fails.lua:1: no luck"},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFiles(t, map[string]string{
				"door.lua":       "function on_message(msg) mix.websocket():send(tostring((function() " + c.body + " end)())) end",
				"lib.lua":        `return {name = ...}`,
				"utils/list.lua": `return {name = ...}`,
				"pack/init.lua":  `return ...`,
				"bad.lua":        `return return`,
				"selfish.lua":    `return require("selfish")`,
				"fails.lua":      `error("no luck")`,
			}, script.Options{})
			if got, code := f.ask("x"); got != c.want {
				t.Errorf("got %q (code %d), want %q", got, code, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"fine":              {`function on_message(msg) end`, ""},
		"syntax":            {"function on_message(msg) end\n)", "door.lua line:2"},
		"runtime":           {"\nlocal x = nil .. 1", "door.lua:2: attempt to concatenate a nil value"},
		"no on_message":     {`function on_close() end`, "no function on_message"},
		"not a function":    {`on_message = 1`, "on_message is a number"},
		"endless":           {`while true do end`, "running time exceeded"},
		"missing module":    {`require("nothing")`, "module 'nothing'"},
		"coroutine kept":    {`local c = coroutine.create(function() end) function on_message() return c end`, "coroutine"},
		"coroutine wrapped": {`local f = coroutine.wrap(function() end) function on_message() return f() end`, "coroutine"},
		"needs a client":    {`local _, err = mix.websocket() error(err)`, "no connection while a script is loaded"},
		"goto and labels":   {`function on_message() for i = 1, 3 do if i == 2 then goto continue end ::continue:: end end`, ""},
		"long concat chain": {"function on_message() return " + strings.Repeat(`"x" .. `, 200) + `"y" end`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "door.lua")
			write(t, file, c.text)
			err := script.CheckScript(file)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("check: %v, want %q", err, c.want)
			}
		})
	}
	if err := script.CheckScript(filepath.Join(t.TempDir(), "none.lua")); err == nil {
		t.Error("a missing file is fine")
	}
}

// A changed script serves the next message; one that does not load changes nothing.
func TestReload(t *testing.T) {
	f := startFiles(t, map[string]string{
		"door.lua": `function on_message(msg) mix.websocket():send("one" .. require("lib")) end`,
		"lib.lua":  `return 1`,
	}, script.Options{})
	p := f.connect()
	ask := func() string { p.Receive("x"); return p.Next() }
	if got := ask(); got != "one1" {
		t.Fatalf("answer %s", got)
	}
	await := func(want string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !done(); {
			if time.Now().After(deadline) {
				t.Fatalf("waited for %s; log:\n%s", want, f.log)
			}
			f.log.changed()
		}
	}
	write(t, f.file, `function on_message(msg) mix.websocket():send("two" .. require("lib")) end`)
	await("the new script", func() bool { return ask() == "two1" })
	write(t, filepath.Join(filepath.Dir(f.file), "lib.lua"), `return 2`)
	await("the new module", func() bool { return ask() == "two2" })

	// A mounted ConfigMap: the script is a link through a link to a directory, which is replaced.
	replace := func(name, target string) {
		t.Helper()
		name = filepath.Join(filepath.Dir(f.file), name)
		if err := errors.Join(os.Symlink(target, name+".new"), os.Rename(name+".new", name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"three", "four"} {
		data := t.TempDir()
		write(t, filepath.Join(data, "door.lua"), `function on_message(msg) mix.websocket():send("`+text+`") end`)
		replace("data", data)
		if text == "three" {
			replace("door.lua", filepath.Join("data", "door.lua"))
		}
		await("the script of the new directory", func() bool { return ask() == text })
	}
	write(t, f.file, `function on_message(msg`)
	await("the error", func() bool { return strings.Contains(f.log.String(), "the old one stays") })
	if got := ask(); got != "four" {
		t.Errorf("after a bad change: %s, want four", got)
	}
	if !strings.Contains(f.log.String(), "door.lua") {
		t.Errorf("log does not name the script:\n%s", f.log)
	}
}

// A client that leads a script to fail over and over does not fill the log.
func TestFailuresAreSampled(t *testing.T) {
	f := start(t, `function on_message(msg) error("failed") end`, script.Options{})
	for range 60 {
		f.ask("x")
	}
	if n := strings.Count(f.log.String(), "script failed"); n < 1 || n > 30 {
		t.Errorf("60 failures made %d lines", n)
	}
}

// Whatever a script raises, the log says in which line.
func TestFailuresHaveALine(t *testing.T) {
	for body, want := range map[string]string{
		`error("text")`:    "door.lua:2: text",
		`error("text", 0)`: "door.lua:2: text",
		`error({})`:        "door.lua:2: error object is a table",
		`error(nil)`:       "door.lua:2: error object is a nil",
		`math.random(0)`:   "panic in script: door.lua:2: invalid argument",
		`coroutine.wrap(function() error({}) end)()`: "door.lua:2: error object is a table",
	} {
		f := start(t, "function on_message(msg)\n"+body+" end", script.Options{})
		if _, code := f.ask("x"); code != session.CloseInternal {
			t.Errorf("%s: close code %d, want 1011", body, code)
		}
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("%s: the log does not say %q:\n%s", body, want, f.log)
		}
	}
}

// Scripts log under the operator's levels, and print.
func TestLog(t *testing.T) {
	f := start(t, `function on_message(msg)
		print("printed", 1, nil)
		mix.websocket():send(tostring(mix.log(mix.WARN, "warned")))
	end`, script.Options{})
	if got, _ := f.ask("x"); got != "true" {
		t.Errorf("mix.log: %s", got)
	}
	for _, want := range []string{`level=WARN msg="script says" door=/door text=warned`, "level=INFO msg=\"script prints\" door=/door text=\"printed\\t1\\tnil\""} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, f.log)
		}
	}
}

func TestMix(t *testing.T) {
	for name, c := range map[string]struct{ body, want string }{
		"json":           {`return mix.json_encode(mix.json_decode('{"b":[1,{"c":"x"}],"a":true}'))`, `{"a":true,"b":[1,{"c":"x"}]}`},
		"json error":     {`local v, err = mix.json_decode("{") return tostring(v) .. err`, `nilnot valid JSON at byte 1`},
		"null is nil":    {`local t = mix.json_decode('{"a":null,"b":[1,null,2]}') return tostring(t.a) .. tostring(t.b[2]) .. t.b[3]`, `nilnil2`},
		"null is kept":   {`return mix.json_encode(mix.json_decode('{"a":null,"b":[1,null,2,null]}', mix.null))`, `{"a":null,"b":[1,null,2,null]}`},
		"null by itself": {`return mix.json_encode(mix.json_decode("null", mix.null)) .. mix.json_encode({id = mix.null})`, `null{"id":null}`},
		"null compares":  {`local v = mix.json_decode("[null]", mix.null)[1] return tostring(v == mix.null) .. tostring(v == nil) .. tostring(v) .. tostring(getmetatable(v))`, `truefalsenullfalse`},
		"no null asked":  {`return mix.json_encode(mix.json_decode(('{"a":null}'):gsub("x", "y")))`, `[]`},
		"null in lists":  {`return select(2, mix.json_encode(mix.json_decode("[1,null,2]")))`, `no JSON for a list without element 2: for null it is mix.null`},
		"context null":   {`local c = mix.websocket() c:set_context({x = {mix.null}, y = mix.null}) return mix.json_encode(c:context())`, `{"x":[null],"y":null}`},
		"not in context": {`return select(2, pcall(mix.websocket().set_context_value, mix.websocket(), "x", mix.websocket())):match("a userdata.*")`, `a userdata cannot be kept in a context`},
		"sparse table":   {`return select(2, mix.json_encode({[100001] = "ann"}))`, `no JSON for a table with the key 100001: a list has no gaps, a map has strings as keys`},
		"base64":         {`return mix.base64_decode(mix.base64_encode("\0\255x"))  == "\0\255x"`, `true`},
		"base64 error":   {`local v, err = mix.base64_decode("*") return v == nil and err ~= nil`, `true`},
		"md5":            {`return mix.md5("abc") .. #mix.md5_bin("abc")`, `900150983cd24fb0d6963f7d28e17f7216`},
		"sha1":           {`return mix.sha1("abc") .. #mix.sha1_bin("abc")`, `a9993e364706816aba3e25717850c26c9cd0d89d20`},
		"str_split":      {`return table.concat(mix.str_split("100001@video", "@"), "|")`, `100001|video`},
		"str_split none": {`return table.getn(mix.str_split("abc", "@"))`, `1`},
		"bytes_tostring": {`return mix.bytes_tostring({104, 105})`, `hi`},
		"parse_url":      {`local u = mix.parse_url("https://u:p@h:8/a%20b?x=1&y=2#f") return table.concat({u.scheme, u.user, u.host, u.path, u.raw_query, u.fragment, u.query.y, tostring(u.force_query)}, " ")`, `https u:p h:8 /a b x=1&y=2 f 2 false`},
		"url_parse":      {`return mix.url_parse("/chat?foo=bar").query.foo`, `bar`},
		"parse_url bad":  {`local u, err = mix.parse_url("http://[") return u == nil and err ~= nil`, `true`},
		"parse_str":      {`return mix.parse_str("a=1&b=%20x").b`, ` x`},
		"server.option":  {`return mix.server.option("path") .. tostring(mix.server.option("none"))`, `/doornil`},
		"levels":         {`return mix.DEBUG < mix.INFO and mix.INFO < mix.WARN and mix.WARN < mix.ERROR`, `true`},
		"redis missing":  {`local r, err = mix.redis.connection("x") return tostring(r) .. err`, `nilredis "x" is not configured`},
		"bad argument":   {`return (pcall(mix.json_decode))`, `false`},
		"bad type":       {`return mix.websocket():send("x", "json")`, `type must be text or binary`},
		"bad call":       {`return (pcall(mix.websocket().send, "x"))`, `false`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, code := run(t, c.body); got != c.want {
				t.Errorf("got %q (code %d), want %q", got, code, c.want)
			}
		})
	}
}

// A list is one, however long it is.
func TestLongSplit(t *testing.T) {
	f := start(t, `function on_message(msg) mix.websocket():send(tostring(#mix.str_split(("x,"):rep(70000), ","))) end`, script.Options{Timeout: time.Minute})
	if got, code := f.ask("x"); got != "70001" {
		t.Errorf("got %q (code %d), want 70001", got, code)
	}
}

// P04, from the other side: text that is not UTF-8 would end every client's connection.
func TestTextIsUTF8(t *testing.T) {
	f := start(t, `
		function on_message(msg)
			local conn, bad = mix.websocket(), "\255\254"
			conn:subscribe("all")
			local sent = conn:send(bad)
			local s, f, published = mix.mesh.publish("all", bad)
			conn:send(tostring(sent) .. "|" .. tostring(published))
			mix.mesh.publish("all", bad, "binary")
			conn:send(bad, "binary")
		end`, script.Options{})
	p := f.connect()
	p.Receive("x")
	f.hub.Flush()
	const bad = "text must be UTF-8; send it as binary"
	want := []sessiontest.Message{{Op: push.OpText, Text: bad + "|" + bad}, {Op: push.OpBinary, Text: "\xff\xfe"}, {Op: push.OpBinary, Text: "\xff\xfe"}}
	if got := p.Unread(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
