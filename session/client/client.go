// Package client is the Go client of a gateway: it speaks the native protocol, comes back by
// itself after a disconnect, and resumes its subscriptions where they were, so that every
// message is received once and in order, or the program is told that some were missed.
//
//	c, err := client.Dial(ctx, "ws://127.0.0.1:5000/", client.Options{})
//	sub, err := c.Subscribe(ctx, "match", client.SubscribeOptions{})
//	for m := range sub.Messages(ctx) {
//		fmt.Println(m.Text)
//	}
//
// The protocol is in PROTOCOL.md of package session, the close codes in its close.go.
package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"ws-gateway/session"
)

// Errors that callers may branch on.
var (
	// ErrClosed is returned by everything after Close.
	ErrClosed = errors.New("client: closed")
	// ErrUnauthorized is returned when the gateway refuses the token. The client is over.
	ErrUnauthorized = errors.New("client: the gateway refused the token")
	// ErrConnectionLost is returned when the connection ended before the gateway answered:
	// what was asked may have happened or not.
	ErrConnectionLost = errors.New("client: the connection was lost before the answer")
)

// A ReplyError is an answer of the gateway that is not a success.
type ReplyError struct {
	Code    int // as in HTTP
	Message string
}

// Error implements error.
func (e *ReplyError) Error() string { return fmt.Sprintf("client: %d %s", e.Code, e.Message) }

// A HandshakeError is an HTTP answer other than 101 to the WebSocket handshake. A client that
// gets 401 or 403 is over; after any other status it tries again.
type HandshakeError struct {
	Status     int
	retryAfter time.Duration
}

// Error implements error.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("client: handshake: %d %s", e.Status, http.StatusText(e.Status))
}

// A CloseError says how a connection ended.
type CloseError struct {
	Code   session.CloseCode // CloseAbnormal without a close frame
	Reason string
}

// Error implements error.
func (e *CloseError) Error() string {
	return fmt.Sprintf("client: closed with %d %s", e.Code, e.Reason)
}

// Options configure a [Client]. The zero value is an anonymous client.
type Options struct {
	Member int64 // who logs in; 0 is nobody

	// Token returns the member's token. It is called before each login, and again when the
	// gateway says that the token expires. An error that wraps [ErrUnauthorized] ends the
	// client; after any other it tries again later.
	Token func(ctx context.Context) (string, error)

	// Events is told what happens to the connection, one call at a time. It must not wait for
	// the client. nil: nobody is told.
	Events func(Event)

	MinBackoff time.Duration // before the first attempt to come back; 0: 500 ms
	MaxBackoff time.Duration // before any attempt; 0: 20 s
	Timeout    time.Duration // of a handshake with its login, and of a write; 0: 10 s
	Silence    time.Duration // without a sign of life the gateway is asked for one; twice that ends the connection; 0: 20 s
	Buffer     int           // messages that a subscription keeps for its reader; 0: 1024

	Header http.Header       // of the handshake
	Dialer *websocket.Dialer // nil: the default one
	Logger *slog.Logger      // nil: discard
}

// A State is that of a client's connection.
type State uint8

// The states. Disconnected is the last one when the client is over; else Connecting follows.
const (
	Connecting State = iota
	Connected
	Disconnected
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"connecting", "connected", "disconnected"}[s]
}

// An Event is a change of state.
type Event struct {
	State State
	Err   error         // Disconnected: why, a *CloseError or what failed; Connecting: why the last attempt failed, if one did
	Wait  time.Duration // Connecting: until the attempt
	Final bool          // Disconnected: the client does not come back
}

// A Client is one session with a gateway, over as many connections as it takes. Its methods
// may be called concurrently. It is over after Close, when the gateway refuses the token,
// and when it closes the connection with a code that says not to come back.
type Client struct {
	opts   Options
	url    string
	log    *slog.Logger
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	done   chan struct{} // closed when the client is over

	mu    sync.Mutex
	conn  *connection              // nil while there is none; guarded by mu
	ready chan struct{}            // closed while conn is there; guarded by mu
	subs  map[string]*Subscription // by app; guarded by mu
	err   error                    // why the client is over; guarded by mu

	renewals sync.WaitGroup // of the token
	number   uint64         // of the last connection; of Dial and then run
}

