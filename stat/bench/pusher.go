package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A pusher pushes the messages of its streams, one request at a time, over its own
// connection. Each stream has one pusher, so that its order is known.
type pusher struct {
	backend *backend
	app     string
	size    int      // of a text
	sent    []uint64 // by stream, shared by all pushers: each writes its own
	totals  *totals
	body    []byte
}

// totals is what all pushers of a run have done.
type totals struct {
	accepted atomic.Uint64 // messages
	requests atomic.Uint64
	refused  atomic.Uint64 // requests answered 429
}

// retryAfter is how soon a push refused with 429 is tried again: sooner than its Retry-After,
// since the question is how much the gateway takes.
const retryAfter = 2 * time.Millisecond

// An addressee is whom a stream's messages are for.
type addressee struct {
	stream int
	member int64
}

// push pushes one message to each of to, as one request: a batch unless it is one. due is
// when it should have happened; zero is now, also for every retry.
func (p *pusher) push(ctx context.Context, to []addressee, due time.Time) error {
	for {
		at := due
		if at.IsZero() {
			at = time.Now()
		}
		p.body = p.encode(p.body[:0], to, at.UnixNano())
		p.totals.requests.Add(1)
		status, answer, err := p.backend.post(ctx, p.body)
		switch {
		case err != nil:
			return fmt.Errorf("push: %w", err)
		case status == http.StatusAccepted:
			p.totals.accepted.Add(uint64(len(to)))
			return nil
		case status == http.StatusTooManyRequests:
			p.totals.refused.Add(1)
			for _, a := range to {
				p.sent[a.stream]--
			}
			if err := sleep(ctx, retryAfter); err != nil {
				return err
			}
		default:
			return fmt.Errorf("push: answered %d %s", status, answer)
		}
	}
}

// encode appends the body of a request, and counts its messages as sent.
func (p *pusher) encode(dst []byte, to []addressee, due int64) []byte {
	batch := len(to) > 1
	if batch {
		dst = append(dst, '[')
	}
	for i, a := range to {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendPush(dst, p.app, a.member, message{a.stream, p.sent[a.stream], due}, p.size)
		p.sent[a.stream]++
	}
	if batch {
		dst = append(dst, ']')
	}
	return dst
}

// A crew is the pushers of a run.
type crew struct {
	pushers []*pusher
	sent    []uint64
	totals
}

// newCrew returns n pushers for the given number of streams.
func newCrew(t *target, n, streams int, app string, size int) *crew {
	c := &crew{sent: make([]uint64, streams)}
	for range n {
		c.pushers = append(c.pushers, &pusher{backend: t.backend(), app: app, size: size, sent: c.sent, totals: &c.totals})
	}
	return c
}

// start runs work for each pusher until it fails or stop is called; stop waits for the
// requests under way, and returns the first error that is not about ctx.
func (c *crew) start(ctx context.Context, work func(ctx context.Context, i int, p *pusher) error) (stop func() error) {
	var wg sync.WaitGroup
	var once sync.Once
	var failed error
	var stopped atomic.Bool
	ctx, cancel := context.WithCancel(ctx)
	for i, p := range c.pushers {
		wg.Go(func() {
			defer p.backend.close()
			for !stopped.Load() {
				if err := work(ctx, i, p); err != nil {
					once.Do(func() {
						if !errors.Is(err, context.Canceled) {
							failed = err
						}
						stopped.Store(true)
					})
					return
				}
			}
		})
	}
	return func() error {
		stopped.Store(true)
		wg.Wait()
		cancel()
		return failed
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
