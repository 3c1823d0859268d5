package script

import (
	"errors"
	"runtime/metrics"
	"time"

	lua "github.com/yuin/gopher-lua"
)

// What ends a call that takes too much. A script cannot catch them: what catches errors raises
// these again.
var (
	errTime   = errors.New("running time exceeded")
	errWait   = errors.New("waiting time exceeded")
	errMemory = errors.New("memory limit exceeded")
)

const (
	// checkEvery is how many instructions run between two looks at the clock: about 1 us.
	checkEvery = 32
	// maxGap bounds what the time between two looks counts for. More of it means that the
	// process was not running, for which the script is not to blame.
	maxGap = 10 * time.Millisecond
	// heapEvery is how much running time lies between two looks at the heap.
	heapEvery = time.Millisecond
	// maxHeapGrowth is how much the heap of the whole process may grow while one call runs
	// for longer than heapEvery. What a single instruction or library function makes is
	// bounded by maxString and charged against maxCharge; this catches the rest, tables
	// above all, whatever time the call is given.
	maxHeapGrowth = 128 << 20
	// maxCharge is how many bytes of strings and results the library may make in one call.
	maxCharge = 64 << 20
	// maxString is the longest string that a script can make.
	maxString = 1 << 20
)

var (
	overdue = make(chan struct{})
	epoch   = time.Now()
)

func init() {
	close(overdue)
	// t[k] = v with k up to MaxArrayIndex fills the table up to k: 64 MiB elements of 16
	// bytes by default, in one instruction.
	lua.MaxArrayIndex = 1 << 16
}

// A budget is what one call may still use. It is the context of a state: the virtual machine
// calls Done before each instruction, which makes Done the place to count them. All of it is
// used by one goroutine only, the one that runs the state.
type budget struct {
	limit time.Duration
	wait  time.Duration // what is left of the time for waiting

	steps   uint32        // instructions, and their like in library functions
	last    time.Duration // when the clock was read last
	ran     time.Duration // running time up to last
	looked  time.Duration // of ran, when the heap was looked at last
	heap    uint64        // the heap's size when the call had run for heapEvery
	charged int           // bytes
	err     error         // errTime, errWait or errMemory once the budget is used up
}

// start begins a new call, which may run for limit and wait for wait.
func (b *budget) start(limit, wait time.Duration) {
	*b = budget{limit: limit, wait: wait, last: time.Since(epoch)}
}

// pause leaves out the time until resume.
func (b *budget) pause() { b.clock() }

// resume goes on after pause.
func (b *budget) resume() { b.last = time.Since(epoch) }

func (b *budget) clock() {
	now := time.Since(epoch)
	b.ran += min(now-b.last, maxGap)
	b.last = now
}

// Done implements [context.Context].
func (b *budget) Done() <-chan struct{} {
	b.steps++
	if b.steps%checkEvery != 0 && b.err == nil {
		return nil
	}
	if b.check() != nil {
		return overdue
	}
	return nil
}

// check reads the clock and the heap and returns what is exceeded, if anything.
func (b *budget) check() error {
	if b.err != nil {
		return b.err
	}
	b.clock()
	if b.ran > b.limit {
		b.err = errTime
	} else if b.ran-b.looked > heapEvery {
		b.looked = b.ran
		switch size := heapSize(); {
		case b.heap == 0:
			b.heap = size
		case size > b.heap+maxHeapGrowth:
			b.err = errMemory
		}
	}
	return b.err
}

// step counts one step of a library function that may take many, and reports whether it may
// go on.
func (b *budget) step() bool {
	b.steps++
	return b.steps%checkEvery != 0 && b.err == nil || b.check() == nil
}

// charge accounts for n bytes that a library function is about to make, and raises an error
// in L if they are too many.
func (b *budget) charge(L *lua.LState, n int) {
	if n > maxString {
		L.RaiseError("string of %d bytes is too long", n)
	}
	if b.charged += n; b.charged > maxCharge {
		b.err = errMemory
		L.RaiseError("%s", errMemory.Error())
	}
}

// mustStep is step for library functions that have nothing to undo.
func (b *budget) mustStep(L *lua.LState) {
	if !b.step() {
		L.RaiseError("%s", b.err.Error())
	}
}

// waited accounts for d of waiting, and raises an error in L if nothing is left.
func (b *budget) waited(L *lua.LState, d time.Duration) {
	if b.wait -= d; b.wait <= 0 {
		b.err = errWait
		L.RaiseError("%s", errWait.Error())
	}
}

// Err implements [context.Context].
func (b *budget) Err() error { return b.err }

// Deadline implements [context.Context]: there is none, as waiting does not count.
func (b *budget) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements [context.Context].
func (b *budget) Value(any) any { return nil }

func heapSize() uint64 {
	s := [1]metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s[:])
	return s[0].Value.Uint64()
}