// Dial connects to a gateway and logs in. url is that of the WebSocket: ws://host:port/ or
// wss://. It makes one attempt, so that a wrong address or token is noticed: ctx is for that
// attempt, and the client comes back by itself from then on until Close.
func Dial(ctx context.Context, url string, opts Options) (*Client, error) {
	c := &Client{opts: opts, url: url, log: opts.Logger, done: make(chan struct{}), ready: make(chan struct{}), subs: make(map[string]*Subscription)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	o := &c.opts
	o.MinBackoff = cmp.Or(o.MinBackoff, 500*time.Millisecond)
	o.MaxBackoff = max(o.MinBackoff, cmp.Or(o.MaxBackoff, 20*time.Second))
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Silence = cmp.Or(o.Silence, 20*time.Second)
	o.Buffer = cmp.Or(o.Buffer, 1024)
	o.Dialer = cmp.Or(o.Dialer, websocket.DefaultDialer)
	if o.Member < 0 {
		return nil, fmt.Errorf("client: member %d is not positive", o.Member)
	}
	c.ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.tell(Event{State: Connecting})
	conn, err := c.connect(ctx)
	if err != nil {
		c.cancel()
		c.tell(Event{State: Disconnected, Err: err, Final: true})
		return nil, err
	}
	go c.run(conn)
	return c, nil
}

// Close ends the client and its subscriptions, and returns when both have ended.
func (c *Client) Close() error {
	c.cancel()
	<-c.done
	return nil
}

// Done is closed when the client is over.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the client is over: ErrClosed after Close; nil while it is not.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// run keeps the client connected until it is over.
func (c *Client) run(conn *connection) {
	defer close(c.done)
	var b backoff
	for {
		up := time.Now()
		err := c.serve(conn)
		if c.final(err) {
			break
		}
		c.tell(Event{State: Disconnected, Err: err})
		if time.Since(up) >= c.opts.MaxBackoff {
			b = backoff{}
		}
		b.after(err)
		if conn, err = c.comeBack(&b, err); err != nil {
			break
		}
	}
}

// comeBack connects again, after a connection that ended with cause, as often as it takes.
// An error is final.
func (c *Client) comeBack(b *backoff, cause error) (*connection, error) {
	for {
		wait := b.next(c.opts.MinBackoff, c.opts.MaxBackoff, cause)
		c.tell(Event{State: Connecting, Err: cause, Wait: wait})
		sleep(c.ctx, wait)
		conn, err := c.connect(c.ctx)
		if err == nil {
			return conn, nil
		}
		if c.final(err) {
			return nil, err
		}
		cause = err
	}
}

// final reports whether the client is over after a connection ended, or could not be made,
// with err, and ends it then.
func (c *Client) final(err error) bool {
	var closed *CloseError
	var refused *HandshakeError
	switch {
	case c.ctx.Err() != nil:
		c.end(ErrClosed)
	case errors.Is(err, ErrUnauthorized),
		errors.As(err, &closed) && !temporary(closed.Code),
		errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden):
		c.end(err)
	default:
		return false
	}
	return true
}

// end makes err the client's last word.
func (c *Client) end(err error) {
	c.mu.Lock()
	c.err = err
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		s.end(err)
	}
	c.cancel()
	c.renewals.Wait()
	c.tell(Event{State: Disconnected, Err: err, Final: true})
}

// serve makes conn the client's connection until it ends, and returns why it did.
func (c *Client) serve(conn *connection) error {
	c.mu.Lock()
	c.conn = conn
	close(c.ready)
	subs := slices.Collect(maps.Values(c.subs))
	c.mu.Unlock()
	c.tell(Event{State: Connected})
	for _, s := range subs {
		s.resume(conn)
	}

	stop := context.AfterFunc(c.ctx, conn.leave)
	conn.read(c)
	stop()

	c.mu.Lock()
	c.conn, c.ready = nil, make(chan struct{})
	c.mu.Unlock()
	conn.lost()
	return conn.err
}

// Push pushes text to everybody subscribed to app, where the app's rules let the client's
// member do so. After [ErrConnectionLost] the message may have been pushed or not.
func (c *Client) Push(ctx context.Context, app, text string) error {
	_, err := c.ask(ctx, command{Op: "push", App: app, Text: &text})
	return err
}

// Ping waits until the gateway has answered everything asked before.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.ask(ctx, command{Op: "ping"})
	return err
}

// A Presence is who is subscribed to an app.
type Presence struct {
	Members   []PresentMember
	Anonymous int // sessions of nobody in particular
}

// A PresentMember is a member who is subscribed to an app.
type PresentMember struct {
	ID          int64 `json:"member_id"`
	Connections int   `json:"connections"`
}

// Presence returns who is subscribed to app now, where the app's rules have presence.
func (c *Client) Presence(ctx context.Context, app string) (Presence, error) {
	r, err := c.ask(ctx, command{Op: "presence", App: app})
	return Presence{r.Members, r.Anonymous}, err
}

// ask sends cmd, once there is a connection, and waits for the answer.
func (c *Client) ask(ctx context.Context, cmd command) (reply, error) {
	conn, err := c.connection(ctx)
	if err != nil {
		return reply{}, err
	}
	return conn.ask(ctx, cmd)
}

// connection returns the current connection, waiting for one if need be.
func (c *Client) connection(ctx context.Context) (*connection, error) {
	for {
		c.mu.Lock()
		conn, ready, err := c.conn, c.ready, c.err
		c.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if conn != nil {
			return conn, nil
		}
		select {
		case <-ready:
		case <-c.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Client) tell(e Event) {
	c.log.Debug("connection", "state", e.State.String(), "err", e.Err, "wait", e.Wait)
	if c.opts.Events != nil {
		c.opts.Events(e)
	}
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
