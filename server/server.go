// Package server is all that is HTTP: the listeners, the routes (routes.go has all of them),
// the handshakes of WebSocket clients, and the order in which everything stops (drain.go).
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-chi/chi/v5"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/stat"
)

// Options configure [New]. Hub, Sessions and Transport are required; the zero value of
// everything else works.
type Options struct {
	Hub       *push.Hub
	Sessions  *session.Gateway
	Transport *transport.Transport

	Addr      string       // for clients and backends; "": ":5000"
	Stat      http.Handler // nil: none
	StatAddrs []string     // where Stat is served, each with its own listener; nil: "127.0.0.1:6000"
	Ready     *stat.Ready  // told when clients are taken, and when no longer; may be nil

	Keys    *push.Keys // who may push; nil: loopback peers only
	MaxBody int64      // of a push, in bytes; 0: 1 MiB
	// BodyTimeout is how long a request may take to come, its body included; 0: 10 s.
	BodyTimeout time.Duration

	Proxies  *Proxies // nil: none is trusted
	Failures Failures // nil: refused tokens are not held against an address
	// Origins are the pages that may connect beside those of the same host and of loopback:
	// exact, as in https://example.com:8443, or * for all.
	Origins []string
	Limits  Limits
	Doors   map[string]Door // endpoints beside the native / and /ws, by path
	Mesh    *script.Mesh    // the API of doors for backends; nil: none

	TLSCert, TLSKey string // PEM files, read again when they change; "": no TLS

	DrainDelay  time.Duration // between being not ready and accepting nobody
	DrainWindow time.Duration // over which the sessions are closed
	// Interrupt is called when a stop has taken as long as it may and handlers still wait for
	// something: it ends that. Nil does nothing, and the stop waits for them.
	Interrupt func()

	Logger  *slog.Logger  // nil: discard
	Metrics *stat.Metrics // nil: none
}

// A Door opens a new connection in its protocol, and returns what handles it. It is called
// when the handshake has succeeded; r is the handshake, and not to be kept.
type Door func(c session.Conn, r *http.Request) session.Handler

// Failures knows which addresses guessed wrong too often.
type Failures interface {
	// Allowed reports whether addr may try again.
	Allowed(addr netip.Addr) bool
}

// Timeouts of the HTTP part of every connection. They keep slow peers from holding connections
// that nothing else limits, and have no setting.
const (
	headerTimeout = 5 * time.Second  // for a request's header, and a TLS handshake
	answerTimeout = 5 * time.Second  // for the answer, beyond BodyTimeout
	idleTimeout   = 75 * time.Second // between the requests of a backend
	maxHeader     = 16 << 10         // bytes
)

// A Server serves clients, backends and the stat handler.
type Server struct {
	opts     Options
	log      *slog.Logger
	origins  *origins
	limits   *limiter
	router   *chi.Mux
	cert     *certificate // nil without TLS
	clients  listener
	stat     []listener // of one HTTP server; none without Options.Stat
	sockets  atomic.Int64
	files    int64 // sockets beyond which none is served; 0: no limit
	draining atomic.Bool
}

// A listener is a socket and what is served there.
type listener struct {
	net.Listener
	http *http.Server
}

