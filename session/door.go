package session

import (
	"errors"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

// What a protocol other than the native one does with its session, beside Become and Close.

// ErrTooManySubscriptions is returned by [Session.Subscribe] at the limit of
// Options.MaxSubscriptions.
var ErrTooManySubscriptions = errors.New("too many subscriptions")

// Send sends f to the client. The error is [ErrClosed], or [ErrSlow], which has ended the
// session.
func (s *Session) Send(f *push.Frame) error {
	err := s.conn.Send(f)
	s.slow(err)
	return err
}

// Answer is Send for the answer to a message, in the function that [Protocol.Receive]
// returned: it may leave only when that has returned or waits, together with others. Elsewhere
// Flush has to follow.
func (s *Session) Answer(f *push.Frame) error {
	err := s.conn.Queue(f)
	s.slow(err)
	return err
}

// Wait calls f, which waits for something else than the script, as [Waiter.Wait] does.
func (s *Session) Wait(f func()) { waiting(s.conn, f) }

// Subscribe subscribes s to app. Messages are held back until start is called, once, so that
// an answer to the client can go first; start is nil if s was subscribed already. The errors
// are those of [apps.Registry.Authorize], ErrTooManySubscriptions and ErrClosed.
func (s *Session) Subscribe(app string) (start func(), err error) {
	start, err = s.subscribeHeld(app)
	if s.gateway.opts.Tail.Active() {
		s.showSubscribed(app, err)
	}
	return start, err
}

func (s *Session) subscribeHeld(app string) (start func(), err error) {
	o := &s.gateway.opts
	s.mu.Lock()
	defer s.mu.Unlock()
	rules, err := o.Apps.Authorize(apps.Member{ID: s.member, Roles: s.roles}, apps.Subscribe, app)
	switch {
	case err != nil:
		return nil, err
	case s.gone:
		return nil, ErrClosed
	case find(s.subs, app) >= 0:
		return nil, nil
	case len(s.subs) >= o.MaxSubscriptions:
		o.Metrics.Refused(stat.ReasonSubscriptions)
		return nil, ErrTooManySubscriptions
	}
	sub, _ := o.Hub.Subscribe(rules, s, push.SubscribeOptions{Member: s.member, Encoding: s.protocol.Encoding(), Shard: s.id})
	s.subs = append(s.subs, sub)
	return func() {
		if _, ok := sub.Start(); !ok {
			s.Close(CloseInsufficientState)
		}
	}, nil
}

// Unsubscribe ends the subscription to app and reports whether there was one.
func (s *Session) Unsubscribe(app string) bool { return s.drop(app) }
