package bench

import "testing"

// What is received twice, or by mistake, stands for no message that is still to come: a run
// that counted it would end before the last of them.
func TestLedgerKnowsWhatWasToCome(t *testing.T) {
	l := newLedger(1, 1)
	for i, c := range []struct {
		stream int
		seq    uint64
		want   bool
	}{
		{1, 0, true},
		{1, 0, false}, // again
		{1, 2, true},
		{1, 1, true}, // late
		{1, 1, false},
		{2, 0, false},         // another's
		{1, 3 + maxGap, true}, // the others may come yet
		{1, 5 + 2*maxGap, false},
	} {
		if got := l.enter(message{stream: c.stream, seq: c.seq}); got != c.want {
			t.Errorf("message %d, %d of stream %d: %v, want %v", i, c.seq, c.stream, got, c.want)
		}
	}
}
