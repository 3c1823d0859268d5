package script

import (
	"crypto/md5"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	lua "github.com/yuin/gopher-lua"

	"ws-gateway/apps"
)

// The levels of mix.log.
const (
	logDebug = iota
	logInfo
	logWarn
	logError
)

// openMix makes the global mix. Its functions return what CONNMIX documents: usually a
// result and an error message, one of which is nil.
func (s *state) openMix() {
	L := s.L
	mix := L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"json_encode":    s.jsonEncode,
		"json_decode":    s.jsonDecode,
		"base64_encode":  s.base64Encode,
		"base64_decode":  s.base64Decode,
		"md5":            hash(func(b string) string { h := md5.Sum([]byte(b)); return hex.EncodeToString(h[:]) }),
		"md5_bin":        hash(func(b string) string { h := md5.Sum([]byte(b)); return string(h[:]) }),
		"sha1":           hash(func(b string) string { h := sha1.Sum([]byte(b)); return hex.EncodeToString(h[:]) }),
		"sha1_bin":       hash(func(b string) string { h := sha1.Sum([]byte(b)); return string(h[:]) }),
		"str_split":      s.strSplit,
		"bytes_tostring": s.bytesToString,
		"parse_url":      parseURL,
		"url_parse":      parseURL, // what CONNMIX's reference calls it; its questions page says parse_url
		"parse_str":      parseStr,
		"log":            s.log,
		"websocket":      s.websocket,
	})
	for name, level := range map[string]int{"DEBUG": logDebug, "INFO": logInfo, "WARN": logWarn, "ERROR": logError} {
		mix.RawSetString(name, lua.LNumber(level))
	}
	mix.RawSetString("null", null)
	module := func(name string, fns map[string]lua.LGFunction) {
		mix.RawSetString(name, L.SetFuncs(L.NewTable(), fns))
	}
	module("server", map[string]lua.LGFunction{"option": s.serverOption})
	module("mesh", map[string]lua.LGFunction{"send": s.meshSend, "publish": s.meshPublish})
	module("queue", map[string]lua.LGFunction{"push": s.queuePush, "new": s.queueNew})
	module("http", map[string]lua.LGFunction{"request": s.httpRequest})
	s.openRedis(mix)
	s.openWebsocket()
	L.SetGlobal("mix", mix)
}

