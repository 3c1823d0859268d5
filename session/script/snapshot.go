package script

import (
	"errors"

	lua "github.com/yuin/gopher-lua"
)

// A snapshot is what a state holds after its script was loaded: every table and every
// variable outside functions that a later call could reach. Between two calls the state is
// put back to it, so that nothing of one connection is left for the next.
//
// Variables are few and always put back; tables only if they were written to, which the
// rewritten script and the library functions report.
type snapshot struct {
	tables    map[*lua.LTable]*image
	variables []variable
	dirty     []*lua.LTable
}

type variable struct {
	cell  *lua.Upvalue
	value lua.LValue
}

// An image is a table's contents.
type image struct {
	meta  lua.LValue
	keys  []lua.LValue // in the order in which next yields them
	vals  []lua.LValue
	dirty bool
}

// errCoroutineKept is returned when a script keeps a coroutine, which cannot be put back.
var errCoroutineKept = errors.New("a coroutine that is kept outside of a call cannot be undone after it")

// takeSnapshot records everything reachable from roots.
func takeSnapshot(roots ...lua.LValue) (snapshot, error) {
	s := snapshot{tables: make(map[*lua.LTable]*image)}
	cells := make(map[*lua.Upvalue]bool)
	seen := make(map[*lua.LFunction]bool)
	todo := roots
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch v := v.(type) {
		case *lua.LTable:
			if s.tables[v] != nil {
				continue
			}
			img := &image{meta: v.Metatable}
			for k, val := v.Next(lua.LNil); k != lua.LNil; k, val = v.Next(k) {
				img.keys = append(img.keys, k)
				img.vals = append(img.vals, val)
				todo = append(todo, k, val)
			}
			s.tables[v] = img
			todo = append(todo, v.Metatable)
		case *lua.LFunction:
			if seen[v] {
				continue
			}
			seen[v] = true
			for _, cell := range v.Upvalues {
				if !cells[cell] {
					cells[cell] = true
					s.variables = append(s.variables, variable{cell, cell.Value()})
					todo = append(todo, cell.Value())
				}
			}
		case *lua.LState:
			return s, errCoroutineKept
		}
	}
	return s, nil
}

// written notes that t is about to be written to, if it is one of the tables of s.
func (s *snapshot) written(t *lua.LTable) {
	for range lua.MaxTableGetLoop { // as far as the machine itself follows
		if img := s.tables[t]; img != nil && !img.dirty {
			img.dirty = true
			s.dirty = append(s.dirty, t)
		}
		// What __newindex leads to is written to without further notice.
		meta, ok := t.Metatable.(*lua.LTable)
		if !ok {
			return
		}
		if t, ok = meta.RawGetString("__newindex").(*lua.LTable); !ok {
			return
		}
	}
}

// restore puts everything back.
func (s *snapshot) restore() {
	for _, v := range s.variables {
		v.cell.SetValue(v.value)
	}
	for _, t := range s.dirty {
		img := s.tables[t]
		if img == nil {
			continue // it is no longer used
		}
		fresh := lua.LTable{Metatable: img.meta}
		for i, k := range img.keys {
			fresh.RawSet(k, img.vals[i])
		}
		*t = fresh
		img.dirty = false
	}
	s.dirty = s.dirty[:0]
}
