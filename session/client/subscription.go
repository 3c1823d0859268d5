package client

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"sync"
)

// A Position is a place in an app's log. Offsets grow inside an epoch; positions of different
// epochs cannot be compared.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// A Message is one push, as a subscriber receives it.
type Message struct {
	App    string
	Member int64 // whom it is for: -1 everybody, else this member alone
	From   int64 // the member who pushed it; 0: a backend
	Text   string
	Position
}

// SubscribeOptions configure a [Subscription]. The zero value starts with the next message.
type SubscribeOptions struct {
	// Position is where to go on, as [Subscription.Position] returned it in an earlier run of
	// the program; nil is now.
	Position *Position

	// Missed is called when messages may be missing before the next one, because the gateway's
	// log did not reach back far enough: the program has to load its state anew. It is called
	// by the iteration over Messages, between two of them.
	Missed func()

	// Presence is called when a member comes to the app (joined) or goes, where the app's
	// rules have presence. It is called by the iteration over Messages, between two of them. A
	// reader that is far behind is not told of all: [Client.Presence] knows.
	Presence func(member int64, joined bool)
}

// A Subscription receives an app's messages, each once and in order, over reconnects too.
//
// The messages that its reader does not take in time are kept up to Options.Buffer; of those
// beyond, it asks the gateway's log again once the reader is back. A slow reader never holds
// up another subscription of the same client.
type Subscription struct {
	client *Client
	app    string
	opts   SubscribeOptions
	wake   chan struct{} // of capacity 1: there is something to take
	done   chan struct{} // closed when the subscription is over

	mu       sync.Mutex
	conn     *connection // that it is subscribed on, or asks to be; nil: none; guarded by mu
	asking   bool        // a subscribe is not answered yet: what comes belongs to the one before; guarded by mu
	known    bool        // epoch and after are a position; guarded by mu
	epoch    string      // guarded by mu
	after    uint64      // nothing up to here is missing; guarded by mu
	hole     bool        // something after it is, and what the chains have beyond comes again; guarded by mu
	chains   [2]uint64   // the last offset of the public and the private messages; guarded by mu
	held     []Message   // behind a gap, until the gateway says whether it can fill it; guarded by mu
	queue    []item      // guarded by mu
	behind   bool        // the queue was full: ask again once it is empty; guarded by mu
	position Position    // of the last message taken; guarded by mu
	first    chan error  // gets the first answer; nil afterwards; guarded by mu
	err      error       // why it is over; guarded by mu
	ended    bool        // guarded by mu
}

// An item is what a subscription's reader is told, in order.
type item struct {
	message Message
	kind    kind
}

type kind uint8

const (
	isMessage kind = iota
	isMissed
	isJoin
	isLeave
)

// Subscribe subscribes to app and returns when the gateway has agreed. A client has at most
// one subscription per app. The error is a *ReplyError when the gateway refuses.
func (c *Client) Subscribe(ctx context.Context, app string, opts SubscribeOptions) (*Subscription, error) {
	first := make(chan error, 1)
	s := &Subscription{client: c, app: app, opts: opts, wake: make(chan struct{}, 1), done: make(chan struct{}), first: first}
	if p := opts.Position; p != nil {
		s.known, s.epoch, s.after, s.position = true, p.Epoch, p.Offset, *p
	}
	c.mu.Lock()
	switch {
	case c.err != nil:
		defer c.mu.Unlock()
		return nil, c.err
	case c.subs[app] != nil:
		c.mu.Unlock()
		return nil, errors.New("client: already subscribed to " + app)
	}
	c.subs[app] = s
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		s.resume(conn)
	}
	select {
	case err := <-first:
		if err != nil {
			return nil, err
		}
		return s, nil
	case <-ctx.Done():
		s.Unsubscribe(ctx)
		return nil, ctx.Err()
	}
}

// App returns the name of the app.
func (s *Subscription) App() string { return s.app }

// Done is closed when the subscription is over: unsubscribed, taken away by the gateway, or
// its client over.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err returns why the subscription is over: nil while it is not, and after Unsubscribe.
func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Position returns the place of the last message that was taken from Messages, or where the
// subscription began: a later run of the program goes on from there.
func (s *Subscription) Position() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.position
}

// Messages returns the messages as they come. The iteration ends with ctx, and with the
// subscription, when everything received before has been taken; Err says why. One goroutine
// at a time may iterate; a later iteration goes on where the one before stopped.
func (s *Subscription) Messages(ctx context.Context) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		for {
			i, ok := s.take(ctx)
			if !ok {
				return
			}
			switch i.kind {
			case isMessage:
				if !yield(i.message) {
					return
				}
			case isMissed:
				if s.opts.Missed != nil {
					s.opts.Missed()
				}
			case isJoin, isLeave:
				s.opts.Presence(i.message.Member, i.kind == isJoin)
			}
		}
	}
}

// take returns the next item, waiting for it.
func (s *Subscription) take(ctx context.Context) (item, bool) {
	for {
		if ctx.Err() != nil {
			return item{}, false
		}
		s.mu.Lock()
		if len(s.queue) > 0 {
			i := s.queue[0]
			s.queue[0] = item{}
			s.queue = s.queue[1:]
			if i.message.Epoch != "" {
				s.position = i.message.Position
			}
			s.mu.Unlock()
			return i, true
		}
		if s.behind && s.conn != nil && !s.asking {
			s.ask(s.conn)
			continue // ask has unlocked
		}
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return item{}, false
		}
		select {
		case <-s.wake:
		case <-s.done:
		case <-ctx.Done():
		}
	}
}

