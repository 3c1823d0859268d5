package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// The sizes of a state. A Lua function call takes one frame and some registers.
const (
	maxCalls     = 256
	registers    = 512
	maxRegisters = 32 << 10
)

// loadTime is how long a script may run while it is loaded.
const loadTime = time.Second

// A state is one Lua virtual machine with a script loaded into it. It serves one call at a
// time, of any connection.
type state struct {
	L       *lua.LState
	door    *Door
	program *program
	b       budget
	snapshot

	loaded   map[string]lua.LValue // what require returns again
	library  map[string]lua.LValue // loaded as it was after loading
	requires []string              // modules being loaded now
	nested   int                   // coroutines that run within each other

	step    func() bool // b.step
	matcher matcher     // of searches that call nothing
	last    last

	client  *client // whom the call in progress is for; nil while loading
	conn    *lua.LUserData
	msg     *lua.LTable  // what on_message gets: one table for all calls
	message []lua.LValue // msg, as arguments

	hold func(start func()) // adds to held
	held []func()           // starts the call's new subscriptions once it is over, so that its answer goes first

	onHandshake, onMessage, onClose *lua.LFunction
}

// newState loads p into a new state.
func newState(d *Door, p *program) (*state, error) {
	s := &state{
		L: lua.NewState(lua.Options{
			SkipOpenLibs:     true,
			CallStackSize:    maxCalls,
			RegistrySize:     registers,
			RegistryMaxSize:  maxRegisters,
			RegistryGrowStep: registers,
		}),
		door:    d,
		program: p,
		loaded:  make(map[string]lua.LValue),
	}
	s.step = s.b.step
	s.hold = func(start func()) { s.held = append(s.held, start) }
	s.openLibs()
	s.L.SetContext(&s.b)
	s.b.start(loadTime, 0)
	s.L.Push(s.L.NewFunction(func(L *lua.LState) int {
		s.run(L, p.entry)
		return 0
	}))
	if err := s.failure(s.L.PCall(0, 0, nil)); err != nil {
		return nil, err
	}
	for name, fn := range map[string]**lua.LFunction{"on_handshake": &s.onHandshake, "on_message": &s.onMessage, "on_close": &s.onClose} {
		switch v := s.L.GetGlobal(name).(type) {
		case *lua.LFunction:
			*fn = v
		case *lua.LNilType:
		default:
			return nil, fmt.Errorf("%s: %s is a %s, not a function", p.entry.SourceName, name, v.Type())
		}
	}
	if s.onMessage == nil {
		return nil, fmt.Errorf("%s: no function on_message", p.entry.SourceName)
	}
	s.msg = newTable(0, 3)
	s.message = []lua.LValue{s.msg}
	s.msg.RawSetString("finish", lua.LTrue)
	s.fill(kindText, noData)
	roots := []lua.LValue{s.L.G.Global, s.L.GetMetatable(lua.LString("")), s.msg}
	for _, v := range s.loaded {
		roots = append(roots, v)
	}
	var err error
	if s.snapshot, err = takeSnapshot(roots...); err != nil {
		return nil, fmt.Errorf("%s: %w", p.entry.SourceName, err)
	}
	s.last.snapshot = &s.snapshot
	s.library = maps.Clone(s.loaded)
	return s, nil
}

var kindText, kindBinary, noData lua.LValue = lua.LString("text"), lua.LString("binary"), lua.LString("")

// fill makes msg say what was received.
func (s *state) fill(kind, data lua.LValue) {
	if s.msg.RawGetString("type") != kind {
		s.msg.RawSetString("type", kind)
	}
	s.msg.RawSetString("data", data)
}

// run calls a compiled chunk with args and leaves its result on L's stack.
func (s *state) run(L *lua.LState, proto *lua.FunctionProto, args ...lua.LValue) {
	L.Push(L.NewFunctionFromProto(proto))
	L.Push(L.NewFunction(s.concat))
	L.Push(L.NewFunction(s.write))
	L.Push(L.G.Global)
	L.Call(3, 1) // see rewrite: the script itself is what the chunk returns
	for _, a := range args {
		L.Push(a)
	}
	L.Call(len(args), 1)
}

