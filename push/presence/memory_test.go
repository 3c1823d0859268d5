package presence_test

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"ws-gateway/push"
	"ws-gateway/push/presence"
	"ws-gateway/push/pushtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory(t *testing.T) {
	pushtest.TestPresence(t, func(*testing.T) push.Presence { return presence.NewMemory() }, func() {})
}

// BenchmarkMembers measures what a client's question costs in a full room.
func BenchmarkMembers(b *testing.B) {
	for _, n := range []int64{10, 1000, 100_000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			p := presence.NewMemory()
			for m := range n {
				p.Join("a", m+1)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Members(b.Context(), "a", 1000); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
