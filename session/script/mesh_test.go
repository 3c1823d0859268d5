package script_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/session/sessiontest"
	"ws-gateway/stat"
)

// room is a door whose clients subscribe to what they name, and may ask for other things.
const room = `
function on_message(msg)
	local conn = mix.websocket()
	local op, arg = msg.data:match("^(%w+) ?(.*)$")
	if op == "sub" then conn:send(conn:subscribe(arg) or "subscribed")
	elseif op == "id" then conn:send(tostring(conn:client_id()))
	elseif op == "context" then conn:send(mix.json_encode(conn:context()))
	elseif op == "wait" then conn:send(tostring(conn:wait_context_value(arg)))
	elseif op == "queue" then local n, err = mix.queue.push(arg, {frame = msg}) conn:send(err or tostring(n))
	elseif op == "say" then conn:send(mix.json_encode({mix.mesh.publish("room", arg)}))
	elseif op == "into" then conn:send(mix.json_encode({mix.mesh.publish(arg, "x")}))
	elseif op == "tell" then local id, text = arg:match("^(%d+) (.*)$") conn:send(mix.mesh.send(id, text) or "told")
	elseif op == "bytes" then mix.mesh.publish("room", "\255\0", "binary") end
end`

// post sends body to an endpoint as a backend on this machine would.
func post(h http.HandlerFunc, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:5000/v1/mesh/x", strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:4000"
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h(w, r)
	return w
}

func TestMeshPublish(t *testing.T) {
	f := start(t, room, script.Options{})
	mesh := script.NewMesh(f.host, nil)
	a, b := f.connect(), f.connect()
	for _, p := range []*sessiontest.Pipe{a, b} {
		p.Receive("sub room")
		if got := p.Next(); got != "subscribed" {
			t.Fatalf("subscribe: %s", got)
		}
	}
	for name, c := range map[string]struct{ body, want, delivered string }{
		"text":            {`{"c":"room","d":"{\"event\":1}"}`, `{"E":null,"r":{"s":2,"f":0}}`, `{"event":1}`},
		"typed text":      {`{"c":"room","d":"hi","t":"text"}`, `{"E":null,"r":{"s":2,"f":0}}`, `hi`},
		"empty":           {`{"c":"room","d":""}`, `{"E":null,"r":{"s":2,"f":0}}`, ``},
		"nobody there":    {`{"c":"other","d":"hi"}`, `{"E":null,"r":{"s":0,"f":0}}`, "-"},
		"more keys":       {`{"c":"room","d":"hi","x":{}}`, `{"E":null,"r":{"s":2,"f":0}}`, `hi`},
		"no channel":      {`{"d":"hi"}`, `{"E":{"c":101,"m":"c must be a channel"}}`, "-"},
		"bad channel":     {`{"c":"a b","d":"hi"}`, `{"E":{"c":101,"m":"bad app name"}}`, "-"},
		"private channel": {`{"c":"im","d":"hi"}`, `{"E":{"c":101,"m":"app is private: member_id must be positive"}}`, "-"},
		"no data":         {`{"c":"room"}`, `{"E":{"c":101,"m":"d must be a string"}}`, "-"},
		"data an object":  {`{"c":"room","d":{}}`, `{"E":{"c":101,"m":"not a valid request"}}`, "-"},
		"bad type":        {`{"c":"room","d":"hi","t":"x"}`, `{"E":{"c":101,"m":"t must be text or binary"}}`, "-"},
		"bad base64":      {`{"c":"room","d":"*","t":"binary"}`, `{"E":{"c":101,"m":"binary data must be in base64"}}`, "-"},
		"not JSON":        {`c=room`, `{"E":{"c":101,"m":"not a valid request"}}`, "-"},
		"duplicate key":   {`{"c":"room","c":"other","d":"hi"}`, `{"E":{"c":101,"m":"not a valid request"}}`, "-"},
		"empty body":      {``, `{"E":{"c":101,"m":"not a valid request"}}`, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			w := post(mesh.Publish, c.body)
			if got := w.Body.String(); w.Code != 200 || got != c.want {
				t.Errorf("answer %d %s, want 200 %s", w.Code, got, c.want)
			}
			for _, p := range []*sessiontest.Pipe{a, b} {
				f.hub.Flush()
				got := p.Unread()
				if c.delivered == "-" && len(got) > 0 || c.delivered != "-" && (len(got) != 1 || got[0].Text != c.delivered) {
					t.Errorf("delivered %q, want %q", got, c.delivered)
				}
			}
		})
	}
	t.Run("binary", func(t *testing.T) {
		post(mesh.Publish, `{"c":"room","d":"/wA=","t":"binary"}`)
		f.hub.Flush()
		if got := a.Unread(); len(got) != 1 || got[0] != (sessiontest.Message{Op: push.OpBinary, Text: "\xff\x00"}) {
			t.Errorf("delivered %q, want a binary frame", got)
		}
	})
	t.Run("too large", func(t *testing.T) {
		w := post(mesh.Publish, `{"c":"room","d":"`+strings.Repeat("x", 1<<20)+`"}`)
		if got := w.Body.String(); got != `{"E":{"c":101,"m":"request is too large"}}` {
			t.Errorf("answer %s", got)
		}
	})
	t.Run("content type", func(t *testing.T) {
		w := post(mesh.Publish, `{"c":"room","d":"x"}`, "Content-Type", "text/plain")
		if got := w.Body.String(); got != `{"E":{"c":101,"m":"Content-Type must be application/json"}}` {
			t.Errorf("answer %s", got)
		}
	})
}

