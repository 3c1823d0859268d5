package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"ws-gateway/session"
)

// A connection is one WebSocket of a client, from its login on.
type connection struct {
	number  uint64 // grows from one connection of a client to the next
	ws      *websocket.Conn
	silence time.Duration
	timeout time.Duration

	write struct {
		sync.Mutex
		dead bool // a write failed; no more of them
	}

	mu      sync.Mutex
	pending map[uint64]func(reply, error) // commands by id; nil once the connection is lost; guarded by mu
	last    uint64                        // id; guarded by mu

	life   *time.Timer // runs probe after silence
	probed atomic.Bool // a sign of life was asked for

	err error // why it ended; set by read
}

// A reply is what the gateway itself says.
type reply struct {
	Code      int             `json:"code"`
	Message   string          `json:"message"`
	ID        uint64          `json:"id"`
	Position  *Position       `json:"position"`
	Recovered *bool           `json:"recovered"`
	Members   []PresentMember `json:"members"`
	Anonymous int             `json:"anonymous"`
}

func (r *reply) err() error {
	if r.Code == http.StatusOK {
		return nil
	}
	return &ReplyError{r.Code, r.Message}
}

// An envelope is everything that the gateway sends.
type envelope struct {
	App    string `json:"app"`
	Member int64  `json:"member_id"`
	Text   string `json:"text"`
	From   int64  `json:"from"`
	Offset uint64 `json:"offset"`
	Prev   uint64 `json:"prev"`
}

const gatewayApp = "gateway"

// connect opens a connection and logs in.
func (c *Client) connect(ctx context.Context) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	auth, err := c.auth(ctx)
	if err != nil {
		return nil, err
	}
	ws, resp, err := c.opts.Dialer.DialContext(ctx, c.url, c.opts.Header)
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
			return nil, &HandshakeError{resp.StatusCode, time.Duration(seconds) * time.Second}
		}
		return nil, fmt.Errorf("client: connect: %w", err)
	}
	c.number++
	conn := &connection{number: c.number, ws: ws, silence: c.opts.Silence, timeout: c.opts.Timeout, pending: make(map[uint64]func(reply, error))}
	stop := context.AfterFunc(ctx, func() { ws.NetConn().SetDeadline(time.Now()) })
	err = conn.login(auth)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		ws.Close()
		return nil, err
	}
	ws.SetPingHandler(func(data string) error {
		conn.alive()
		return ignoreTimeout(ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second)))
	})
	ws.SetPongHandler(func(string) error { conn.alive(); return nil })
	conn.life = time.AfterFunc(math.MaxInt64, conn.probe)
	conn.alive()
	return conn, nil
}

// ignoreTimeout drops the errors of a pong that could not be sent in time, as gorilla does.
func ignoreTimeout(err error) error {
	if errors.Is(err, websocket.ErrCloseSent) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
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

// login sends the first message and reads its answer.
func (n *connection) login(auth command) error {
	if err := n.ws.WriteJSON(auth); err != nil {
		return fmt.Errorf("client: login: %w", err)
	}
	_, data, err := n.ws.ReadMessage()
	if err != nil {
		return fmt.Errorf("client: login: %w", closeError(err))
	}
	var e envelope
	var r reply
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("client: login: %w", err)
	}
	if err := json.Unmarshal([]byte(e.Text), &r); err != nil || e.App != gatewayApp {
		return fmt.Errorf("client: login: answered %.100q", data)
	}
	if r.Code == http.StatusUnauthorized {
		return fmt.Errorf("%w: %s", ErrUnauthorized, r.Message)
	}
	return r.err()
}

// A command is what the client sends.
type command struct {
	ID       uint64           `json:"id,omitempty"`
	Op       string           `json:"op,omitempty"`
	App      string           `json:"app,omitempty"`
	Text     *string          `json:"text,omitempty"`
	Member   int64            `json:"member_id,omitempty"`
	Token    *string          `json:"token,omitempty"`
	Position *json.RawMessage `json:"position,omitempty"`
	Events   bool             `json:"events,omitempty"`
}

