package script_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/stat"
)

// fetch runs body in a call, with url at hand, and returns what it returns.
func fetch(t *testing.T, url, body string, opts script.Options) string {
	t.Helper()
	f := start(t, fmt.Sprintf("local url = %q function on_message(msg) mix.websocket():send(tostring((function() %s end)())) end", url, body), opts)
	got, _ := f.ask("x")
	return got
}

func TestHTTP(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/echo", http.StatusFound)
		case "/large":
			io.WriteString(w, strings.Repeat("x", 64<<10+1))
		case "/full":
			io.WriteString(w, strings.Repeat("x", 64<<10))
		case "/hang":
			<-r.Context().Done()
		default:
			body, _ := io.ReadAll(r.Body)
			user, pass, _ := r.BasicAuth()
			c, _ := r.Cookie("c")
			w.Header().Add("X-Many", "1")
			w.Header().Add("X-Many", "2")
			http.SetCookie(w, &http.Cookie{Name: "set", Value: "v"})
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, r.Method, " ", r.URL.RawQuery, " ", r.Header.Get("X-A"), " ", c, " ", user, ":", pass, " ", r.Host == "example.com", " ", string(body))
		}
	}))
	defer s.Close()
	for name, c := range map[string]struct{ body, want string }{
		"get": {`local r, err = mix.http.request("GET", url .. "/echo?a=1") return r.status_code .. r.body .. tostring(err)`, `418GET a=1   : false nil`},
		"everything": {`return mix.http.request("post", url .. "/echo?a=1", {query = "b=2", body = "data", headers = {["X-A"] = "a", Host = "example.com"},
			cookies = {c = "d"}, timeout = "1s", auth = {username = "me", password = "secret"}}).body`, `POST a=1&b=2 a c=d me:secret true data`},
		"other names":    {`return mix.http.request("GET", url, {auth = {user = "me", pass = "secret"}}).body`, `GET    me:secret false `},
		"answer":         {`local r = mix.http.request("GET", url .. "/echo") return r.body_size == #r.body and r.headers["X-Many"] .. r.cookies.set .. (r.url == url .. "/echo" and "same" or r.url)`, `1, 2vsame`},
		"no redirects":   {`local r = mix.http.request("GET", url .. "/redirect") return r.status_code .. r.headers.Location .. (r.url == url .. "/redirect" and " same" or r.url)`, `302/echo same`},
		"large answer":   {`local r, err = mix.http.request("GET", url .. "/large") return tostring(r) .. err`, `nilanswer is larger than 65536 bytes`},
		"full answer":    {`return mix.http.request("GET", url .. "/full").body_size`, `65536`},
		"timeout":        {`local r, err = mix.http.request("GET", url .. "/hang", {timeout = 0.05}) return tostring(r) .. tostring(err:find("deadline") ~= nil)`, `niltrue`},
		"timeout string": {`local r, err = mix.http.request("GET", url .. "/hang", {timeout = "50ms"}) return tostring(r) .. tostring(err:find("deadline") ~= nil)`, `niltrue`},
		"bad timeout":    {`return select(2, mix.http.request("GET", url, {timeout = "soon"})) ~= nil`, `true`},
		"bad url":        {`return select(2, mix.http.request("GET", "http://[")) ~= nil`, `true`},
		"bad method":     {`return select(2, mix.http.request("G T", url)) ~= nil`, `true`},
		"bad header":     {`return select(2, mix.http.request("GET", url, {headers = {["a\n"] = "b"}})) ~= nil`, `true`},
		"file":           {`return select(2, mix.http.request("GET", "file:///etc/passwd"))`, `url must be http or https`},
		"nobody there":   {`return select(2, mix.http.request("GET", "http://127.0.0.1:1")) ~= nil`, `true`},
		"not counted":    {`mix.http.request("GET", url .. "/hang", {timeout = 0.2}) return "waited longer than it may run"`, `waited longer than it may run`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := fetch(t, s.URL, c.body, script.Options{}); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// An answer that is too large counts, and what that is can be set.
func TestHTTPAnswerSize(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RawQuery) }))
	defer s.Close()
	o := script.Options{HTTPBytes: 4, Metrics: stat.New(stat.Options{})}
	for answer, want := range map[string]string{"1234": "4nil", "12345": "nilanswer is larger than 4 bytes"} {
		if got := fetch(t, s.URL+"?"+answer, `local r, err = mix.http.request("GET", url) return tostring(r and r.body_size) .. tostring(err)`, o); got != want {
			t.Errorf("%s: %s, want %s", answer, got, want)
		}
	}
	if got := metric(t, o.Metrics, "wsgateway_refused_total", stat.ReasonScriptAnswer); got != 1 {
		t.Errorf("refusals counted: %v, want 1", got)
	}
}

