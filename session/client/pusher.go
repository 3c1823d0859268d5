package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"ws-gateway/session"
)

// Everybody is the Member of a message for all subscribers of its app.
const Everybody int64 = -1

// PushOptions configure a [Pusher]. The zero value has no push key, as a gateway on the same
// machine lets it.
type PushOptions struct {
	Key string // push key

	// AtMostOnce has messages pushed without an idempotency key: one that is not answered
	// before its link breaks is not tried again, but is an ErrUnknown. It is for more messages
	// than the gateway remembers keys (WSGW_MAX_IDEMPOTENCY_KEYS) within two minutes.
	AtMostOnce bool

	Window int // messages that are sent and not answered yet; Push waits beyond; 0: 256

	MinBackoff time.Duration // before the first attempt to come back; 0: 500 ms
	MaxBackoff time.Duration // before any attempt; 0: 20 s
	Timeout    time.Duration // of a handshake, and of a write; 0: 10 s
	Silence    time.Duration // without a sign of life the gateway is asked for one; twice that ends the link; 0: 20 s

	Header http.Header       // of the handshake
	Dialer *websocket.Dialer // nil: the default one
	Logger *slog.Logger      // nil: discard
}

// A Receipt is a gateway's answer to a message that it has accepted.
type Receipt struct {
	Position           // in the app's log
	Durability  string `json:"durability"`  // what the message survives: none, memory, disk or quorum
	Subscribers int    `json:"subscribers"` // sessions of the gateway's node that it was queued to
	Duplicate   bool   `json:"duplicate"`   // an earlier attempt with this key was accepted; this one delivered nothing
}

// A Pusher is a backend's link for pushing: one WebSocket, over which many messages are on
// their way at once, and which comes back by itself. Its methods may be called concurrently.
// It is over after Close, and when the gateway refuses its key at a handshake.
//
// Each message has an idempotency key, so that one whose answer was lost with its link can be
// tried again on the next and is still pushed once: as long as the gateway's process lives.
// An orderly stop of the gateway answers every message that it has accepted; if it ends in
// another way, or its last answers do not arrive, the next process knows nothing of their keys
// and accepts them again, once.
type Pusher struct {
	reconnector
	once    bool          // AtMostOnce
	prefix  string        // of this pusher's idempotency keys
	last    atomic.Uint64 // number of the last key
	retries time.Duration // how long after its first attempt a message is tried again
	window  chan struct{} // has one for each message that is sent and not answered
}

// defaultRetries is shorter than the two minutes for which the gateway remembers a key, by what
// an attempt may take.
const defaultRetries = 90 * time.Second

// errTooLarge is why a link ended over a message, which is refused for that.
var errTooLarge = errors.New("client: a message was too large for the gateway")

var _ owner = (*Pusher)(nil)