// Only a wrong key has another status than 200.
func TestMeshKey(t *testing.T) {
	f := start(t, room, script.Options{})
	keys, err := push.NewKeys(push.KeysOptions{Keys: []string{"right"}, Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	mesh := script.NewMesh(f.host, keys)
	const body = `{"c":"room","d":"x"}`
	if w := post(mesh.Publish, body); w.Code != 401 || w.Body.String() != `{"code":401,"message":"push key missing"}` {
		t.Errorf("without key: %d %s", w.Code, w.Body)
	}
	if w := post(mesh.Send, body, "X-Push-Key", "wrong"); w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("with a wrong key: %d %s", w.Code, w.Body)
	}
	if w := post(mesh.Publish, body, "Authorization", "Bearer right"); w.Code != 200 {
		t.Errorf("with the key: %d %s", w.Code, w.Body)
	}
	reached := false
	guard := mesh.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	if w := post(guard.ServeHTTP, ""); w.Code != 401 || reached {
		t.Errorf("link without key: %d, upgraded: %v", w.Code, reached)
	}
	if post(guard.ServeHTTP, "", "X-Push-Key", "right"); !reached {
		t.Error("link with the key was not upgraded")
	}
	var last string
	for range 2000 {
		last = post(mesh.Publish, body, "X-Push-Key", "right").Body.String()
	}
	if want := `{"E":{"c":401,"m":"too many messages for this push key"}}`; last != want {
		t.Errorf("beyond the rate: %s, want %s", last, want)
	}
}

func TestMeshSend(t *testing.T) {
	f := start(t, room, script.Options{})
	mesh := script.NewMesh(f.host, nil)
	a, b := f.connect(), f.connect()
	a.Receive("id")
	id := a.Next()
	if len(id) < 15 {
		t.Errorf("client_id %s, want one that no restart repeats", id)
	}
	for _, c := range []struct{ body, want, delivered string }{
		{`{"c":"` + id + `","d":"data"}`, `{"E":null,"r":{"s":true}}`, "data"},
		{`{"c":` + id + `,"d":"data"}`, `{"E":null,"r":{"s":true}}`, "data"},
		{`{"c":"` + id + `","d":"aGk=","t":"binary"}`, `{"E":null,"r":{"s":true}}`, "hi"},
		{`{"c":"1","d":"data"}`, `{"E":{"c":401,"m":"unknown client_id"}}`, ""},
		{`{"c":"x","d":"data"}`, `{"E":{"c":101,"m":"c must be a client_id"}}`, ""},
		{`{"c":"` + id + `"}`, `{"E":{"c":101,"m":"d must be a string"}}`, ""},
	} {
		if w := post(mesh.Send, c.body); w.Code != 200 || w.Body.String() != c.want {
			t.Errorf("%s: %d %s, want 200 %s", c.body, w.Code, w.Body, c.want)
		}
		if got := a.Unread(); c.delivered != "" && (len(got) != 1 || got[0].Text != c.delivered) || c.delivered == "" && len(got) > 0 {
			t.Errorf("%s: delivered %q, want %q", c.body, got, c.delivered)
		}
	}
	if got := b.Unread(); len(got) > 0 {
		t.Errorf("another connection got %q", got)
	}
	b.Receive("tell " + id + " hello")
	if got := b.Next(); got != "told" {
		t.Errorf("mix.mesh.send: %s", got)
	}
	if got := a.Next(); got != "hello" {
		t.Errorf("sent by a script: %s", got)
	}
	b.Receive("tell 1 hello")
	if got := b.Next(); got != "unknown client_id" {
		t.Errorf("mix.mesh.send to nobody: %s", got)
	}
}

// What is sent to one connection is bounded as a push to all is.
func TestMeshSendIsBounded(t *testing.T) {
	m := stat.New(stat.Options{})
	f := startHub(t, map[string]string{"door.lua": room}, script.Options{Metrics: m}, push.Options{MaxText: 4, Metrics: m})
	mesh := script.NewMesh(f.host, nil)
	link, a, b := f.connectLink(), f.connect(), f.connect()
	a.Receive("id")
	id := a.Next()
	const long, refused = "text is over 4 bytes", `{"E":{"c":101,"m":"text is over 4 bytes"}`
	for _, c := range []struct{ text, answer, told string }{
		{"1234", `{"E":null,"r":{"s":true}`, "told"},
		{"12345", refused, long},
	} {
		data := `{"c":"` + id + `","d":"` + c.text + `"}`
		if got, want := post(mesh.Send, data).Body.String(), c.answer+"}"; got != want {
			t.Errorf("POST %s: %s, want %s", c.text, got, want)
		}
		link.Receive(`{"m":"mesh.send","p":` + data + `,"i":1}`)
		if got, want := link.Next(), c.answer+`,"i":1}`; got != want {
			t.Errorf("mesh.send %s: %s, want %s", c.text, got, want)
		}
		b.Receive("tell " + id + " " + c.text)
		if got := b.Next(); got != c.told {
			t.Errorf("mix.mesh.send %s: %s, want %s", c.text, got, c.told)
		}
	}
	if got := a.Unread(); len(got) != 3 {
		t.Errorf("delivered %q, want three messages", got)
	}
	if got := post(mesh.Publish, `{"c":"room","d":"12345"}`).Body.String(); got != refused+"}" {
		t.Errorf("publish: %s, want %s", got, refused)
	}
	if got := metric(t, m, "wsgateway_refused_total", stat.ReasonPushText); got != 4 {
		t.Errorf("refusals counted: %v, want 4", got)
	}
}

// Whoever asks learns what is wrong, not which of our packages says so, nor which rule has decided.
func TestMeshErrorsArePlain(t *testing.T) {
	f := start(t, room, script.Options{})
	mesh := script.NewMesh(f.host, nil)
	link, a, b := f.connectLink(), f.connect(), f.connect()
	a.Receive("id")
	id := a.Next()
	call := func(fn, args string) string {
		link.Receive(`{"m":"conn.call","p":{"c":"` + id + `","f":"` + fn + `","a":` + args + `},"i":1}`)
		return link.Next()
	}
	ask := func(message string) string { b.Receive(message); return b.Next() }
	cut := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:5000/v1/mesh/send", io.MultiReader(strings.NewReader("{"), iotest.ErrReader(errors.New("read tcp 127.0.0.1:5000: reset"))))
	cut.RemoteAddr = "127.0.0.1:4000"
	cut.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	mesh.Send(answer, cut)
	for _, c := range [][2]string{
		{call("subscribe", `["im"]`), `{"E":{"c":301,"m":"subscribe im forbidden"},"i":1}`},
		{call("subscribe", `["a b"]`), `{"E":{"c":301,"m":"bad app name"},"i":1}`},
		{call("set_context_value", `["x",["`+strings.Repeat("x", 1<<16)+`"]]`), `{"E":{"c":301,"m":"context is full"},"i":1}`},
		{ask("sub im"), "subscribe im forbidden"},
		{ask("sub a b"), "bad app name"},
		{ask("into a b"), `[0,1,"bad app name"]`},
		{ask("into im"), `[0,1,"app is private: member_id must be positive"]`},
		{answer.Body.String(), `{"E":{"c":101,"m":"the request did not arrive complete"}}`},
	} {
		if c[0] != c[1] {
			t.Errorf("answer %s, want %s", c[0], c[1])
		}
	}
	a.SetSlow(true)
	if got, want := post(mesh.Send, `{"c":"`+id+`","d":"x"}`).Body.String(), `{"E":{"c":401,"m":"peer does not keep up"}}`; got != want {
		t.Errorf("to a slow peer: %s, want %s", got, want)
	}
}

func TestScriptPublishes(t *testing.T) {
	f := start(t, room, script.Options{})
	a, b := f.connect(), f.connect()
	a.Receive("sub room")
	a.Next()
	b.Receive("say hello")
	if got := b.Next(); got != "[1,0]" {
		t.Errorf("mix.mesh.publish: %s, want [1,0]", got)
	}
	if got := a.Next(); got != "hello" {
		t.Errorf("published: %s", got)
	}
	b.Receive("bytes")
	f.hub.Flush()
	if got := a.Unread(); len(got) != 1 || got[0].Op != push.OpBinary {
		t.Errorf("published %v, want a binary frame", got)
	}
}

// connectLink opens a backend's WebSocket.
func (f *fixture) connectLink() *sessiontest.Pipe {
	f.t.Helper()
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:5000/ws/v1", nil)
	r.RemoteAddr = "127.0.0.1:4000"
	p := sessiontest.NewPipe(f.t)
	p.Attach(script.NewMesh(f.host, nil).Link(p, r))
	f.t.Cleanup(func() { p.Hangup(session.CloseNormal) })
	return p
}

// C03: a link whose key is withdrawn is closed before it does, or is given, anything more.
func TestC03MeshLinkOfAWithdrawnKey(t *testing.T) {
	f := start(t, room, script.Options{})
	file := filepath.Join(t.TempDir(), "keys")
	write(t, file, "old\nnew\n")
	keys, err := push.NewKeys(push.KeysOptions{File: file})
	if err != nil {
		t.Fatal(err)
	}
	mesh := script.NewMesh(f.host, keys)
	connect := func(key string) *sessiontest.Pipe {
		r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:5000/ws/v1", nil)
		r.Header.Set("X-Push-Key", key)
		p := sessiontest.NewPipe(t)
		p.Attach(mesh.Link(p, r))
		t.Cleanup(func() { p.Hangup(session.CloseNormal) })
		return p
	}
	a, asks, pops, stays := f.connect(), connect("old"), connect("old"), connect("new")
	for _, link := range []*sessiontest.Pipe{pops, stays} {
		link.Receive(`{"m":"queue.pop","p":{"t":["jobs"]},"i":1}`)
		if got := link.Next(); got != `{"E":null,"r":{"s":true},"i":1}` {
			t.Fatalf("pop: %s", got)
		}
	}
	a.Receive("id")
	id := a.Next()

	write(t, file, "new\n")
	if err := keys.Reload(); err != nil {
		t.Fatal(err)
	}
	asks.Receive(`{"m":"conn.call","p":{"c":"` + id + `","f":"set_context_value","a":["uid",42]},"i":1}`)
	a.Receive("context")
	if got := a.Next(); got != "[]" {
		t.Errorf("a withdrawn key has set %s", got)
	}
	a.Receive("queue jobs")
	if got := a.Next(); got != "0" {
		t.Errorf("%s jobs wait", got)
	}
	if got := stays.Next(); !strings.Contains(got, `"t":"jobs"`) {
		t.Errorf("the link with a good key got %s", got)
	}
	for name, link := range map[string]*sessiontest.Pipe{"asks": asks, "pops": pops} {
		if code, _ := link.Wait(); code != session.CloseUnauthorized {
			t.Errorf("the link that %s was closed with %d, want 4502", name, code)
		}
	}
}

func TestMeshLink(t *testing.T) {
	f := start(t, room, script.Options{})
	link, a := f.connectLink(), f.connect()
	a.Receive("id")
	id := a.Next()
	for _, c := range []struct{ send, want string }{
		{`ping`, `pong`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"subscribe","a":["room","other"]},"i":12345}`, `{"E":null,"r":{"s":true},"i":12345}`},
		{`{"m":"mesh.publish","p":{"c":"room","d":"data"},"i":"a"}`, `{"E":null,"r":{"s":1,"f":0},"i":"a"}`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"unsubscribe","a":["room"]},"i":1}`, `{"E":null,"r":{"s":true},"i":1}`},
		{`{"m":"mesh.publish","p":{"c":"room","d":"data"},"i":2}`, `{"E":null,"r":{"s":0,"f":0},"i":2}`},
		{`{"m":"mesh.send","p":{"c":"` + id + `","d":"direct"},"id":12345}`, `{"E":null,"r":{"s":true},"i":12345}`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"set_context_value","a":["user_id",10000]},"i":3}`, `{"E":null,"r":{"s":true},"i":3}`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"set_context","a":[{"name":"ann"}]},"i":4}`, `{"E":null,"r":{"s":true},"i":4}`},
		{`{"m":"conn.call","p":{"c":"1","f":"subscribe","a":["room"]},"i":5}`, `{"E":{"c":301,"m":"unknown client_id"},"i":5}`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"subscribe","a":["im"]},"i":6}`, `{"E":{"c":301,"m":"subscribe im forbidden"},"i":6}`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"close","a":[]},"i":7}`, `{"E":{"c":101,"m":"f must be set_context, set_context_value, subscribe or unsubscribe"},"i":7}`},
		{`{"m":"conn.call","p":{"c":"` + id + `","f":"subscribe","a":[1]},"i":8}`, `{"E":{"c":101,"m":"a must be channels"},"i":8}`},
		{`{"m":"queue.unpop","p":{},"i":9}`, `{"E":{"c":203,"m":"nothing is popped"},"i":9}`},
		{`{"m":"queue.pop","p":{},"i":10}`, `{"E":{"c":101,"m":"t must be topics"},"i":10}`},
		{`{"m":"nothing","i":11}`, `{"E":{"c":101,"m":"unknown method"},"i":11}`},
		{`{"m":1}`, `{"E":{"c":101,"m":"not a valid request"},"i":null}`},
		{`hello`, `{"E":{"c":101,"m":"not a valid request"},"i":null}`},
		{`{"m":"mesh.publish","p":[],"i":{}}`, `{"E":{"c":101,"m":"p is not valid"},"i":null}`},
	} {
		link.Receive(c.send)
		if got := link.Next(); got != c.want {
			t.Errorf("%s: %s, want %s", c.send, got, c.want)
		}
	}
	if got := []string{a.Next(), a.Next()}; got[0] != "data" || got[1] != "direct" {
		t.Errorf("the client got %q", got)
	}
	a.Receive("context")
	if got, want := a.Next(), `{"name":"ann","user_id":10000}`; got != want {
		t.Errorf("context %s, want %s", got, want)
	}
	link.ReceiveFrame(push.OpBinary, []byte("x"))
	if code, _ := link.Wait(); code != session.CloseUnsupported {
		t.Errorf("binary frame: closed with %d", code)
	}
}