// told returns what scripts and backends are told of err: not which of our packages it comes from,
// nor which rule has refused something, as they may pass it on to a client.
func told(err error) string {
	var denied *apps.DeniedError
	if errors.As(err, &denied) {
		return fmt.Sprintf("%s %s forbidden", denied.Action, denied.App)
	}
	text := err.Error()
	for _, name := range [...]string{"apps: ", "push: ", "session: "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

// pushError pushes nil and an error message: what functions return that failed.
func pushError(L *lua.LState, err error) int {
	L.Push(lua.LNil)
	L.Push(lua.LString(told(err)))
	return 2
}

// pushMessage pushes an error message, or nil: what functions return that have no result.
func pushMessage(L *lua.LState, err error) int {
	if err == nil {
		L.Push(lua.LNil)
	} else {
		L.Push(lua.LString(told(err)))
	}
	return 1
}

func hash(sum func(string) string) lua.LGFunction {
	return func(L *lua.LState) int {
		L.Push(lua.LString(sum(L.CheckString(1))))
		return 1
	}
}

func (s *state) jsonEncode(L *lua.LState) int {
	var room [512]byte
	out, err := appendJSON(room[:0], L.CheckAny(1), 0, s.step)
	if err != nil {
		return pushError(L, err)
	}
	s.b.charge(L, len(out))
	L.Push(lua.LString(out))
	return 1
}

func (s *state) jsonDecode(L *lua.LState) int {
	text := L.CheckString(1)
	s.b.charge(L, len(text))
	var l *last
	if s.client != nil && !s.last.lent { // what is decoded while the script is loaded stays
		l = &s.last
	}
	nulls := lua.LNil
	if L.Get(2) == null { // anything else may be a second result of what made the text
		nulls = null
	}
	v, err := decodeInto(l, text, nulls, s.step)
	if err != nil {
		return pushError(L, err)
	}
	L.Push(v)
	return 1
}

func (s *state) base64Encode(L *lua.LState) int {
	text := L.CheckString(1)
	s.b.charge(L, base64.StdEncoding.EncodedLen(len(text)))
	L.Push(lua.LString(base64.StdEncoding.EncodeToString([]byte(text))))
	return 1
}

func (s *state) base64Decode(L *lua.LState) int {
	text := L.CheckString(1)
	s.b.charge(L, len(text))
	out, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return pushError(L, err)
	}
	L.Push(lua.LString(out))
	return 1
}

func (s *state) strSplit(L *lua.LState) int {
	str, sep := L.CheckString(1), L.CheckString(2)
	s.b.charge(L, len(str))
	t := newTable(0, 0)
	for _, part := range strings.Split(str, sep) {
		s.b.mustStep(L)
		t.Append(lua.LString(part)) // a list may be longer than lua.MaxArrayIndex
	}
	L.Push(t)
	return 1
}

// bytesToString makes a string of a list of byte values.
func (s *state) bytesToString(L *lua.LState) int {
	t := L.CheckTable(1)
	n := t.Len()
	s.b.charge(L, n)
	out := make([]byte, n)
	for i := range out {
		b, ok := t.RawGetInt(i + 1).(lua.LNumber)
		if !ok {
			L.ArgError(1, "list of numbers expected")
		}
		out[i] = byte(int(b))
	}
	L.Push(lua.LString(out))
	return 1
}

func parseURL(L *lua.LState) int {
	u, err := url.Parse(L.CheckString(1))
	if err != nil {
		return pushError(L, err)
	}
	t := newTable(0, 11)
	for k, v := range map[string]string{
		"scheme": u.Scheme, "opaque": u.Opaque, "user": u.User.String(), "host": u.Host, "path": u.Path, "raw_path": u.RawPath,
		"raw_query": u.RawQuery, "fragment": u.Fragment, "raw_fragment": u.RawFragment,
	} {
		t.RawSetString(k, lua.LString(v))
	}
	t.RawSetString("force_query", lua.LBool(u.ForceQuery))
	t.RawSetString("query", queryTable(u.Query()))
	L.Push(t)
	return 1
}

func parseStr(L *lua.LState) int {
	q, err := url.ParseQuery(L.CheckString(1))
	if err != nil {
		return pushError(L, err)
	}
	L.Push(queryTable(q))
	return 1
}

// queryTable has the first value of each parameter.
func queryTable(q url.Values) *lua.LTable {
	t := newTable(0, len(q))
	for k := range q {
		t.RawSetString(k, lua.LString(q.Get(k)))
	}
	return t
}

func (s *state) log(L *lua.LState) int {
	levels := [...]slog.Level{logDebug: slog.LevelDebug, logInfo: slog.LevelInfo, logWarn: slog.LevelWarn, logError: slog.LevelError}
	level := L.CheckInt(1)
	if level < 0 || level >= len(levels) {
		L.ArgError(1, "mix.DEBUG, mix.INFO, mix.WARN or mix.ERROR expected")
	}
	text := L.ToStringMeta(L.CheckAny(2)).String()
	s.b.charge(L, len(text))
	s.logger().Log(background, levels[level], "script says", "text", text)
	L.Push(lua.LTrue)
	return 1
}

// serverOption returns what the operator configured under a name; "path" is the door's own.
func (s *state) serverOption(L *lua.LState) int {
	name := L.CheckString(1)
	if name == "path" {
		L.Push(lua.LString(s.door.Path))
	} else if v, ok := s.door.host.opts.Option[name]; ok {
		L.Push(lua.LString(v))
	} else {
		L.Push(lua.LNil)
	}
	return 1
}
