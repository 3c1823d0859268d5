package transport

import "sync"

// workers runs tasks, at most max at a time, in the order in which they come. More are kept;
// they are bounded by the number of connections, each of which has one task at a time. One
// that waits for something outside does not count meanwhile: what it waits for has a bound of
// its own.
//
// Goroutines end when there is nothing to run, but a task that does not wait seldom has one
// of its own: whoever takes a task starts a single further goroutine for those behind it,
// and comes back for them before that one runs if its own did not take long.
//
// Answers that tasks have queued leave together, for scripts and the kernel's network code
// take turns in the processor's caches otherwise. None waits for a task that takes long: it
// is kept only as long as a goroutine is on its way that sends what it finds before all else.
type workers struct {
	max int
	wg  sync.WaitGroup

	mu       sync.Mutex
	running  int     // goroutines, but for those in wait; guarded by mu
	starting bool    // one of them has not taken a task yet; guarded by mu
	waiting  []task  // guarded by mu
	answered []*conn // with answers to be flushed; guarded by mu
}

// maxAnswered is how many answers leave together at most.
const maxAnswered = 64

// A task is a function to run.
type task struct {
	f    func()
	conn *conn // whose message f deals with; nil: none
}

// do runs t, and returns the connection if it has answers to be flushed.
func (t task) do() *conn {
	if t.conn == nil {
		t.f()
	} else if t.conn.work(t.f) {
		return t.conn
	}
	return nil
}

// run has t done on some goroutine, now or later.
func (w *workers) run(t task) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, t)
	w.start()
}

// start starts a goroutine if tasks wait and none is on its way to them; mu is held.
func (w *workers) start() {
	if w.starting || w.running >= w.max || len(w.waiting) == 0 {
		return
	}
	w.starting = true
	w.running++
	w.wg.Go(w.work)
}

// work does tasks until there are none.
func (w *workers) work() {
	var c *conn
	var room []*conn
	for first := true; ; first = false {
		t, answered, ok := w.next(first, c, room)
		for _, c := range answered {
			c.Flush()
		}
		if !ok {
			return
		}
		if answered != nil {
			clear(answered)
			room = answered[:0]
		}
		c = t.do()
	}
}

// next returns the task to do next; without one the goroutine ends. first says that it has
// not asked before, and c is the connection to which its last task leaves answers, if any.
// answered are those to be flushed before the task, whose place room takes.
func (w *workers) next(first bool, c *conn, room []*conn) (t task, answered []*conn, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if first {
		w.starting = false
	}
	if c != nil {
		w.answered = append(w.answered, c)
	}
	if ok = len(w.waiting) > 0; ok {
		t = w.waiting[0]
		w.waiting[0] = task{}
		w.waiting = w.waiting[1:]
		w.start()
	} else {
		w.waiting = nil
		w.running--
	}
	if n := len(w.answered); n >= maxAnswered || n > 0 && (first || !w.starting) {
		answered, w.answered = w.answered, room
	}
	return t, answered, ok
}

// wait calls f and lets another task run meanwhile. Afterwards there may be more than max for
// a moment: who has waited for something outside does not wait for a place again.
func (w *workers) wait(f func()) {
	for _, c := range w.leave() {
		c.Flush()
	}
	defer w.enter()
	f()
}

// leave counts a goroutine out, and returns the connections to be flushed.
func (w *workers) leave() (answered []*conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answered, w.answered = w.answered, nil
	w.running--
	w.start()
	return answered
}

// enter counts it in again.
func (w *workers) enter() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running++
}
