package script_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"ws-gateway/session/script"
)

// DOORS.md names every function that scripts have, and none that they have not.
func TestDocumentedFunctions(t *testing.T) {
	text, err := os.ReadFile("DOORS.md")
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, `
		local function list(prefix, t, names)
			for k, v in pairs(t) do
				if type(v) == "function" then names[#names + 1] = prefix .. k end
				if type(v) == "table" then list(prefix .. k .. ".", v, names) end
			end
			return names
		end
		function on_message(msg)
			local conn = mix.websocket()
			if msg.data == "list" then
				conn:send(mix.json_encode(list("mix.", mix, {})))
			elseif msg.data:match("^mix") then
				local v = _G
				for name in msg.data:gmatch("[%w_]+") do v = v[name] end
				conn:send(type(v))
			else
				conn:send(type(conn[msg.data]))
			end
		end`, script.Options{})
	p := f.connect()
	ask := func(s string) string { p.Receive(s); return p.Next() }
	undocumented := map[string]bool{"mix.queue.new": true} // of old scripts, does nothing
	for _, name := range regexp.MustCompile(`"(mix[^"]+)"`).FindAllStringSubmatch(ask("list"), -1) {
		short := strings.TrimPrefix(name[1], "mix.")
		if !undocumented[name[1]] && !strings.Contains(string(text), name[1]+"(") && !strings.Contains(string(text), "`"+short+"`") {
			t.Errorf("DOORS.md does not mention %s", name[1])
		}
	}
	for _, name := range regexp.MustCompile(`(mix\.[\w.]+)\(`).FindAllStringSubmatch(string(text), -1) {
		if got := ask(name[1]); got != "function" {
			t.Errorf("DOORS.md mentions %s, which is a %s", name[1], got)
		}
	}
	for _, name := range regexp.MustCompile(`conn:(\w+)\(`).FindAllStringSubmatch(string(text), -1) {
		if got := ask(name[1]); got != "function" {
			t.Errorf("DOORS.md mentions conn:%s, which is a %s", name[1], got)
		}
	}
}

// A script as CONNMIX's users write them: locals for what it uses often, a module that
// changes print, list functions of Lua 5.0, numbers in the names of channels.
func TestConnmixStyle(t *testing.T) {
	f := startFiles(t, map[string]string{
		"utils/show.lua": `local old = print function print(v) old(type(v) == "table" and mix.json_encode(v) or v) end`,
		"door.lua": `
require("utils.show")
local mix_log = mix.log
local mix_DEBUG = mix.DEBUG

function on_handshake(client_id, headers)
    mix_log(mix_DEBUG, "on_handshake client_id: " .. client_id)
end

function on_message(msg)
    print(msg)
    local conn = mix.websocket()
    local data, err = mix.json_decode(msg["data"])
    if err then
        mix_log(mix_DEBUG, "json_decode error: " .. err)
        conn:close()
        return
    end
    local parts = mix.str_split(data["channel"], "@")
    if table.getn(parts) ~= 2 then
        conn:send('{"code":1,"msg":"bad"}')
        return
    end
    conn:set_context_value("uid", data["uid"])
    local err = conn:subscribe("user:" .. conn:context_value("uid"), string.format("%d@%s", data["uid"], parts[2]))
    if err then
        conn:close()
        return
    end
    local success, fail = mix.mesh.publish("user:1001", '{"n":' .. data["uid"] .. '}')
    conn:send('{"success":' .. success .. ',"fail":' .. fail .. '}')
end

function on_close(client_id, err)
    print(err)
end
`}, script.Options{})
	p := f.connect()
	p.Receive(`{"uid":1001,"channel":"@user"}`)
	for _, want := range []string{`{"success":1,"fail":0}`, `{"n":1001}`} {
		if got := p.Next(); got != want {
			t.Errorf("received %s, want %s", got, want)
		}
	}
	if log := f.log.String(); !strings.Contains(log, "on_handshake client_id: 1") || !strings.Contains(log, `\"finish\":true`) {
		t.Errorf("log:\n%s", log)
	}
}
