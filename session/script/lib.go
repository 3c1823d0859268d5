package script

import (
	"math"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

// openLibs gives s the Lua libraries: what of gopher-lua's is harmless, our own guarded
// versions of the rest, and nothing that reaches files, processes, the loader or the
// debugger.
func (s *state) openLibs() {
	L := s.L
	for _, open := range []lua.LGFunction{lua.OpenBase, lua.OpenTable, lua.OpenString, lua.OpenMath, lua.OpenCoroutine} {
		L.Push(L.NewFunction(open))
		L.Call(0, 0)
	}
	for _, name := range []string{
		"dofile", "load", "loadfile", "loadstring", // files and text as code
		"getfenv", "setfenv", "module", // other environments
		"newproxy", "_printregs",
	} {
		L.SetGlobal(name, lua.LNil)
	}
	L.SetFuncs(L.G.Global, map[string]lua.LGFunction{
		"collectgarbage": func(L *lua.LState) int { L.Push(lua.LNumber(0)); return 1 },
		"print":          s.print,
		"rawset":         s.rawset,
		"require":        s.require,
		"setmetatable":   s.setmetatable,
		"type":           typeOf,
	})
	for _, name := range []string{"pcall", "xpcall"} {
		protected := L.GetGlobal(name).(*lua.LFunction).GFunction
		L.SetGlobal(name, L.NewFunction(func(L *lua.LState) int {
			n := protected(L)
			s.b.mustStep(L)
			return n
		}))
	}
	L.SetFuncs(L.GetGlobal("table").(*lua.LTable), map[string]lua.LGFunction{
		"concat": s.tableConcat,
		"insert": s.tableInsert,
		"remove": s.tableRemove,
		"sort":   s.tableSort,
	})
	L.SetFuncs(L.GetGlobal("math").(*lua.LTable), map[string]lua.LGFunction{
		"randomseed": func(*lua.LState) int { return 0 }, // there is one generator for the whole process
	})

	str := L.GetGlobal("string").(*lua.LTable)
	str.RawSetString("dump", lua.LNil)
	str.RawSetString("__index", lua.LNil)
	L.SetFuncs(str, map[string]lua.LGFunction{
		"find":    s.stringFind,
		"format":  s.stringFormat,
		"gmatch":  s.stringGmatch,
		"gsub":    s.stringGsub,
		"lower":   s.stringLower,
		"match":   s.stringMatch,
		"rep":     s.stringRep,
		"reverse": s.stringReverse,
		"upper":   s.stringUpper,
	})
	str.RawSetString("gfind", str.RawGetString("gmatch"))
	meta := L.NewTable()
	meta.RawSetString("__index", str)
	meta.RawSetString("__metatable", lua.LFalse)
	L.SetMetatable(lua.LString(""), meta)

	co := L.GetGlobal("coroutine").(*lua.LTable)
	create, resume := co.RawGetString("create"), co.RawGetString("resume")
	L.SetFuncs(co, map[string]lua.LGFunction{
		"create": func(L *lua.LState) int { return s.coCreate(L, create) },
		"resume": func(L *lua.LState) int { return s.coResume(L, resume) },
		"wrap":   func(L *lua.LState) int { return s.coWrap(L, create, resume) },
	})
	L.SetGlobal("bit", L.SetFuncs(L.NewTable(), bitFuncs))
	s.openMix()

	for _, name := range []string{"string", "table", "math", "coroutine", "bit", "mix"} {
		s.loaded[name] = L.GetGlobal(name)
	}
}

// typeNames are the results of type, which gopher-lua would make anew for each call.
var typeNames = func() (names [lua.LTChannel + 1]lua.LValue) {
	for t := range names {
		names[t] = lua.LString(lua.LValueType(t).String())
	}
	return names
}()

func typeOf(L *lua.LState) int {
	L.Push(typeNames[L.CheckAny(1).Type()])
	return 1
}

// concat is what the operator .. has become.
func (s *state) concat(L *lua.LState) int {
	n := L.GetTop()
	size := 0
	for i := 1; i <= n; i++ {
		switch v := L.Get(i).(type) {
		case lua.LString:
			size += len(v)
		case lua.LNumber:
			size += 8
		default:
			return s.concatMeta(L, n)
		}
	}
	s.b.charge(L, size)
	var room [256]byte
	buf := room[:0]
	if size > len(room) {
		buf = make([]byte, 0, size)
	}
	for i := 1; i <= n; i++ {
		buf = appendString(buf, L.Get(i))
	}
	L.Push(lua.LString(buf))
	return 1
}

// concatMeta joins operands some of which are neither strings nor numbers.
func (s *state) concatMeta(L *lua.LState, n int) int {
	right := L.Get(n)
	for i := n - 1; i >= 1; i-- {
		left := L.Get(i)
		if lua.LVCanConvToString(left) && lua.LVCanConvToString(right) {
			l, r := lua.LVAsString(left), lua.LVAsString(right)
			s.b.charge(L, len(l)+len(r))
			right = lua.LString(l + r)
			continue
		}
		op := L.GetMetaField(left, "__concat")
		if op == lua.LNil {
			op = L.GetMetaField(right, "__concat")
		}
		if op == lua.LNil {
			bad := left
			if lua.LVCanConvToString(left) {
				bad = right
			}
			L.RaiseError("attempt to concatenate a %s value", bad.Type())
		}
		L.Push(op)
		L.Push(left)
		L.Push(right)
		L.Call(2, 1)
		right = L.Get(-1)
		L.Pop(1)
	}
	L.Push(right)
	return 1
}

// appendString appends a string or number as tostring shows it.
func appendString(dst []byte, v lua.LValue) []byte {
	if n, ok := v.(lua.LNumber); ok {
		return appendNumber(dst, float64(n))
	}
	return append(dst, lua.LVAsString(v)...)
}

func (s *state) print(L *lua.LState) int {
	var line []string
	for i := 1; i <= L.GetTop(); i++ {
		line = append(line, L.ToStringMeta(L.Get(i)).String())
	}
	text := strings.Join(line, "\t")
	s.b.charge(L, len(text))
	s.logger().Info("script prints", "text", text)
	return 0
}

func (s *state) rawset(L *lua.LState) int {
	t := L.CheckTable(1)
	s.written(t)
	L.RawSet(t, L.CheckAny(2), L.CheckAny(3))
	L.SetTop(1)
	return 1
}

func (s *state) setmetatable(L *lua.LState) int {
	t := L.CheckTable(1)
	L.CheckTypes(2, lua.LTNil, lua.LTTable)
	if L.GetMetaField(t, "__metatable") != lua.LNil {
		L.RaiseError("cannot change a protected metatable")
	}
	s.written(t)
	t.Metatable = L.Get(2)
	L.SetTop(1)
	return 1
}

func (s *state) tableInsert(L *lua.LState) int {
	t := L.CheckTable(1)
	s.written(t)
	switch L.GetTop() {
	case 2:
		t.Append(L.Get(2))
	case 3:
		i, v := L.CheckInt(2), L.Get(3)
		if n := t.Len(); i < 1 || i > n+1 {
			L.RawSet(t, lua.LNumber(i), v)
		} else {
			t.Insert(i, v)
		}
	default:
		L.RaiseError("wrong number of arguments to 'insert'")
	}
	return 0
}

func (s *state) tableRemove(L *lua.LState) int {
	t := L.CheckTable(1)
	s.written(t)
	n := t.Len()
	i := L.OptInt(2, n)
	if i < 1 || i > n {
		return 0
	}
	L.Push(t.Remove(i))
	return 1
}

func (s *state) tableConcat(L *lua.LState) int {
	t := L.CheckTable(1)
	sep := L.OptString(2, "")
	i, j := L.OptInt(3, 1), L.OptInt(4, t.Len())
	var out []byte
	for k := i; k <= j; k++ {
		v := t.RawGet(lua.LNumber(k))
		if !lua.LVCanConvToString(v) {
			L.RaiseError("invalid value (%s) at index %d in table for 'concat'", v.Type(), k)
		}
		if out = appendString(out, v); k < j {
			out = append(out, sep...)
		}
		if len(out) > maxString {
			break
		}
		s.b.mustStep(L)
	}
	s.b.charge(L, len(out))
	L.Push(lua.LString(out))
	return 1
}

// tableSort is a heap sort: it needs no memory, cannot be led to quadratic time, and an
// inconsistent order function does it no harm.
func (s *state) tableSort(L *lua.LState) int {
	t := L.CheckTable(1)
	s.written(t)
	var fn *lua.LFunction
	if L.Get(2) != lua.LNil {
		fn = L.CheckFunction(2)
	}
	less := func(i, j int) bool {
		s.b.mustStep(L)
		a, b := t.RawGetInt(i+1), t.RawGetInt(j+1)
		if fn == nil {
			return L.LessThan(a, b)
		}
		L.Push(fn)
		L.Push(a)
		L.Push(b)
		L.Call(2, 1)
		defer L.Pop(1)
		return lua.LVAsBool(L.Get(-1))
	}
	swap := func(i, j int) {
		a, b := t.RawGetInt(i+1), t.RawGetInt(j+1)
		t.RawSetInt(i+1, b)
		t.RawSetInt(j+1, a)
	}
	down := func(i, n int) {
		for {
			child := 2*i + 1
			if child >= n {
				return
			}
			if child+1 < n && less(child, child+1) {
				child++
			}
			if !less(i, child) {
				return
			}
			swap(i, child)
			i = child
		}
	}
	n := t.Len()
	for i := n/2 - 1; i >= 0; i-- {
		down(i, n)
	}
	for i := n - 1; i > 0; i-- {
		swap(0, i)
		down(0, i)
	}
	return 0
}

// coSize is what a coroutine takes, about.
const coSize = 64 << 10

func (s *state) coCreate(L *lua.LState, create lua.LValue) int {
	s.b.charge(L, coSize)
	L.Push(create)
	L.Push(L.CheckFunction(1))
	L.Call(1, 1)
	L.Get(-1).(*lua.LState).SetContext(&s.b)
	return 1
}

// maxNested is how many coroutines may run within each other. A call that is out of time raises
// its error at each level anew, with a trace of all calls there.
const maxNested = 16

func (s *state) coResume(L *lua.LState, resume lua.LValue) int {
	if s.nested == maxNested {
		L.RaiseError("coroutines nest too deep")
	}
	s.nested++
	defer func() { s.nested-- }()
	n := L.GetTop()
	L.Insert(resume, 1)
	L.Call(n, lua.MultRet)
	s.b.mustStep(L)
	return L.GetTop()
}

// coWrap gives the coroutine to the function as its variable, where a snapshot finds it.
func (s *state) coWrap(L *lua.LState, create, resume lua.LValue) int {
	s.coCreate(L, create)
	L.Push(L.NewClosure(func(L *lua.LState) int {
		L.Insert(L.Get(lua.UpvalueIndex(1)), 1)
		n := s.coResume(L, resume)
		if !lua.LVAsBool(L.Get(1)) {
			L.Error(L.Get(2), 0)
		}
		return n - 1
	}, L.Get(-1)))
	return 1
}

// bitFuncs is the bit library of Lua BitOp: numbers are taken modulo 2^32, results are
// signed.
var bitFuncs = map[string]lua.LGFunction{
	"tobit":   func(L *lua.LState) int { return pushBits(L, bits(L, 1)) },
	"bnot":    func(L *lua.LState) int { return pushBits(L, ^bits(L, 1)) },
	"band":    bitFold(func(a, b uint32) uint32 { return a & b }),
	"bor":     bitFold(func(a, b uint32) uint32 { return a | b }),
	"bxor":    bitFold(func(a, b uint32) uint32 { return a ^ b }),
	"lshift":  bitShift(func(a uint32, n uint) uint32 { return a << n }),
	"rshift":  bitShift(func(a uint32, n uint) uint32 { return a >> n }),
	"arshift": bitShift(func(a uint32, n uint) uint32 { return uint32(int32(a) >> n) }),
	"rol":     bitShift(func(a uint32, n uint) uint32 { return a<<n | a>>(32-n) }),
	"ror":     bitShift(func(a uint32, n uint) uint32 { return a>>n | a<<(32-n) }),
	"bswap": func(L *lua.LState) int {
		a := bits(L, 1)
		return pushBits(L, a<<24|a<<8&0xff0000|a>>8&0xff00|a>>24)
	},
	"tohex": func(L *lua.LState) int {
		a, n := bits(L, 1), L.OptInt(2, 8)
		digits := "0123456789abcdef"
		if n < 0 {
			n, digits = -n, "0123456789ABCDEF"
		}
		n = min(n, 8)
		out := make([]byte, n)
		for i := n - 1; i >= 0; i-- {
			out[i] = digits[a&15]
			a >>= 4
		}
		L.Push(lua.LString(out))
		return 1
	},
}

func bits(L *lua.LState, i int) uint32 {
	f := math.RoundToEven(math.Mod(float64(L.CheckNumber(i)), 1<<32))
	return uint32(int64(f))
}

func pushBits(L *lua.LState, v uint32) int {
	L.Push(lua.LNumber(int32(v)))
	return 1
}

func bitFold(op func(a, b uint32) uint32) lua.LGFunction {
	return func(L *lua.LState) int {
		v := bits(L, 1)
		for i := 2; i <= L.GetTop(); i++ {
			v = op(v, bits(L, i))
		}
		return pushBits(L, v)
	}
}

func bitShift(op func(a uint32, n uint) uint32) lua.LGFunction {
	return func(L *lua.LState) int { return pushBits(L, op(bits(L, 1), uint(bits(L, 2)&31))) }
}