// A script may wait for a backend to set a value of its connection's context.
func TestWaitContextValue(t *testing.T) {
	f := start(t, room, script.Options{})
	link, a := f.connectLink(), f.connect()
	a.Receive("id")
	id := a.Next()
	done := make(chan struct{})
	go func() { defer close(done); a.Receive("wait uid") }()
	for _, key := range []string{"other", "uid"} {
		link.Receive(`{"m":"conn.call","p":{"c":"` + id + `","f":"set_context_value","a":["` + key + `",7]},"i":1}`)
		link.Next()
	}
	<-done
	if got := a.Next(); got != "7" {
		t.Errorf("waited for %s, want 7", got)
	}
}

// All topics together hold so many bytes. One that an item is refused for does not come to be.
func TestQueueBytes(t *testing.T) {
	f := start(t, room, script.Options{QueueTopics: 3, QueueBytes: 150})
	p := f.connect()
	ask := func(topic, want string) {
		t.Helper()
		p.Receive("queue " + topic)
		if got := p.Next(); got != want {
			t.Errorf("queue %s: %s, want %s", topic, got, want)
		}
	}
	ask("one", "1")
	ask("two", "1")
	ask("three", "queue is full")
	f.connectLink().Receive(`{"m":"queue.pop","p":{"t":["one"]},"i":1}`)
	ask("four", "1")
}

