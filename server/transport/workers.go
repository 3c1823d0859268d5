package transport

import "sync"

// workers runs functions, at most max at a time, in the order in which they come. More are
// kept; they are bounded by the number of connections, each of which has one function at a
// time. One that waits for something outside does not count meanwhile: what it waits for has
// a bound of its own.
//
// Goroutines end when there is nothing to run, but a function that does not wait seldom has
// one of its own: whoever takes a function starts a single further goroutine for those
// behind it, and comes back for them before that one runs if its own did not take long.
type workers struct {
	max int
	wg  sync.WaitGroup

	mu       sync.Mutex
	running  int      // goroutines, but for those in wait; guarded by mu
	starting bool     // one of them has not taken a function yet; guarded by mu
	waiting  []func() // guarded by mu
}

// run has f called on some goroutine, now or later.
func (w *workers) run(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, f)
	w.start()
}

// start starts a goroutine if functions wait and none is on its way to them; mu is held.
func (w *workers) start() {
	if w.starting || w.running >= w.max || len(w.waiting) == 0 {
		return
	}
	w.starting = true
	w.running++
	w.wg.Go(func() {
		for f := w.next(true); f != nil; f = w.next(false) {
			f()
		}
	})
}

// next returns the function to run next, or nil to end the goroutine. first says that the
// goroutine has not asked before.
func (w *workers) next(first bool) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if first {
		w.starting = false
	}
	if len(w.waiting) == 0 {
		w.waiting = nil
		w.running--
		return nil
	}
	f := w.waiting[0]
	w.waiting[0] = nil
	w.waiting = w.waiting[1:]
	w.start()
	return f
}

// wait calls f and lets another function run meanwhile. Afterwards there may be more than max
// for a moment: who has waited for something outside does not wait for a place again.
func (w *workers) wait(f func()) {
	w.count(-1)
	defer w.count(1)
	f()
}

func (w *workers) count(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running += n
	w.start()
}
