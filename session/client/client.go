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
// A backend pushes with a [Pusher], over a link of its own kind:
//
//	p, err := client.DialPush(ctx, "ws://127.0.0.1:5000/push", client.PushOptions{Key: key})
//	receipt, err := p.Push(ctx, client.Message{App: "match", Member: client.Everybody, Text: "goal"})
//
// Another module uses it from a clone:
//
//	go mod edit -require ws-gateway@v0.0.0 -replace ws-gateway=PATH
//	go mod tidy
//
// The protocol is in PROTOCOL.md of package session, the close codes in its close.go; that of
// the link is in API.md of package push.
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
	// ErrUnknown is returned by [Pusher.Push] when nobody can tell whether the message was, or
	// will be, delivered.
	ErrUnknown = errors.New("client: it is not known whether the message was pushed")
	// ErrConnectionLost is returned when the connection ended before the gateway answered:
	// what was asked may have happened or not.
	ErrConnectionLost = errors.New("client: the connection was lost before the answer")
)

// A ReplyError is an answer of the gateway that is not a success.
type ReplyError struct {
	Code       int // as in HTTP
	Message    string
	RetryAfter time.Duration // until it may be tried again; 0: the gateway does not say
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
	reconnector
	subs     map[string]*Subscription // by app; guarded by mu
	renewals sync.WaitGroup           // of the token
}

var _ owner = (*Client)(nil)

// Dial connects to a gateway and logs in. url is that of the WebSocket: ws://host:port/ or
// wss://. It makes one attempt, so that a wrong address or token is noticed: ctx is for that
// attempt, and the client comes back by itself from then on until Close.
func Dial(ctx context.Context, url string, opts Options) (*Client, error) {
	if opts.Member < 0 {
		return nil, fmt.Errorf("client: member %d is not positive", opts.Member)
	}
	opts.Buffer = cmp.Or(opts.Buffer, 1024)
	c := &Client{subs: make(map[string]*Subscription)}
	if err := c.start(ctx, c, url, opts); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the client and its subscriptions, and returns when both have ended.
func (c *Client) Close() error {
	c.close()
	return nil
}

// Done is closed when the client is over.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the client is over: ErrClosed after Close; nil while it is not.
func (c *Client) Err() error { return c.cause() }

// connect implements owner: it opens a connection and logs in.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	auth, err := c.auth(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.ws.NetConn().SetDeadline(time.Now()) })
	err = conn.login(auth)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.ws.Close()
		return nil, err
	}
	return conn, nil
}

// auth returns the auth message.
func (c *Client) auth(ctx context.Context) (command, error) {
	if c.opts.Member == 0 {
		return command{Member: -1, Token: new(string)}, nil
	}
	token := ""
	if c.opts.Token != nil {
		var err error
		if token, err = c.opts.Token(ctx); err != nil {
			return command{}, fmt.Errorf("client: token: %w", err)
		}
	}
	return command{Member: c.opts.Member, Token: &token}, nil
}

// connected implements owner.
func (c *Client) connected(conn *connection) {
	c.mu.Lock()
	subs := slices.Collect(maps.Values(c.subs))
	c.mu.Unlock()
	for _, s := range subs {
		s.resume(conn)
	}
}

// lost implements owner.
func (c *Client) lost(conn *connection) error {
	conn.lost()
	return conn.err
}

// over implements owner.
func (c *Client) over(err error) {
	c.mu.Lock()
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		s.end(err)
	}
	c.renewals.Wait()
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
	conn, err := c.current(ctx)
	if err != nil {
		return reply{}, err
	}
	return conn.ask(ctx, cmd)
}
