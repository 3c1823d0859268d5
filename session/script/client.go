package script

import (
	"context"
	"errors"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	lua "github.com/yuin/gopher-lua"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

const (
	// waitValue is how long wait_context_value waits.
	waitValue = 3 * time.Second
	// maxMember is the largest member id.
	maxMember = 1<<53 - 1
)

// A client is one connection to a door. It is the [session.Protocol] of its session, one
// for each, and holds next to nothing while the connection is idle.
type client struct {
	door    *Door
	id      int64
	session *session.Session

	mu      sync.Mutex
	context []entry       // guarded by mu
	size    int           // of context, in bytes; guarded by mu
	changed chan struct{} // closed by the next change of the context; nil while nobody waits; guarded by mu
}

// An entry is one value of a context. A table in it is never changed: scripts get copies.
type entry struct {
	key   string
	value lua.LValue
	size  int
}

var (
	_ session.Protocol = (*client)(nil)
	_ session.Closer   = (*client)(nil)
)

// raw is how pushes look to the clients of doors: the text itself.
var raw = &push.Encoding{
	Op:     push.OpText,
	Binary: push.OpBinary,
	Append: func(dst []byte, m *push.Message) []byte { return append(dst, m.Text...) },
}

// Encoding implements [session.Protocol].
func (c *client) Encoding() *push.Encoding { return raw }

// Receive implements [session.Protocol].
func (c *client) Receive(s *session.Session, op push.Opcode, data []byte) (wait func()) {
	if !s.Allow() {
		return nil
	}
	kind, text := kindText, lua.LValue(lua.LString(data))
	if op == push.OpBinary {
		kind = kindBinary
	}
	return func() {
		c.call(func(s *state) (*lua.LFunction, []lua.LValue) {
			s.fill(kind, text)
			return s.onMessage, s.message
		})
	}
}

// open makes the client known to scripts, and runs on_handshake.
func (c *client) open(s *session.Session, r *http.Request) {
	h := c.door.host
	c.session = s
	c.id = h.first + int64(s.ID())
	h.clients.Store(c.id, c)
	c.call(func(s *state) (*lua.LFunction, []lua.LValue) {
		if s.onHandshake == nil {
			return nil, nil
		}
		headers := newTable(0, len(r.Header))
		for k, v := range r.Header {
			headers.RawSetString(k, lua.LString(strings.Join(v, ", ")))
		}
		server := newTable(0, 5)
		for k, v := range map[string]string{
			"Method":         r.Method,
			"RequestUri":     r.RequestURI,
			"ServerProtocol": r.Proto,
			"Host":           r.Host,
			"RemoteAddr":     c.remote(),
		} {
			server.RawSetString(k, lua.LString(v))
		}
		return s.onHandshake, []lua.LValue{lua.LNumber(c.id), headers, server}
	})
	s.Flush()
}

// remote returns the client's address as scripts see it.
func (c *client) remote() string {
	if a := c.session.Remote(); a.IsValid() {
		return a.String()
	}
	return ""
}

// Closed implements [session.Closer].
func (c *client) Closed(_ *session.Session, code session.CloseCode) {
	h := c.door.host
	h.clients.Delete(c.id)
	if !c.door.closes() {
		return
	}
	h.background(func() {
		c.call(func(s *state) (*lua.LFunction, []lua.LValue) {
			var reason lua.LValue = lua.LNil
			if code != session.CloseNormal && code != session.CloseGoingAway {
				reason = lua.LString(code.Reason())
			}
			return s.onClose, []lua.LValue{lua.LNumber(c.id), reason}
		})
	})
}

// call runs a function of the script for c. A script that fails costs its connection.
func (c *client) call(prepare func(*state) (*lua.LFunction, []lua.LValue)) {
	if err := c.door.call(c, prepare); err != nil {
		c.session.Close(session.CloseInternal)
	}
}

// send sends to the client what another connection or a backend has for it: no more than may be
// pushed. kind is "text", "binary" or "".
func (c *client) send(data, kind string) error {
	if err := c.door.host.opts.Hub.CheckText(data); err != nil {
		return err
	}
	f, err := newFrame(data, kind)
	if err != nil {
		return err
	}
	return c.session.Send(f)
}

// answer sends what the call in progress has for its own client.
func (c *client) answer(data, kind string) error {
	f, err := newFrame(data, kind)
	if err != nil {
		return err
	}
	return c.session.Answer(f)
}

// newFrame returns the frame of data; kind is "text", "binary" or "".
func newFrame(data, kind string) (*push.Frame, error) {
	binary, err := isBinary(kind, data)
	if err != nil {
		return nil, err
	}
	op := push.OpText
	if binary {
		op = push.OpBinary
	}
	return push.NewFrame(op, []byte(data)), nil
}

// isBinary reports whether data is to be sent as binary; kind is "text", "binary" or "". A
// client fails its connection for text that is not UTF-8 (RFC 6455, section 8.1), so there is
// none.
func isBinary(kind, data string) (bool, error) {
	switch {
	case kind == "binary":
		return true, nil
	case kind != "" && kind != "text":
		return false, errors.New("type must be text or binary")
	case !utf8.ValidString(data):
		return false, errors.New("text must be UTF-8; send it as binary")
	}
	return false, nil
}

// subscribe subscribes to channels, up to the first that it may not. Each new subscription is
// given to begin, which has its messages sent from when it calls start on.
func (c *client) subscribe(channels []string, begin func(start func())) error {
	for _, ch := range channels {
		start, err := c.session.Subscribe(ch)
		if err != nil {
			return err
		}
		if start != nil {
			begin(start)
		}
	}
	return nil
}

func (c *client) unsubscribe(channels []string) {
	for _, ch := range channels {
		c.session.Unsubscribe(ch)
	}
}

// value returns a copy of a context value; nil when there is none.
func (c *client) value(key string) lua.LValue {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(key)
}

// get is value; c.mu is held.
func (c *client) get(key string) lua.LValue {
	for i := range c.context {
		if c.context[i].key == key {
			v, _, _ := copyValue(c.context[i].value, 0, c.size)
			return v
		}
	}
	return lua.LNil
}

// values returns a copy of the whole context.
func (c *client) values() *lua.LTable {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := newTable(0, len(c.context))
	for _, e := range c.context {
		v, _, _ := copyValue(e.value, 0, c.size)
		t.RawSetString(e.key, v)
	}
	return t
}

var errContextFull = errors.New("context is full")

// setAll sets the values of t in the context; what is not in t stays.
func (c *client) setAll(t *lua.LTable) error {
	var err error
	t.ForEach(func(k, v lua.LValue) {
		if key, ok := k.(lua.LString); !ok {
			err = errors.New("keys must be strings")
		} else if err == nil {
			err = c.set(string(key), v)
		}
	})
	return err
}

var (
	// errRevoked is returned for a member who may not enter now.
	errRevoked = errors.New("the member is revoked")
	// errAnother is returned to a script that makes a member's connection another's.
	errAnother = errors.New("the connection is another member's already")
)

// set stores a copy of v in the context; nil removes the key. A positive integer as uid or
// member_id makes the session that member's.
func (c *client) set(key string, v lua.LValue) error {
	err := c.store(key, v)
	if errors.Is(err, errContextFull) {
		c.door.host.opts.Metrics.Refused(stat.ReasonScriptContext)
	}
	return err
}

// store is set without the count of refusals.
func (c *client) store(key string, v lua.LValue) error {
	v, size, err := copyValue(v, 0, c.door.host.opts.ContextBytes)
	if err != nil {
		return err
	}
	e := entry{key, v, size + len(key)}
	if id, ok := memberID(key, v); ok {
		if now := c.session.Member(); now > 0 && now != id {
			return errAnother
		}
		c.mu.Lock()
		_, err := c.place(e)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if !c.session.Become(id, nil) {
			return errRevoked
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.put(e); err != nil {
		return err
	}
	c.notify()
	return nil
}

// memberID returns the member that a context value stands for.
func memberID(key string, v lua.LValue) (int64, bool) {
	n, ok := v.(lua.LNumber)
	if !ok || key != "uid" && key != "member_id" {
		return 0, false
	}
	f := float64(n)
	return int64(f), f >= 1 && f <= maxMember && f == math.Trunc(f)
}

// put stores e, or removes it if its value is nil; c.mu is held.
func (c *client) put(e entry) error {
	i, err := c.place(e)
	if err != nil {
		return err
	}
	if i == len(c.context) {
		c.context = append(c.context, entry{})
	}
	c.size += e.size - c.context[i].size
	c.context[i] = e
	if e.value == lua.LNil {
		c.size -= e.size
		c.context = slices.Delete(c.context, i, i+1)
	}
	return nil
}

// place returns the index in the context where e belongs; errContextFull if it has no room there.
// c.mu is held.
func (c *client) place(e entry) (int, error) {
	o, size := &c.door.host.opts, c.size+e.size
	i := slices.IndexFunc(c.context, func(other entry) bool { return other.key == e.key })
	if i < 0 {
		i = len(c.context)
	} else {
		size -= c.context[i].size
	}
	if e.value != lua.LNil && (i == o.ContextKeys || size > o.ContextBytes) {
		return 0, errContextFull
	}
	return i, nil
}

// notify wakes those that wait for the context to change; c.mu is held.
func (c *client) notify() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// await returns a context value, waiting until there is one; nil if ctx is done before.
func (c *client) await(ctx context.Context, key string) lua.LValue {
	for {
		c.mu.Lock()
		v := c.get(key)
		if v == lua.LNil && c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if v != lua.LNil {
			return v
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return lua.LNil
		}
	}
}

// copyValue returns a deep copy of a value that is made of tables, strings, numbers and
// booleans only, and its size in bytes, about. One of more than limit bytes need not be copied.
func copyValue(v lua.LValue, depth, limit int) (lua.LValue, int, error) {
	const overhead = 16
	switch v := v.(type) {
	case *lua.LNilType, lua.LBool, lua.LNumber:
		return v, overhead, nil
	case lua.LString:
		return v, overhead + len(v), nil
	case *lua.LTable:
		if depth > maxDepth {
			return nil, 0, errDepth
		}
		var err error
		t, size := newTable(v.Len(), 0), 4*overhead
		v.ForEach(func(k, val lua.LValue) {
			if err != nil {
				return
			}
			if size > limit {
				err = errContextFull
				return
			}
			var n int
			if k, n, err = copyValue(k, maxDepth+1, limit); err == nil { // a key cannot be a table
				size += n
				if val, n, err = copyValue(val, depth+1, limit); err == nil {
					size += n
					t.RawSet(k, val)
				}
			}
		})
		return t, size, err
	case *lua.LUserData:
		if v == null {
			return v, overhead, nil
		}
	}
	return nil, 0, errors.New("a " + v.Type().String() + " cannot be kept in a context")
}
