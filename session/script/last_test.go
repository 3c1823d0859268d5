package script

import (
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
)

// A table that is filled again has nothing of the message before, and between two calls it
// holds no long text in memory.
func TestLastIsFilledAgain(t *testing.T) {
	l := last{snapshot: &snapshot{tables: make(map[*lua.LTable]*image)}}
	decode := func(text string) *lua.LTable {
		t.Helper()
		v, err := decodeInto(&l, text, lua.LNil, unbounded)
		if err != nil {
			t.Fatal(err)
		}
		l.takeBack()
		return v.(*lua.LTable)
	}
	first := decode(`{"op":"say","text":"hello"}`)
	second := decode(`{"op":"leave","text":null}`)
	if second != first {
		t.Error("the same keys came in another table")
	}
	if op, text := second.RawGetString("op"), second.RawGetString("text"); op != lua.LString("leave") || text != lua.LNil {
		t.Errorf("the second message reads op %v, text %v, want leave, nil", op, text)
	}
	long := decode(`{"op":"say","text":"` + strings.Repeat("x", maxLastText) + `"}`)
	if text := long.RawGetString("text"); text != lua.LNil {
		t.Errorf("%d bytes are held after the call", len(text.String()))
	}
}
