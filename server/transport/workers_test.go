package transport

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"ws-gateway/push"
)

// Functions that wait hold up nobody but those beyond the limit, and no goroutine is left.
func TestWorkers(t *testing.T) {
	for _, max := range []int{1, 3, 10} {
		t.Run(fmt.Sprint("max=", max), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := workers{max: max}
				gate := make(chan struct{})
				var running, done atomic.Int32
				for range 5 {
					w.run(task{f: func() {
						running.Add(1)
						<-gate
						running.Add(-1)
						done.Add(1)
					}})
				}
				synctest.Wait()
				if got, want := int(running.Load()), min(max, 5); got != want {
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
			w.run(task{f: func() {
				defer func() { recover() }()
				w.wait(func() {
					waiting.Add(1)
					<-gate
					panic("outside")
				})
			}})
		}
		w.run(task{f: func() { ran.Add(1) }})
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

// An office is a link whose functions are the workers' tasks.
type office struct {
	link
	workers *workers
}

func (o office) wait(f func()) { o.workers.wait(f) }

// Who waits in a handshake, or once the connection is gone, has no place to give to another.
func TestWaitWithoutAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := workers{max: 1}
		gate := make(chan struct{})
		var running atomic.Int32
		c := &conn{link: office{workers: &w}}
		c.Wait(func() {
			for range 2 {
				w.run(task{f: func() {
					running.Add(1)
					<-gate
				}})
			}
			synctest.Wait()
			if n := running.Load(); n != 1 {
				t.Errorf("%d tasks run at the same time, want 1", n)
			}
		})
		close(gate)
		w.wg.Wait()
	})
}

// A wire is a link that takes everything.
type wire struct {
	link
	written atomic.Int32 // bytes
}

func (w *wire) write(p []byte) (int, error) {
	w.written.Add(int32(len(p)))
	return len(p), nil
}

// Answers that leave together wait for nobody who waits, whether that is said or not.
func TestWorkersKeepNoAnswer(t *testing.T) {
	for _, max := range []int{1, 2, 10} {
		for _, said := range []bool{false, true} {
			for _, behind := range []int{0, 1, 2 * maxAnswered} {
				t.Run(fmt.Sprint("max=", max, ",said=", said, ",behind=", behind), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := workers{max: max}
						tr, gate := new(Transport), make(chan struct{})
						var wires [3*maxAnswered - 1]wire
						// One read of a poller brings several messages.
						w.run(task{f: func() {
							for i := range wires {
								c := &conn{t: tr, link: &wires[i], busy: true}
								w.run(task{func() { c.Queue(push.NewFrame(push.OpText, []byte("answer"))) }, c})
							}
							w.run(task{f: func() {
								if said {
									w.wait(func() { <-gate })
								} else {
									<-gate
								}
							}})
							for range behind {
								w.run(task{f: func() {}})
							}
						}})
						synctest.Wait()
						for i := range wires {
							if got := wires[i].written.Load(); got != 8 {
								t.Errorf("%d bytes of answer %d are written while a task waits, want 8", got, i)
							}
						}
						close(gate)
						w.wg.Wait()
						if w.running != 0 || w.starting || w.waiting != nil || len(w.answered) > 0 {
							t.Errorf("in the end: %d running, starting %v, %d waiting, %d answered", w.running, w.starting, len(w.waiting), len(w.answered))
						}
					})
				})
			}
		}
	}
}

// A goroutine that was started because another may take long sends the answers that it
// finds before it takes what is behind them.
func TestWorkersSendAnswersFirst(t *testing.T) {
	c, nothing := new(conn), task{f: func() {}}
	w := workers{max: 10, running: 2, starting: true, answered: []*conn{c}, waiting: []task{nothing, nothing}}
	_, answered, ok := w.next(true, nil, nil)
	if !ok || len(answered) != 1 || answered[0] != c || len(w.answered) > 0 {
		t.Errorf("next gives task %v with answers %v, want the answer too", ok, answered)
	}
	w.wg.Wait()
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
			w.run(task{f: func() { deep(30) }})
		}
		w.wg.Wait()
	}
}
