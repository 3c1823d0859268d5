//go:build unix

package checker

import (
	"fmt"
	"slices"
	"strings"
)

// A Verdict is what Judge found.
type Verdict struct {
	Accepted, Unknown, Receipts int
	Resumed, Unresumed          int // clients that came back: all was to come, or they were told that it was not
	Faults                      int
	// Wrong has a sentence for each broken promise, by the promise's name: lost, duplicate,
	// order, phantom, wrong member, offset reuse.
	Wrong map[string][]string
}

// OK reports whether no promise was broken.
func (v Verdict) OK() bool { return len(v.Wrong) == 0 }

// String returns the verdict for people, with a few examples of each wrong.
func (v Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d accepted, %d unknown, %d receipts, %d resumed, %d could not be, %d faults",
		v.Accepted, v.Unknown, v.Receipts, v.Resumed, v.Unresumed, v.Faults)
	for _, name := range []string{"lost", "duplicate", "order", "phantom", "wrong member", "offset reuse"} {
		wrong := v.Wrong[name]
		fmt.Fprintf(&b, "\n  %-12s %d", name, len(wrong))
		for _, w := range wrong[:min(3, len(wrong))] {
			fmt.Fprintf(&b, "\n    %s", w)
		}
	}
	return b.String()
}

// A place is a position in an app's log.
type place struct {
	app, epoch string
	offset     uint64
}

// A stretch is a client's view of an app between being told where it is and being told that
// something may be missing: inside it nothing may be.
type stretch struct {
	epoch    string
	from, to uint64
	have     map[uint64]bool
	last     bool // it lasted to the end: all that was accepted must be there
}

// A view is all that a client saw of an app.
type view struct {
	who       string
	member    int64
	app       string
	stretches []*stretch
}

