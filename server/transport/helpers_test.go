package transport_test

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
)

// kinds are the ways in which a connection can be held. Every one has to behave the same.
func kinds() []string {
	if runtime.GOOS == "linux" {
		return []string{"event", "goroutine", "tls"}
	}
	return []string{"goroutine", "tls"}
}

// each runs test as a subtest for every kind of connection.
func each(t *testing.T, test func(t *testing.T, kind string)) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) { test(t, kind) })
	}
}

// eachAtOnce is each for a test that mostly waits: a server for every kind of connection, and
// all subtests at the same time.
func eachAtOnce(t *testing.T, serve func(kind string) *server, test func(t *testing.T, kind string, s *server)) {
	servers := make(map[string]*server)
	for _, kind := range kinds() { // before any subtest: serve counts descriptors
		servers[kind] = serve(kind)
	}
	t.Run("all", func(t *testing.T) {
		for kind, s := range servers {
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				test(t, kind, s)
			})
		}
	})
}

// A server is a transport behind a real http.Server.
type server struct {
	t     testing.TB
	tr    *transport.Transport
	addr  string
	tls   bool
	conns chan *peer // every connection that was opened
	errs  chan error // what Upgrade returned, if not nil
}

// A peer is the gateway's end of a connection: its handler, which tells the test all.
type peer struct {
	conn    session.Conn
	got     chan message
	closed  chan session.CloseCode
	receive func(p *peer, op push.Opcode, data []byte) func()
}

type message struct {
	op   push.Opcode
	text string
}

func (p *peer) Receive(op push.Opcode, data []byte) func() {
	if p.receive != nil {
		return p.receive(p, op, data)
	}
	p.got <- message{op, string(data)}
	return nil
}

func (p *peer) Closed(code session.CloseCode) { p.closed <- code }

// An echoer is a small handler that sends every message back.
type echoer struct{ conn session.Conn }

func newEchoer(c session.Conn) session.Handler { return echoer{c} }

func (e echoer) Receive(op push.Opcode, data []byte) func() {
	e.conn.Send(push.NewFrame(op, data))
	return nil
}

func (e echoer) Closed(session.CloseCode) {}

// echo is a receive function that sends every message back.
func echo(p *peer, op push.Opcode, data []byte) func() {
	p.conn.Send(push.NewFrame(op, data))
	return nil
}

// serve starts a server whose connections are of the given kind. The test fails if file
// descriptors are left when everything has ended.
func serve(t testing.TB, kind string, opts transport.Options, receive func(*peer, push.Opcode, []byte) func()) *server {
	t.Helper()
	return serveOpen(t, kind, opts, func(c session.Conn) *peer { return &peer{receive: receive} })
}

func serveOpen(t testing.TB, kind string, opts transport.Options, open func(session.Conn) *peer) *server {
	t.Helper()
	conns := make(chan *peer, 20_000)
	s := serveHandler(t, kind, opts, func(c session.Conn) session.Handler {
		p := open(c)
		p.conn = c
		p.got, p.closed = make(chan message, 10_000), make(chan session.CloseCode, 2)
		conns <- p
		return p
	})
	s.conns = conns
	return s
}

func serveHandler(t testing.TB, kind string, opts transport.Options, open func(session.Conn) session.Handler) *server {
	t.Helper()
	before := descriptors()
	opts.Mode = kind
	if kind == "tls" {
		opts.Mode = transport.ModeAuto
	}
	tr, err := transport.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, tr: tr, tls: kind == "tls", errs: make(chan error, 20_000)}
	hs := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		remote := netip.MustParseAddrPort(r.RemoteAddr).Addr()
		if err := tr.Upgrade(w, r, remote, open); err != nil {
			s.errs <- err
		}
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	if s.tls {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	}
	var wg sync.WaitGroup
	wg.Go(func() { hs.Serve(l) })
	t.Cleanup(func() {
		hs.Close()
		tr.Close()
		wg.Wait()
		wantDescriptors(t, before)
	})
	return s
}

// wantDescriptors fails the test if more file descriptors are open than before, and remain
// so: net/http closes a connection on the goroutine that reads it.
func wantDescriptors(t testing.TB, before int) {
	t.Helper()
	if !eventually(func() bool { return descriptors() <= before }) {
		t.Errorf("%d descriptors are open, %d before the test", descriptors(), before)
	}
}

// eventually reports whether what is on its way out is gone in the end, as told by gone.
func eventually(gone func() bool) bool {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); !gone(); <-ticker.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// descriptors counts the open file descriptors of the process, 0 where there is no /proc.
func descriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		if strings.HasPrefix(target, "socket:") || strings.HasPrefix(target, "anon_inode:[eventpoll]") {
			n++
		}
	}
	return n
}

