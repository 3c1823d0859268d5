package push

import (
	"context"
	"slices"
	"sync"
)

// A Range is what a subscriber may have missed of an app: what came after one position, up to
// an offset where its subscription begins.
type Range struct {
	App    string
	Member int64 // whose private messages are included; Everybody for none
	After  Position
	Upto   uint64 // 0, too, is an offset: of an app that never had a message
}

// A Replay is a part of what a Range holds, encoded.
type Replay struct {
	Frames   []*Frame
	Messages int // in Frames
	// Complete reports that nothing between Range.After and End is missing.
	Complete bool
	// End is the offset up to which it goes: with More, the next part begins behind it.
	End  uint64
	More bool
}

// Replay reads from the log the first part of r, and encodes it with e.
//
// Clients that come back at the same time mostly miss the same messages, or more or fewer of
// them up to the same one: these are encoded once for all. That is why parts end at the same
// offsets, wherever they begin. A part is small enough to be held for many clients.
func (h *Hub) Replay(ctx context.Context, r Range, e *Encoding) (Replay, error) {
	end := min(r.Upto, (r.After.Offset/partSpan+1)*partSpan)
	page, err := h.log.Since(ctx, Query{App: r.App, Member: r.Member, After: r.After.Offset, Upto: end})
	if err != nil {
		return Replay{}, err
	}
	ms := page.Messages
	if end == 0 { // which a log takes for its top
		ms = nil
	}
	size := 0
	for i, m := range ms {
		if size += len(m.Text); size > maxFrame && i > 0 {
			ms, end = ms[:i], ms[i-1].Offset
			break
		}
	}
	out := Replay{Messages: len(ms), Complete: page.Complete(r.After) && r.After.Offset <= r.Upto, End: end, More: end < r.Upto}
	if len(ms) > 0 {
		out.Frames = h.replays.frames(ms, e)
	}
	return out, nil
}

// partSpan is how many offsets a part of a replay spans at most.
const partSpan = 256

// Newest returns the position behind which the newest n messages up to r.Upto come.
func (h *Hub) Newest(ctx context.Context, r Range, n int) (Position, error) {
	at := Position{h.log.Top(r.App).Epoch, r.Upto}
	if r.Upto == 0 {
		return at, nil
	}
	page, err := h.log.Since(ctx, Query{App: r.App, Member: r.Member, Upto: r.Upto, Last: n})
	if err == nil && len(page.Messages) > 0 {
		at.Offset = page.Messages[0].Offset - 1
	}
	return at, err
}

// replays remembers the last suffixes of logs that were encoded.
type replays struct {
	mu     sync.Mutex
	recent []*replay // most recently used first; guarded by mu
}

const (
	maxReplays     = 16
	maxReplayBytes = 1 << 20
)

// A replay is a run of one app's public messages, encoded: any part of it that reaches to
// its end can be sent as it is.
type replay struct {
	by      *Encoding
	offsets []*Message
	starts  []int // where each message begins in data
	data    []byte
}

// frames returns ms encoded by e, in frames of about maxFrame bytes.
func (r *replays) frames(ms []*Message, e *Encoding) []*Frame {
	first, last := ms[0], ms[len(ms)-1]
	r.mu.Lock()
	for i, x := range r.recent {
		at := slices.Index(x.offsets, first)
		if x.by == e && at >= 0 && len(x.offsets)-at == len(ms) && x.offsets[len(x.offsets)-1] == last {
			copy(r.recent[1:i+1], r.recent[:i])
			r.recent[0] = x
			r.mu.Unlock()
			return x.from(at)
		}
	}
	r.mu.Unlock()
	x := &replay{by: e, offsets: ms}
	public := true
	for _, m := range ms {
		x.starts = append(x.starts, len(x.data))
		x.data = appendFrame(x.data, e, m)
		public = public && !m.Private()
	}
	x.data = slices.Clip(x.data)
	if public && len(x.data) <= maxReplayBytes {
		r.mu.Lock()
		r.recent = append([]*replay{x}, r.recent[:min(len(r.recent), maxReplays-1)]...)
		r.mu.Unlock()
	}
	return x.from(0)
}

// from returns the messages from the at-th as frames that share x's bytes.
func (x *replay) from(at int) []*Frame {
	var out []*Frame
	for at < len(x.starts) {
		next := at + 1
		for next < len(x.starts) && x.starts[next]-x.starts[at] < maxFrame {
			next++
		}
		end := len(x.data)
		if next < len(x.starts) {
			end = x.starts[next]
		}
		out = append(out, &Frame{
			Data: x.data[x.starts[at]:end:end], Messages: next - at,
			Last: x.starts[next-1] - x.starts[at],
		})
		at = next
	}
	return out
}
