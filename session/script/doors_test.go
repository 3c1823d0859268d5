package script_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ws-gateway/server/servertest"
	"ws-gateway/session/script"
)

// authServer is a business system that knows two tokens.
func authServer(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request struct{ Token string }
		if err := json.Unmarshal(body, &request); err != nil || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		switch request.Token {
		case `to"ken`:
			io.WriteString(w, `{"uid":1001}`)
		case "other":
			io.WriteString(w, `{"uid":1002}`)
		case "garbage":
			io.WriteString(w, `{"uid":"x"}`)
		case "broken":
			w.WriteHeader(http.StatusBadGateway)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// An exchange is what a client sends, or a backend publishes ("publish " and the body), and
// what the client receives then, in order.
type exchange struct {
	say  string
	want []string
}

// TestDoors plays what is documented for each door, through a whole gateway.
func TestDoors(t *testing.T) {
	for name, steps := range map[string][]exchange{
		"message-center": {
			{`{"op":"subscribe","channel":"@user"}`, []string{`{"code":1,"msg":"Not Auth"}`}},
			{`{"op":"unsubscribe","channel":"@user"}`, []string{`{"code":1,"msg":"Not Auth"}`}},
			{`{"op":"auth","token":"wrong"}`, []string{`{"code":1,"msg":"Auth Failed"}`}},
			{`{"op":"auth"}`, []string{`{"code":1,"msg":"Auth Failed"}`}},
			{`{"op":"auth","token":"garbage"}`, []string{`{"code":1,"msg":"Auth Failed"}`}},
			{`{"op":"auth","token":"broken"}`, []string{`{"code":1,"msg":"Try Again Later"}`}},
			{`{"op":"auth","token":"to\"ken"}`, []string{`{"result":true}`}},
			{`{"op":"subscribe","channel":"@user"}`, []string{`{"result":true}`}},
			{`publish {"c":"user:1001","d":"{\"event\":\"@user\",\"data\":{\"uid\":1001,\"msg\":\"Hello,World!\"}}"}`,
				[]string{`{"E":null,"r":{"s":1,"f":0}}`, `{"event":"@user","data":{"uid":1001,"msg":"Hello,World!"}}`}},
			{`publish {"c":"user:1002","d":"x"}`, []string{`{"E":null,"r":{"s":0,"f":0}}`}},
			{`{"op":"auth","token":"other"}`, []string{`{"code":1,"msg":"Already Auth"}`}},
			{`{"op":"subscribe","channel":"@other"}`, []string{`{"code":1,"msg":"Invalid Channel"}`}},
			{`{"op":"unsubscribe","channel":"@user"}`, []string{`{"result":true}`}},
			{`publish {"c":"user:1001","d":"x"}`, []string{`{"E":null,"r":{"s":0,"f":0}}`}},
			{`hello`, []string{`{"code":1,"msg":"Invalid Message"}`}},
			{`{"op":"toString"}`, []string{`{"code":1,"msg":"Invalid Message"}`}},
		},
		"barrage": {
			{`{"op":"subscribe","channel":"100001@video"}`, []string{`{"result":true}`}},
			{`publish {"c":"video:100001","d":"{\"event\":\"@video\",\"data\":{\"uid\":1001,\"video_id\":100001,\"msg\":\"Hello,World!\"}}"}`,
				[]string{`{"E":null,"r":{"s":1,"f":0}}`, `{"event":"@video","data":{"uid":1001,"video_id":100001,"msg":"Hello,World!"}}`}},
			{`{"op":"unsubscribe","channel":"100001@video"}`, []string{`{"result":true}`}},
			{`publish {"c":"video:100001","d":"x"}`, []string{`{"E":null,"r":{"s":0,"f":0}}`}},
			{`{"op":"subscribe","channel":"1:x@video"}`, []string{`{"code":1,"msg":"Invalid Message"}`}},
			{`{"op":"subscribe"}`, []string{`{"code":1,"msg":"Invalid Message"}`}},
			{`[]`, []string{`{"code":1,"msg":"Invalid Message"}`}},
		},
		"chat": {
			{`{"op":"send","msg":"hello"}`, []string{`{"status":"error","msg":"Not In A Room"}`}},
			{`{"op":"join","room_id":1002}`, []string{`{"status":"success"}`}},
			{`{"op":"send","msg":"Hello,\"World!"}`, []string{`{"status":"success"}`, `{"client_id":"ID","msg":"Hello,\"World!"}`}},
			{`publish {"c":"room:1002","d":"{\"type\":\"broadcast\",\"msg\":\"Hello,World!\"}"}`,
				[]string{`{"E":null,"r":{"s":1,"f":0}}`, `{"type":"broadcast","msg":"Hello,World!"}`}},
			{`{"op":"join","room_id":"1003"}`, []string{`{"status":"success"}`}},
			{`publish {"c":"room:1002","d":"x"}`, []string{`{"E":null,"r":{"s":0,"f":0}}`}},
			{`{"op":"join","room_id":"a b"}`, []string{`{"status":"error","msg":"Invalid Room"}`}},
			{`{"op":"join","room_id":1.5}`, []string{`{"status":"error","msg":"Invalid Room"}`}},
			{`{"op":"quit"}`, []string{`{"status":"success"}`}},
			{`publish {"c":"room:1003","d":"x"}`, []string{`{"E":null,"r":{"s":0,"f":0}}`}},
			{`{"op":"dance"}`, []string{`{"status":"error","msg":"Invalid Message"}`}},
		},
		"exchange": {
			{`{"op":"subscribe","channel":"BTCUSDT@depth"}`, []string{`{"result":true}`}},
			{`publish {"c":"ex:BTCUSDT@depth","d":"{\"event\":\"BTCUSDT@depth\",\"data\":{\"bids\":[],\"asks\":[]}}"}`,
				[]string{`{"E":null,"r":{"s":1,"f":0}}`, `{"event":"BTCUSDT@depth","data":{"bids":[],"asks":[]}}`}},
			{`{"op":"subscribe","channel":"@balance"}`, []string{`{"code":1,"msg":"Not Auth"}`}},
			{`{"op":"subscribe","channel":"1001@balance"}`, []string{`{"code":1,"msg":"Invalid Channel"}`}},
			{`{"op":"auth","token":"to\"ken"}`, []string{`{"result":true}`}},
			{`{"op":"subscribe","channel":"@balance"}`, []string{`{"result":true}`}},
			{`publish {"c":"ex:1001@balance","d":"{\"event\":\"@balance\",\"data\":{\"uid\":1001}}"}`,
				[]string{`{"E":null,"r":{"s":1,"f":0}}`, `{"event":"@balance","data":{"uid":1001}}`}},
			{`{"op":"unsubscribe","channel":"BTCUSDT@depth"}`, []string{`{"result":true}`}},
			{`publish {"c":"ex:BTCUSDT@depth","d":"x"}`, []string{`{"E":null,"r":{"s":0,"f":0}}`}},
			{`{"op":"subscribe","channel":"BTCUSDT@secret"}`, []string{`{"code":1,"msg":"Invalid Channel"}`}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			auth := authServer(t)
			g := servertest.Start(t, func(o *servertest.Options) {
				o.Doors = map[string]string{"/" + name: filepath.Join("doors", name+".lua")}
				o.Script.Option = map[string]string{"auth_url": auth.URL}
			})
			client := g.Dial("/" + name)
			for _, step := range steps {
				want := step.want
				if body, ok := strings.CutPrefix(step.say, "publish "); ok {
					resp, answer := g.Do(http.MethodPost, g.URL+"/v1/mesh/publish", body, "Content-Type", "application/json")
					if resp.StatusCode != 200 || answer != want[0] {
						t.Errorf("%s: %d %s, want %s", step.say, resp.StatusCode, answer, want[0])
					}
					want = want[1:]
				} else {
					client.Send(step.say)
				}
				for _, w := range want {
					if got := clientID.ReplaceAllString(client.Next(), `"ID"`); got != w {
						t.Errorf("%s: received %s, want %s", step.say, got, w)
					}
				}
			}
		})
	}
}

var clientID = regexp.MustCompile(`"\d{16}"`)

// The shipped doors are what `ws-gateway check` finds fine.
func TestCheckShippedDoors(t *testing.T) {
	files, err := filepath.Glob("doors/*.lua")
	if err != nil || len(files) < 4 {
		t.Fatalf("doors: %v, %v", files, err)
	}
	for _, f := range files {
		if filepath.Base(f) == "login.lua" {
			continue // a module
		}
		if err := script.CheckScript(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A backend's WebSocket through the whole gateway.
func TestLinkEndToEnd(t *testing.T) {
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Doors = map[string]string{"/barrage": "doors/barrage.lua"}
	})
	client, link := g.Dial("/barrage"), g.Dial("/ws/v1")
	client.Send(`{"op":"subscribe","channel":"1@video"}`)
	client.Next()
	for _, c := range [][2]string{{`ping`, `pong`}, {`{"m":"mesh.publish","p":{"c":"video:1","d":"x"},"i":1}`, `{"E":null,"r":{"s":1,"f":0},"i":1}`}} {
		link.Send(c[0])
		if got := link.Next(); got != c[1] {
			t.Errorf("%s: %s, want %s", c[0], got, c[1])
		}
	}
	if got := client.Next(); got != "x" {
		t.Errorf("the client got %s", got)
	}
	if _, resp, err := g.TryDial(g.URL+"/ws/v1", "X-Push-Key", "wrong"); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("with a wrong key: %v %v", resp, err)
	}
}
