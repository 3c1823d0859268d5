package client

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// An owner is what a reconnector keeps connected. Its methods are called one at a time, but
// for connected and lost, which other methods of the owner may race with.
type owner interface {
	connect(ctx context.Context) (*connection, error) // makes one attempt
	connected(*connection)                            // is called before anything is read
	receive(n *connection, data []byte) error         // takes what the gateway sends; an error ends the connection
	lost(*connection) error                           // ends what waits for an answer, and returns why the connection ended
	over(err error)                                   // is called once, last
}

// A reconnector keeps its owner connected to a gateway until that says not to come back.
type reconnector struct {
	owner  owner
	opts   Options // those about the connection, with their defaults
	url    string
	log    *slog.Logger
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   chan struct{} // closed when it is over

	mu    sync.Mutex
	conn  *connection   // nil while there is none; guarded by mu
	ready chan struct{} // closed while conn is there; guarded by mu
	err   error         // why it is over; guarded by mu

	number uint64 // of the last connection; of start and then run
}

// start makes the first attempt to connect, within ctx, and then keeps the owner connected.
func (r *reconnector) start(ctx context.Context, owner owner, url string, opts Options) error {
	r.owner, r.url, r.opts, r.log = owner, url, opts, opts.Logger
	r.done, r.ready = make(chan struct{}), make(chan struct{})
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	o := &r.opts
	o.MinBackoff = cmp.Or(o.MinBackoff, 500*time.Millisecond)
	o.MaxBackoff = max(o.MinBackoff, cmp.Or(o.MaxBackoff, 20*time.Second))
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Silence = cmp.Or(o.Silence, 20*time.Second)
	o.Dialer = cmp.Or(o.Dialer, websocket.DefaultDialer)
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	r.tell(Event{State: Connecting})
	conn, err := owner.connect(ctx)
	if err != nil {
		r.cancel()
		r.tell(Event{State: Disconnected, Err: err, Final: true})
		return err
	}
	go r.run(conn)
	return nil
}

// close ends it, and returns when it has.
func (r *reconnector) close() {
	r.cancel()
	<-r.done
}

// cause returns why it is over, nil while it is not.
func (r *reconnector) cause() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// run keeps the owner connected until it is over.
func (r *reconnector) run(conn *connection) {
	defer close(r.done)
	var b backoff
	for {
		up := time.Now()
		err := r.serve(conn)
		if r.final(err) {
			break
		}
		r.tell(Event{State: Disconnected, Err: err})
		if time.Since(up) >= r.opts.MaxBackoff {
			b = backoff{}
		}
		b.after(err)
		if conn, err = r.comeBack(&b, err); err != nil {
			break
		}
	}
}

// comeBack connects again, after a connection that ended with cause, as often as it takes.
// An error is final.
func (r *reconnector) comeBack(b *backoff, cause error) (*connection, error) {
	for {
		wait := b.next(r.opts.MinBackoff, r.opts.MaxBackoff, cause)
		r.tell(Event{State: Connecting, Err: cause, Wait: wait})
		sleep(r.ctx, wait)
		conn, err := r.owner.connect(r.ctx)
		if err == nil {
			return conn, nil
		}
		if r.final(err) {
			return nil, err
		}
		cause = err
	}
}

// final reports whether it is over after a connection ended, or could not be made, with err,
// and ends the owner then.
func (r *reconnector) final(err error) bool {
	var closed *CloseError
	var refused *HandshakeError
	switch {
	case r.ctx.Err() != nil:
		err = ErrClosed
	case errors.Is(err, ErrUnauthorized),
		errors.As(err, &closed) && !temporary(closed.Code),
		errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden):
	default:
		return false
	}
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
	r.cancel()
	r.owner.over(err)
	r.tell(Event{State: Disconnected, Err: err, Final: true})
	return true
}

// serve makes conn the current connection until it ends, and returns why it did.
func (r *reconnector) serve(conn *connection) error {
	r.mu.Lock()
	r.conn = conn
	close(r.ready)
	r.mu.Unlock()
	r.tell(Event{State: Connected})
	r.owner.connected(conn)

	stop := context.AfterFunc(r.ctx, conn.leave)
	conn.read(r.owner)
	stop()

	r.mu.Lock()
	r.conn, r.ready = nil, make(chan struct{})
	r.mu.Unlock()
	return r.owner.lost(conn)
}

// current returns the current connection, waiting for one if need be.
func (r *reconnector) current(ctx context.Context) (*connection, error) {
	for {
		r.mu.Lock()
		conn, ready, err := r.conn, r.ready, r.err
		r.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if conn != nil {
			return conn, nil
		}
		select {
		case <-ready:
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (r *reconnector) tell(e Event) {
	r.log.Debug("connection", "state", e.State.String(), "err", e.Err, "wait", e.Wait)
	if r.opts.Events != nil {
		r.opts.Events(e)
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
