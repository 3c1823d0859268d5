package push

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sort"
	"sync"
	"time"
	"weak"

	"golang.org/x/sync/singleflight"
)

// The bounds of what is shared have no settings: they refuse nobody anything.
const (
	pageMessages = 256         // of one page
	maxPages     = 64          // that are kept
	maxPageText  = 4 << 20     // bytes of text in them
	pageLife     = time.Second // after which the log is read again
)

// A pageKey says which messages a page is of.
type pageKey struct {
	app   string
	epoch string
	all   bool // with the private messages of all members; else without any
}

// A page is what was read of an app's log behind some offset, for all who miss something
// of it. It grows with the log until it is full. pages.mu guards all that is not in the key.
type page struct {
	pageKey
	start, end uint64 // offsets: the messages between them, end included
	floor      uint64 // as [Page.Floor], when it was begun; math.MaxUint64: it was not
	full       bool
	messages   []Message
	text       int // bytes
	encoded    []*encodedPage
}

// An encodedPage is the public messages of a page, one behind the other. It grows with the page, and
// what is there does not change. pages.mu may not be taken under its own.
type encodedPage struct {
	by *Encoding

	mu     sync.Mutex
	starts []int  // where each message of the page begins in data, and at last its length; guarded by mu
	data   []byte // guarded by mu
}

// complete reports whether p has everything of its kind between after and its end.
func (p *page) complete(after Position) bool {
	return after.Epoch == p.epoch && after.Offset >= p.floor
}

// pages are those last read, so that however many clients come back at once, the log is read
// about as often as there are pages.
type pages struct {
	log   Log
	reads singleflight.Group

	mu     sync.Mutex
	recent []*page // oldest first; guarded by mu
}

// get returns a page that has what follows the offset after, as far as upto or until it is full.
func (ps *pages) get(ctx context.Context, key pageKey, after, upto uint64) (*page, error) {
	start := after - after%pageMessages // where others begin, too
	near := false                       // a page was read on in vain: no more of those that end before after
	for range 4 {                       // a read that others began may be too early, or not reach as far
		ps.mu.Lock()
		for _, p := range ps.recent {
			switch {
			case p.pageKey != key, p.start > after, near && p.end < after:
			case p.ends(after):
				if p.end == after {
					start = after
				}
			case p.has(upto):
				ps.mu.Unlock()
				return p, nil
			default:
				start = p.start
			}
		}
		ps.mu.Unlock()
		// Others may wait for it: a read does not end because the first of them leaves.
		read, err, _ := ps.reads.Do(fmt.Sprint(key, start), func() (any, error) {
			return ps.read(context.WithoutCancel(ctx), key, start, upto)
		})
		if err != nil {
			return nil, err
		}
		p := read.(*page)
		ps.mu.Lock()
		ends, has := p.ends(after), p.has(upto)
		ps.mu.Unlock()
		if ends {
			start, near = after, true
		} else if has {
			return p, nil
		}
	}
	return nil, fmt.Errorf("log ends before offset %d", upto)
}

// ends reports whether nothing behind after will be in p; pages.mu is held.
func (p *page) ends(after uint64) bool { return p.full && p.end <= after }

// has reports whether p has all that it will have up to upto; pages.mu is held.
func (p *page) has(upto uint64) bool { return p.full || p.end >= upto }

// read returns the page that begins at start, with what the log has now, unless somebody has just
// read as far as upto. It is called for one page once at a time.
func (ps *pages) read(ctx context.Context, key pageKey, start, upto uint64) (*page, error) {
	ps.mu.Lock()
	i := slices.IndexFunc(ps.recent, func(p *page) bool { return p.pageKey == key && p.start == start })
	if i >= 0 {
		p := ps.recent[i]
		has := p.has(upto)
		ps.mu.Unlock()
		if has {
			return p, nil
		}
		if grown, err := ps.grow(ctx, p, Everybody); grown || err != nil {
			return p, err
		}
		ps.drop(p) // the log has lost what would have come next
	} else {
		ps.mu.Unlock()
	}
	p := newPage(key, start)
	if _, err := ps.grow(ctx, p, Everybody); err != nil {
		return nil, err
	}
	ps.keep(p)
	return p, nil
}

func newPage(key pageKey, start uint64) *page {
	return &page{pageKey: key, start: start, end: start, floor: math.MaxUint64}
}

