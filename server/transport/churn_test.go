package transport_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
)

// A churned is one connection of TestChurn: frames for it carry its number.
type churned struct {
	conn   session.Conn
	number atomic.Uint32 // as the client says in its first message
	closed atomic.Int32  // calls of Closed
}

func (h *churned) Receive(op push.Opcode, data []byte) func() {
	n := binary.LittleEndian.Uint32(data)
	h.number.Store(n)
	h.conn.Send(push.NewFrame(push.OpBinary, data))
	if n%3 == 0 {
		return func() { runtime.Gosched() }
	}
	return nil
}

func (h *churned) Closed(session.CloseCode) { h.closed.Add(1) }

// TestChurn opens and ends connections in every way while frames are sent to all of them,
// so that file descriptor numbers are used again at once: no frame may reach another
// connection, every handler is told of the end once, and nothing is left (S05).
func TestChurn(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		const clients = 8
		turns := 100
		if kind == "tls" {
			turns = 20 // a handshake costs a hundred times as much
		}
		var mu sync.Mutex
		var all []*churned
		s := serveHandler(t, kind, transport.Options{}, func(c session.Conn) session.Handler {
			h := &churned{conn: c}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, h)
			return h
		})
		recent := func(n int) []*churned {
			mu.Lock()
			defer mu.Unlock()
			return append([]*churned(nil), all[max(0, len(all)-n):]...)
		}
		stop := make(chan struct{})
		var senders sync.WaitGroup
		var sent atomic.Int64
		for _, together := range []bool{false, true} {
			senders.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					var all []session.Sending
					for _, h := range recent(3 * clients) {
						if n := h.number.Load(); n != 0 {
							f := push.NewFrame(push.OpBinary, binary.LittleEndian.AppendUint32(make([]byte, 0, 200), n)[:200])
							all = append(all, session.Sending{Conn: h.conn, Frame: f})
						}
					}
					if len(all) > 0 && together {
						if g, ok := all[0].Conn.(session.Group); ok {
							g.SendAll(all)
						}
					}
					for _, s := range all {
						if s.Frame == nil || s.Conn.Send(s.Frame) == nil {
							sent.Add(1)
						}
						if rand.IntN(500) == 0 {
							s.Conn.Abort(session.CloseRevoked)
						}
					}
					runtime.Gosched()
				}
			})
		}
		var wg sync.WaitGroup
		for i := range clients {
			wg.Go(func() {
				for turn := range turns {
					number := uint32(1 + i + clients*turn)
					if !churn(t, s, number) {
						return
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		senders.Wait()
		s.tr.Close()
		if sent.Load() == 0 {
			t.Error("nothing was sent")
		}
		for _, h := range all {
			if got := h.closed.Load(); got != 1 {
				t.Errorf("connection %d: Closed was called %d times", h.number.Load(), got)
			}
		}
	})
}

// churn runs one connection and reports whether all was well.
func churn(t *testing.T, s *server, number uint32) bool {
	c := s.connect()
	defer c.Close()
	io.WriteString(c.Conn, handshake+"\r\n")
	if res, err := http.ReadResponse(c.br, nil); err != nil || res.StatusCode != 101 {
		t.Errorf("handshake: %v", err)
		return false
	}
	rnd := rand.New(rand.NewPCG(uint64(number), 0))
	io.WriteString(c.Conn, masked(fin|2, string(binary.LittleEndian.AppendUint32(nil, number))))
	for range rnd.IntN(50) {
		op, got, err := c.read()
		if err != nil || op == push.OpClose {
			return true // aborted
		}
		if n := binary.LittleEndian.Uint32([]byte(got)); n != number {
			t.Errorf("connection %d received a frame for %d", number, n)
			return false
		}
	}
	switch rnd.IntN(4) {
	case 0:
		c.reset()
	case 1:
		io.WriteString(c.Conn, closing(1000, ""))
		io.Copy(io.Discard, c.br)
	case 2:
		io.WriteString(c.Conn, text("abc")[:5])
	}
	return true
}
