//go:build unix

package checker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Options configure [Run].
type Options struct {
	Binary   string        // the gateway's program
	Dir      string        // an empty folder for its files
	Env      []string      // more settings for it, as NAME=value
	Seed     uint64        // of all that is random
	Duration time.Duration // of load and faults, at least
	Faults   []FaultKind   // what is done to the gateway, at random; none: it is left in peace
	// Enough is asked from Duration on, and the load goes on until it says so, up to five times
	// as long: a slow machine takes longer for as much. nil: Duration is enough.
	Enough   func(*History) bool
	Patience time.Duration // for a client to receive the last messages; 0: a minute
	Pushers  int           // 0: 6
	Clients  int           // 0: 30
	Lines    io.Writer     // gets every event as a line of JSON; nil: nobody does

	// Tamper, when set, stands between everybody and the gateway: it proves that the
	// checker notices what it must.
	Tamper Tamper
}

// A Tamper changes what clients receive and backends send.
type Tamper interface {
	// Receive returns the frames that the client gets in place of frame.
	Receive(client string, frame []byte) [][]byte
	// Send may change r before it is sent, and Answer the body of its answer.
	Send(r *http.Request)
	Answer(body []byte) []byte
}

// hashed returns token as an entry of the members file.
func hashed(token string) string {
	const salt = "c0ffee"
	sum := sha256.Sum256([]byte(salt + token))
	return "sha256:" + salt + ":" + hex.EncodeToString(sum[:])
}

// Run makes a history: it starts a gateway, loads and hurts it for o.Duration, lets it heal,
// has every client come back once more, and ends it.
func Run(ctx context.Context, o Options) (*History, error) {
	if o.Pushers == 0 {
		o.Pushers = 6
	}
	if o.Clients == 0 {
		o.Clients = 30
	}
	o.Patience = cmp.Or(o.Patience, time.Minute)
	g, err := newGateway(o.Binary, o.Dir, o.Env)
	if err != nil {
		return nil, err
	}
	if err := g.start(ctx); err != nil {
		return nil, err
	}
	h := NewHistory(o.Lines)
	load, stopLoad := context.WithCancel(ctx)
	defer stopLoad()
	watch, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	var pushers, clients sync.WaitGroup
	for i := range o.Pushers {
		p := newPusher(g, h, o, i)
		pushers.Go(func() { p.run(load) })
	}
	all := make([]*client, o.Clients)
	for i := range all {
		all[i] = newClient(g, h, o, i)
		clients.Go(func() { all[i].run(load, watch) })
	}

	rng := rand.New(rand.NewPCG(o.Seed, 0))
	began := time.Now()
	over := func() bool {
		ran := time.Since(began)
		return ran >= o.Duration && (o.Enough == nil || o.Enough(h) || ran >= 5*o.Duration)
	}
	var failed error
	for failed == nil && !over() {
		rest := 500*time.Millisecond + time.Duration(rng.Int64N(int64(2*time.Second)))
		select {
		case <-ctx.Done():
			failed = ctx.Err()
		case <-time.After(rest):
			if len(o.Faults) > 0 {
				failed = hurt(ctx, g, h, o.Faults[rng.IntN(len(o.Faults))], rng)
			}
		}
	}
	stopLoad()
	pushers.Wait()
	if failed == nil {
		failed = settle(ctx, all, newPusher(g, h, o, o.Pushers))
	}
	stopWatch()
	clients.Wait()
	if failed == nil {
		failed = readWindows(ctx, g, h, o)
	}
	http.DefaultClient.CloseIdleConnections()
	return h, errors.Join(failed, g.stop(syscall.SIGTERM))
}

// A FaultKind is something bad that happens to a gateway.
type FaultKind string

// What Run can do.
const (
	Kill    FaultKind = "kill -9"
	Restart FaultKind = "SIGTERM, start again"
	Stop    FaultKind = "SIGSTOP for a while"
)

// hurt does one bad thing to the gateway and heals it.
func hurt(ctx context.Context, g *gateway, h *History, kind FaultKind, rng *rand.Rand) error {
	h.Add(Event{Kind: Fault, Note: string(kind)})
	end := syscall.SIGTERM
	switch kind {
	case Stop:
		g.signal(syscall.SIGSTOP)
		time.Sleep(500*time.Millisecond + time.Duration(rng.Int64N(int64(2*time.Second))))
		g.signal(syscall.SIGCONT)
		return nil
	case Kill:
		end = syscall.SIGKILL
	case Restart:
	}
	if err := g.stop(end); err != nil {
		return err
	}
	return g.start(ctx)
}

// settle has every client come back once more, all at the same time, and stay until each app's
// last message has come, behind all that was missed.
func settle(ctx context.Context, all []*client, last *pusher) error {
	var errs []error
	for _, c := range all {
		close(c.back)
	}
	for _, c := range all {
		errs = append(errs, c.wait(ctx, c.joined))
	}
	errs = append(errs, last.finish())
	for _, c := range all {
		errs = append(errs, c.wait(ctx, c.settled))
	}
	return errors.Join(errs...)
}
