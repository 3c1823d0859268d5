package bench

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A fleet is the clients of a run: many connections and what they received.
type fleet struct {
	target  *target
	reactor reactor

	mu      sync.Mutex
	changed sync.Cond // broadcast when a connection changed its phase, and by the reactor after reading
	conns   []*conn   // all that were opened; guarded by mu
	phases  [phases]int
	closing bool  // connections may end; guarded by mu
	failed  error // the first failure; guarded by mu

	received uint64                  // messages; guarded by mu
	latency  *hdrhistogram.Histogram // us from due to received; guarded by mu
	verdict  Verdict                 // of connections, not of messages; guarded by mu
}

// A reactor does the reading and writing of a fleet's connections.
type reactor interface {
	// open connects c, whose methods it calls with the fleet's lock held. It is called so, too.
	open(c *conn) error
	// close ends the reactor, and every connection.
	close()
}

// A link is a connection as the reactor made it. Its methods are called with the fleet's
// lock held and do not block.
type link interface {
	write(b []byte) error
	stopReading() // for good
	close()
}

// A seat says who a connection is and what it listens to.
type seat struct {
	auth      []byte // the first message
	app       string
	member    int64    // whose messages it gets: -1, or a member's private ones
	base      int      // the first stream that it listens to
	streams   int      // how many
	subscribe []byte   // the command; nil: a plain subscription to app
	asleep    bool     // it never reads, once it is subscribed
	churn     *churner // nil: it stays subscribed
	talker    *talker  // nil: it sends no commands
}

type phase uint8

const (
	connecting phase = iota
	upgrading
	authenticating
	subscribing
	live
	leaving
	over
	phases
)

// newFleet returns a fleet without connections; close ends it.
func newFleet(t *target) *fleet {
	f := &fleet{target: t, latency: newHistogram()}
	f.changed.L = &f.mu
	f.reactor = newReactor(f)
	return f
}

// newHistogram returns one for microseconds up to ten minutes.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
}

func (f *fleet) close() {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	f.reactor.close()
}

// wait returns once done, which is called with the lock held, reports true.
func (f *fleet) wait(ctx context.Context, done func() bool) error {
	defer context.AfterFunc(ctx, func() {
		f.mu.Lock()
		f.changed.Broadcast()
		f.mu.Unlock()
	})()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !done() {
		if err := ctx.Err(); err != nil {
			return err
		}
		f.changed.Wait()
	}
	return nil
}

// enter opens a connection for each seat, at most window of them at a time between connect
// and subscribed, and returns when all are live or one has failed.
func (f *fleet) enter(ctx context.Context, seats []seat, window int, tell func(done int)) error {
	f.mu.Lock()
	before := f.phases[live]
	f.mu.Unlock()
	settled := 0
	for i := 0; settled < len(seats); {
		err := f.wait(ctx, func() bool {
			settled = f.phases[live] - before
			return f.failed != nil || settled == len(seats) || i < len(seats) && i-settled < window
		})
		if err == nil {
			f.mu.Lock()
			err = f.failed
			for ; err == nil && i < len(seats) && i-settled < window; i++ {
				err = f.open(seats[i])
			}
			f.mu.Unlock()
		}
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", settled, len(seats), err)
		}
		tell(settled)
	}
	return nil
}

// open starts a connection; mu is held.
func (f *fleet) open(s seat) error {
	c := &conn{fleet: f, seat: s, prefix: f.target.dialect.prefix(s.app, s.member), ledger: newLedger(s.base, s.streams)}
	f.conns = append(f.conns, c)
	f.phases[connecting]++
	if err := f.reactor.open(c); err != nil {
		if c.link != nil {
			c.link.close()
		}
		c.enter(over)
		return err
	}
	return nil
}

// leave closes every live connection, at most window of them at a time, and returns when
// all are gone; others may enter then. With a polite goodbye it waits for the close frame of the gateway.
func (f *fleet) leave(ctx context.Context, window int, polite bool, tell func(done int)) error {
	f.mu.Lock()
	f.closing = true
	conns := f.conns
	f.mu.Unlock()
	goodbye := appendFrame(nil, opClose, []byte{0x03, 0xE8}) // 1000
	for i, c := range conns {
		if err := f.wait(ctx, func() bool { return f.phases[leaving] < window }); err != nil {
			return err
		}
		f.mu.Lock()
		if c.phase == live {
			if polite {
				c.enter(leaving)
				c.write(goodbye)
			} else {
				c.end(nil)
			}
		}
		f.mu.Unlock()
		tell(i + 1)
	}
	err := f.wait(ctx, func() bool { return f.phases[leaving] == 0 })
	f.mu.Lock()
	f.closing = false
	f.mu.Unlock()
	return err
}

// count returns how many messages have been received.
func (f *fleet) count() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received
}

// swapLatency returns the latencies since the last call.
func (f *fleet) swapLatency() *hdrhistogram.Histogram {
	fresh := newHistogram()
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.latency
	f.latency = fresh
	return old
}

// settle waits until n messages were received, or none for patience.
func (f *fleet) settle(ctx context.Context, n uint64, patience time.Duration) error {
	for {
		seen := f.count()
		quiet, cancel := context.WithTimeout(ctx, patience)
		err := f.wait(quiet, func() bool { return f.received >= n })
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case f.count() == seen:
			return nil // what is missing is lost
		}
	}
}

