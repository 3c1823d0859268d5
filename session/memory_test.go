package session_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"ws-gateway/push"
	"ws-gateway/session"
)

// A sink is a connection that takes everything and keeps nothing.
type sink struct{ hole }

func (sink) Remote() netip.Addr { return netip.Addr{} }

// TestMemoryOfSessions holds what the session of a member costs who is subscribed to three apps, in
// objects beside its connection and what it has in common with others.
func TestMemoryOfSessions(t *testing.T) {
	const budget = 800 // bytes
	w := newWorld(t, "", nil)
	var sessions []*session.Session
	grow := func(n int) {
		for range n {
			s := w.gateway.Open(sink{})
			member := len(sessions) + 1
			for _, frame := range []string{
				fmt.Sprintf(`{"member_id":%d,"token":"%[1]d"}`, member), `{"app":"match"}`, `{"app":"im"}`, fmt.Sprintf(`{"app":"video:%d"}`, member%10),
			} {
				s.Receive(push.OpText, []byte(frame))
			}
			sessions = append(sessions, s)
		}
	}
	inUse := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	grow(100) // tables and pools
	before := inUse()
	const n = 4000
	grow(n)
	each := (inUse() - before) / n
	t.Logf("%d bytes each", each)
	if each > budget || each < 200 {
		t.Errorf("a session with three subscriptions takes %d bytes, the budget is %d", each, budget)
	}
	if r := w.push(push.Message{App: "im", Member: 7, Text: "x"}); r.Subscribers != 1 {
		t.Errorf("member 7 has %d subscriptions to im", r.Subscribers)
	}
	for _, s := range sessions {
		s.Closed(session.CloseNormal)
	}
}
