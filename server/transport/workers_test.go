package transport

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Functions that wait hold up nobody but those beyond the limit, and no goroutine is left.
func TestWorkers(t *testing.T) {
	for _, max := range []int{1, 3, 10} {
		t.Run(fmt.Sprint("max=", max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := workers{max: max}
				gate := make(chan struct{})
				var running, most, done atomic.Int32
				for range 5 {
					w.run(func() {
						most.Store(running.Add(1))
						<-gate
						running.Add(-1)
						done.Add(1)
					})
				}
				synctest.Wait()
				if got, want := int(most.Load()), min(max, 5); got != want {
					t.Errorf("%d run at the same time, want %d", got, want)
				}
				close(gate)
				w.wg.Wait()
				if done.Load() != 5 {
					t.Errorf("%d functions ran, want 5", done.Load())
				}
				if w.running != 0 || w.starting || w.waiting != nil {
					t.Errorf("in the end: %d running, starting %v, %d waiting", w.running, w.starting, len(w.waiting))
				}
			})
		})
	}
}

// Functions that wait for something outside hold no place, whatever becomes of them.
func TestWorkersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workers{max: 2}
		gate := make(chan struct{})
		var waiting, ran atomic.Int32
		for range 5 {
			w.run(func() {
				defer func() { recover() }()
				w.wait(func() {
					waiting.Add(1)
					<-gate
					panic("outside")
				})
			})
		}
		w.run(func() { ran.Add(1) })
		synctest.Wait()
		if waiting.Load() != 5 || ran.Load() != 1 {
			t.Errorf("%d functions wait, and %d ran beside them, want 5 and 1", waiting.Load(), ran.Load())
		}
		close(gate)
		w.wg.Wait()
		if w.running != 0 || w.starting || w.waiting != nil {
			t.Errorf("in the end: %d running, starting %v, %d waiting", w.running, w.starting, len(w.waiting))
		}
	})
}

// BenchmarkWorkers runs what one read of a poller may bring: functions that use some stack,
// as scripts do, and do not wait.
func BenchmarkWorkers(b *testing.B) {
	var deep func(n int) byte
	deep = func(n int) byte {
		var room [256]byte
		if n > 0 {
			room[n] = deep(n - 1)
		}
		return room[n]
	}
	w := workers{max: 512}
	b.ReportAllocs()
	for b.Loop() {
		for range 100 {
			w.run(func() { deep(30) })
		}
		w.wg.Wait()
	}
}
