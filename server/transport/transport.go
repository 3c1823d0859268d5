// Package transport holds the WebSocket connections of clients: it implements
// [session.Conn] over github.com/gorilla/websocket.
//
// There are two transports and one protocol. The event transport (plain TCP on Linux) keeps
// an idle connection as a file descriptor and a small struct, without a goroutine or a
// buffer; the goroutine transport (TLS, other sockets, other systems) keeps one goroutine
// each. What is common to both, and that is nearly all, is in conn.go (states, writing),
// queue.go (frames that wait, slow peers), receive.go with scan.go and decode.go (bytes
// to messages) and housekeeping.go (heartbeat and deadlines). [Transport.Upgrade] is where
// to start reading.
package transport

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// The modes of a [Transport].
const (
	ModeAuto      = "auto"      // the event transport where it can be had
	ModeEvent     = "event"     // the same, but New fails where it is not available
	ModeGoroutine = "goroutine" // always the goroutine transport
)

// Options configure a [Transport]. The zero value works: each field's zero means its
// default.
type Options struct {
	// Mode chooses the transport of plain TCP connections; "" is ModeAuto. All other
	// connections get the goroutine transport in every mode.
	Mode string
	// QueueBytes bounds what may wait to be written to one connection; 1 MiB by default. An
	// empty queue takes a frame of any size.
	QueueBytes int
	// QueueFrames bounds the same by number, of however many messages each frame is: a hub that
	// is behind joins messages, and that is not the peer's fault; 8192 by default.
	QueueFrames int
	// MaxMessage is the largest message that a client may send, in bytes; 64 KiB by default.
	// Fragmented into pieces so small that headers make up a fifth of it, it may be refused
	// below that.
	MaxMessage int
	// PartialBytes bounds the memory for incomplete messages of all connections together;
	// 64 MiB by default.
	PartialBytes int64
	// PartialTimeout is the time that a client has to complete a message once it has sent
	// the first byte; 15 s by default, so that one that drips its first message meets the
	// session's deadline for that, of 10 s, and is told so.
	PartialTimeout time.Duration
	// WriteTimeout is the time without any progress after which a peer with frames queued
	// is too slow; 5 s by default.
	WriteTimeout time.Duration
	// WriteMinimum is how many bytes a peer with frames queued has to take every 30 s; 64 KiB
	// by default.
	WriteMinimum int
	// PingInterval is the silence after which a peer is sent a ping; 25 s by default.
	PingInterval time.Duration
	// PongTimeout is the time that the peer has to say anything at all after the ping; 10 s
	// by default.
	PongTimeout time.Duration
	// Workers bounds the goroutines that run what a Handler's Receive returns for
	// connections of the event transport, and what has waited for a queue to drain; 128 by
	// default. More of them wait. Those in [session.Waiter.Wait] do not count.
	Workers int
	// Pollers is the number of goroutines that read the event transport's connections; by
	// default one for every four processors.
	Pollers int
	// Logger gets what operators should know; nil discards it.
	Logger *slog.Logger
	// Metrics counts sessions, bytes and refusals; nil counts nothing.
	Metrics *stat.Metrics
}

// A Transport holds connections until they end or it is closed. Its methods may be called
// from any goroutine.
type Transport struct {
	opts     Options
	log      *slog.Logger
	clock    clock
	roster   roster
	watched  watchlist
	workers  workers
	decoders sync.Pool    // of *decoder, for the goroutine transport
	partial  atomic.Int64 // bytes held for incomplete messages
	written  atomic.Int64 // bytes written and not reported to Metrics yet
	panicked sync.Map     // places whose first panic has been logged
	pollers  pollers
	closing  sync.Once
	stop     chan struct{}
	wg       sync.WaitGroup // goroutines of the transport
}

// New returns a running Transport. It fails for an unknown mode, and in ModeEvent where the
// event transport is not available. The caller closes it.
func New(opts Options) (*Transport, error) {
	setDefault(&opts.Mode, ModeAuto)
	setDefault(&opts.QueueBytes, 1<<20)
	setDefault(&opts.QueueFrames, 8<<10)
	setDefault(&opts.MaxMessage, 64<<10)
	setDefault(&opts.PartialBytes, 64<<20)
	setDefault(&opts.PartialTimeout, 15*time.Second)
	setDefault(&opts.WriteTimeout, 5*time.Second)
	setDefault(&opts.WriteMinimum, 64<<10)
	setDefault(&opts.PingInterval, 25*time.Second)
	setDefault(&opts.PongTimeout, 10*time.Second)
	setDefault(&opts.Workers, 128)
	setDefault(&opts.Pollers, (runtime.GOMAXPROCS(0)+3)/4)
	setDefault(&opts.Logger, slog.New(slog.DiscardHandler))
	t := &Transport{opts: opts, log: opts.Logger, stop: make(chan struct{})}
	t.workers.max = opts.Workers
	t.decoders.New = func() any { return newDecoder(opts.MaxMessage) }
	switch opts.Mode {
	case ModeAuto, ModeEvent:
		if err := t.pollers.start(t); err != nil {
			if opts.Mode == ModeEvent {
				return nil, fmt.Errorf("start the event transport: %w", err)
			}
			if !errors.Is(err, errors.ErrUnsupported) {
				t.log.Warn("event transport is not available, connections cost more memory", "err", err)
			}
		}
	case ModeGoroutine:
	default:
		return nil, fmt.Errorf("unknown transport %q, want %s, %s or %s", opts.Mode, ModeAuto, ModeEvent, ModeGoroutine)
	}
	t.wg.Go(t.housekeep)
	return t, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Close ends what is left with [session.CloseGoingAway], without the courtesy of a drain,
// and returns once every handler has been told and every goroutine has ended. Upgrade
// refuses connections from then on. Only the first call does anything; others wait for it.
func (t *Transport) Close() { t.closing.Do(t.close) }

func (t *Transport) close() {
	t.roster.close(func(c *conn) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.abort(session.CloseGoingAway)
	})
	close(t.stop)
	t.pollers.stop()
	t.wg.Wait()
	t.workers.wg.Wait()
	t.report()
}

// contain calls f and turns a panic into a count and, the first time at each place, a log
// record with the stack. It reports whether f returned normally.
func (t *Transport) contain(where string, f func()) (ok bool) {
	defer func() {
		if ok {
			return
		}
		err := recover()
		t.opts.Metrics.Panic(where)
		if _, logged := t.panicked.LoadOrStore(where, true); !logged {
			t.log.Error("panic contained", "where", where, "err", err, "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}