// N02: a script that asks for ever holds up no stop, in the middle of a call or at its end.
func TestInterruptN02(t *testing.T) {
	asked := make(chan struct{}, 1)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	defer s.Close()
	f := start(t, fmt.Sprintf(`
		local function ask() while true do mix.http.request("GET", %[1]q) mix.websocket():wait_context_value("never") end end
		function on_message(msg) ask() end
		function on_close() ask() end`, s.URL), script.Options{})
	p := f.connect()
	go p.Receive("x")
	<-asked
	f.host.Interrupt()
	if code, _ := p.Wait(); code != session.CloseInternal {
		t.Errorf("closed with %d, want 1011", code)
	}
	p.Hangup(session.CloseNormal)
	f.host.Close() // waits for on_close
	if log := f.log.String(); strings.Count(log, "running time exceeded") == 0 {
		t.Errorf("log:\n%s", log)
	}
}

// What is not public must be listed; link-local addresses are refused whatever is listed.
func TestHTTPAddressesL03(t *testing.T) {
	const refused = "is not allowed"
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	for _, c := range []struct {
		host    string
		allow   []netip.Prefix
		refused bool
	}{
		{"10.1.2.3", nil, true},
		{"172.16.0.1", nil, true},
		{"192.168.1.1", nil, true},
		{"100.64.0.1", nil, true},
		{"169.254.169.254", nil, true},
		{"0.0.0.0", nil, true},
		{"224.0.0.1", nil, true},
		{"255.255.255.255", nil, true},
		{"[fc00::1]", nil, true},
		{"[fe80::1]", nil, true},
		{"[::]", nil, true},
		{"[::ffff:10.1.2.3]", nil, true},
		{"[::ffff:169.254.169.254]", nil, true},
		{"[64:ff9b::a00:1]", nil, true},
		{"[2002:a00:1::]", nil, true},
		{"2852039166", nil, true}, // 169.254.169.254 as one number: no address, and no name either
		{"169.254.169.254", everything, true},
		{"[fe80::1]", everything, true},
		{"0.0.0.0", everything, true},
		{"127.0.0.1", nil, false},
		{"[::1]", nil, false},
		{"127.1.2.3", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, false},
	} {
		t.Run(c.host, func(t *testing.T) {
			m := stat.New(stat.Options{})
			got := fetch(t, "http://"+c.host+":1/", `return select(2, mix.http.request("GET", url, {timeout = 0.5}))`, script.Options{HTTPAllow: c.allow, Metrics: m})
			no := strings.Contains(got, refused) || strings.Contains(got, "no such host") || strings.Contains(got, "lookup")
			if no != c.refused {
				t.Errorf("request: %s, want refused: %v", got, c.refused)
			}
		})
	}
	t.Run("counted", func(t *testing.T) {
		m := stat.New(stat.Options{})
		fetch(t, "http://10.1.2.3/", `return mix.http.request("GET", url)`, script.Options{Metrics: m})
		if got := metric(t, m, "wsgateway_refused_total", stat.ReasonScriptHost); got != 1 {
			t.Errorf("refusals counted: %v, want 1", got)
		}
	})
}

// Failed calls are counted by how they ended.
func TestScriptMetrics(t *testing.T) {
	m := stat.New(stat.Options{})
	f := start(t, `function on_message(msg)
		if msg.data == "loop" then while true do end end
		if msg.data == "fail" then error("failed") end
		mix.websocket():send("ok")
	end`, script.Options{Metrics: m})
	for _, message := range []string{"ok", "loop", "fail", "fail"} {
		f.ask(message)
	}
	for outcome, want := range map[string]float64{"ok": 1, "timeout": 1, "error": 2} {
		if got := metric(t, m, "wsgateway_script_duration_seconds_count", outcome); got != want {
			t.Errorf("%s: %v, want %v", outcome, got, want)
		}
	}
	if got := metric(t, m, "wsgateway_refused_total", stat.ReasonScriptTime); got != 1 {
		t.Errorf("refusals counted: %v, want 1", got)
	}
}
