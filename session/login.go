package session

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

// warnBefore is how long before its token expires a session is told.
const warnBefore = 30 * time.Second

// authenticate answers an auth message: the first frame, or a later one.
func (s *Session) authenticate(c command) (wait func()) {
	s.mu.Lock()
	s.asked = true
	state, now := s.state, s.member
	s.mu.Unlock()
	o := &s.gateway.opts
	switch {
	case c.member < 0 && state == known, c.member > 0 && state == known && c.member != now:
		s.reply("auth", reply{code: 400, message: "already authenticated", id: c.id, about: about{member: c.member}})
	case c.member < 0 && o.DenyAnonymous:
		s.refuse(c, state, errNoAnonymous)
	case c.member < 0:
		s.becomeAnonymous()
		o.Metrics.Authenticated(stat.AuthAnonymous, 0)
		s.reply("auth", reply{code: 200, message: "hello stranger", id: c.id})
	default:
		claim := Credentials{Member: c.member, Token: c.token, Remote: s.conn.Remote()}
		if q, ok := o.Auth.(Quick); o.Auth != nil && (!ok || !q.Quick(claim)) {
			return func() { s.Wait(func() { s.verifyInTime(c, claim, state) }) }
		}
		s.verify(context.Background(), c, claim, state)
	}
	return nil
}

// The causes of an [ErrUnauthorized] that no authenticator has returned.
var (
	errNobody  = fmt.Errorf("%w: this gateway has no members", ErrUnauthorized)
	errTooMany = fmt.Errorf("%w: too many refused logins from this address", ErrUnauthorized)
	errExpired = fmt.Errorf("%w: token is expired", ErrUnauthorized)
	errRevoked = fmt.Errorf("%w: member is revoked", ErrUnauthorized)
)

// errVoid is returned to a login whose member was disconnected meanwhile.
var errVoid = errors.New("login is void")

