package server

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// minHeap is what the heap may grow to before it is collected. A collection costs the same
	// however little is live: a gateway with few connections would make one for every 300
	// pushes.
	minHeap = 16 << 20
	// goMinHeap is what the heap grows to before its first collection with GOGC=100.
	goMinHeap = 4 << 20
)

// CollectLess has the garbage collector wait until the heap has 16 MiB, or twice what is live if
// that is more, unless GOGC says otherwise. It is called once.
func CollectLess() {
	if os.Getenv("GOGC") != "" {
		return
	}
	t := &gcTuner{samples: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}}
	t.set(minHeap / goMinHeap * 100)
	t.arm()
}

// A gcTuner corrects GOGC after each collection.
type gcTuner struct {
	samples []metrics.Sample
	percent int
}

// arm has tune called after the next collection.
func (t *gcTuner) arm() {
	type garbage struct{ _ *int } // with a pointer: a small one without shares its block with others
	runtime.AddCleanup(new(garbage), (*gcTuner).tune, t)
}

func (t *gcTuner) tune() {
	metrics.Read(t.samples)
	v := func(i int) uint64 { return t.samples[i].Value.Uint64() }
	if p := gcPercent(v(0), v(1)+v(2)); p < t.percent*9/10 || p > t.percent*11/10 {
		t.set(p)
	}
	t.arm()
}

// set stops the world for a moment.
func (t *gcTuner) set(percent int) {
	debug.SetGCPercent(percent)
	t.percent = percent
}

// gcPercent returns the GOGC by which the heap grows to minHeap, but at least 100: the next
// collection begins at live + (live + roots) * GOGC/100.
func gcPercent(live, roots uint64) int {
	if live >= minHeap {
		return 100
	}
	return max(100, int((minHeap-live)*100/max(1, live+roots)))
}
