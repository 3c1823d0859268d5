// Package presence counts who is in which app. [Memory] does so for one node.
package presence

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"sync"

	"ws-gateway/apps"
	"ws-gateway/push"
)

// Memory is a [push.Presence] of what its callers tell it. NewMemory makes one.
type Memory struct {
	seed    maphash.Seed
	stripes [64]stripe

	mu       sync.RWMutex
	watchers []*func(push.Event) // guarded by mu; replaced, never changed
}

var _ push.Presence = (*Memory)(nil)

// A stripe is a part of the apps.
type stripe struct {
	mu    sync.Mutex       // held while an event of these apps is delivered
	rooms map[string]*room // by app; guarded by mu
}

// A room is who is in one app.
type room struct {
	members   map[int64]int // connections of each
	anonymous int
}

// NewMemory returns a Memory that has nobody in it.
func NewMemory() *Memory { return &Memory{seed: maphash.MakeSeed()} }

func (p *Memory) stripe(app string) *stripe {
	return &p.stripes[maphash.String(p.seed, app)%uint64(len(p.stripes))]
}

// Join implements [push.Presence].
func (p *Memory) Join(app string, member int64) {
	s := p.stripe(app)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[app]
	if r == nil {
		if s.rooms == nil {
			s.rooms = make(map[string]*room)
		}
		r = &room{members: make(map[int64]int)}
		s.rooms[app] = r
	}
	if member == apps.Anonymous {
		r.anonymous++
		return
	}
	r.members[member]++
	if r.members[member] == 1 {
		p.tell(push.Event{App: app, Member: member, Joined: true})
	}
}

// Leave implements [push.Presence].
func (p *Memory) Leave(app string, member int64) {
	s := p.stripe(app)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[app]
	switch {
	case member == apps.Anonymous:
		r.anonymous--
	case r.members[member] > 1:
		r.members[member]--
	default:
		delete(r.members, member)
		p.tell(push.Event{App: app, Member: member})
	}
	if len(r.members) == 0 && r.anonymous == 0 {
		delete(s.rooms, app)
	}
}

func (p *Memory) tell(e push.Event) {
	p.mu.RLock()
	watchers := p.watchers
	p.mu.RUnlock()
	for _, deliver := range watchers {
		(*deliver)(e)
	}
}

// Members implements [push.Presence]. Which members it leaves out beyond limit is arbitrary.
func (p *Memory) Members(_ context.Context, app string, limit int) (push.Attendance, error) {
	s := p.stripe(app)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[app]
	if r == nil {
		return push.Attendance{}, nil
	}
	n := len(r.members)
	if limit > 0 {
		n = min(n, limit)
	}
	a := push.Attendance{Members: make([]push.Attendant, 0, n), Omitted: len(r.members) - n, Anonymous: r.anonymous}
	for member, connections := range r.members {
		if len(a.Members) == n {
			break
		}
		a.Members = append(a.Members, push.Attendant{Member: member, Connections: connections})
	}
	slices.SortFunc(a.Members, func(x, y push.Attendant) int { return cmp.Compare(x.Member, y.Member) })
	return a, nil
}

// Watch implements [push.Presence].
func (p *Memory) Watch(deliver func(push.Event)) (stop func()) {
	entry := &deliver
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers = append(slices.Clip(p.watchers), entry)
	return func() {
		for i := range p.stripes { // nobody is inside deliver once all stripes were held
			p.stripes[i].mu.Lock()
			defer p.stripes[i].mu.Unlock()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.watchers = slices.DeleteFunc(slices.Clone(p.watchers), func(e *func(push.Event)) bool { return e == entry })
	}
}
