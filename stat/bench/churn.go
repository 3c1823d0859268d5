package bench

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

var churnScenario = scenario{
	name: "churn",
	doc:  "clients that subscribe and unsubscribe all the time while they are pushed to",
	defaults: func(o *options) {
		o.connections, o.pushers, o.rate = 400, 4, 1000
	},
	run: func(ctx context.Context, r *run) error {
		seats := r.seats(r.connections, 0)
		seed := rand.Uint64()
		for i := range seats {
			seats[i].churn = &churner{random: rand.New(rand.NewPCG(seed, uint64(i)))}
		}
		if err := r.connect(ctx, seats); err != nil {
			return err
		}
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		stop := crew.pace(ctx, r.rate, toEverybody)
		from := r.sample()
		err := r.hold(ctx, "subscribing and unsubscribing", r.duration, "deliveries", r.fleet.count)
		to := r.sample()
		if e := stop(); e != nil {
			err = e
		}
		if err != nil {
			return err
		}
		// The last subscription of each must have received everything: the position of a
		// further one says how far that is.
		r.progress.begin("waiting for the last", "", 0)
		if err := r.settleChurn(ctx); err != nil {
			return err
		}
		r.report.Verdict = r.fleet.judge(crew.sent)
		var commands uint64
		for _, s := range seats {
			commands += s.churn.commands
			r.report.Lost += s.churn.lost
			r.report.Duplicated += s.churn.duplicated
			r.report.Misordered += s.churn.misordered
			r.report.Misaddressed += s.churn.misaddressed
		}
		seconds := to.at.Sub(from.at).Seconds()
		r.report.add("deliveries", float64(to.deliveries-from.deliveries)/seconds, "/s")
		r.report.add("commands", float64(commands)/seconds, "/s")
		r.addLoad("", from, to)
		r.report.Notes = append(r.report.Notes, fmt.Sprintf("seed %d", seed))
		return nil
	},
}

// settleChurn waits for the messages under way and lets every client subscribe once more.
func (r *run) settleChurn(ctx context.Context) error {
	for {
		seen := r.fleet.count()
		if err := sleep(ctx, min(r.patience, 500*time.Millisecond)); err != nil {
			return err
		}
		if r.fleet.count() == seen {
			break
		}
	}
	left := r.connections
	r.fleet.mu.Lock()
	for _, c := range r.fleet.conns {
		if c.phase == live {
			c.seat.churn.last = func() { left-- }
			c.seat.churn.subscribe(c)
		} else {
			left--
		}
	}
	r.fleet.mu.Unlock()
	quiet, cancel := context.WithTimeout(ctx, r.patience)
	defer cancel()
	return r.fleet.wait(quiet, func() bool { return left == 0 })
}

// A churner is a client's subscription that comes and goes. It is guarded by the fleet's lock.
type churner struct {
	random   *rand.Rand
	on       bool   // subscribed, as far as it was told
	asked    bool   // a command is not answered yet
	offset   uint64 // of the newest message, or of the position subscribed at
	left     int    // messages until the next command
	commands uint64
	last     func() // called after the answer to the last subscription; nil before it is sent

	lost, duplicated, misordered, misaddressed uint64
}

func (h *churner) subscribe(c *conn) { h.command(c, `{"app":%q,"position":null}`) }

func (h *churner) command(c *conn, format string) {
	h.commands++
	h.asked = true
	c.write(appendFrame(nil, opText, fmt.Appendf(nil, format, c.seat.app)))
}

// reply handles the answer to a command.
func (h *churner) reply(c *conn, payload []byte) {
	if !bytes.Contains(payload, []byte(`{\"code\":200,`)) {
		c.end(fmt.Errorf("the gateway said %.200s", payload))
		return
	}
	h.asked = false
	position, subscribed := number(payload, []byte(`\"offset\":`))
	switch {
	case subscribed && h.on: // the last
		if position > h.offset {
			h.lost += position - h.offset
		}
		h.last()
		return
	case subscribed:
		h.on, h.offset = true, position
		if h.last != nil {
			h.last()
			return
		}
	default:
		h.on = false
		if h.last == nil {
			h.subscribe(c)
		}
		return
	}
	h.left = 1 + h.random.IntN(20)
}

// message checks a message against the one before.
func (h *churner) message(c *conn, payload []byte) {
	offset, ok1 := number(payload, []byte(`,"offset":`))
	prev, ok2 := number(payload, []byte(`,"prev":`))
	switch {
	case !ok1 || !ok2 || !h.on:
		h.misaddressed++
		return
	case offset == h.offset:
		h.duplicated++
	case offset < h.offset:
		h.misordered++
	case prev > h.offset:
		h.lost++
	}
	h.offset = max(h.offset, offset)
	if h.left--; h.left <= 0 && !h.asked && h.last == nil {
		h.command(c, `{"op":"unsubscribe","app":%q}`)
	}
}

// number returns the number that follows the last occurrence of key.
func number(b, key []byte) (uint64, bool) {
	i := bytes.LastIndex(b, key)
	if i < 0 {
		return 0, false
	}
	b = b[i+len(key):]
	end := 0
	for end < len(b) && '0' <= b[end] && b[end] <= '9' {
		end++
	}
	n, err := strconv.ParseUint(string(b[:end]), 10, 64)
	return n, err == nil
}