// Unsubscribe ends the subscription. What was received before can still be taken.
func (s *Subscription) Unsubscribe(ctx context.Context) error {
	c := s.client
	if !c.drop(s, nil) {
		return nil
	}
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return nil // the next connection will not know of it
	}
	if _, err := conn.ask(ctx, command{Op: "unsubscribe", App: s.app}); err != nil && !errors.Is(err, ErrConnectionLost) {
		return err
	}
	return nil
}

// drop ends s and reports whether it was there.
func (c *Client) drop(s *Subscription, err error) bool {
	c.mu.Lock()
	there := c.subs[s.app] == s
	if there {
		delete(c.subs, s.app)
	}
	c.mu.Unlock()
	if there {
		s.end(err)
	}
	return there
}

func (s *Subscription) end(err error) {
	s.mu.Lock()
	s.ended, s.err = true, err
	if s.first != nil {
		if err == nil {
			err = ErrClosed
		}
		s.first <- err
		s.first = nil
	}
	s.mu.Unlock()
	close(s.done)
}

// resume subscribes on conn, unless s is over, or has asked on conn or a later one: Subscribe
// may come to it when the client has lost that connection, and has resumed s on the next.
func (s *Subscription) resume(conn *connection) {
	s.mu.Lock()
	if s.ended || s.conn != nil && s.conn.number >= conn.number {
		s.mu.Unlock()
		return
	}
	s.ask(conn)
}

// ask subscribes on conn, from where s is. s.mu is held, and unlocked.
func (s *Subscription) ask(conn *connection) {
	position := json.RawMessage("null")
	if !s.hole {
		s.after = max(s.after, s.chains[0], s.chains[1])
	}
	if s.known {
		position, _ = json.Marshal(Position{s.epoch, s.after})
	}
	s.conn, s.asking, s.behind = conn, true, false
	s.mu.Unlock()
	conn.send(command{App: s.app, Position: &position, Events: s.opts.Presence != nil}, func(r reply, err error) {
		s.subscribed(conn, r, err)
	})
}

// subscribed handles the answer to ask.
func (s *Subscription) subscribed(conn *connection, r reply, err error) {
	s.mu.Lock()
	if s.conn != conn {
		s.mu.Unlock()
		return // a new connection has asked already
	}
	s.asking = false
	if err == nil && r.err() == nil {
		s.place(r)
		if s.first != nil {
			s.first <- nil
			s.first = nil
		}
		s.signal()
	}
	s.mu.Unlock()
	if err == nil && r.err() != nil {
		s.client.drop(s, r.err())
	}
}

// place takes note of where the gateway begins; s.mu is held.
func (s *Subscription) place(r reply) {
	held := s.held
	s.held = nil
	if r.Position == nil || r.Recovered != nil && *r.Recovered {
		return // no positions at all, or what follows goes on after s.after
	}
	if !s.known {
		s.position = *r.Position
	} else if n := len(s.queue); n == 0 || s.queue[n-1].kind != isMissed {
		s.put(item{kind: isMissed, message: Message{Position: *r.Position}})
	}
	for _, m := range held { // does not come again
		if chain := s.chain(m.Member); m.Offset > max(s.after, *chain) {
			*chain = m.Offset
			s.put(item{message: m})
		}
	}
	s.known, s.epoch, s.after, s.chains, s.hole = true, r.Position.Epoch, r.Position.Offset, [2]uint64{}, false
}

// chain returns the last offset of the chain that the messages for member are in; s.mu is held.
func (s *Subscription) chain(member int64) *uint64 {
	if member > 0 {
		return &s.chains[1]
	}
	return &s.chains[0]
}

// receive takes a message from conn. What it drops comes again with the answer to ask.
func (s *Subscription) receive(conn *connection, e envelope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != conn || s.behind {
		return
	}
	m := Message{e.App, e.Member, e.From, e.Text, Position{s.epoch, e.Offset}}
	if s.asking {
		s.hold(m)
		return
	}
	chain := s.chain(m.Member)
	last := max(s.after, *chain)
	switch {
	case s.known && e.Offset <= last: // a duplicate
	case s.known && e.Prev > last:
		s.after, s.hole = last, true
		s.hold(m)
		s.ask(conn)
		s.mu.Lock() // ask has unlocked
	case len(s.queue) >= s.client.opts.Buffer:
		s.behind = true
	default:
		*chain = e.Offset
		if e.Offset == max(s.chains[0], s.chains[1]) {
			s.hole = false
		}
		s.put(item{message: m})
	}
}

// hold keeps a message that came before the answer to ask: should the gateway not be able to
// fill the gap before it, it does not come again. Before the first answer, messages are those
// of an earlier subscription to the app. s.mu is held.
func (s *Subscription) hold(m Message) {
	if s.first == nil && len(s.queue)+len(s.held) < s.client.opts.Buffer {
		s.held = append(s.held, m)
	}
}

// put queues i for the reader; s.mu is held.
func (s *Subscription) put(i item) {
	s.queue = append(s.queue, i)
	s.signal()
}

// signal wakes the reader.
func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// present queues that a member came or went.
func (s *Subscription) present(member int64, joined bool) {
	if s.opts.Presence == nil {
		return
	}
	k := isLeave
	if joined {
		k = isJoin
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) < 2*s.client.opts.Buffer {
		s.put(item{kind: k, message: Message{Member: member}})
	}
}
