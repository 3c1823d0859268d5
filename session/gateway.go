package session

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/stat"
)

// Options configure a [Gateway]. Hub is needed; the zero value of everything else works.
type Options struct {
	Hub      *push.Hub
	Apps     *apps.Registry // nil: the default rules
	Auth     Authenticator  // nil: every client is anonymous
	Failures Failures       // limits guessing; nil: nothing does
	Logger   *slog.Logger   // nil: discard
	Metrics  *stat.Metrics  // nil: none
	Tail     *stat.Tail     // is shown what sessions do; nil: nothing is

	AuthDeadline     time.Duration // from the upgrade to the auth message; 0: 10 s
	DenyAnonymous    bool          // a client that is not a member is closed with 4502
	ForbiddenCode    int           // of the reply to a subscribe without right; 0: 403
	MaxSubscriptions int           // of one session; 0: 128
	MaxPerMember     int           // sessions; one more closes the oldest with 4504; 0: no limit
	CommandRate      float64       // a second, per session; beyond it close 4013; 0: no limit
	CommandBurst     int           // commands at once; 0: 256
}

// Failures counts refused tokens by address, and says which address has had enough.
type Failures interface {
	Allowed(netip.Addr) bool
	Failed(netip.Addr)
}

// A Gateway has every live session of a node. Its methods may be called concurrently.
type Gateway struct {
	opts  Options
	ids   atomic.Uint64
	start time.Time

	counts [kinds]atomic.Int64

	mu       sync.Mutex
	sessions []*Session           // in no order; guarded by mu
	backends map[Backend]struct{} // guarded by mu
	draining bool                 // who is opened now has come too late for Drain to see; guarded by mu
	members  map[int64]*Session   // the newest session of each; older ones follow by older; guarded by mu
	claims   map[int64]*claim     // logins under way, by member; guarded by mu
	revoked  map[int64]time.Time  // members that are refused, and until when; guarded by mu
	sweep    int                  // size of revoked at which the past ones are dropped; guarded by mu
	empty    chan struct{}        // closed when there are no sessions and backends; nil while nobody waits; guarded by mu
}

// NewGateway returns a gateway without sessions.
func NewGateway(opts Options) *Gateway {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.AuthDeadline = cmp.Or(opts.AuthDeadline, 10*time.Second)
	opts.ForbiddenCode = cmp.Or(opts.ForbiddenCode, 403)
	opts.MaxSubscriptions = cmp.Or(opts.MaxSubscriptions, 128)
	opts.CommandBurst = cmp.Or(opts.CommandBurst, 256)
	return &Gateway{opts: opts, start: time.Now(), members: make(map[int64]*Session)}
}

// Open starts a session in the native protocol on a new connection.
func (g *Gateway) Open(c Conn) *Session {
	s := g.open(c, native{})
	s.deadline(g.opts.AuthDeadline, s.late)
	return s
}

// OpenProtocol starts a session in another protocol: a door. Such a session is anonymous
// until the protocol says otherwise, and the time it may take to is the protocol's business.
// open is what the protocol does first, before any Receive; if it panics, the session is over.
func (g *Gateway) OpenProtocol(c Conn, p Protocol, open func(*Session)) *Session {
	s := g.open(c, p)
	opened := false
	defer func() {
		if !opened {
			s.Closed(CloseInternal) // the transport was not given a handler to tell
		}
	}()
	s.becomeAnonymous()
	open(s)
	opened = true
	return s
}

func (g *Gateway) open(c Conn, p Protocol) *Session {
	s := &Session{conn: c, gateway: g, protocol: p, id: g.ids.Add(1), member: apps.Anonymous, opened: g.now()}
	s.tokens = float32(g.opts.CommandBurst)
	g.mu.Lock()
	s.index = len(g.sessions)
	g.sessions = append(g.sessions, s)
	draining := g.draining
	g.mu.Unlock()
	g.counts[pending].Add(1)
	if g.opts.Tail.Active() {
		g.opts.Tail.Event(stat.Event{Kind: stat.EventConnect, Session: s.id, Remote: c.Remote()})
	}
	if draining {
		s.Close(CloseServiceRestart)
	}
	return s
}

// now returns the milliseconds since the gateway started.
func (g *Gateway) now() uint32 { return uint32(time.Since(g.start).Milliseconds()) }

