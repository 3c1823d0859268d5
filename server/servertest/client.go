package servertest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// patience is how long a client waits for what must come.
const patience = 30 * time.Second

// A Client speaks the native protocol to a gateway through another WebSocket implementation
// than the gateway's own.
type Client struct {
	t    testing.TB
	conn *websocket.Conn
}

// Dial connects a client to path ("/" or "/ws") of a gateway, and fails the test if it cannot.
// header is name and value in turn.
func (g *Gateway) Dial(path string, header ...string) *Client {
	g.t.Helper()
	c, resp, err := g.TryDial(g.URL+path, header...)
	if err != nil {
		status := ""
		if resp != nil {
			status = resp.Status
		}
		g.t.Fatalf("dial %s: %v %s", path, err, status)
	}
	return c
}

// TryDial connects a client to a URL, which may be that of a proxy in front.
func (g *Gateway) TryDial(url string, header ...string) (*Client, *http.Response, error) {
	g.t.Helper()
	opts := &websocket.DialOptions{HTTPHeader: make(http.Header), HTTPClient: g.http}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			opts.Host = header[i+1]
		} else {
			opts.HTTPHeader.Add(header[i], header[i+1])
		}
	}
	ctx, cancel := context.WithTimeout(g.t.Context(), patience)
	defer cancel()
	conn, resp, err := websocket.Dial(ctx, url, opts)
	if err != nil {
		return nil, resp, err
	}
	conn.SetReadLimit(1 << 20)
	c := &Client{g.t, conn}
	g.t.Cleanup(func() { conn.CloseNow() })
	return c, resp, nil
}

// Send sends a text message.
func (c *Client) Send(text string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.conn.Write(ctx, websocket.MessageText, []byte(text)); err != nil {
		c.t.Fatalf("send %.100q: %v", text, err)
	}
}

// Next returns the next message, and fails the test if none comes.
func (c *Client) Next() string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, data, err := c.conn.Read(ctx)
	if err != nil {
		c.t.Fatalf("waiting for a message: %v", err)
	}
	return string(data)
}

// Want fails the test unless the next messages are these.
func (c *Client) Want(messages ...string) {
	c.t.Helper()
	for _, want := range messages {
		if got := c.Next(); got != want {
			c.t.Errorf("client got %s, want %s", got, want)
		}
	}
}

// Reply is a message of the gateway's own, with the given JSON as its text.
func Reply(text string) string {
	return `{"app":"gateway","member_id":-1,"text":"` + strings.ReplaceAll(text, `"`, `\"`) + `"}`
}

// Login sends an auth message and wants the gateway to accept it.
func (c *Client) Login(auth, hello string) {
	c.t.Helper()
	c.Send(auth)
	c.Want(Reply(`{"code":200,"message":"hello ` + hello + `"}`))
}

// Subscribe subscribes to app and wants success.
func (c *Client) Subscribe(app string) {
	c.t.Helper()
	c.Send(`{"app":"` + app + `"}`)
	c.Want(Reply(`{"code":200,"message":"subscribe ` + app + ` success"}`))
}

// Subscriber returns an anonymous client that is subscribed to app.
func (g *Gateway) Subscriber(app string) *Client {
	g.t.Helper()
	c := g.Dial("/")
	c.Login(`{"member_id":-1,"token":""}`, "stranger")
	c.Subscribe(app)
	return c
}

// Closed reads on until the connection ends, and returns the messages that came before and
// the close code, -1 when it ended without a close frame.
func (c *Client) Closed() (messages []string, code int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 3*patience)
	defer cancel()
	for {
		_, data, err := c.conn.Read(ctx)
		if err == nil {
			messages = append(messages, string(data))
			continue
		}
		if errors.Is(err, context.DeadlineExceeded) {
			c.t.Fatal("the connection did not end")
		}
		return messages, int(websocket.CloseStatus(err))
	}
}

// Close closes the connection in an orderly way.
func (c *Client) Close() { c.conn.Close(websocket.StatusNormalClosure, "") }
