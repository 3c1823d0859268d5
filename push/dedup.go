package push

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"ws-gateway/stat"
)

const (
	// MaxIdempotencyKey is the length of the longest idempotency key, in bytes.
	MaxIdempotencyKey = 64

	window         = 2 * time.Minute // how long a key is remembered after its push was answered
	perWeight      = 8               // receipts of a batch that weigh as much as one key more
	forgetAtLeast  = time.Second     // between two rounds of forgetting
	defaultMaxKeys = 200_000
)

// PublishOnce is [Hub.PublishBatch] for a backend that may try again: while key is
// remembered, which is for two minutes after the answer, the same messages with the same key
// from the same backend are not published again. The receipts are then those of the first time,
// with Duplicate set. by tells backends apart: keys of one mean nothing to another.
// Calls that race share one publish. A refused push is not remembered; one whose outcome is
// unknown is, as that: a retry gets the same error. The errors are also 400 for a key that is
// empty or too long, 422 for one that came with other messages, and 429 while as many are
// remembered as Options.MaxIdempotencyKeys.
func (h *Hub) PublishOnce(ctx context.Context, by, key string, ms []Message) ([]Receipt, error) {
	if len(key) == 0 || len(key) > MaxIdempotencyKey {
		return nil, &RefusedError{Status: http.StatusBadRequest, Message: fmt.Sprintf("an idempotency key has 1 to %d bytes", MaxIdempotencyKey)}
	}
	k := onceKey{by, key}
	a, first, err := h.dedup.begin(k, digest(ms), 1+len(ms)/perWeight)
	if err != nil {
		if h.opts.Tail.Active() {
			h.showAll(ms, nil, err)
		}
		return nil, err
	}
	if first {
		defer func() { h.dedup.end(k, a) }()
		// Others may wait for this publish: it does not end because its first sender leaves.
		a.receipts, a.err = h.PublishBatch(context.WithoutCancel(ctx), ms)
		return a.receipts, a.err
	}
	select {
	case <-a.done:
	case <-ctx.Done():
		return nil, errNobodyKnows
	}
	receipts := make([]Receipt, len(a.receipts))
	for i, r := range a.receipts {
		r.Duplicate = true
		receipts[i] = r
	}
	if h.opts.Tail.Active() {
		h.showAll(ms, receipts, a.err)
	}
	return receipts, a.err
}

var errNobodyKnows = &RefusedError{Status: http.StatusServiceUnavailable, Message: "outcome unknown", Outcome: "unknown", RetryAfter: time.Second}

// digest identifies what ms say: the same messages written in another way, or sent over
// another path, are the same.
func digest(ms []Message) [sha256.Size]byte {
	b := make([]byte, 0, 256)
	for i := range ms {
		m := &ms[i]
		b = binary.AppendVarint(b, m.Member)
		b = binary.AppendVarint(b, m.From)
		b = strconv.AppendBool(b, m.Binary)
		for _, s := range [...]string{m.App, m.Text} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	return sha256.Sum256(b)
}

// A onceKey is an idempotency key and whose it is.
type onceKey struct{ by, key string }

// An attempt is a push with an idempotency key: under way, or answered.
type attempt struct {
	digest [sha256.Size]byte
	weight int
	done   chan struct{} // closed once receipts and err are set

	receipts []Receipt
	err      error

	key     onceKey
	expires time.Time // set when answered
	next    *attempt  // answered after this one
}

// refused reports whether a surely did nothing, so that its key is free again.
func (a *attempt) refused() bool {
	var e *RefusedError
	return len(a.receipts) == 0 && errors.As(a.err, &e) && e.Outcome != "unknown"
}

// A dedup remembers attempts by key. As all are remembered for the same time, they are
// forgotten in the order in which they were answered, by whoever comes next or by the one
// timer.
type dedup struct {
	max     int
	metrics *stat.Metrics

	mu           sync.Mutex
	attempts     map[onceKey]*attempt // guarded by mu
	weight       int                  // of attempts; guarded by mu
	oldest, last *attempt             // list of the answered ones; guarded by mu
	timer        *time.Timer          // set while anything is in the list; guarded by mu
	closed       bool                 // guarded by mu
}

// begin returns the attempt with this key, and whether the caller is to make it, and then
// must call end.
func (d *dedup) begin(key onceKey, sum [sha256.Size]byte, weight int) (a *attempt, first bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.forget(now)
	if a := d.attempts[key]; a != nil {
		if a.digest != sum {
			return nil, false, &RefusedError{Status: http.StatusUnprocessableEntity, Message: "this idempotency key came with another push before"}
		}
		return a, false, nil
	}
	if d.weight+weight > d.max {
		d.metrics.Refused(stat.ReasonPushIdempotency)
		wait := time.Second
		if d.oldest != nil {
			wait = max(wait, d.oldest.expires.Sub(now))
		}
		return nil, false, &RefusedError{Status: http.StatusTooManyRequests, Message: "too many idempotency keys to remember", RetryAfter: wait}
	}
	if d.attempts == nil {
		d.attempts = make(map[onceKey]*attempt)
	}
	a = &attempt{digest: sum, weight: weight, done: make(chan struct{}), key: key, err: errNobodyKnows}
	d.attempts[key] = a
	d.weight += weight
	return a, true, nil
}

// end makes what became of a known, and remembers it. After a panic that is the error which
// begin has set.
func (d *dedup) end(key onceKey, a *attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(a.done)
	if a.refused() {
		delete(d.attempts, key)
		d.weight -= a.weight
		return
	}
	a.expires = time.Now().Add(window)
	if d.oldest == nil {
		d.oldest = a
	} else {
		d.last.next = a
	}
	d.last = a
	if d.timer == nil && !d.closed {
		d.timer = time.AfterFunc(window, d.tick)
	}
}

// tick forgets what nobody came to forget.
func (d *dedup) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	d.forget(now)
	if d.closed || d.oldest == nil {
		d.timer = nil
		return
	}
	d.timer.Reset(max(d.oldest.expires.Sub(now), forgetAtLeast))
}

// forget drops the attempts whose time is over; d.mu is held.
func (d *dedup) forget(now time.Time) {
	for d.oldest != nil && !now.Before(d.oldest.expires) {
		a := d.oldest
		d.oldest = a.next
		d.weight -= a.weight
		delete(d.attempts, a.key)
	}
	if len(d.attempts) == 0 {
		d.attempts = nil // a map does not shrink
	}
}

func (d *dedup) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.timer != nil {
		d.timer.Stop()
	}
}
