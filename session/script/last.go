package script

import (
	"slices"
	"strings"

	lua "github.com/yuin/gopher-lua"
)

const (
	maxLast     = 8       // keys that the table of a [last] may have
	maxLastText = 4 << 10 // bytes of a message that its values may keep in memory after the call
)

// A last is the table that the last message of a state was decoded into, to be filled again:
// clients send the same few keys over and over, and a new table is more than half of the
// garbage of a small script. It is one of the snapshot's tables, and nothing that a script
// keeps outlives its call, so no call can tell that another one had it.
type last struct {
	snapshot *snapshot
	table    *lua.LTable
	keys     []string // in the order in which they came
	lent     bool     // to the call in progress
	long     bool     // the values are parts of a long text
}

// fill returns a table with these members, which are parts of text.
func (l *last) fill(keys []string, values []lua.LValue, text string) *lua.LTable {
	if !slices.Equal(keys, l.keys) {
		l.forget()
		l.table, l.keys = newTable(0, len(keys)), make([]string, len(keys))
		for i, k := range keys {
			l.keys[i] = strings.Clone(k) // the text is not kept
		}
		l.snapshot.tables[l.table] = &image{meta: lua.LNil}
	}
	for i, k := range l.keys {
		l.table.RawSetString(k, values[i])
	}
	l.lent, l.long = true, len(text) > maxLastText
	return l.table
}

func (l *last) forget() {
	delete(l.snapshot.tables, l.table)
	l.table, l.keys = nil, nil
}

// takeBack ends the call in progress. One that wrote to the table has spoiled it.
func (l *last) takeBack() {
	if !l.lent {
		return
	}
	l.lent = false
	if l.snapshot.tables[l.table].dirty {
		l.forget()
		return
	}
	if l.long { // otherwise what fills it next is soon enough
		for _, k := range l.keys {
			l.table.RawSetString(k, lua.LNil)
		}
	}
}
