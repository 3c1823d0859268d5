package script

import (
	"context"
	"errors"
	"math"
	"strconv"

	lua "github.com/yuin/gopher-lua"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

var background = context.Background()

// errNoClient is what functions that need a connection return while a script is loaded.
var errNoClient = errors.New("there is no connection while a script is loaded")

// openWebsocket makes the connection object. There is one for each state, and it always
// stands for the connection whose call is in progress.
func (s *state) openWebsocket() {
	L := s.L
	meta := L.NewTable()
	meta.RawSetString("__index", L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"client_id":          s.connClientID,
		"remote_addr":        s.connRemoteAddr,
		"context":            s.connContext,
		"context_value":      s.connContextValue,
		"wait_context_value": s.connWaitContextValue,
		"set_context":        s.connSetContext,
		"set_context_value":  s.connSetContextValue,
		"subscribe":          s.connSubscribe,
		"unsubscribe":        s.connUnsubscribe,
		"send":               s.connSend,
		"close":              s.connClose,
	}))
	meta.RawSetString("__metatable", lua.LFalse)
	s.conn = L.NewUserData()
	s.conn.Metatable = meta
}

func (s *state) websocket(L *lua.LState) int {
	if s.client == nil {
		return pushError(L, errNoClient)
	}
	L.Push(s.conn)
	return 1
}

// serving checks that L's first argument is the connection object and returns the client it
// stands for.
func (s *state) serving(L *lua.LState) *client {
	if L.Get(1) != lua.LValue(s.conn) {
		L.ArgError(1, "connection expected: call conn:method(), not conn.method()")
	}
	if s.client == nil {
		L.RaiseError("%s", errNoClient.Error())
	}
	return s.client
}

func (s *state) connClientID(L *lua.LState) int {
	L.Push(lua.LNumber(s.serving(L).id))
	return 1
}

func (s *state) connRemoteAddr(L *lua.LState) int {
	L.Push(lua.LString(s.serving(L).remote()))
	return 1
}

func (s *state) connContext(L *lua.LState) int {
	L.Push(s.serving(L).values())
	return 1
}

func (s *state) connContextValue(L *lua.LState) int {
	L.Push(s.serving(L).value(L.CheckString(2)))
	return 1
}

func (s *state) connWaitContextValue(L *lua.LState) int {
	c, key := s.serving(L), L.CheckString(2)
	v := c.value(key)
	if v == lua.LNil {
		s.wait(L, waitValue, func(ctx context.Context) { v = c.await(ctx, key) })
	}
	L.Push(v)
	return 1
}

func (s *state) connSetContextValue(L *lua.LState) int {
	c, key := s.serving(L), L.CheckString(2)
	if err := c.set(key, L.Get(3)); err != nil {
		L.RaiseError("set_context_value: %s", err.Error())
	}
	return 0
}

func (s *state) connSetContext(L *lua.LState) int {
	if err := s.serving(L).setAll(L.CheckTable(2)); err != nil {
		L.RaiseError("set_context: %s", err.Error())
	}
	return 0
}

func (s *state) connSubscribe(L *lua.LState) int {
	var room [4]string
	return pushMessage(L, s.serving(L).subscribe(channels(L, room[:0]), s.hold))
}

func (s *state) connUnsubscribe(L *lua.LState) int {
	var room [4]string
	s.serving(L).unsubscribe(channels(L, room[:0]))
	return pushMessage(L, nil)
}

// channels appends the names of channels, which are the arguments from the second on.
func channels(L *lua.LState, names []string) []string {
	for i := 2; i == 2 || i <= L.GetTop(); i++ {
		names = append(names, L.CheckString(i))
	}
	return names
}

func (s *state) connSend(L *lua.LState) int {
	return pushMessage(L, s.serving(L).answer(L.CheckString(2), L.OptString(3, "")))
}

func (s *state) connClose(L *lua.LState) int {
	s.serving(L).session.Close(session.CloseNormal)
	return pushMessage(L, nil)
}

var errUnknownClient = errors.New("unknown client_id")

// meshSend sends to any connection of the gateway's doors.
func (s *state) meshSend(L *lua.LState) int {
	var id int64
	switch v := L.Get(1).(type) {
	case lua.LNumber:
		id = int64(v)
		if math.Trunc(float64(v)) != float64(v) {
			id = 0
		}
	default:
		id, _ = strconv.ParseInt(L.CheckString(1), 10, 64)
	}
	c, ok := s.door.host.client(id)
	if !ok {
		return pushMessage(L, errUnknownClient)
	}
	return pushMessage(L, c.send(L.CheckString(2), L.OptString(3, "")))
}

// meshPublish sends to everybody subscribed to a channel, and returns how many connections
// of this node it was queued to and how many it was not.
func (s *state) meshPublish(L *lua.LState) int {
	channel, data, kind := L.CheckString(1), L.CheckString(2), L.OptString(3, "")
	n, err := s.door.host.publish(channel, data, kind)
	L.Push(lua.LNumber(n))
	if err != nil {
		L.Push(lua.LNumber(1))
		L.Push(lua.LString(told(err)))
		return 3
	}
	L.Push(lua.LNumber(0))
	return 2
}

// publish pushes data to everybody subscribed to channel and returns the number of sessions
// that it was queued to.
func (h *Host) publish(channel, data, kind string) (int, error) {
	binary, err := isBinary(kind, data)
	if err != nil {
		return 0, err
	}
	m := push.Message{App: channel, Member: push.Everybody, Text: data, Binary: binary}
	r, err := h.opts.Hub.Publish(background, m)
	if err == nil {
		h.opts.Metrics.Pushed(stat.PushAccepted, 1)
	}
	return r.Subscribers, err
}
