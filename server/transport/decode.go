package transport

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"ws-gateway/push"
	"ws-gateway/session"
)

// A decoder turns the wire bytes of complete messages into messages. It is a gorilla
// connection that reads from memory: between messages such a connection has no state, so
// one serves any number of clients in turn. What it writes goes nowhere; the transport
// answers close frames and errors itself.
type decoder struct {
	limit int
	ws    *websocket.Conn
	br    *bufio.Reader // that ws reads from
	src   source        // that br reads from
	body  []byte        // the message that is being read
}

// newDecoder returns a decoder of messages up to limit bytes.
func newDecoder(limit int) *decoder {
	d := &decoder{limit: limit}
	d.br = bufio.NewReaderSize(&d.src, 4096)
	d.renew()
	return d
}

// decodedRequest is the handshake of every decoder's connection.
var decodedRequest = &http.Request{
	Method: http.MethodGet,
	Header: http.Header{
		"Connection":            {"upgrade"},
		"Upgrade":               {"websocket"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {"AAAAAAAAAAAAAAAAAAAAAA=="},
	},
}

// renew replaces the connection, which is of no use after an error.
func (d *decoder) renew() {
	d.src.left = nil
	d.br.Reset(&d.src) // bytes left over would fail the handshake
	ws, err := upgrader.Upgrade(memoryHijacker{d}, decodedRequest, nil)
	if err != nil {
		panic("transport: handshake in memory: " + err.Error())
	}
	ws.SetReadLimit(int64(d.limit))
	ws.SetCloseHandler(func(int, string) error { return nil })
	d.ws = ws
}

// decode gives deliver the n messages that data begins with; what deliver is given is valid
// until it returns, and false ends decoding.
func (d *decoder) decode(data []byte, n int, deliver func(op push.Opcode, data []byte) bool) error {
	d.src.left = data
	d.br.Reset(&d.src)
	for range n {
		op, err := d.read()
		if err != nil {
			d.renew()
			return err
		}
		if !deliver(op, d.body) {
			break
		}
	}
	if cap(d.body) > 2*maxIdleBody {
		d.body = nil
	}
	return nil
}

// maxIdleBody is the size of message for which a decoder keeps memory.
const maxIdleBody = 64 << 10

// judge returns the error that data holds: a [websocket.CloseError] if it is a close frame.
func (d *decoder) judge(data []byte) error {
	d.src.left = data
	d.br.Reset(&d.src)
	_, err := d.read()
	d.renew()
	if err == nil {
		return errDry
	}
	return err
}

// read reads a message into d.body.
func (d *decoder) read() (push.Opcode, error) {
	op, r, err := d.ws.NextReader()
	if err != nil {
		return 0, err
	}
	d.body = d.body[:0]
	for {
		if len(d.body) == cap(d.body) {
			d.body = append(d.body, 0)[:len(d.body)]
		}
		n, err := r.Read(d.body[len(d.body):cap(d.body)])
		d.body = d.body[:len(d.body)+n]
		if err == io.EOF {
			return push.Opcode(op), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// closeCode returns what to tell a peer whose bytes made gorilla return err. answer is set
// if it was a valid close frame.
func closeCode(err error) (code session.CloseCode, reason string, answer bool) {
	var closed *websocket.CloseError
	switch {
	case errors.Is(err, errDry):
		return session.CloseInternal, session.CloseInternal.Reason(), false
	case errors.As(err, &closed):
		return session.CloseCode(closed.Code), "", true
	case errors.Is(err, websocket.ErrReadLimit):
		return session.CloseTooLarge, session.CloseTooLarge.Reason(), false
	case err.Error() == "websocket: invalid utf8 payload in close frame":
		return session.CloseInvalidUTF8, session.CloseInvalidUTF8.Reason(), false
	default:
		return session.CloseProtocolError, strings.TrimPrefix(err.Error(), "websocket: "), false
	}
}

// errDry means that gorilla wanted bytes that are not there: scanner and decoder disagree,
// which is a defect in one of them.
var errDry = errors.New("transport: decoder ran dry")

// A source is the memory that a decoder's connection reads from.
type source struct {
	net.Conn // nil: gorilla uses the methods below only
	left     []byte
}

func (s *source) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		return 0, errDry
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

func (s *source) Write(p []byte) (int, error)      { return len(p), nil }
func (s *source) Close() error                     { return nil }
func (s *source) SetDeadline(time.Time) error      { return nil }
func (s *source) SetWriteDeadline(time.Time) error { return nil }

// A memoryHijacker is the ResponseWriter of a decoder's handshake.
type memoryHijacker struct{ d *decoder }

func (m memoryHijacker) Header() http.Header         { return nil }
func (m memoryHijacker) Write(p []byte) (int, error) { return len(p), nil }
func (m memoryHijacker) WriteHeader(int)             {}

func (m memoryHijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return &m.d.src, bufio.NewReadWriter(m.d.br, bufio.NewWriterSize(&m.d.src, 512)), nil
}