// write is the helper that the rewritten script calls with every table before writing to it.
func (s *state) write(L *lua.LState) int {
	if t, ok := L.Get(1).(*lua.LTable); ok {
		s.written(t)
	}
	return 1
}

// require loads a module once. What is first required within a call is forgotten after it.
func (s *state) require(L *lua.LState) int {
	name := L.CheckString(1)
	if v, ok := s.loaded[name]; ok {
		L.Push(v)
		return 1
	}
	for _, r := range s.requires {
		if r == name {
			L.RaiseError("module '%s' requires itself", name)
		}
	}
	proto, err := s.program.module(name)
	if err != nil {
		L.RaiseError("module '%s': %s", name, err.Error())
	}
	defer func(n int) { s.requires = s.requires[:n] }(len(s.requires))
	s.requires = append(s.requires, name)
	s.run(L, proto, lua.LString(name))
	v := L.Get(-1)
	if v == lua.LNil {
		v = lua.LTrue
	}
	s.loaded[name] = v
	L.Push(v)
	return 1
}

// call runs fn for c and puts the state back to what it was before. It reports how long fn
// ran.
func (s *state) call(c *client, fn *lua.LFunction, args ...lua.LValue) (time.Duration, error) {
	s.client = c
	s.b.start(s.door.host.opts.Timeout, s.door.host.opts.Wait)
	err := s.failure(s.L.CallByParam(lua.P{Fn: fn, Protect: true}, args...))
	s.b.clock()
	s.client = nil
	s.last.takeBack()
	s.restore()
	s.msg.RawSetString("data", noData) // it may be long, as what was searched
	s.matcher = matcher{}
	if len(s.loaded) != len(s.library) {
		s.loaded = maps.Clone(s.library)
	}
	return s.b.ran, err
}

// A scriptError is what a script raised, with script and line where there are any.
type scriptError struct{ text string }

func (e *scriptError) Error() string { return e.text }

// release starts the subscriptions that were held back until the call was over.
func (s *state) release() {
	for _, start := range s.held {
		start()
	}
	clear(s.held)
	s.held = s.held[:0]
}

// described says what was raised, and where.
func described(err *lua.ApiError) string {
	text, ok := err.Object.(lua.LString)
	if !ok { // a table's __tostring would run unprotected
		text = lua.LString("error object is a " + err.Object.Type().String())
	}
	if strings.Contains(string(text), ".lua:") {
		return string(text)
	}
	for line := range strings.Lines(err.StackTrace) {
		if where, _, ok := strings.Cut(line, ": in "); ok && strings.Contains(where, ".lua:") {
			return strings.TrimSpace(where) + ": " + string(text)
		}
	}
	return string(text)
}

// failure returns what went wrong in a call that ended with err. errTime, errWait and
// errMemory are wrapped.
func (s *state) failure(err error) error {
	if err == nil && s.b.err == nil {
		return nil
	}
	text := ""
	var api *lua.ApiError
	if errors.As(err, &api) {
		text = described(api)
	}
	if s.b.err != nil {
		if text == "" {
			return s.b.err
		}
		return fmt.Errorf("%w: %s", s.b.err, text)
	}
	if api != nil && api.Type == lua.ApiErrorPanic {
		return fmt.Errorf("panic in script: %s", text)
	}
	return &scriptError{text}
}

// reusable reports whether a state whose call ended with err may serve another one.
func reusable(err error) bool {
	if err == nil {
		return true
	}
	var e *scriptError
	return errors.As(err, &e)
}

// wait runs f, which may block until ctx is done: for limit, or for what is left of the call's
// time for waiting, or until the host is interrupted. It does not count as running, and others may
// run meanwhile. With no time left it raises an error in L.
func (s *state) wait(L *lua.LState, limit time.Duration, f func(ctx context.Context)) {
	var waited time.Duration
	s.b.pause()
	s.door.host.leave()
	s.client.session.Wait(func() {
		began := time.Now()
		ctx, cancel := context.WithTimeout(s.door.host.waits, min(limit, s.b.wait))
		defer cancel()
		f(ctx)
		waited = time.Since(began)
	})
	s.door.host.enter()
	s.b.resume()
	s.b.waited(L, waited)
}

func (s *state) logger() *slog.Logger { return s.door.logger }
