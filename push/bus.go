package push

import (
	"context"
	"hash/maphash"
	"slices"
	"sync"

	"ws-gateway/apps"
)

// A LocalBus is the bus of a single node: it hands messages over in memory. What it makes
// of concurrent publishers of one app is one order, that of the log.
type LocalBus struct {
	log  Log
	seed maphash.Seed

	// An app's stripe is held while its messages are appended and handed over.
	stripes [64]sync.Mutex

	mu   sync.RWMutex
	subs []*func(context.Context, *apps.App, []Message) // guarded by mu; replaced, never changed
}

var _ Bus = (*LocalBus)(nil)

// NewLocalBus returns a bus that numbers and keeps messages in log.
func NewLocalBus(log Log) *LocalBus {
	return &LocalBus{log: log, seed: maphash.MakeSeed()}
}

// Publish implements [Bus].
func (b *LocalBus) Publish(ctx context.Context, app *apps.App, ms []Message) (epoch string, n int, err error) {
	stripe := &b.stripes[maphash.String(b.seed, app.Name)%uint64(len(b.stripes))]
	stripe.Lock()
	defer stripe.Unlock()
	epoch, n, err = b.log.Append(ctx, app, ms)
	if n == 0 {
		return epoch, n, err
	}
	b.mu.RLock()
	subs := b.subs
	b.mu.RUnlock()
	for _, deliver := range subs {
		(*deliver)(ctx, app, ms[:n])
	}
	return epoch, n, err
}

// Subscribe implements [Bus].
func (b *LocalBus) Subscribe(deliver func(context.Context, *apps.App, []Message)) (stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := &deliver
	b.subs = append(slices.Clip(b.subs), entry)
	return func() {
		for i := range b.stripes { // nobody is inside deliver once all stripes were held
			b.stripes[i].Lock()
			defer b.stripes[i].Unlock()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.subs = slices.DeleteFunc(slices.Clone(b.subs), func(e *func(context.Context, *apps.App, []Message)) bool { return e == entry })
	}
}