func TestQueue(t *testing.T) {
	m := stat.New(stat.Options{})
	f := start(t, room, script.Options{QueueItems: 2, QueueTopics: 2, QueueBytes: 300, Metrics: m})
	a := f.connect()
	a.Receive("id")
	id := a.Next()
	ask := func(message, want string) {
		t.Helper()
		a.Receive(message)
		if got := a.Next(); got != want {
			t.Errorf("%s: %s, want %s", message, got, want)
		}
	}
	event := func(topic string) string {
		return `{"e":"queue.pop","p":{"n":1,"c":"` + id + `","t":"` + topic + `","d":{"frame":{"data":"queue ` + topic + `","finish":true,"type":"text"}}},"id":null}`
	}
	ask("queue one", "1")
	ask("queue one", "2")
	ask("queue one", "queue is full")
	ask("queue two", "1")
	ask("queue three", "too many topics")
	ask("queue two", "2")
	if got := metric(t, m, "wsgateway_refused_total", stat.ReasonScriptQueue); got != 2 {
		t.Errorf("refusals counted: %v, want 2", got)
	}

	first, second := f.connectLink(), f.connectLink()
	first.Receive(`{"m":"queue.pop","p":{"t":["one","two"]},"i":1}`)
	for _, want := range []string{`{"E":null,"r":{"s":true},"i":1}`, event("one"), event("one"), event("two"), event("two")} {
		if got := first.Next(); got != want {
			t.Errorf("popped %s, want %s", got, want)
		}
	}
	first.Receive(`{"m":"queue.pop","p":{"t":["one"]},"i":2}`)
	if got, want := first.Next(), `{"E":{"c":202,"m":"popped already: one"},"i":2}`; got != want {
		t.Errorf("popped again: %s, want %s", got, want)
	}
	second.Receive(`{"m":"queue.pop","p":{"t":["three"]},"i":1}`)
	if got, want := second.Next(), `{"E":{"c":201,"m":"too many topics"},"i":1}`; got != want {
		t.Errorf("too many topics: %s, want %s", got, want)
	}
	second.Receive(`{"m":"queue.pop","p":{"t":[` + strings.Repeat(`"t",`, 100) + `"t"]},"i":1}`)
	if got, want := second.Next(), `{"E":{"c":201,"m":"too many topics"},"i":1}`; got != want {
		t.Errorf("too many topics at once: %s, want %s", got, want)
	}
	if got := metric(t, m, "wsgateway_refused_total", stat.ReasonScriptQueue); got != 4 {
		t.Errorf("refusals counted: %v, want 4", got)
	}

	// Consumers take turns, and what a dead one was to get goes to the next.
	second.Receive(`{"m":"queue.pop","p":{"t":["one"]},"i":1}`)
	second.Next()
	ask("queue one", "0")
	ask("queue one", "0")
	if got := first.Next() + second.Next(); got != event("one")+event("one") {
		t.Errorf("the two consumers got %s", got)
	}
	first.SetSlow(true)
	ask("queue one", "0")
	if got := second.Next(); got != event("one") {
		t.Errorf("after a slow consumer: %s", got)
	}
	if code, _ := first.Wait(); code != session.CloseSlow {
		t.Errorf("slow consumer closed with %d", code)
	}
	second.Receive(`{"m":"queue.unpop","p":{},"i":3}`)
	second.Next()
	ask("queue one", "1")
	if got := second.Unread(); len(got) > 0 {
		t.Errorf("after unpop: %q", got)
	}
}