// New returns a server that listens already; nothing is answered before [Server.Serve]. On
// error, which names the address or file, nothing is left open.
func New(opts Options) (*Server, error) {
	opts.Addr = cmp.Or(opts.Addr, ":5000")
	opts.BodyTimeout = cmp.Or(opts.BodyTimeout, 10*time.Second)
	if opts.StatAddrs == nil {
		opts.StatAddrs = []string{"127.0.0.1:6000"}
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Keys == nil {
		opts.Keys, _ = push.NewKeys(push.KeysOptions{Logger: opts.Logger, Metrics: opts.Metrics}) // without a file nothing can fail
	}
	s := &Server{opts: opts, log: opts.Logger, limits: newLimiter(opts.Limits)}
	if files := maxFiles(); files > 0 {
		s.files = int64(files - reservedFiles/2)
	}
	var err error
	if s.origins, err = newOrigins(opts.Origins); err != nil {
		return nil, err
	}
	if s.origins.any {
		s.log.Warn("pages of every origin may connect: a page that somebody visits can use the gateway in their name")
	}
	if opts.TLSCert != "" || opts.TLSKey != "" {
		if s.cert, err = loadCertificate(opts.TLSCert, opts.TLSKey, s.log, opts.Metrics); err != nil {
			return nil, err
		}
	}
	s.router = s.routes()

	if s.clients.Listener, err = listen(opts.Addr); err != nil {
		return nil, err
	}
	s.clients.http = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       opts.BodyTimeout,
		WriteTimeout:      opts.BodyTimeout + answerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnState:         s.connState,
		ErrorLog:          slog.NewLogLogger(netHTTP{s.log.Handler()}, slog.LevelDebug),
		Protocols:         http1(),
	}
	if s.cert != nil {
		s.clients.Listener = tls.NewListener(s.clients.Listener, s.cert.config())
	}
	if opts.Stat == nil {
		return s, nil
	}
	stats := &http.Server{
		Handler:           s.contain("stat", opts.Stat),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       opts.BodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          s.clients.http.ErrorLog,
		Protocols:         http1(),
	}
	for _, addr := range opts.StatAddrs {
		l, err := listen(addr)
		if err != nil {
			s.clients.Close()
			for _, l := range s.stat {
				l.Close()
			}
			return nil, err
		}
		s.stat = append(s.stat, listener{l, stats})
	}
	return s, nil
}

// listen listens at addr. Its connections do without two things that cost each of them system
// calls: TCP's keep-alive, which finds nothing before HTTP's timeouts and a WebSocket's heartbeat
// do, and multipath TCP.
func listen(addr string) (net.Listener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, errors.Unwrap(err))
	}
	return l, nil
}

func http1() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return p
}

// Addr returns the address for clients and backends, its port chosen.
func (s *Server) Addr() net.Addr { return s.clients.Addr() }

// StatAddrs returns the addresses of the stat server.
func (s *Server) StatAddrs() []net.Addr {
	addrs := make([]net.Addr, len(s.stat))
	for i, l := range s.stat {
		addrs[i] = l.Addr()
	}
	return addrs
}

// connState counts the sockets that are not a client's connection (yet), and closes those
// for which files run out, while there is still one left to say so.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if n := s.sockets.Add(1) + s.limits.seats.Load(); s.files > 0 && n > s.files {
			s.opts.Metrics.Refused(stat.ReasonConnections)
			if _, ok := c.(*net.TCPConn); ok { // fits into the empty buffer of a new socket
				c.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
			}
			c.Close()
		}
	case http.StateHijacked, http.StateClosed:
		s.sockets.Add(-1)
	}
}

// contain makes a panic of next cost one request.
func (s *Server) contain(where string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer s.recovered(where, w)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) recovered(where string, w http.ResponseWriter) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler {
		panic(cause)
	}
	s.opts.Metrics.Panic(where)
	s.log.Error("panic contained", "where", where, "err", cause, "stack", string(debug.Stack()))
	w.Header().Set("Connection", "close")
	answer(w, http.StatusInternalServerError, "internal error")
}

// netHTTP is where net/http logs. All of it is a peer's doing, except what keeps the gateway
// from accepting anybody.
type netHTTP struct{ slog.Handler }

// Handle implements [slog.Handler].
func (h netHTTP) Handle(ctx context.Context, r slog.Record) error {
	level := slog.LevelDebug
	if strings.Contains(r.Message, "Accept error") {
		level = slog.LevelError
	}
	if !h.Handler.Enabled(ctx, level) {
		return nil
	}
	out := slog.NewRecord(r.Time, level, "net/http", 0)
	out.AddAttrs(slog.String("err", r.Message))
	return h.Handler.Handle(ctx, out)
}

// Enabled implements [slog.Handler]: Handle decides.
func (h netHTTP) Enabled(context.Context, slog.Level) bool { return true }
