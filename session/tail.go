package session

import (
	"errors"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

// What sessions show to a [stat.Tail]. Whoever calls show has asked whether anybody watches.

// An about is what a reply is about and the client is not told.
type about struct {
	app    string
	member int64 // who the client says it is; 0: who it is
	err    error // why it was refused
	denied bool  // by the rules of app
}

var (
	errNotRecovered = errCommand("not recovered: the log cannot prove that it has all that was missed")
	errMixed        = errCommand("an auth message has member_id and token, and no op or app")
	errIncomplete   = errCommand("unknown op, or without what the op needs")
	errNoAuth       = errCommand("not an auth message")
	errScript       = errCommand("the door's script says so")
	errSilent       = errCommand("none came in time")
	errSyntax       = errCommand("not strict JSON")
	errNoAnonymous  = errCommand("anonymous clients are not allowed")
)

// show shows that a command of the kind op was answered with r.
func (s *Session) show(op string, r reply) {
	e := stat.Event{
		Kind: stat.EventCommand, Session: s.id, Member: r.member, Remote: s.conn.Remote(),
		Op: op, App: r.app, Code: r.code, Message: r.message,
	}
	if e.Member == 0 {
		e.Member = s.Member()
	}
	switch {
	case op == "auth":
		e.Kind, e.Op, e.Connected = stat.EventAuth, "", s.connected()
	case r.denied:
		e.Kind = stat.EventDenied
	}
	e.Rule, e.Reason = because(r.err)
	s.gateway.opts.Tail.Event(e)
}

// because returns the rule that err comes from, if it does, and what it says about the cause.
func because(err error) (rule, reason string) {
	var (
		denied  *apps.DeniedError
		command errCommand
	)
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &denied):
		return denied.Rule, denied.Reason
	case errors.As(err, &command):
		return "", string(command)
	}
	return "", err.Error()
}

// malformed returns what may be said about a frame that parseCommand refused with err: what a
// JSON decoder says may quote the client.
func malformed(err error) error {
	if errors.As(err, new(errCommand)) {
		return err
	}
	return errSyntax
}

// showSubscribed shows that a protocol other than the native one has subscribed s to app, or
// why it could not.
func (s *Session) showSubscribed(app string, err error) {
	r := reply{code: 200, about: about{app: app, err: err}}
	switch {
	case errors.As(err, new(*apps.DeniedError)):
		r.code, r.denied = s.gateway.opts.ForbiddenCode, true
	case err != nil:
		r.code = 400
	}
	s.show("subscribe", r)
}

// showBecome shows that a protocol other than the native one has made s the session of member,
// unless the member may not enter.
func (s *Session) showBecome(member int64, ok bool) {
	r := reply{code: 200, about: about{member: member, err: errScript}}
	if !ok {
		r.code, r.err = 401, errRevoked
	}
	s.show("auth", r)
}

// showClosed shows the end of s, who was member and had subs.
func (s *Session) showClosed(member int64, subs []*push.Subscription, code CloseCode) {
	if !s.gateway.opts.Tail.Active() {
		return
	}
	names := make([]string, len(subs))
	for i, sub := range subs {
		names[i] = sub.App()
	}
	s.gateway.opts.Tail.Event(stat.Event{
		Kind: stat.EventClose, Session: s.id, Member: member, Remote: s.conn.Remote(), Connected: s.connected(),
		Apps: names, Code: int(code), Message: code.Reason(),
	})
}

// connected returns when s began.
func (s *Session) connected() time.Time {
	return s.gateway.start.Add(time.Duration(s.opened) * time.Millisecond)
}
