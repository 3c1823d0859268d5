package push

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"ws-gateway/stat"
)

// A Link is what a backend pushes over one WebSocket, by the rules of POST /push: each frame is
// a message with an id of the backend's own, and maybe a key for idempotency, and is answered
// by one frame that begins with the id. API.md is its contract.
type Link struct {
	hub     *Hub
	budget  *budget
	decoder *decoder
	answer  []byte
}

// NewLink returns a link for the backend that sent r, by the right of its push key. The error
// is a *RefusedError.
func NewLink(hub *Hub, keys *Keys, r *http.Request) (*Link, error) {
	budget, err := keys.authorize(r)
	if err != nil {
		return nil, err
	}
	l := &Link{hub: hub, budget: budget, decoder: newDecoder()}
	l.decoder.link = true
	return l, nil
}

// Receive does what a text frame says and returns the answer, which is valid until the next
// call. It may wait for the log, and must not be called concurrently.
func (l *Link) Receive(ctx context.Context, data []byte) []byte {
	start := time.Now()
	defer l.decoder.release()
	metrics := l.hub.opts.Metrics
	receipt, err := l.push(ctx, data)
	b := append(l.answer[:0], '{')
	if l.decoder.id != nil {
		b = append(b, `"id":`...)
		b = append(b, l.decoder.id...)
		b = append(b, ',')
	}
	if err == nil {
		count(metrics, []Receipt{receipt})
		b = appendReceipt(b, l.decoder.messages[0].App, receipt)
		metrics.PushDuration(time.Since(start))
	} else {
		var e *RefusedError
		if !errors.As(err, &e) {
			l.hub.opts.Logger.Error("push failed", "err", err)
			e = errInternal
		}
		metrics.Pushed(e.result(), 1)
		b = appendError(b, e)
		if e.RetryAfter > 0 {
			b = append(b, `,"retry_after":`...)
			b = strconv.AppendInt(b, int64(e.retrySeconds()), 10)
		}
	}
	l.answer = append(b, '}')
	return l.answer
}

func (l *Link) push(ctx context.Context, data []byte) (Receipt, error) {
	d, metrics := l.decoder, l.hub.opts.Metrics
	err := d.decodeFrame(data)
	metrics.PushUnknownKeys(d.unknown)
	if err != nil {
		return Receipt{}, err
	}
	if !l.budget.valid() {
		metrics.Refused(stat.ReasonPushKey)
		return Receipt{}, unauthorized("push key no longer valid")
	}
	if wait := l.budget.take(1); wait > 0 {
		metrics.Refused(stat.ReasonPushRate)
		return Receipt{}, errRate(wait)
	}
	if !d.once {
		return l.hub.Publish(ctx, d.messages[0])
	}
	receipts, err := l.hub.PublishOnce(ctx, l.budget.by, d.key, d.messages)
	if err != nil {
		return Receipt{}, err
	}
	return receipts[0], nil
}