// Judge holds events against the promises. It is slow and plain on purpose.
func Judge(events []Event) Verdict {
	v := Verdict{Wrong: map[string][]string{}}
	wrong := func(name, format string, args ...any) {
		v.Wrong[name] = append(v.Wrong[name], fmt.Sprintf(format, args...))
	}
	type op struct {
		member   int64
		app      string
		accepted []place
		refused  bool
		seen     map[place]bool
	}
	ops := map[string]*op{}
	taken := map[place]string{} // whose an offset is
	take := func(p place, name string) {
		if other, ok := taken[p]; ok && other != name {
			wrong("offset reuse", "%v is %s and %s", p, other, name)
		}
		taken[p] = name
	}
	views := map[string]*view{}
	var order []*view

	for _, e := range events {
		at := place{e.App, e.Epoch, e.Offset}
		switch e.Kind {
		case Fault:
			v.Faults++
		case Pushed:
			ops[e.Op] = &op{member: e.Member, app: e.App, seen: map[place]bool{}}
		case Refused:
			ops[e.Op].refused = true
		case Unknown:
			v.Unknown++
		case Accepted:
			o := ops[e.Op]
			if len(o.accepted) == 0 {
				v.Accepted++
			} else if o.accepted[0] != at {
				wrong("duplicate", "%s was accepted at %v and, with the same key, at %v", e.Op, o.accepted[0], at)
			}
			o.accepted = append(o.accepted, at)
			take(at, e.Op)
		case Joined, Resumed, Unresumed:
			switch e.Kind {
			case Resumed:
				v.Resumed++
			case Unresumed:
				v.Unresumed++
			}
			key := e.Who + " " + e.App
			w := views[key]
			if w == nil {
				w = &view{who: e.Who, member: e.Member, app: e.App}
				views[key] = w
				order = append(order, w)
			}
			if e.Kind != Resumed {
				w.stretches = append(w.stretches, &stretch{epoch: e.Epoch, from: e.Offset, to: e.Offset, have: map[uint64]bool{}})
			}
		case Received:
			v.Receipts++
			w := views[e.Who+" "+e.App]
			if w == nil {
				wrong("phantom", "%s received %s without a subscription", e.Who, e.Op)
				continue
			}
			s := w.stretches[len(w.stretches)-1]
			o := ops[e.Op]
			switch {
			case o == nil:
				wrong("phantom", "%s received %q, which nobody pushed", e.Who, e.Op)
				continue
			case o.app != e.App:
				wrong("phantom", "%s received %s in %s, pushed to %s", e.Who, e.Op, e.App, o.app)
			case o.refused:
				wrong("phantom", "%s received %s, which was refused", e.Who, e.Op)
			case o.member > 0 && o.member != w.member:
				wrong("wrong member", "%s (member %d) received %s for member %d", e.Who, w.member, e.Op, o.member)
			}
			at.epoch = s.epoch
			take(at, e.Op)
			if o.seen[at] = true; len(o.seen) > 1 {
				wrong("duplicate", "%s was delivered as %d different messages", e.Op, len(o.seen))
			}
			switch {
			case s.have[e.Offset]:
				wrong("duplicate", "%s received offset %d of %s twice", e.Who, e.Offset, e.App)
			case e.Offset <= s.to:
				wrong("order", "%s received offset %d of %s after %d", e.Who, e.Offset, e.App, s.to)
			}
			s.have[e.Offset] = true
			s.to = max(s.to, e.Offset)
		}
	}

	// What each client should have.
	for _, w := range order {
		w.stretches[len(w.stretches)-1].last = true
	}
	byPlace := map[place]*op{}
	byLog := map[[2]string][]uint64{}
	names := map[place]string{}
	for name, o := range ops {
		for _, p := range o.accepted {
			if byPlace[p] == nil {
				byLog[[2]string{p.app, p.epoch}] = append(byLog[[2]string{p.app, p.epoch}], p.offset)
			}
			byPlace[p], names[p] = o, name
		}
	}
	for _, w := range order {
		for _, s := range w.stretches {
			for _, offset := range byLog[[2]string{w.app, s.epoch}] {
				p := place{w.app, s.epoch, offset}
				o := byPlace[p]
				if offset <= s.from || o.member > 0 && o.member != w.member || !s.last && offset > s.to {
					continue
				}
				if !s.have[offset] {
					wrong("lost", "%s never received %s (%v)", w.who, names[p], p)
				}
			}
		}
	}
	judgeWindow(events, taken, wrong)
	return v
}

// judgeWindow checks what the log had at the end: the accepted public messages of its epoch,
// without a hole, in order.
func judgeWindow(events []Event, taken map[place]string, wrong func(name, format string, args ...any)) {
	windows := map[[2]string][]string{}
	for _, e := range events {
		if e.Kind == Window {
			k := [2]string{e.App, e.Epoch}
			windows[k] = append(windows[k], e.Op)
		}
	}
	known := map[string]bool{}
	for p, name := range taken {
		known[p.app+" "+p.epoch+" "+name] = true
	}
	private := map[string]bool{}
	for _, e := range events {
		if e.Kind == Pushed && e.Member > 0 {
			private[e.Op] = true
		}
	}
	for k, all := range windows {
		var got []string // of those that were accepted, or seen by somebody
		for _, name := range all {
			if known[k[0]+" "+k[1]+" "+name] {
				got = append(got, name)
			}
		}
		type item struct {
			offset uint64
			op     string
		}
		var items []item
		for p, name := range taken {
			if p.app == k[0] && p.epoch == k[1] && !private[name] {
				items = append(items, item{p.offset, name})
			}
		}
		slices.SortFunc(items, func(a, b item) int { return int(a.offset) - int(b.offset) })
		var want []string
		for _, i := range items {
			want = append(want, i.op)
		}
		if n := len(got); n < len(want) {
			want = want[len(want)-n:]
		}
		for i, name := range want {
			if got[len(got)-len(want)+i] != name {
				wrong("lost", "the log of %s has %s where %s should be", k[0], got[len(got)-len(want)+i], name)
				break
			}
		}
	}
}