// judge says what went wrong, given how many messages each stream had.
func (f *fleet) judge(sent []uint64) Verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ledgers []*ledger
	for _, c := range f.conns {
		if c.seat.streams > 0 && !c.seat.asleep && c.joined {
			ledgers = append(ledgers, &c.ledger)
		}
	}
	v := judge(ledgers, sent)
	v.Disconnected, v.Errors = f.verdict.Disconnected, f.verdict.Errors
	v.Misaddressed += f.verdict.Misaddressed
	return v
}

// A conn is one client. Everything in it is guarded by the fleet's lock.
type conn struct {
	fleet   *fleet
	seat    seat
	link    link
	phase   phase
	joined  bool   // it was live
	partial []byte // the start of what has not arrived completely
	prefix  []byte // of its messages
	ledger  ledger
	ended   time.Time // by the server
	answer  []byte    // to seat.subscribe
}

func (c *conn) enter(p phase) {
	c.fleet.phases[c.phase]--
	c.fleet.phases[p]++
	c.phase = p
	c.fleet.changed.Broadcast()
}

// write sends b, which is small.
func (c *conn) write(b []byte) {
	if err := c.link.write(b); err != nil {
		c.end(fmt.Errorf("write: %w", err))
	}
}

// end closes c. An err counts unless connections may end now.
func (c *conn) end(err error) {
	if c.phase == over {
		return
	}
	f := c.fleet
	if err != nil && !f.closing && !c.seat.asleep {
		if c.phase == live {
			f.verdict.Disconnected++
		} else {
			f.verdict.Errors++
		}
		if f.failed == nil {
			f.failed = err
		}
	}
	c.ended = time.Now()
	c.partial = nil
	c.link.close()
	c.enter(over)
}

// connected is called by the reactor when c.link is there.
func (c *conn) connected() {
	c.enter(upgrading)
	c.write(c.fleet.target.upgrade)
}

// feed takes what was read at now, Unix time in ns; it does not keep data.
func (c *conn) feed(data []byte, now int64) {
	if len(c.partial) > 0 {
		c.partial = append(c.partial, data...)
		data = c.partial
	}
	if c.phase == upgrading {
		n, err := parseUpgrade(data)
		if err != nil {
			c.end(err)
			return
		}
		if n == 0 {
			c.partial = append(c.partial[:0], data...)
			return
		}
		data = data[n:]
		if c.fleet.target.dialect.logsIn() {
			c.enter(authenticating)
			c.write(c.seat.auth)
		} else {
			c.subscribe()
		}
	}
	for c.phase != over {
		op, payload, n, err := parseFrame(data)
		if err != nil {
			c.end(err)
			return
		}
		if n == 0 {
			break
		}
		data = data[n:]
		c.frame(op, payload, now)
	}
	if c.phase != over {
		c.partial = append(c.partial[:0], data...)
	}
}

// frame handles one frame.
func (c *conn) frame(op byte, payload []byte, now int64) {
	switch {
	case op == opText && c.phase == live:
		c.message(payload, now)
	case op == opText && c.phase == leaving:
	case op == opText:
		c.reply(payload)
	case op == opPing:
		c.write(appendFrame(nil, opPong, payload))
	case op == opPong:
	case op == opClose:
		code := 1005
		if len(payload) >= 2 {
			code = int(payload[0])<<8 | int(payload[1])
		}
		c.end(fmt.Errorf("closed by the gateway with %d", code))
	default:
		c.end(errFrame)
	}
}

// reply handles what the gateway says on the way to live.
func (c *conn) reply(payload []byte) {
	if is, good := c.fleet.target.dialect.reply(payload); !is || !good {
		c.end(fmt.Errorf("the gateway said %.200s", payload))
		return
	}
	if c.phase == authenticating {
		c.subscribe()
		return
	}
	if c.seat.subscribe != nil {
		c.answer = bytes.Clone(payload)
	}
	c.joined = true
	c.enter(live)
	if h := c.seat.churn; h != nil {
		h.reply(c, payload)
	}
	if c.seat.asleep {
		c.link.stopReading()
	}
}

// subscribe asks for the app of c's seat.
func (c *conn) subscribe() {
	c.enter(subscribing)
	if h := c.seat.churn; h != nil {
		h.subscribe(c)
		return
	}
	cmd := c.seat.subscribe
	if cmd == nil {
		cmd, _ = c.fleet.target.dialect.subscribe(c.seat.app)
	}
	c.write(appendFrame(nil, opText, cmd))
}

// message enters one push into the books.
func (c *conn) message(payload []byte, now int64) {
	f := c.fleet
	m, ok := message{}, bytes.HasPrefix(payload, c.prefix)
	if ok {
		m, ok = parseText(payload[len(c.prefix):])
	}
	if !ok {
		switch is, _ := f.target.dialect.reply(payload); {
		case !is:
			f.verdict.Misaddressed++
		case c.seat.churn != nil:
			c.seat.churn.reply(c, payload)
		case c.seat.talker != nil:
			c.seat.talker.reply(c, payload)
		}
		return
	}
	if c.seat.churn != nil {
		c.seat.churn.message(c, payload)
	} else if !c.ledger.enter(m) {
		return // the run ends with the last that is still to come
	}
	f.received++
	f.latency.RecordValue(max(1, (now-m.due)/1000)) // one beyond the range is no latency any more
}
