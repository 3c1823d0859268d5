package session

import (
	"context"
	"slices"
	"strconv"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

// subscribe answers {"app":…}, with or without a position or a number of messages to start from.
func (s *Session) subscribe(c command) {
	g := s.gateway
	s.mu.Lock()
	app, err := g.opts.Apps.Authorize(apps.Member{ID: s.member, Roles: s.roles}, apps.Subscribe, c.app)
	if err != nil {
		s.mu.Unlock()
		s.denied(c, err)
		return
	}
	if c.events && !g.opts.Hub.Present(app) {
		s.mu.Unlock()
		s.denied(command{op: "presence", app: c.app, id: c.id}, push.ErrNoPresence)
		return
	}
	o := push.SubscribeOptions{Member: s.member, Encoding: s.protocol.Encoding(), Shard: s.id}
	if c.has&hasPosition != 0 {
		o.Encoding = positioned
	}
	if c.events {
		o.Events = events
	}
	i := find(s.subs, c.app)
	if i >= 0 && c.position == nil && c.last == 0 {
		sub := s.subs[i]
		s.mu.Unlock()
		s.again(c, sub)
		return
	}
	if i < 0 && len(s.subs) >= g.opts.MaxSubscriptions {
		s.mu.Unlock()
		g.opts.Metrics.Refused(stat.ReasonSubscriptions)
		s.reply("subscribe", reply{code: 400, message: "too many subscriptions", id: c.id, about: about{app: c.app}})
		return
	}
	var old *push.Subscription
	sub, top := g.opts.Hub.Subscribe(app, s, o)
	if i >= 0 {
		old, s.subs[i] = s.subs[i], sub
	} else {
		s.subs = append(s.subs, sub)
	}
	up := &catchUp{session: s, sub: sub, encoding: o.Encoding, missed: push.Range{App: c.app, Member: s.member, After: top, Upto: top.Offset}}
	gone := s.gone
	s.mu.Unlock()
	if gone {
		sub.Close()
		return
	}
	if old != nil {
		sub.Replace(old)
	}

	r := reply{code: 200, message: "subscribe " + c.app + " success", id: c.id, about: about{app: c.app}}
	switch {
	case c.position != nil:
		recovered := up.resume(*c.position)
		r.more = appendPosition(nil, top)
		r.more = strconv.AppendBool(append(r.more, `,"recovered":`...), recovered)
		if !recovered {
			r.err = errNotRecovered
		}
	case c.last > 0:
		up.newest(c.last)
	case c.has&hasPosition != 0:
		r.more = appendPosition(nil, top)
	}
	s.answered("subscribe", r)
	s.Queue(r.frame())
	up.run()
}

// again answers a subscription that is there already. One that now asks for positions gets
// them from where it is.
func (s *Session) again(c command, sub *push.Subscription) {
	r := reply{code: 200, message: "subscribe " + c.app + " success", id: c.id, about: about{app: c.app}}
	s.answered("subscribe", r)
	if c.has&hasPosition == 0 {
		s.Deliver(r.frame())
	} else {
		sub.SetEncoding(positioned, func(at push.Position) {
			r.more = appendPosition(nil, at)
			s.Deliver(r.frame())
		})
	}
	if c.events {
		sub.Watch(events)
	}
}

func appendPosition(dst []byte, p push.Position) []byte {
	dst = append(dst, `,"position":{"epoch":`...)
	dst = appendQuote(dst, p.Epoch)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendUint(dst, p.Offset, 10)
	return append(dst, '}')
}

// denied answers a subscribe or a push without right. Absent and forbidden look the same.
func (s *Session) denied(c command, err error) {
	s.gateway.opts.Logger.Debug("denied", "session", s.id, "member", s.Member(), "op", c.op, "app", c.app, "err", err)
	s.reply(c.op, reply{code: s.gateway.opts.ForbiddenCode, message: c.op + " " + c.app + " forbidden", id: c.id, about: about{app: c.app, err: err, denied: true}})
}

func (s *Session) unsubscribe(c command) {
	s.drop(c.app)
	s.reply("unsubscribe", reply{code: 200, message: "unsubscribe " + c.app + " success", id: c.id, about: about{app: c.app}})
}

// drop ends the subscription to app and reports whether there was one.
func (s *Session) drop(app string) bool {
	s.mu.Lock()
	i := find(s.subs, app)
	if i < 0 {
		s.mu.Unlock()
		return false
	}
	sub := s.subs[i]
	s.subs = slices.Delete(s.subs, i, i+1)
	s.mu.Unlock()
	sub.Close()
	return true
}

// push carries out {"op":"push"}: a member pushes, where the app's rules allow it.
func (s *Session) push(c command) {
	who := s.who()
	app, err := s.gateway.opts.Apps.Authorize(who, apps.Push, c.app)
	if err == nil && app.Private {
		err = errPrivate
	}
	if err != nil {
		s.denied(c, err)
		return
	}
	_, err = s.gateway.opts.Hub.Publish(context.Background(), push.Message{App: c.app, Member: push.Everybody, From: who.ID, Text: c.text})
	if err != nil {
		code, message := push.Answer(err)
		s.reply("push", reply{code: code, message: message, id: c.id, about: about{app: c.app}})
		return
	}
	s.reply("push", reply{code: 200, message: "push " + c.app + " success", id: c.id, about: about{app: c.app}})
}

// maxAttendants is how many members one reply lists: a rule of the protocol, without a setting. A
// backend sees them all.
const maxAttendants = 1000

// presence answers {"op":"presence"}: who is there.
func (s *Session) presence(c command) {
	who := s.who()
	app, err := s.gateway.opts.Apps.Authorize(who, apps.Presence, c.app)
	if err == nil && !s.gateway.opts.Hub.Present(app) {
		err = push.ErrNoPresence
	}
	if err != nil {
		s.denied(c, err)
		return
	}
	a, err := s.gateway.opts.Hub.Members(context.Background(), app, maxAttendants)
	if err != nil {
		s.gateway.opts.Logger.Warn("read presence", "app", c.app, "err", err)
		s.reply("presence", reply{code: 503, message: "presence unavailable", id: c.id, about: about{app: c.app, err: err}})
		return
	}
	s.reply("presence", reply{code: 200, message: "presence " + c.app, id: c.id, more: a.AppendJSON(nil), about: about{app: c.app}})
}

// reauthorize tells the subscriptions their new rules, and drops those that are no longer allowed.
func (s *Session) reauthorize() {
	s.mu.Lock()
	who := apps.Member{ID: s.member, Roles: s.roles}
	subs := slices.Clone(s.subs)
	s.mu.Unlock()
	var lost []string
	for _, sub := range subs {
		app, err := s.gateway.opts.Apps.Authorize(who, apps.Subscribe, sub.App())
		if err != nil {
			lost = append(lost, sub.App())
		} else {
			sub.SetRules(app)
		}
	}
	for _, app := range lost {
		if s.drop(app) && s.protocol == (native{}) {
			s.denied(command{op: "subscribe", app: app}, errRuleChanged)
		}
	}
}

var (
	errRuleChanged = errCommand("the rules have changed")
	errPrivate     = errCommand("a member cannot push to a private app")
)

func find(subs []*push.Subscription, app string) int {
	return slices.IndexFunc(subs, func(sub *push.Subscription) bool { return sub.App() == app })
}
