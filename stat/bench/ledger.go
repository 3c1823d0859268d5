package bench

// A Verdict counts what went wrong with the messages of a run. Its zero value is a clean run.
type Verdict struct {
	Lost         uint64 `json:"lost"`         // accepted, and not received by a subscriber that stayed
	Duplicated   uint64 `json:"duplicated"`   // received twice by one subscriber
	Misordered   uint64 `json:"misordered"`   // received after a later one, or in another order than by others
	Misaddressed uint64 `json:"misaddressed"` // received by somebody it was not for, or never pushed
	Disconnected uint64 `json:"disconnected"` // connections that ended while they should not
	Errors       uint64 `json:"errors"`       // pushes and handshakes that failed
}

// Clean reports whether nothing went wrong.
func (v Verdict) Clean() bool { return v == Verdict{} }

// maxGap is how far ahead of its stream a message may be; no server loses more.
const maxGap = 1 << 20

// A ledger is what one subscriber has received: of each stream it is subscribed to, all
// messages from the first on, once, in order.
type ledger struct {
	base    int // the first stream
	streams []progressOf
	order   uint64 // a digest of everything received, in order

	duplicated, misordered, misaddressed uint64
}

// progressOf is what is known of one stream.
type progressOf struct {
	next    uint64
	missing map[uint64]struct{} // below next
}

func newLedger(base, streams int) ledger {
	return ledger{base: base, streams: make([]progressOf, streams)}
}

// enter records m, and reports whether it was still to come.
func (l *ledger) enter(m message) bool {
	i := m.stream - l.base
	if i < 0 || i >= len(l.streams) {
		l.misaddressed++
		return false
	}
	l.order = (l.order ^ (uint64(m.stream)<<32 + m.seq)) * 0x9E3779B97F4A7C15
	s := &l.streams[i]
	if m.seq == s.next {
		s.next++
		return true
	}
	return l.late(s, m.seq)
}

// late handles a message that is not the next of its stream.
func (l *ledger) late(s *progressOf, seq uint64) bool {
	if seq > s.next {
		if seq-s.next > maxGap {
			l.misaddressed++
			return false
		}
		if s.missing == nil {
			s.missing = make(map[uint64]struct{})
		}
		for ; s.next < seq; s.next++ {
			s.missing[s.next] = struct{}{}
		}
		s.next++
		return true
	}
	if _, ok := s.missing[seq]; ok {
		delete(s.missing, seq)
		l.misordered++
		return true
	}
	l.duplicated++
	return false
}

// lost returns how many of the messages sent on its streams are not there. More than were
// sent count as misaddressed.
func (l *ledger) lost(sent []uint64) (n uint64) {
	for i := range l.streams {
		s := &l.streams[i]
		n += uint64(len(s.missing))
		if want := sent[l.base+i]; s.next < want {
			n += want - s.next
		} else {
			l.misaddressed += s.next - want
		}
	}
	return n
}

// judge closes the ledgers of subscribers that stayed. Those of the same streams must have
// received everything in the same order.
func judge(ledgers []*ledger, sent []uint64) (v Verdict) {
	order := make(map[[2]int]uint64)
	for _, l := range ledgers {
		lost := l.lost(sent)
		v.Lost += lost
		v.Duplicated += l.duplicated
		v.Misordered += l.misordered
		v.Misaddressed += l.misaddressed
		if lost+l.duplicated+l.misordered+l.misaddressed > 0 {
			continue
		}
		key := [2]int{l.base, len(l.streams)}
		if first, ok := order[key]; !ok {
			order[key] = l.order
		} else if first != l.order {
			v.Misordered++
		}
	}
	return v
}
