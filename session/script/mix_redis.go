package script

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	lua "github.com/yuin/gopher-lua"
)

// redisPool has a client, with a pool of connections of its own, for each configured name.
// A client connects when it is first used.
type redisPool struct {
	clients map[string]*redis.Client
}

// redisLog takes what the client library has to say. It has one logger for all.
type redisLog struct{}

func (redisLog) Printf(ctx context.Context, format string, args ...any) {
	slog.WarnContext(ctx, "redis client", "text", fmt.Sprintf(format, args...))
}

func init() { redis.SetLogger(redisLog{}) }

func newRedisPool(urls map[string]string) (*redisPool, error) {
	p := &redisPool{clients: make(map[string]*redis.Client)}
	for _, name := range slices.Sorted(maps.Keys(urls)) {
		o, err := redis.ParseURL(urls[name])
		if err != nil { // which may quote a password
			p.close()
			return nil, fmt.Errorf("WSGW_REDIS: %s has no URL like redis://user:password@host:6379/0, with %%2F for a / in a password", name)
		}
		o.Protocol = 2 // replies as Lua scripts know them: HGETALL is a list
		o.DisableIdentity = true
		o.MaxRetries = -1 // a script that sends INCR wants it once
		o.DialerRetries = 1
		o.ContextTimeoutEnabled = true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = maxWait, maxWait, maxWait, maxWait
		p.clients[name] = redis.NewClient(o)
	}
	return p, nil
}

func (p *redisPool) close() {
	for _, c := range p.clients {
		_ = c.Close() // it only reports that it was closed before
	}
}

// openRedis makes mix.redis.
func (s *state) openRedis(mix *lua.LTable) {
	L := s.L
	meta := L.NewTable()
	meta.RawSetString("__index", L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{"command": s.redisCommand}))
	meta.RawSetString("__metatable", lua.LFalse)
	mix.RawSetString("redis", L.SetFuncs(L.NewTable(), map[string]lua.LGFunction{
		"connection": func(L *lua.LState) int {
			name := L.OptString(1, "default")
			c, ok := s.door.host.redis.clients[name]
			if !ok {
				return pushError(L, fmt.Errorf("redis %q is not configured", name))
			}
			ud := L.NewUserData()
			ud.Value, ud.Metatable = c, meta
			L.Push(ud)
			return 1
		},
	}))
}

// stateful are commands that change the connection they are sent on, which in a pool is
// anybody's.
var stateful = map[string]bool{
	"AUTH": true, "CLIENT": true, "DISCARD": true, "EXEC": true, "HELLO": true, "MONITOR": true, "MULTI": true,
	"PSUBSCRIBE": true, "QUIT": true, "RESET": true, "SELECT": true, "SSUBSCRIBE": true, "SUBSCRIBE": true,
	"UNWATCH": true, "WATCH": true,
}

// redisCommand implements redis:command(name, arguments...).
func (s *state) redisCommand(L *lua.LState) int {
	ud, _ := L.Get(1).(*lua.LUserData)
	if ud == nil {
		L.ArgError(1, "redis connection expected: call redis:command(), not redis.command()")
	}
	client, ok := ud.Value.(*redis.Client)
	if !ok {
		L.ArgError(1, "redis connection expected")
	}
	if s.client == nil {
		return pushError(L, errNoClient)
	}
	args := make([]any, 0, L.GetTop())
	for i := 2; i == 2 || i <= L.GetTop(); i++ {
		args = append(args, L.CheckString(i))
	}
	if name := strings.ToUpper(args[0].(string)); stateful[name] {
		return pushError(L, fmt.Errorf("%s is not possible on a shared connection", name))
	}
	var reply any
	var err error
	s.wait(L, maxWait, func(ctx context.Context) {
		reply, err = client.Do(ctx, args...).Result()
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return pushError(L, err)
	}
	L.Push(s.redisValue(L, reply))
	return 1
}

// redisValue turns a reply into a Lua value.
func (s *state) redisValue(L *lua.LState, reply any) lua.LValue {
	s.b.mustStep(L)
	switch v := reply.(type) {
	case string:
		s.b.charge(L, len(v))
		return lua.LString(v)
	case int64:
		return lua.LNumber(v)
	case []any:
		t := newTable(len(v), 0)
		for i, e := range v {
			t.RawSetInt(i+1, s.redisValue(L, e))
		}
		return t
	case error:
		return lua.LString(v.Error())
	}
	return lua.LNil
}