// A slowLog accepts a message when the test lets it.
type slowLog struct {
	push.Log
	in, pass chan struct{}
}

func (l slowLog) Append(ctx context.Context, app *apps.App, ms []push.Message) (string, int, error) {
	l.in <- struct{}{}
	<-l.pass
	return l.Log.Append(ctx, app, ms)
}

// N02: a stop answers what a backend's link has begun, and whoever is subscribed gets it.
func TestMeshLinkLeavesWithItsAnswers(t *testing.T) {
	memory := log.NewMemory(log.Options{})
	t.Cleanup(memory.Close)
	slow := slowLog{memory, make(chan struct{}), make(chan struct{})}
	f := startHub(t, map[string]string{"door.lua": room}, script.Options{}, push.Options{Log: slow})
	busy, idle, reader := f.connectLink(), f.connectLink(), f.connect()
	reader.Receive("sub room")
	reader.Next()
	idle.Receive(`{"m":"queue.pop","p":{"t":["one"]},"i":1}`)
	idle.Next()
	var served, drained sync.WaitGroup
	served.Go(func() { busy.Receive(`{"m":"mesh.publish","p":{"c":"room","d":"last words"},"i":1}`) })
	<-slow.in
	drained.Go(func() { f.gateway.Drain(t.Context(), 0) })
	if code, _ := idle.Wait(); code != session.CloseServiceRestart {
		t.Errorf("the idle link is closed with %d", code)
	}
	close(slow.pass)
	served.Wait()
	if got, want := busy.Next(), `{"E":null,"r":{"s":1,"f":0},"i":1}`; got != want {
		t.Errorf("answered %s, want %s", got, want)
	}
	if code, _ := busy.Wait(); code != session.CloseServiceRestart {
		t.Errorf("the busy link is closed with %d", code)
	}
	if code, _ := reader.Wait(); code != session.CloseServiceRestart {
		t.Errorf("the reader is closed with %d", code)
	}
	if got := reader.Unread(); len(got) != 1 || got[0].Text != "last words" {
		t.Errorf("the reader got %v", got)
	}
	drained.Wait()
	late := f.connectLink()
	if code, _ := late.Wait(); code != session.CloseServiceRestart {
		t.Errorf("a late link is closed with %d", code)
	}
}