// remove takes s out of the books.
func (g *Gateway) remove(s *Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := len(g.sessions) - 1
	g.sessions[s.index] = g.sessions[last]
	g.sessions[s.index].index = s.index
	g.sessions[last] = nil
	g.sessions = g.sessions[:last]
	g.leave(s)
	g.left()
}

// left tells Drain when the last session or backend is gone; g.mu is held.
func (g *Gateway) left() {
	if g.empty != nil && len(g.sessions)+len(g.backends) == 0 {
		close(g.empty)
		g.empty = nil
	}
}

// A claim is what the logins of one member under way share.
type claim struct {
	logins int  // guarded by Gateway.mu
	void   bool // Disconnect was called: whatever was proved before counts no more; guarded by Gateway.mu
}

// claim begins a login of member, which unclaim ends.
func (g *Gateway) claim(member int64) *claim {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.claims[member]
	if c == nil {
		c = new(claim)
		if g.claims == nil {
			g.claims = make(map[int64]*claim)
		}
		g.claims[member] = c
	}
	c.logins++
	return c
}

func (g *Gateway) unclaim(member int64, c *claim) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.logins--; c.logins == 0 && g.claims[member] == c {
		delete(g.claims, member)
	}
}

// enter makes s the newest session of member, by the right of c, or of the session's protocol if
// that is nil. If there are too many, it takes out and returns the oldest, which is to be closed:
// that one no longer counts, however long closing takes. The error is errRevoked, or errVoid.
func (g *Gateway) enter(s *Session, member int64, c *claim) (oldest *Session, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if until, revoked := g.revoked[member]; revoked {
		if time.Now().Before(until) {
			return nil, errRevoked
		}
		delete(g.revoked, member)
	}
	if c != nil && c.void {
		return nil, errVoid
	}
	g.leave(s) // a script and a backend may say at once who it is
	s.listed = member
	s.older = g.members[member]
	g.members[member] = s
	if g.opts.MaxPerMember <= 0 {
		return nil, nil
	}
	n := 0
	for o := s; o != nil; o = o.older {
		n++
		oldest = o
	}
	if n <= g.opts.MaxPerMember {
		return nil, nil
	}
	g.leave(oldest)
	return oldest, nil
}

// exit undoes enter.
func (g *Gateway) exit(s *Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leave(s)
}

// leave is exit; g.mu is held.
func (g *Gateway) leave(s *Session) {
	if s.listed == 0 {
		return
	}
	if first := g.members[s.listed]; first != s {
		for first.older != s {
			first = first.older
		}
		first.older = s.older
	} else if s.older != nil {
		g.members[s.listed] = s.older
	} else {
		delete(g.members, s.listed)
	}
	s.listed, s.older = 0, nil
}

// Counts returns how many sessions there are: members, anonymous ones, and pending ones that
// did not yet say who they are.
func (g *Gateway) Counts() (members, anonymous_, pending_ int) {
	return int(g.counts[known].Load()), int(g.counts[anonymous].Load()), int(g.counts[pending].Load())
}

// Fill is a [stat.Source].
func (g *Gateway) Fill(s *stat.Snapshot) {
	s.Sessions.Members, s.Sessions.Anonymous, s.Sessions.Pending = g.Counts()
	s.Sessions.Total = s.Sessions.Members + s.Sessions.Anonymous + s.Sessions.Pending
}

// all returns every session there is now.
func (g *Gateway) all() []*Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.sessions)
}

// of returns the sessions of member.
func (g *Gateway) of(member int64) (out []*Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for s := g.members[member]; s != nil; s = s.older {
		out = append(out, s)
	}
	return out
}

// Disconnect closes every session of member with code and returns how many there were. A login
// under way is proved again, as if it came later.
func (g *Gateway) Disconnect(member int64, code CloseCode) int {
	g.mu.Lock()
	if c := g.claims[member]; c != nil { // has not entered yet
		c.void = true
		delete(g.claims, member)
	}
	g.mu.Unlock()
	sessions := g.of(member)
	for _, s := range sessions {
		s.conn.Close(code, code.Reason())
	}
	return len(sessions)
}

