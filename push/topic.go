package push

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"ws-gateway/apps"
)

// A topic is an app that has subscribers on this node. It is made by the first subscription
// and, unless the apps file names the app, dropped with the last one.
type topic struct {
	hub  *Hub
	home map[string]*topic // where it is listed: hub.topics or hub.events
	name string
	key  Key

	roll sync.Mutex // held while somebody comes or goes, and guards their seats

	mu    sync.Mutex
	app   *apps.App // the rules of its last push or subscription; guarded by mu
	lanes []lane    // by shard; never changes, what is in them is guarded by mu
	subs  int       // over all lanes; guarded by mu
	top   uint64    // offset of the newest message given to the lanes; guarded by mu
	gone  bool      // dropped from the hub: look it up again; guarded by mu

	pushes, deliveries atomic.Uint64
}

// A lane is one app's subscribers on one shard.
type lane struct {
	topic   *topic
	shard   *shard
	subs    []*Subscription         // guarded by topic.mu
	members map[int64]*Subscription // first of each member's list; nil until a private message comes; guarded by topic.mu
	pending []*parcel               // not yet fanned out; guarded by shard.mu
	lagging atomic.Int64            // since when most subscribers lag, by Hub.now; 0: they do not
	visits  int                     // subscribers to be visited for pending; guarded by shard.mu
	load    int                     // deliveries of pending; guarded by shard.mu
}

// add enters s; topic.mu is held.
func (l *lane) add(s *Subscription) {
	s.index = len(l.subs)
	l.subs = append(l.subs, s)
	l.topic.subs++
	l.link(s)
}

// remove takes s out; topic.mu is held.
func (l *lane) remove(s *Subscription) {
	last := len(l.subs) - 1
	l.subs[s.index] = l.subs[last]
	l.subs[s.index].index = s.index
	l.subs[last] = nil
	l.subs = l.subs[:last]
	if cap(l.subs) > 64 && last < cap(l.subs)/4 { // a crowd that left takes its memory along
		l.subs = append(make([]*Subscription, 0, cap(l.subs)/2), l.subs...)
	}
	l.topic.subs--
	l.unlink(s)
}

func (l *lane) link(s *Subscription) {
	if l.members != nil && s.member > 0 {
		s.next = l.members[s.member]
		l.members[s.member] = s
	}
}

func (l *lane) unlink(s *Subscription) {
	if l.members == nil || s.member <= 0 {
		return
	}
	if first := l.members[s.member]; first != s {
		for first.next != s {
			first = first.next
		}
		first.next = s.next
	} else if s.next != nil {
		l.members[s.member] = s.next
	} else {
		delete(l.members, s.member)
	}
	s.next = nil
}

// of returns the first subscription of member; the others follow by next. topic.mu is held.
func (l *lane) of(member int64) *Subscription {
	if l.members == nil {
		l.members = make(map[int64]*Subscription)
		for _, s := range l.subs {
			l.link(s)
		}
	}
	return l.members[member]
}

// targets counts the subscriptions that m is for; topic.mu is held.
func (l *lane) targets(m *Message) int {
	if !m.Private() {
		return len(l.subs)
	}
	n := 0
	for s := l.of(m.Member); s != nil; s = s.next {
		n++
	}
	return n
}

// topic returns the topic of app in home, locked, making it if need be.
func (h *Hub) topic(home map[string]*topic, app *apps.App) *topic {
	for {
		h.mu.RLock()
		t := home[app.Name]
		h.mu.RUnlock()
		if t == nil {
			h.mu.Lock()
			if t = home[app.Name]; t == nil {
				t = &topic{hub: h, home: home, name: app.Name, app: app}
				t.lanes = make([]lane, len(h.shards))
				for i := range t.lanes {
					t.lanes[i].topic, t.lanes[i].shard = t, h.shards[i]
				}
				home[app.Name] = t
			}
			h.mu.Unlock()
		}
		t.mu.Lock()
		if !t.gone {
			t.app = app
			return t
		}
		t.mu.Unlock()
	}
}

// release drops t when nobody needs it, and unlocks it.
func (t *topic) release() {
	idle := t.subs == 0 && !t.app.Named
	t.mu.Unlock()
	if !idle {
		return
	}
	t.hub.mu.Lock() // hub.mu before topic.mu
	defer t.hub.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.subs > 0 || t.gone {
		return
	}
	t.gone = true
	delete(t.home, t.name)
	t.hub.pushes.Add(t.pushes.Load())
	t.hub.deliveries.Add(t.deliveries.Load())
}

// Refresh goes by the rules as they are now: what was kept only because they named an app is dropped
// if they name it no more. It is called after they have changed.
func (h *Hub) Refresh() {
	h.mu.RLock()
	topics := slices.Collect(maps.Values(h.topics))
	h.mu.RUnlock()
	for _, t := range topics {
		app, err := h.apps.Lookup(t.name)
		t.mu.Lock()
		if err != nil { // there is no such app any more: those who are still there go by what it was
			was := *t.app
			was.Named = false
			app = &was
		}
		t.app = app
		t.release()
	}
}

// deliver is where every message of the bus enters: it goes to the shards that have
// subscribers for it.
func (h *Hub) deliver(ctx context.Context, app *apps.App, ms []Message) {
	turn, _ := ctx.Value(turnKey{}).(*turn)
	receipts := turn.next(len(ms))
	h.mu.RLock()
	t := h.topics[app.Name]
	h.mu.RUnlock()
	if t == nil {
		if !app.Named {
			h.pushes.Add(uint64(len(ms)))
			return
		}
		t = h.topic(h.topics, app)
	} else if t.mu.Lock(); t.gone {
		t.mu.Unlock()
		h.pushes.Add(uint64(len(ms)))
		return
	}
	defer t.mu.Unlock()
	t.app, t.top = app, ms[len(ms)-1].Offset
	t.pushes.Add(uint64(len(ms)))
	mine := t.post(ms, receipts)
	if turn != nil {
		turn.shards = append(turn.shards, mine...)
	}
}

// post gives ms to the lanes that have subscribers for them. If it has a publisher, it counts
// in receipts, and returns the shards whose pass is left to it. t.mu is held.
func (t *topic) post(ms []Message, receipts []Receipt) (mine []*shard) {
	if t.subs == 0 {
		return nil
	}
	ps := make([]parcel, len(ms))
	now, slow := t.hub.now(), slowPolicies[t.app.Slow]
	for i := range ps {
		ps[i] = parcel{Message: &ms[i], came: now, slow: slow, key: &t.key, alone: t.alone(&ms[i])}
	}
	var room [fanOutEvery]*parcel
	for i := range t.lanes {
		l := &t.lanes[i]
		run, visits, load := room[:0], 0, 0
		for j := range ps {
			n := l.targets(&ms[j])
			if n == 0 {
				continue
			}
			run = append(run, &ps[j])
			visits, load = max(visits, n), load+n
			if receipts != nil {
				receipts[j].Subscribers += n
			}
		}
		if len(run) > 0 && l.shard.post(l, run, visits, load, receipts != nil) {
			mine = append(mine, l.shard)
		}
	}
	return mine
}

// alone reports whether one lane at most has subscribers for m; t.mu is held.
func (t *topic) alone(m *Message) bool {
	if len(t.lanes) == 1 {
		return true
	}
	lanes := 0
	for i := range t.lanes {
		if t.lanes[i].targets(m) > 0 {
			lanes++
		}
	}
	return lanes <= 1
}

var slowPolicies = map[string]SlowPolicy{"drop_oldest": SlowDropOldest, "latest": SlowLatest} // else SlowClose
