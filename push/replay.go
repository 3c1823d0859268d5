package push

import "context"

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
// them up to the same one. They share what is read and encoded, and a part is small enough to
// be held for many of them.
func (h *Hub) Replay(ctx context.Context, r Range, e *Encoding) (Replay, error) {
	epoch := h.log.Top(r.App).Epoch
	if r.After.Offset >= r.Upto {
		return Replay{Complete: r.After == Position{epoch, r.Upto}, End: r.Upto}, nil
	}
	key := pageKey{r.App, epoch, true}
	p, err := h.pages.get(ctx, key, r.After.Offset, r.Upto)
	if err != nil {
		return Replay{}, err
	}
	if !p.complete(r.After) { // but what is lost may have been private, and somebody else's
		key.all = false
		public, err := h.pages.get(ctx, key, r.After.Offset, r.Upto)
		switch {
		case err != nil:
			return Replay{}, err
		case !public.complete(r.After): // it was not, or not only
		case r.Member <= 0:
			p = public
		default:
			p = newPage(key, r.After.Offset)
			if _, err := h.pages.grow(ctx, p, r.Member); err != nil {
				return Replay{}, err
			}
		}
	}
	return h.pages.part(p, r, e), nil
}

// Newest returns the position behind which the newest n messages of r come, wherever r begins:
// r.Upto if there are none. It looks for them in the pages that clients share, and reads the log
// for one that finds less than it wants there.
func (h *Hub) Newest(ctx context.Context, r Range, n int) (Position, error) {
	at := Position{h.log.Top(r.App).Epoch, r.Upto}
	if r.Upto == 0 {
		return at, nil
	}
	key := pageKey{r.App, at.Epoch, true}
	rest, left, start := r, n, uint64(0)
	for range 3 { // all that is kept may be in one page; else what is wanted, in the last or the last two
		p, err := h.pages.get(ctx, key, start, rest.Upto)
		if err != nil {
			return at, err
		}
		start = rest.Upto - 1
		after, found, ok := h.pages.newest(p, rest, left)
		if !ok {
			continue
		}
		if found > 0 {
			at.Offset, left = after, left-found
		}
		if left == 0 || p.start == 0 {
			return at, nil
		}
		rest.Upto, start = p.start, p.start-1
	}
	page, err := h.log.Since(ctx, Query{App: r.App, Member: r.Member, Last: n})
	if err == nil && len(page.Messages) > 0 {
		at.Offset = min(at.Offset, page.Messages[0].Offset-1) // the newest may be live
	}
	return at, err
}