// send sends cmd. answered is called with the reply, before anything that follows it is
// read, or with ErrConnectionLost; in the latter case maybe before send returns.
func (n *connection) send(cmd command, answered func(reply, error)) (id uint64) {
	n.mu.Lock()
	if n.pending == nil {
		n.mu.Unlock()
		answered(reply{}, ErrConnectionLost)
		return 0
	}
	n.last++
	cmd.ID = n.last
	n.pending[cmd.ID] = answered
	n.mu.Unlock()

	n.write.Lock()
	defer n.write.Unlock()
	if !n.write.dead {
		n.ws.SetWriteDeadline(time.Now().Add(n.timeout))
		if n.ws.WriteJSON(cmd) != nil {
			n.write.dead = true
			n.ws.NetConn().Close() // read ends, and tells all that wait
		}
	}
	return cmd.ID
}

// forget drops the command with the given id: nobody waits for its answer any more.
func (n *connection) forget(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pending, id)
}

// ask sends cmd and waits for the answer.
func (n *connection) ask(ctx context.Context, cmd command) (reply, error) {
	type answer struct {
		reply
		err error
	}
	answered := make(chan answer, 1)
	id := n.send(cmd, func(r reply, err error) { answered <- answer{r, err} })
	select {
	case a := <-answered:
		if a.err != nil {
			return reply{}, a.err
		}
		return a.reply, a.reply.err()
	case <-ctx.Done():
		n.forget(id)
		return reply{}, ctx.Err()
	}
}

// read handles what the gateway sends until the connection ends, and sets err.
func (n *connection) read(c *Client) {
	defer n.ws.Close()
	defer n.life.Stop()
	for {
		_, data, err := n.ws.ReadMessage()
		if err != nil {
			n.err = closeError(err)
			return
		}
		n.alive()
		var e envelope
		if err := json.Unmarshal(data, &e); err != nil {
			n.err = fmt.Errorf("client: the gateway sent %.100q: %w", data, err)
			return
		}
		if e.App == gatewayApp {
			c.reply(n, []byte(e.Text))
			continue
		}
		c.mu.Lock()
		sub := c.subs[e.App]
		c.mu.Unlock()
		if sub != nil {
			sub.receive(n, e)
		}
	}
}

// reply handles what the gateway itself says.
func (c *Client) reply(n *connection, text []byte) {
	var r reply
	if json.Unmarshal(text, &r) != nil {
		return // a reply of a later version: an id that is no number of ours
	}
	if r.ID != 0 {
		n.mu.Lock()
		answered := n.pending[r.ID]
		delete(n.pending, r.ID)
		n.mu.Unlock()
		if answered != nil {
			answered(r, nil)
		}
		return
	}
	verb, rest, _ := strings.Cut(r.Message, " ")
	app, rest, _ := strings.Cut(rest, " ")
	c.mu.Lock()
	sub := c.subs[app]
	c.mu.Unlock()
	switch {
	case r.Code == http.StatusUnauthorized && r.Message == "token expiring":
		c.renewals.Go(func() { c.renew(n) })
	case verb == "subscribe" && rest == "forbidden" && sub != nil: // a reload of the rules took it away
		c.drop(sub, &ReplyError{r.Code, r.Message})
	case (verb == "join" || verb == "leave") && sub != nil:
		if member, err := strconv.ParseInt(rest, 10, 64); err == nil {
			sub.present(member, verb == "join")
		}
	}
}

// renew gives the gateway a new token before the old one expires. If that fails, the gateway
// closes the connection, and the client comes back as after any other disconnect.
func (c *Client) renew(n *connection) {
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
	defer cancel()
	auth, err := c.auth(ctx)
	if err == nil {
		_, err = n.ask(ctx, auth)
	}
	if err != nil {
		c.log.Warn("renew token", "err", err)
	}
}

// lost ends the commands that wait for an answer.
func (n *connection) lost() {
	n.mu.Lock()
	pending := n.pending
	n.pending = nil
	n.mu.Unlock()
	for _, answered := range pending {
		answered(reply{}, ErrConnectionLost)
	}
}

// leave says goodbye; read ends when the gateway has answered.
func (n *connection) leave() {
	n.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	n.ws.NetConn().SetReadDeadline(time.Now().Add(time.Second))
}

// alive notes a sign of life.
func (n *connection) alive() {
	n.probed.Store(false)
	n.life.Reset(n.silence)
}

// probe asks for a sign of life, and ends the connection when it asked before in vain.
func (n *connection) probe() {
	if n.probed.Swap(true) || n.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) != nil {
		n.ws.NetConn().Close()
		return
	}
	n.life.Reset(n.silence)
}

// closeError returns a *CloseError for the close frame that err stands for, or for none.
func closeError(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return &CloseError{session.CloseCode(closed.Code), closed.Text}
	}
	return &CloseError{session.CloseAbnormal, err.Error()}
}