// verifyInTime is verify until the client's deadline.
func (s *Session) verifyInTime(c command, claim Credentials, state kind) {
	left := s.gateway.opts.AuthDeadline
	if state == pending { // the deadline counts from the upgrade
		left -= time.Duration(s.gateway.now()-s.opened) * time.Millisecond // right although both start over after 49 days
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	s.verify(ctx, c, claim, state)
}

// verify asks the authenticator and answers the client.
func (s *Session) verify(ctx context.Context, c command, claim Credentials, state kind) {
	o := &s.gateway.opts
	began := time.Now()
	err := errNobody
	allowed := o.Failures == nil || o.Failures.Allowed(claim.Remote) // also for guesses over one connection
	if !allowed {
		err = errTooMany
	} else if o.Auth != nil {
		for err = errVoid; err == errVoid; { // what was proved before a disconnect counts no more
			err = s.prove(ctx, claim)
		}
	}
	took := time.Since(began)
	switch {
	case err == nil:
		result := stat.AuthAccepted
		if state == known {
			result = stat.AuthRenewed
		}
		o.Metrics.Authenticated(result, took)
		s.reply("auth", reply{code: 200, message: "hello " + strconv.FormatInt(claim.Member, 10), id: c.id})
		s.arm()
		if state == known { // with other roles, perhaps
			s.reauthorize()
		}
	case errors.Is(err, ErrClosed): // nobody is there to be answered
	case errors.Is(err, ErrUnauthorized):
		o.Metrics.Authenticated(stat.AuthUnauthorized, took)
		o.Logger.Debug("token refused", "session", s.id, "member", claim.Member, "remote", claim.Remote, "err", err)
		if !allowed {
			o.Metrics.Refused(stat.ReasonAuthFailures)
		} else if o.Failures != nil {
			o.Failures.Failed(claim.Remote)
		}
		s.refuse(c, state, err)
	default:
		o.Metrics.Authenticated(stat.AuthUnavailable, took)
		s.reply("auth", reply{code: 503, message: "auth unavailable", id: c.id, about: about{member: claim.Member, err: err}})
		if state == pending { // the reason spreads those who come back over ten seconds
			s.conn.Close(CloseTryLater, "retry in "+strconv.Itoa(1+rand.IntN(10))+" s")
		}
	}
}

// prove asks the authenticator once, and makes s who it says to be.
func (s *Session) prove(ctx context.Context, who Credentials) error {
	g := s.gateway
	c := g.claim(who.Member)
	defer g.unclaim(who.Member, c)
	began := time.Now()
	id, err := g.opts.Auth.Authenticate(ctx, who)
	if err != nil {
		return err
	}
	if !id.Expires.IsZero() && !began.Before(id.Expires) {
		return errExpired
	}
	return s.become(who.Member, id, c)
}

// refuse answers 401. A session that was somebody stays so; a new one is anonymous from now
// on, or closed where nobody may be. The reason err is not for the client.
func (s *Session) refuse(c command, state kind, err error) {
	if state == pending && !s.gateway.opts.DenyAnonymous {
		s.becomeAnonymous()
	}
	s.reply("auth", reply{code: 401, message: "unauthorized", id: c.id, about: about{member: c.member, err: err}})
	if state == pending && s.gateway.opts.DenyAnonymous {
		s.Close(CloseUnauthorized)
	}
}

// becomeAnonymous ends the wait for an auth message. It does nothing to a session that is
// anonymous.
func (s *Session) becomeAnonymous() {
	s.deadline(0, nil)
	s.become(apps.Anonymous, Identity{}, nil)
}

// Become makes an anonymous session the given member's, or renews who it is: what a protocol
// does that authenticates its clients by itself. It reports whether the member may enter.
func (s *Session) Become(member int64, roles []string) bool {
	ok := s.become(member, Identity{Roles: roles}, nil) == nil
	if s.gateway.opts.Tail.Active() {
		s.showBecome(member, ok)
	}
	return ok
}

// become records who the session is from now on, by the right of c as in [Gateway.enter]. On
// error, one of enter's, or ErrClosed when the connection is gone, nothing is changed.
func (s *Session) become(id int64, who Identity, c *claim) error {
	if id > 0 {
		s.mu.Lock()
		listed := s.state == known
		s.mu.Unlock()
		if !listed {
			oldest, err := s.gateway.enter(s, id, c)
			if err != nil {
				return err
			}
			if oldest != nil {
				s.gateway.opts.Metrics.Refused(stat.ReasonMemberConnections)
				oldest.Close(CloseTooManyConnections)
			}
		}
	}
	state := anonymous
	if id > 0 {
		state = known
	}
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		s.gateway.exit(s) // Closed may have been before enter
		return ErrClosed
	}
	s.gateway.counts[s.state].Add(-1)
	s.gateway.counts[state].Add(1)
	s.state, s.member, s.roles, s.warned, s.expires = state, id, who.Roles, false, 0
	if !who.Expires.IsZero() {
		s.expires = who.Expires.UnixMilli()
	}
	subs := append([]*push.Subscription(nil), s.subs...)
	s.mu.Unlock()
	for _, sub := range subs {
		sub.SetMember(id)
	}
	return nil
}

// arm sets the timer to what comes next in the life of the session's token: the warning, or
// its end.
func (s *Session) arm() {
	s.mu.Lock()
	expires, warned := s.expires, s.warned
	s.mu.Unlock()
	if expires == 0 {
		s.deadline(0, nil)
		return
	}
	left := time.Until(time.UnixMilli(expires))
	if !warned {
		left -= warnBefore
	}
	if left > 0 {
		s.deadline(left, s.arm)
		return
	}
	if warned {
		s.Close(CloseTokenExpired)
		return
	}
	s.mu.Lock()
	s.warned = true
	s.mu.Unlock()
	s.reply("auth", reply{code: 401, message: "token expiring"})
	s.arm()
}