// DialPush connects to a gateway's push link. url is ws://host:port/push or wss://. It makes
// one attempt, so that a wrong address or key is noticed: ctx is for that attempt, and the
// pusher comes back by itself from then on until Close.
func DialPush(ctx context.Context, url string, opts PushOptions) (*Pusher, error) {
	header := opts.Header.Clone()
	if opts.Key != "" {
		if header == nil {
			header = make(http.Header)
		}
		header.Set("Authorization", "Bearer "+opts.Key)
	}
	p := &Pusher{once: opts.AtMostOnce, prefix: rand.Text() + "-", retries: defaultRetries, window: make(chan struct{}, cmp.Or(opts.Window, 256))}
	err := p.start(ctx, p, url, Options{
		MinBackoff: opts.MinBackoff, MaxBackoff: opts.MaxBackoff, Timeout: opts.Timeout, Silence: opts.Silence,
		Header: header, Dialer: opts.Dialer, Logger: opts.Logger,
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Close ends the pusher, and returns when it has. Messages without an answer are ErrUnknown.
func (p *Pusher) Close() error {
	p.close()
	return nil
}

// Done is closed when the pusher is over.
func (p *Pusher) Done() <-chan struct{} { return p.done }

// Err returns why the pusher is over: ErrClosed after Close; nil while it is not.
func (p *Pusher) Err() error { return p.cause() }

// Push pushes the Text of m to the subscribers of its App, or only to its Member, and returns
// when the gateway has accepted it. Messages that must keep an order are pushed one after
// another.
//
// While there is no link, and after a refusal that is not for good (429, or 503 where nothing
// was accepted), it waits and tries again, as long as ctx lasts. The error is a *ReplyError
// when the gateway refuses the message, or for longer than ctx lasts; ErrUnknown, with the
// cause, when the message may have been accepted, or yet be; and the error of ctx, or of Err,
// when it was not.
func (p *Pusher) Push(ctx context.Context, m Message) (Receipt, error) {
	key := ""
	if !p.once {
		key = p.prefix + strconv.FormatUint(p.last.Add(1), 36)
	}
	return p.push(ctx, key, m)
}

// PushOnce is Push with an idempotency key of the caller's own, of 1 to 64 bytes: for a
// message that may have been pushed by an earlier run of the program. The gateway remembers a
// key for two minutes.
func (p *Pusher) PushOnce(ctx context.Context, key string, m Message) (Receipt, error) {
	if key == "" {
		return Receipt{}, errors.New("client: an idempotency key has 1 to 64 bytes")
	}
	return p.push(ctx, key, m)
}

func (p *Pusher) push(ctx context.Context, key string, m Message) (Receipt, error) {
	switch {
	case m.Member == 0: // left out, it would be everybody
		return Receipt{}, errors.New("client: a message needs a Member, which may be Everybody")
	case !utf8.ValidString(m.App + m.Text + key):
		return Receipt{}, errors.New("client: a message must be UTF-8")
	}
	cmd := command{App: m.App, Member: m.Member, Text: &m.Text, Key: key}
	var doubt time.Time // since when the message may have been accepted; zero: it was not
	fail := func(err error) (Receipt, error) {
		if !doubt.IsZero() {
			err = fmt.Errorf("%w: %w", ErrUnknown, err)
		}
		return Receipt{}, err
	}
	for {
		if ctx.Err() != nil {
			return fail(ctx.Err())
		}
		conn, err := p.current(ctx)
		if err != nil {
			return fail(err)
		}
		if !doubt.IsZero() && time.Since(doubt) > p.retries {
			return fail(ErrConnectionLost)
		}
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return fail(ctx.Err())
		case <-p.done:
			return fail(p.cause())
		}
		began := time.Now()
		answered := make(chan error, 1)
		var r reply
		go func() { // writing may take longer than ctx lasts
			defer func() { <-p.window }()
			var err error
			r, err = conn.ask(context.WithoutCancel(ctx), cmd)
			answered <- err
		}()
		select {
		case err = <-answered:
		case <-ctx.Done():
			doubt = began
			return fail(ctx.Err())
		}
		var refused *ReplyError
		switch {
		case err == nil:
			return r.Receipt, nil
		case errors.Is(err, errNotSent):
		case !errors.As(err, &refused): // ErrConnectionLost
			if doubt.IsZero() {
				doubt = began
			}
			if key == "" {
				return fail(err)
			}
		case r.Outcome == "unknown":
			doubt = began
			return fail(err)
		case refused.Code == http.StatusTooManyRequests, refused.Code == http.StatusServiceUnavailable:
			wait := max(refused.RetryAfter, p.opts.MinBackoff)
			if end, ok := ctx.Deadline(); ok && time.Until(end) < wait {
				return fail(err)
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return fail(err)
			case <-p.done:
			}
		default:
			return fail(err)
		}
	}
}

// connect implements owner.
func (p *Pusher) connect(ctx context.Context) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	return p.dial(ctx)
}

// connected implements owner.
func (p *Pusher) connected(*connection) {}

// receive implements owner.
func (p *Pusher) receive(n *connection, data []byte) error {
	var r reply
	if err := json.Unmarshal(data, &r); err != nil {
		return err
	}
	n.answer(r)
	return nil
}

// lost implements owner. A link that the gateway has closed over a message that is too large
// is no reason to stay away: the largest one is refused, and the others are tried again.
func (p *Pusher) lost(n *connection) error {
	err := n.err
	var closed *CloseError
	if errors.As(err, &closed) && closed.Code == session.CloseTooLarge {
		err = errTooLarge
		n.answer(reply{ID: n.largest(), Code: http.StatusRequestEntityTooLarge, Message: "too large for a frame of the gateway"})
	}
	n.lost()
	return err
}

// over implements owner. When every place in the window is taken, nothing is under way.
func (p *Pusher) over(error) {
	for range cap(p.window) {
		p.window <- struct{}{}
	}
}
