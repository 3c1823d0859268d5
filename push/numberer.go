package push

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"ws-gateway/apps"
)

// A numberer is the Log of a hub that was given none: it numbers messages and keeps none.
type numberer struct {
	epoch string

	mu  sync.Mutex
	top uint64 // over all apps; guarded by mu
}

func newNumberer() *numberer { return &numberer{epoch: rand.Text()[:10]} }

// Append implements [Log].
func (n *numberer) Append(_ context.Context, _ *apps.App, ms []Message) (string, int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now().UnixNano()
	for i := range ms {
		m := &ms[i]
		m.Prev = n.top // of every chain: it is never too low
		n.top++
		m.Offset, m.Time = n.top, now
	}
	return n.epoch, len(ms), nil
}

// Since implements [Log].
func (n *numberer) Since(_ context.Context, q Query) (Page, error) {
	top := n.Top(q.App)
	return Page{Top: top, Floor: top.Offset}, nil
}

// Top implements [Log].
func (n *numberer) Top(string) Position {
	n.mu.Lock()
	defer n.mu.Unlock()
	return Position{n.epoch, n.top}
}

// Durability implements [Log].
func (n *numberer) Durability() string { return "none" }
