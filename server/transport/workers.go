package transport

import "sync"

// workers runs functions that may wait, at most max at a time. A goroutine is started when
// there is work and ends when there is none. More work waits in order; it is bounded by the
// number of connections, each of which has one function at a time.
type workers struct {
	max int
	wg  sync.WaitGroup

	mu      sync.Mutex
	running int      // guarded by mu
	waiting []func() // guarded by mu
}

// run has f called on some goroutine, now or later.
func (w *workers) run(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == w.max {
		w.waiting = append(w.waiting, f)
		return
	}
	w.running++
	w.wg.Go(func() {
		for f := f; f != nil; f = w.next() {
			f()
		}
	})
}

// next returns the function to run next, or nil to end the goroutine.
func (w *workers) next() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting) == 0 {
		w.waiting = nil
		w.running--
		return nil
	}
	f := w.waiting[0]
	w.waiting[0] = nil
	w.waiting = w.waiting[1:]
	return f
}
