package bench

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// A dialect is what the clients of a run speak.
type dialect interface {
	logsIn() bool // the first message says who the client is
	subscribe(app string) (command, answer []byte)
	unsubscribe(app string) (command, answer []byte)
	ping() (command, answer []byte)         // changes nothing
	reply(payload []byte) (is, good bool)   // not a message but an answer; and to what was done
	prefix(app string, member int64) []byte // of every message, up to its text
}

// native is the gateway's own protocol.
type native struct{}

func (native) logsIn() bool { return true }

func (native) subscribe(app string) (command, answer []byte) {
	return fmt.Appendf(nil, `{"app":%q}`, app), nativeAnswer("subscribe", app)
}

func (native) unsubscribe(app string) (command, answer []byte) {
	return fmt.Appendf(nil, `{"op":"unsubscribe","app":%q}`, app), nativeAnswer("unsubscribe", app)
}

func nativeAnswer(op, app string) []byte {
	return slices.Concat(gatewayReply, []byte(`{\"code\":200,\"message\":\"`+op+" "+app+` success\"}"}`))
}

func (native) ping() (command, answer []byte) {
	return []byte(`{"op":"ping"}`), fmt.Appendf(slices.Clone(gatewayReply), `{\"code\":200,\"message\":\"pong\"}"}`)
}

func (native) reply(payload []byte) (is, good bool) {
	return bytes.HasPrefix(payload, gatewayReply), bytes.Contains(payload, []byte(`{\"code\":200,`))
}

func (native) prefix(app string, member int64) []byte { return envelope(app, member) }

// barrage is the protocol of a door whose script is barrage.lua: nobody logs in, the channel
// ID@video is the app video:ID, and a message is the bare text.
type barrage struct{}

// barrageApps is what the names of the apps behind barrage.lua begin with.
const barrageApps = "video:"

var barrageAnswer = []byte(`{"result":true}`)

func (barrage) logsIn() bool { return false }

func (barrage) subscribe(app string) (command, answer []byte) {
	return barrageCommand("subscribe", app), barrageAnswer
}

func (barrage) unsubscribe(app string) (command, answer []byte) {
	return barrageCommand("unsubscribe", app), barrageAnswer
}

func barrageCommand(op, app string) []byte {
	return fmt.Appendf(nil, `{"op":%q,"channel":"%s@video"}`, op, strings.TrimPrefix(app, barrageApps))
}

// ping implements [dialect]: the script has no such command, and says so.
func (barrage) ping() (command, answer []byte) {
	return []byte(`{}`), []byte(`{"code":1,"msg":"Invalid Message"}`)
}

func (barrage) reply(payload []byte) (is, good bool) {
	good = bytes.Equal(payload, barrageAnswer)
	return good || bytes.HasPrefix(payload, []byte(`{"code":`)), good
}

func (barrage) prefix(string, int64) []byte { return nil }
