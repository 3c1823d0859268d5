package client

import (
	"errors"
	"math/rand/v2"
	"time"

	"ws-gateway/session"
)

// temporary reports whether a client that was closed with code should connect again. Codes
// that are not the gateway's may be a proxy's: they are not forever.
func temporary(code session.CloseCode) bool {
	switch {
	case code >= 4000:
		return code < 4500
	case code.Reason() != "":
		return code.Reconnect()
	}
	return true
}

// A backoff counts the attempts to come back.
type backoff struct{ attempts int }

// congested is how many attempts a client is taken to have made already when the gateway
// says that there is too much of something: all the others come back at the same time.
const congested = 3

// after takes note of why a connection ended.
func (b *backoff) after(err error) {
	var closed *CloseError
	if errors.As(err, &closed) && (closed.Code == session.CloseTryLater || closed.Code == session.CloseRateLimit) {
		b.attempts = max(b.attempts, congested)
	}
}

// next returns how long to wait before the next attempt: shortest, plus a random part of an
// interval that doubles with each attempt (full jitter), at most longest. cause may name an
// earliest time of its own.
func (b *backoff) next(shortest, longest time.Duration, cause error) time.Duration {
	span := longest
	if b.attempts < 31 {
		span = min(longest, shortest<<b.attempts)
	}
	b.attempts++
	wait := min(longest, shortest+rand.N(span))
	var refused *HandshakeError
	if errors.As(cause, &refused) {
		wait = max(wait, min(refused.retryAfter, longest))
	}
	return wait
}