// Revoke closes every session of member with 4503, refuses the member for d, whatever its
// authenticator says, and returns how many sessions there were. With d 0 the member may come
// back: an earlier Revoke is undone.
func (g *Gateway) Revoke(member int64, d time.Duration) int {
	now := time.Now()
	g.mu.Lock()
	if len(g.revoked) >= g.sweep { // so rarely that it costs nothing
		maps.DeleteFunc(g.revoked, func(_ int64, until time.Time) bool { return !now.Before(until) })
		g.sweep = 2*len(g.revoked) + 64
	}
	if g.revoked == nil {
		g.revoked = make(map[int64]time.Time)
	}
	if d > 0 {
		g.revoked[member] = now.Add(d)
	} else {
		delete(g.revoked, member)
	}
	g.mu.Unlock()
	return g.Disconnect(member, CloseRevoked)
}

// Unsubscribe ends member's subscriptions to app, tells the clients, and returns how many
// there were.
func (g *Gateway) Unsubscribe(member int64, app string) int {
	n := 0
	for _, s := range g.of(member) {
		if !s.drop(app) {
			continue
		}
		n++
		if s.protocol == (native{}) {
			s.reply("unsubscribe", reply{code: 200, message: "unsubscribe " + app + " success", about: about{app: app}})
		}
	}
	return n
}

// Explain says what the rules make of a wish of member, with the roles of its sessions. If
// these differ, the answer is about the newest of those that are refused, or else about the
// newest. A member without a session has no roles.
func (g *Gateway) Explain(member int64, a apps.Action, app string) apps.Explanation {
	sessions := g.of(member)
	if len(sessions) == 0 {
		return g.opts.Apps.Explain(apps.Member{ID: member}, a, app)
	}
	var newest apps.Explanation
	for i, s := range sessions {
		e := g.opts.Apps.Explain(s.who(), a, app)
		if !e.Allowed {
			return e
		}
		if i == 0 {
			newest = e
		}
	}
	return newest
}

// Reauthorize takes away every subscription that the rules no longer allow, and tells its
// client. It is called after the rules have changed.
func (g *Gateway) Reauthorize() {
	for _, s := range g.all() {
		s.reauthorize()
	}
	g.opts.Hub.Refresh()
}

// A Backend is a connection over which a backend pushes, as a [Link] is.
type Backend interface {
	// Leave makes the connection take no more pushes, and close with 1012 behind the answers
	// to those that were begun. It does not wait, and is called once at most: what it returns is
	// closed when the last of them is published.
	Leave() (done <-chan struct{})
}

// AddBackend has Drain see to b, until RemoveBackend says that it is gone.
func (g *Gateway) AddBackend(b Backend) {
	g.mu.Lock()
	if g.backends == nil {
		g.backends = make(map[Backend]struct{})
	}
	g.backends[b] = struct{}{}
	draining := g.draining
	g.mu.Unlock()
	if draining {
		b.Leave()
	}
}

// RemoveBackend undoes AddBackend.
func (g *Gateway) RemoveBackend(b Backend) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.backends, b)
	g.left()
}

// leaveTimeout is how long Drain waits for pushes that backends have begun.
const leaveTimeout = 5 * time.Second

// Drain has the backends leave, then closes every session with 1012, in random order and spread
// evenly over window, and returns when all are gone or ctx ends. A session is closed behind all
// that was accepted before, of backends, members and doors alike. Who comes later is closed at
// once.
func (g *Gateway) Drain(ctx context.Context, window time.Duration) {
	g.mu.Lock()
	g.draining = true
	backends, sessions := slices.Collect(maps.Keys(g.backends)), slices.Clone(g.sessions)
	g.mu.Unlock()
	leave(ctx, backends)
	rand.Shuffle(len(sessions), func(i, j int) { sessions[i], sessions[j] = sessions[j], sessions[i] })
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	for start, closed := time.Now(), 0; ; {
		due := len(sessions)
		if passed := time.Since(start) + step; passed < window {
			due = int(float64(due) * float64(passed) / float64(window))
		}
		if closed < due {
			g.opts.Hub.Flush()
		}
		for ; closed < due; closed++ {
			sessions[closed].conn.Close(CloseServiceRestart, CloseServiceRestart.Reason())
		}
		if closed == len(sessions) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	g.mu.Lock()
	if len(g.sessions)+len(g.backends) == 0 {
		g.mu.Unlock()
		return
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// leave has backends leave, and returns when nothing more of them will be published, or when that
// takes too long.
func leave(ctx context.Context, backends []Backend) {
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	var published []<-chan struct{}
	for _, b := range backends {
		published = append(published, b.Leave())
	}
	for _, done := range published {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
}
