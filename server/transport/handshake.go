package transport

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// ErrClosed is returned by [Transport.Upgrade] after [Transport.Close].
var ErrClosed = errors.New("transport: closed")

// upgrader does the handshakes. It uses the buffers of net/http, and keeps none: with a
// pool set, a gorilla connection has no write buffer between messages.
var upgrader = websocket.Upgrader{
	WriteBufferSize: 256,
	WriteBufferPool: new(sync.Pool),
	CheckOrigin:     func(*http.Request) bool { return true }, // the server has checked it
	Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
		if h, ok := w.(*hijacker); !ok || !h.hijacked {
			http.Error(w, reason.Error(), status)
		}
	},
}

// Upgrade answers a WebSocket handshake and gives the connection to the handler that open
// returns. It returns as soon as the connection does not need the calling goroutine any
// more. remote is what the connection reports as its client's address.
//
// open is called once the handshake has succeeded, and may use its connection at once. When
// Upgrade returns an error, the request has been answered; whatever open returned has then
// been told of the end. Nothing of w or r is used after the return. The origin is not checked.
func (t *Transport) Upgrade(w http.ResponseWriter, r *http.Request, remote netip.Addr, open func(session.Conn) session.Handler) error {
	if t.roster.isClosed() {
		t.opts.Metrics.Refused(stat.ReasonDraining)
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return ErrClosed
	}
	if err := checkRequest(w, r); err != nil {
		return err
	}
	ws, err := upgrader.Upgrade(&hijacker{ResponseWriter: w}, r, nil)
	if err != nil {
		return fmt.Errorf("websocket handshake: %w", err)
	}
	nc := ws.NetConn() // the gorilla connection has done its work: see decoder
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetWriteBuffer(sendBuffer)
		if t.pollers.running() {
			return t.openEvent(tcp, remote, open)
		}
	}
	return t.openGoroutine(nc, remote, open)
}

// sendBuffer is the size of a socket's send buffer. The kernel would let it grow to
// megabytes, and a peer that does not read would go unnoticed for as long.
const sendBuffer = 64 << 10

// checkRequest refuses requests that gorilla would refuse, with the status that says why.
func checkRequest(w http.ResponseWriter, r *http.Request) error {
	status, reason := 0, ""
	switch {
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		status, reason = http.StatusMethodNotAllowed, "a WebSocket handshake is a GET request"
	case !websocket.IsWebSocketUpgrade(r), r.ProtoMajor != 1:
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		status, reason = http.StatusUpgradeRequired, "this is a WebSocket endpoint"
	case r.Header.Get("Sec-Websocket-Version") != "13":
		w.Header().Set("Sec-WebSocket-Version", "13")
		status, reason = http.StatusUpgradeRequired, "WebSocket version 13 is required"
	default:
		return nil
	}
	http.Error(w, reason, status)
	return fmt.Errorf("websocket handshake: %s", reason)
}

// A hijacker refuses clients that send frames before the handshake is answered: whether
// they are in the server's buffer already is a matter of luck.
type hijacker struct {
	http.ResponseWriter
	hijacked bool
}

var errEarly = errors.New("client sent data before the handshake was answered")

// Hijack implements [http.Hijacker].
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, brw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.hijacked = true
	if brw.Reader.Buffered() > 0 {
		body := errEarly.Error() + "\n"
		nc.SetWriteDeadline(time.Now().Add(time.Second))
		fmt.Fprintf(nc, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
			"Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		nc.Close()
		return nil, nil, errEarly
	}
	return nc, brw, nil
}

// enlist prepares c and puts it on the roster. It fails when the transport is closed: then
// nobody knows c, and the caller closes the socket.
func (t *Transport) enlist(c *conn, l link, kind string, remote netip.Addr) error {
	now := t.clock.now()
	c.t, c.link, c.remote = t, l, remote
	c.seen.Store(now)
	if !t.roster.add(c, now+ticks(t.opts.PingInterval)) {
		return ErrClosed
	}
	t.opts.Metrics.SessionOpened(kind)
	return nil
}

// open opens the handler. If it panics, others may know c already, and the caller ends it.
func (c *conn) open(open func(session.Conn) session.Handler) error {
	if !c.t.contain("open", func() { c.handler = open(c) }) {
		c.Abort(session.CloseInternal)
		return errors.New("open session: panic")
	}
	return nil
}
