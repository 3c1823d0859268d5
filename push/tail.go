package push

import (
	"errors"

	"ws-gateway/stat"
)

// What a hub shows to a [stat.Tail]. Whoever calls show has asked whether anybody watches.

// show shows what became of m: r, unless there is an error.
func (h *Hub) show(m *Message, r Receipt, err error) {
	e := stat.Event{
		Kind: stat.EventPush, Member: m.Member, From: m.From, App: m.App, Bytes: len(m.Text), Text: m.Text,
		Epoch: r.Epoch, Offset: r.Offset, Subscribers: r.Subscribers, Duplicate: r.Duplicate,
	}
	if err != nil {
		e.Kind = stat.EventRefused
		e.Code, e.Message = Answer(err)
		var refused *RefusedError
		if errors.As(err, &refused) {
			e.Reason = refused.Outcome
		}
	}
	h.opts.Tail.Event(e)
}

// showAll shows what became of a batch: it has receipts of those that were accepted, and the
// others were not because of err.
func (h *Hub) showAll(ms []Message, receipts []Receipt, err error) {
	for i := range ms {
		if i < len(receipts) {
			h.show(&ms[i], receipts[i], nil)
		} else {
			h.show(&ms[i], Receipt{}, err)
		}
	}
}