var certificate = func() func(t testing.TB) tls.Certificate {
	var once sync.Once
	var cert tls.Certificate
	return func(t testing.TB) tls.Certificate {
		once.Do(func() {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
			der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
			if err != nil {
				t.Fatal(err)
			}
			cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		})
		return cert
	}
}()

// A client is the other end, byte by byte.
type client struct {
	net.Conn
	t   testing.TB
	tcp *net.TCPConn
	br  *bufio.Reader
}

const handshake = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// noDeadline is for clients of benchmarks.
var noDeadline time.Time

// patience is how long a test waits for what has to happen.
const patience = 20 * time.Second

// connect opens a TCP or TLS connection without a handshake.
func (s *server) connect() *client {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &client{Conn: nc, t: s.t, tcp: nc.(*net.TCPConn)}
	if s.tls {
		c.Conn = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	c.SetDeadline(time.Now().Add(patience))
	c.br = bufio.NewReader(c.Conn)
	s.t.Cleanup(func() { nc.Close() })
	return c
}

// dial connects a client and returns both ends.
func (s *server) dial() (*client, *peer) {
	s.t.Helper()
	c := s.connect()
	c.write(handshake + "\r\n")
	res, err := http.ReadResponse(c.br, nil)
	if err != nil {
		s.t.Fatalf("handshake: %v", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		s.t.Fatalf("handshake: %s, accept %q", res.Status, res.Header.Get("Sec-Websocket-Accept"))
	}
	return c, wait(s.t, s.conns, "connection")
}

func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

func (c *client) write(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// reset ends the connection with a TCP reset.
func (c *client) reset() {
	c.tcp.SetLinger(0)
	c.tcp.Close()
}

// read reads one frame from the server.
func (c *client) read() (push.Opcode, string, error) {
	var h [10]byte
	if _, err := io.ReadFull(c.br, h[:2]); err != nil {
		return 0, "", err
	}
	if h[0]&0xf0 != 0x80 || h[1]&0x80 != 0 {
		return 0, "", fmt.Errorf("frame header %x", h[:2])
	}
	n := uint64(h[1])
	switch n {
	case 126:
		if _, err := io.ReadFull(c.br, h[2:4]); err != nil {
			return 0, "", err
		}
		n = uint64(binary.BigEndian.Uint16(h[2:]))
	case 127:
		if _, err := io.ReadFull(c.br, h[2:10]); err != nil {
			return 0, "", err
		}
		n = binary.BigEndian.Uint64(h[2:])
	}
	if n > 64<<20 {
		return 0, "", fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.br, b); err != nil {
		return 0, "", err
	}
	return push.Opcode(h[0] & 0x0f), string(b), nil
}

// want fails the test unless the next frame is this one.
func (c *client) want(op push.Opcode, text string) {
	c.t.Helper()
	gotOp, got, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v, want %d %.80q", err, op, text)
	}
	if gotOp != op || got != text {
		c.t.Fatalf("got frame %d %.80q (%d bytes), want %d %.80q (%d bytes)", gotOp, got, len(got), op, text, len(text))
	}
}

// wantClose reads up to a close frame with this code, then to the end of the stream.
func (c *client) wantClose(code session.CloseCode) {
	c.t.Helper()
	for {
		op, got, err := c.read()
		if err != nil {
			c.t.Fatalf("read: %v, want a close frame with %d", err, code)
		}
		if op != push.OpClose {
			continue
		}
		if gotCode := closeCode(got); gotCode != code {
			c.t.Fatalf("close frame with %d %q, want %d", gotCode, got[min(2, len(got)):], code)
		}
		break
	}
	if rest, err := io.ReadAll(c.br); len(rest) > 0 || err != nil && !isReset(err) {
		c.t.Fatalf("behind the close frame: %q, %v", rest, err)
	}
	c.Close()
}

func isReset(err error) bool { return strings.Contains(err.Error(), "connection reset") }

func closeCode(payload string) session.CloseCode {
	if len(payload) < 2 {
		return session.CloseNoStatus
	}
	return session.CloseCode(binary.BigEndian.Uint16([]byte(payload)))
}

// wantClosed fails the test unless the handler is told of the end with this code.
func (p *peer) wantClosed(t testing.TB, code session.CloseCode) {
	t.Helper()
	if got := wait(t, p.closed, "call of Closed"); got != code {
		t.Errorf("Closed with %d, want %d", got, code)
	}
}

// masked returns a client's frame; the first byte is given, as is the payload.
func masked(first byte, payload string) string {
	b := push.AppendHeader(nil, 0, len(payload))
	b[0] = first
	b[1] |= 0x80
	key := []byte{0x12, 0x34, 0x56, 0x78}
	b = append(b, key...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return string(b)
}

const fin = 0x80

func text(s string) string { return masked(fin|1, s) }

func closing(code session.CloseCode, reason string) string {
	return masked(fin|8, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// printable cuts a long string for an error message.
func printable(s string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%.60q", s)
	return b.String()
}
