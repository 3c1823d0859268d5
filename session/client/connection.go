package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	pending map[uint64]call // commands by id; nil once the connection is lost; guarded by mu
	last    uint64          // id; guarded by mu

	life   *time.Timer // runs probe after silence
	probed atomic.Bool // a sign of life was asked for

	err error // why it ended; set by read
}

// A call is a command that waits for its reply.
type call struct {
	size     int // bytes of the command
	answered func(reply, error)
}

// A reply is what the gateway itself says.
type reply struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	ID      uint64 `json:"id"`

	Position  *Position       `json:"position"`
	Recovered *bool           `json:"recovered"`
	Members   []PresentMember `json:"members"`
	Anonymous int             `json:"anonymous"`

	Receipt        // of a push over a link
	Outcome string `json:"outcome"`
	Seconds uint32 `json:"retry_after"`
}

func (r *reply) err() error {
	code := r.Code
	if strings.HasPrefix(r.Message, "subscribe ") && strings.HasSuffix(r.Message, " forbidden") {
		code = http.StatusForbidden // whatever WSGW_FORBIDDEN_CODE is
	}
	if code == http.StatusOK || code == http.StatusAccepted {
		return nil
	}
	return &ReplyError{code, r.Message, time.Duration(r.Seconds) * time.Second}
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

// dial opens a connection.
func (r *reconnector) dial(ctx context.Context) (*connection, error) {
	ws, resp, err := r.opts.Dialer.DialContext(ctx, r.url, r.opts.Header)
	if err != nil {
		if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
			seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
			return nil, &HandshakeError{resp.StatusCode, time.Duration(seconds) * time.Second}
		}
		return nil, fmt.Errorf("client: connect: %w", err)
	}
	r.number++
	n := &connection{number: r.number, ws: ws, silence: r.opts.Silence, timeout: r.opts.Timeout, pending: make(map[uint64]call)}
	return n, nil
}

// ignoreTimeout drops the errors of a pong that could not be sent in time, as gorilla does.
func ignoreTimeout(err error) error {
	if errors.Is(err, websocket.ErrCloseSent) || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
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
	Key      string           `json:"key,omitempty"`
}

// errNotSent is ErrConnectionLost for a command that surely did not reach the gateway.
var errNotSent = fmt.Errorf("%w", ErrConnectionLost)

// send sends cmd. answered is called with the reply, before anything that follows it is
// read, or with ErrConnectionLost; in the latter case maybe before send returns.
func (n *connection) send(cmd command, answered func(reply, error)) (id uint64) {
	n.mu.Lock()
	if n.pending == nil {
		n.mu.Unlock()
		answered(reply{}, errNotSent)
		return 0
	}
	n.last++
	cmd.ID = n.last
	data := cmd.encode()
	n.pending[cmd.ID] = call{len(data), answered}
	n.mu.Unlock()

	n.write.Lock()
	defer n.write.Unlock()
	if !n.write.dead {
		n.ws.SetWriteDeadline(time.Now().Add(n.timeout))
		if n.ws.WriteMessage(websocket.TextMessage, data) != nil {
			n.write.dead = true
			n.ws.NetConn().Close() // read ends, and tells all that wait
		}
	}
	return cmd.ID
}

// encode returns c as it is sent. What is no UTF-8 in it is replaced.
func (c *command) encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(c) // cannot fail
	return b.Bytes()
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

// read gives what the gateway sends to o until the connection ends, and sets err.
func (n *connection) read(o owner) {
	defer n.ws.Close()
	n.life = time.AfterFunc(n.silence, n.probe)
	defer n.life.Stop()
	n.ws.SetPingHandler(func(data string) error {
		n.alive()
		return ignoreTimeout(n.ws.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second)))
	})
	n.ws.SetPongHandler(func(string) error { n.alive(); return nil })
	for {
		_, data, err := n.ws.ReadMessage()
		if err != nil {
			n.err = closeError(err)
			return
		}
		n.alive()
		if err := o.receive(n, data); err != nil {
			n.err = fmt.Errorf("client: the gateway sent %.100q: %w", data, err)
			return
		}
	}
}

// answer gives r to who waits for it, if anybody does.
func (n *connection) answer(r reply) {
	n.mu.Lock()
	c := n.pending[r.ID]
	delete(n.pending, r.ID)
	n.mu.Unlock()
	if c.answered != nil {
		c.answered(r, nil)
	}
}

// largest returns the id of the longest command that waits for an answer, 0 if none does.
func (n *connection) largest() (id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, c := range n.pending {
		if c.size > n.pending[id].size {
			id = i
		}
	}
	return id
}

// receive implements owner.
func (c *Client) receive(n *connection, data []byte) error {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	if e.App == gatewayApp {
		c.reply(n, []byte(e.Text))
		return nil
	}
	c.mu.Lock()
	sub := c.subs[e.App]
	c.mu.Unlock()
	if sub != nil {
		sub.receive(n, e)
	}
	return nil
}

// reply handles what the gateway itself says.
func (c *Client) reply(n *connection, text []byte) {
	var r reply
	if json.Unmarshal(text, &r) != nil {
		return // a reply of a later version: an id that is no number of ours
	}
	if r.ID != 0 {
		n.answer(r)
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
		c.drop(sub, &ReplyError{Code: r.Code, Message: r.Message})
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
	for _, c := range pending {
		c.answered(reply{}, ErrConnectionLost)
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
