package push

import (
	"net/http"
	"time"

	"ws-gateway/stat"
)

// A slow subscriber never holds back anybody: it is closed, or its frames are dropped. But
// when most of an app's subscribers lag, it is the app's publishers who push more than the
// network or this machine can carry. They are told so, with 429, before any subscriber's
// queue is full.

const (
	crowd   = 8  // fewer subscribers of a lane say nothing about the publishers
	sampled = 16 // subscribers of a lane that are asked whether they lag
)

// admit refuses n pushes to app while accepted messages wait too long for their fan-out, or
// most subscribers have been lagging for too long. Else it reserves their place: the caller
// gives load back to h.reserved once they are with the shards.
func (h *Hub) admit(app string, n int) (load int64, err error) {
	h.mu.RLock()
	t := h.topics[app]
	h.mu.RUnlock()
	reserved := time.Duration(h.reserved.Load() / int64(len(h.shards)))
	for _, s := range h.shards {
		if s.backlog()+reserved*time.Duration(s.each.Load()) > h.opts.MaxQueueTime {
			return 0, h.overloaded("too many pushes: subscribers are being served")
		}
	}
	if t == nil {
		return 0, nil
	}
	for i := range t.lanes {
		if t.lanes[i].congested(h.opts.MaxQueueTime) {
			return 0, h.overloaded("too many pushes to this app: its subscribers do not keep up")
		}
	}
	t.mu.Lock()
	load = int64(n * t.subs)
	t.mu.Unlock()
	h.reserved.Add(load)
	return load, nil
}

func (h *Hub) overloaded(message string) error {
	h.opts.Metrics.Refused(stat.ReasonPushBacklog)
	return &RefusedError{Status: http.StatusTooManyRequests, Message: message, RetryAfter: time.Second}
}

// observe notes after a pass over subs whether most of them lag.
func (l *lane) observe(subs []*Subscription) {
	switch lag := mostLag(subs); {
	case !lag:
		l.lagging.Store(0)
	case l.lagging.Load() == 0:
		l.lagging.Store(l.topic.hub.now())
	}
}

// congested reports whether most subscribers have been lagging for longer than limit, and
// still are.
func (l *lane) congested(limit time.Duration) bool {
	since := l.lagging.Load()
	if since == 0 || time.Duration(l.topic.hub.now()-since) <= limit {
		return false
	}
	l.topic.mu.Lock()
	subs := l.subs
	var some []*Subscription
	for i := 0; i < len(subs); i += max(1, len(subs)/sampled) {
		some = append(some, subs[i])
	}
	l.topic.mu.Unlock()
	if mostLag(some) {
		return true
	}
	l.lagging.Store(0)
	return false
}

// mostLag asks some of subs.
func mostLag(subs []*Subscription) bool {
	if len(subs) < crowd {
		return false
	}
	asked, lag := 0, 0
	for i := 0; i < len(subs); i += max(1, len(subs)/sampled) {
		asked++
		if s, ok := subs[i].to.(Lagging); ok && s.Lagging() {
			lag++
		}
	}
	return lag > asked/2
}
