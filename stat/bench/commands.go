package bench

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

var commandsScenario = scenario{
	name:  "commands",
	doc:   "cost of a command of a client: subscribe and unsubscribe in turn, each answered; with --door, of a scripted one",
	doors: true,
	defaults: func(o *options) {
		o.pushers, o.rate, o.duration = 1, 2, 5*time.Second
	},
	run: func(ctx context.Context, r *run) error {
		// Everybody comes and goes at another app than the one where what is pushed
		// meanwhile has to arrive.
		t, seats := newTalk(r.target.dialect, r.app+"2"), r.seats(r.connections, r.pushers)
		for i := range seats {
			seats[i].talker = &talker{talk: t}
		}
		if err := r.connect(ctx, seats); err != nil {
			return err
		}
		answers := func() uint64 {
			r.fleet.mu.Lock()
			defer r.fleet.mu.Unlock()
			return t.answered
		}
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		stop := crew.pace(ctx, r.rate, toEverybody)
		t.begin(r.fleet)
		err := r.hold(ctx, "warming up", r.warmup, "commands", answers)
		from, before := r.sample(), answers()
		if err == nil {
			err = r.hold(ctx, "commanding", r.duration, "commands", answers)
		}
		to, after := r.sample(), answers()
		if e := stop(); e != nil {
			err = e
		}
		if err != nil {
			return err
		}
		r.progress.begin("waiting for the last", "", 0)
		if err := t.end(ctx, r.fleet, r.patience); err != nil {
			return err
		}
		if err := r.finish(ctx, crew.sent, crew.accepted.Load()*uint64(r.connections)); err != nil {
			return err
		}
		r.report.Lost += uint64(t.clients)
		r.report.Duplicated += t.again
		n := float64(after - before)
		r.report.add("commands", n/to.at.Sub(from.at).Seconds(), "/s")
		r.addCPU("cpu_per_command", from, to, n)
		r.addLoad("", from, to)
		return nil
	},
}

// A talk is what the clients of a fleet ask, all the same. It is guarded by the fleet's lock.
type talk struct {
	commands [3][]byte // frames: the first two are asked in turn, the third at the end
	answers  [3][]byte

	clients  int    // that take part
	over     bool   // what is asked next is the last
	answered uint64 // commands
	again    uint64 // answers to what was answered before
}

// last is the command of a talk behind whose answer there can be no other.
const last = 2

func newTalk(d dialect, app string) *talk {
	t := new(talk)
	var commands [3][]byte
	commands[0], t.answers[0] = d.subscribe(app)
	commands[1], t.answers[1] = d.unsubscribe(app)
	commands[last], t.answers[last] = d.ping()
	for i, c := range commands {
		t.commands[i] = appendFrame(nil, opText, c)
	}
	return t
}

// A talker is a client's part in a talk: it asks again as soon as it is answered.
type talker struct {
	*talk
	turn int // of the command that is not answered yet
}

// reply handles an answer.
func (k *talker) reply(c *conn, payload []byte) {
	switch {
	case bytes.Equal(payload, k.answers[k.turn]):
		k.answered++
		switch {
		case k.turn == last:
			k.clients--
			return
		case k.over:
			k.turn = last
		default:
			k.turn = 1 - k.turn
		}
		c.write(k.commands[k.turn])
	case bytes.Equal(payload, k.answers[0]), bytes.Equal(payload, k.answers[1]):
		k.again++
	default:
		c.end(fmt.Errorf("the gateway said %.200s", payload))
	}
}

// begin lets every client ask.
func (t *talk) begin(f *fleet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		t.clients++
		c.write(t.commands[0])
	}
}

// end lets every client ask for the last time, and waits until all are answered; at most for
// patience.
func (t *talk) end(ctx context.Context, f *fleet, patience time.Duration) error {
	f.mu.Lock()
	t.over = true
	f.mu.Unlock()
	quiet, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := f.wait(quiet, func() bool { return t.clients == 0 }); err != nil {
		return ctx.Err() // what is missing is lost
	}
	return nil
}
