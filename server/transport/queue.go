package transport

import (
	"sync"
	"time"

	"ws-gateway/push"
	"ws-gateway/stat"
)

const (
	flushSize    = 64 << 10         // bytes gathered for one write
	drainTime    = 30 * time.Second // in which a peer has to take WriteMinimum, while frames wait for it
	closeTimeout = 5 * time.Second  // for the peer to answer a close frame
)

// policyNames are the words of the slow policies in metrics.
var policyNames = [...]string{
	push.SlowClose:      "close",
	push.SlowDropOldest: "drop_oldest",
	push.SlowLatest:     "latest",
}

var flushBuffers = sync.Pool{New: func() any { return new([flushSize]byte) }}

// A queue holds the frames that wait to be written to one connection. It exists only while
// there are any. The connection's mutex guards it.
type queue struct {
	entries []entry
	bytes   int // not written yet
	held    int // leading entries that are being written and can't be dropped any more
	pace    pace
	then    []func() // to be called once the queue is empty
}

// An entry is a frame, or the rest of one.
type entry struct {
	frame *push.Frame
	from  int // offset of the first byte that is not written
}

func (e entry) rest() []byte { return e.frame.Data[e.from:] }

var queues = sync.Pool{New: func() any { return new(queue) }}

// newQueue returns an empty queue.
func newQueue() *queue { return queues.Get().(*queue) }

// free gives the queue back for reuse.
func (q *queue) free() {
	clear(q.entries)
	entries := q.entries[:0]
	if cap(entries) > 64 {
		entries = nil
	}
	*q = queue{entries: entries}
	queues.Put(q)
}

func (q *queue) empty() bool { return len(q.entries) == 0 }

// push appends what f has from the given offset on.
func (q *queue) push(f *push.Frame, from int) {
	q.entries = append(q.entries, entry{f, from})
	q.bytes += len(f.Data) - from
	if q.pace.written += int64(from); from > 0 && len(q.entries) == 1 {
		q.held = 1
	}
}

// over reports whether f would pass the limits.
func (q *queue) over(f *push.Frame, maxBytes, maxFrames int) bool {
	return q.bytes+len(f.Data) > maxBytes || len(q.entries) >= maxFrames
}

// admit appends f if the limits allow it, or if f's slow policy makes room. backlog says
// that the peer does not take what is there. dropped is the number of messages that made
// room, or that f lost itself.
func (q *queue) admit(f *push.Frame, maxBytes, maxFrames int, backlog bool) (dropped int, ok bool) {
	from := 0
	switch {
	case q.empty():
		q.push(f, 0)
		return 0, true
	case f.Key != nil && f.Slow == push.SlowLatest && backlog:
		dropped = q.drop(f.Key, func(int) bool { return true })
		if from = f.Last; from > 0 {
			dropped += f.Messages - 1
		}
	}
	over := func(removed int) bool { // frames, whose bytes are no longer counted
		return q.bytes+len(f.Data)-from > maxBytes || len(q.entries)-removed >= maxFrames
	}
	if over(0) && f.Key != nil && f.Slow == push.SlowDropOldest {
		dropped = q.drop(f.Key, over)
	}
	if over(0) {
		return dropped + f.Messages, false
	}
	if from > 0 {
		f = &push.Frame{Data: f.Data[from:], Messages: 1, Slow: f.Slow, Key: f.Key}
	}
	q.push(f, 0)
	return dropped, true
}

// drop removes the oldest frames of key that are not being written, as long as more says so
// when it is told how many it has removed. It returns the number of their messages.
func (q *queue) drop(key *push.Key, more func(removed int) bool) (dropped int) {
	kept := q.entries[:q.held]
	removed := 0
	for i, e := range q.entries[q.held:] {
		if e.frame.Key != key {
			kept = append(kept, e)
			continue
		}
		if !more(removed) {
			kept = append(kept, q.entries[q.held+i:]...)
			break
		}
		q.bytes -= len(e.rest())
		removed++
		dropped += e.frame.Messages
	}
	clear(q.entries[len(kept):])
	q.entries = kept
	return dropped
}

// single returns what to write next if that needs no gathering: there is one frame only, or
// the first is large. From then on the frame is held.
func (q *queue) single() []byte {
	first := q.entries[0].rest()
	if len(q.entries) > 1 && len(first) < flushSize/2 {
		return nil
	}
	q.held = 1
	return first
}

// gather copies what to write next to buf, as much as fits, and returns it. From then on
// these frames are held.
func (q *queue) gather(buf []byte) []byte {
	q.held = 0
	for _, e := range q.entries {
		rest := e.rest()
		n := min(len(rest), cap(buf)-len(buf))
		if n == 0 {
			break
		}
		buf = append(buf, rest[:n]...)
		q.held++
	}
	return buf
}

// wrote removes the n bytes that were written of what single or gather returned.
func (q *queue) wrote(n int) {
	q.pace.written += int64(n)
	q.bytes -= n
	done := 0
	q.held = 0
	for n > 0 {
		e := &q.entries[done]
		rest := len(e.frame.Data) - e.from
		if n < rest {
			e.from += n
			break
		}
		n -= rest
		done++
	}
	clear(q.entries[:done])
	if done == len(q.entries) {
		q.entries = q.entries[:0]
	} else {
		q.entries = q.entries[done:]
		if q.entries[0].from > 0 { // maybe since an earlier write: this one may have taken nothing
			q.held = 1
		}
	}
}

// A pace tells whether a peer takes its frames fast enough. What counts is the bytes that
// it has acknowledged, not those that the socket has taken: these come in large steps, and
// a slow reader would look dead between them.
type pace struct {
	written int64  // bytes that the socket took
	taken   int64  // bytes that the peer took; less than 0 while it takes older ones
	moved   uint32 // tick at which taken last grew; 0: not measured yet
	start   uint32 // tick at which drainTime began
	base    int64  // taken at start
}

// begin starts measuring, if it has not begun. unsent is what the socket still holds.
func (p *pace) begin(now uint32, unsent int) {
	if p.moved == 0 {
		p.taken = p.written - int64(unsent)
		p.moved, p.start, p.base = now, now, p.taken
	}
}

// slow returns the limit that the peer breaks: it has taken nothing at all for timeout ticks, or
// less than minimum bytes in drainTime. "" is none.
func (p *pace) slow(now uint32, unsent int, timeout uint32, minimum int) (reason string) {
	if taken := p.written - int64(unsent); taken > p.taken {
		p.taken, p.moved = taken, now
	}
	if now-p.moved >= timeout {
		return stat.ReasonWriteTimeout
	}
	if now-p.start >= ticks(drainTime) {
		if p.taken-p.base < int64(minimum) {
			return stat.ReasonWriteMinimum
		}
		p.start, p.base = now, p.taken
	}
	return ""
}
