package session_test

import (
	"fmt"
	"net/netip"
	"testing"

	"ws-gateway/session"
)

// A quota allows so many refused tokens, of whoever.
type quota struct{ left int }

func (q *quota) Allowed(netip.Addr) bool { return q.left > 0 }
func (q *quota) Failed(netip.Addr)       { q.left-- }

// Whoever is connected already does not pass the handshake's limit any more, so the login
// itself has to know it.
func TestA11GuessesOverOneConnection(t *testing.T) {
	limit := &quota{left: 3}
	w := newWorld(t, "", func(o *session.Options) { o.Failures = limit })
	p := w.dial(stranger)
	guess := func(token, want string) {
		t.Helper()
		p.Receive(`{"member_id":42,"token":"` + token + `"}`)
		if got := p.Next(); got != gateway(want) {
			t.Errorf("token %s: %s, want %s", token, got, want)
		}
	}
	for range 5 {
		guess("wrong", `{"code":401,"message":"unauthorized"}`)
	}
	guess("42", `{"code":401,"message":"unauthorized"}`)
	if limit.left != 0 {
		t.Errorf("%d guesses counted, want the 3 that were checked", 3-limit.left)
	}
	limit.left = 1
	guess("42", `{"code":200,"message":"hello 42"}`)
}

// A10: those who are turned away together are told to come back apart, in 1 to 10 s.
func TestA10RetryHints(t *testing.T) {
	w := newWorld(t, "", nil)
	hints := map[int]int{}
	for range 1000 {
		p := w.dial(`{"member_id":42,"token":"down"}`)
		code, reason := p.Wait()
		var seconds int
		if _, err := fmt.Sscanf(reason, "retry in %d s", &seconds); err != nil || code != session.CloseTryLater {
			t.Fatalf("closed with %d %q", code, reason)
		}
		hints[seconds]++
	}
	for seconds, n := range hints {
		if seconds < 1 || seconds > 10 || n > 200 { // of 100
			t.Errorf("%d of 1000 are told to come back in %d s", n, seconds)
		}
	}
}