// grow adds to p what the log has behind its end, with the private messages of member. It
// reports false if some of that is lost.
func (ps *pages) grow(ctx context.Context, p *page, member int64) (bool, error) {
	ps.mu.Lock()
	q := Query{
		App: p.app, Member: member, All: p.all,
		After: p.end, Limit: pageMessages - len(p.messages), Bytes: maxFrame - p.text,
	}
	fresh := p.floor == math.MaxUint64
	ps.mu.Unlock()
	got, err := ps.log.Since(ctx, q)
	if err != nil {
		return false, err
	}
	if got.Top.Epoch != p.epoch {
		return false, fmt.Errorf("epoch is %s, no longer %s", got.Top.Epoch, p.epoch)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	switch {
	case fresh:
		p.floor = got.Floor
	case got.Floor > p.end:
		return false, nil
	}
	p.messages = append(p.messages, got.Messages...)
	for i := range got.Messages {
		p.text += len(got.Messages[i].Text)
	}
	p.end = max(p.end, got.Top.Offset)
	if got.More {
		p.end = p.messages[len(p.messages)-1].Offset
	}
	p.full = got.More || len(p.messages) == pageMessages || p.text >= maxFrame
	return true, nil
}

// keep lets others find p, for a while.
func (ps *pages) keep(p *page) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.recent = append(ps.recent, p)
	text := 0
	for i, p := range slices.Backward(ps.recent) { // the newest stay
		if text += p.text; text > maxPageText || len(ps.recent)-i > maxPages {
			ps.recent = slices.Clone(ps.recent[i+1:])
			break
		}
	}
	w := weak.Make(p) // a timer would hold p, also when it has made room for others
	time.AfterFunc(pageLife, func() {
		if p := w.Value(); p != nil {
			ps.drop(p)
		}
	})
}

func (ps *pages) drop(p *page) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if i := slices.Index(ps.recent, p); i >= 0 {
		ps.recent = slices.Delete(ps.recent, i, i+1)
	}
}

// newest returns the offset behind which the last n messages of p that are in r come, and how many
// these are. ok is false if p does not go as far as r.
func (ps *pages) newest(p *page, r Range, n int) (after uint64, found int, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.end < r.Upto {
		return 0, 0, false
	}
	for _, m := range slices.Backward(p.messages) {
		if found < n && m.Offset <= r.Upto && m.visible(r.Member) {
			after = m.Offset - 1
			found++
		}
	}
	return after, found, true
}

// part returns what of p is in r.
func (ps *pages) part(p *page, r Range, e *Encoding) Replay {
	ps.mu.Lock()
	out := Replay{Complete: p.complete(r.After), End: min(p.end, r.Upto)}
	messages, x := p.messages, p.encodedBy(e)
	ps.mu.Unlock() // encoding takes time, and only those wait for it that need the same
	out.More = out.End < r.Upto
	behind := func(offset uint64) int {
		return sort.Search(len(messages), func(i int) bool { return messages[i].Offset > offset })
	}
	i, end := behind(r.After.Offset), behind(r.Upto)
	if i >= end {
		return out
	}
	data, starts := x.encode(messages)
	var run *Frame // public messages, which share the page's bytes
	from := 0
	for ; i < end; i++ {
		m := &messages[i]
		switch {
		case !m.visible(r.Member):
			continue
		case m.Private():
			out.Frames = append(out.Frames, &Frame{Data: appendFrame(nil, e, m), Messages: 1})
			run = nil
		default:
			if run == nil {
				run, from = new(Frame), starts[i]
				out.Frames = append(out.Frames, run)
			}
			run.Data = data[from:starts[i+1]:starts[i+1]]
			run.Last = starts[i] - from
			run.Messages++
		}
		out.Messages++
	}
	return out
}

// encodedBy returns what e has made of p; pages.mu is held.
func (p *page) encodedBy(e *Encoding) *encodedPage {
	i := slices.IndexFunc(p.encoded, func(x *encodedPage) bool { return x.by == e })
	if i < 0 {
		i = len(p.encoded)
		p.encoded = append(p.encoded, &encodedPage{by: e, starts: []int{0}})
	}
	return p.encoded[i]
}

// encode makes x reach as far as messages, which the page had or has, and returns what is in x.
func (x *encodedPage) encode(messages []Message) (data []byte, starts []int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if done := len(x.starts) - 1; done < len(messages) {
		rest := messages[done:]
		size := 0
		for i := range rest {
			m := &rest[i]
			size += len(m.Text) + len(m.App) + 96
		}
		x.data = slices.Grow(x.data, size)
		for i := range rest {
			m := &rest[i]
			if !m.Private() {
				x.data = appendFrame(x.data, x.by, m)
			}
			x.starts = append(x.starts, len(x.data))
		}
	}
	return x.data, x.starts
}
