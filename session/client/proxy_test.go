package client_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// A proxy stands between a client and a gateway, and cuts, stalls or spoils what passes: whole
// frames too, which toxiproxy knows nothing of.
type proxy struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex
	target  string
	pairs   map[net.Conn]net.Conn
	refuse  bool // new connections are closed at once
	stalled bool // nothing passes
	resumed *sync.Cond

	// spoil returns what the client gets instead of the n'th frame of the gateway, which counts
	// over all connections; nil: every frame as it is.
	spoil  func(n int, frame []byte) []byte
	frames int
}

func newProxy(t *testing.T, target string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, pairs: make(map[net.Conn]net.Conn)}
	p.resumed = sync.NewCond(&p.mu)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.stall(false)
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) url() string { return "ws://" + p.listener.Addr().String() + "/" }

// cut ends every connection, as a network does: in the middle of anything.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a, b := range p.pairs {
		a.(*net.TCPConn).SetLinger(0)
		a.Close()
		b.Close()
	}
}

func (p *proxy) setTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) setRefuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// stall stops everything, or lets it pass again.
func (p *proxy) stall(stalled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = stalled
	p.resumed.Broadcast()
}

// pass waits while the proxy is stalled.
func (p *proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled {
		p.resumed.Wait()
	}
}

func (p *proxy) accept() {
	for {
		a, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		target, refuse := p.target, p.refuse
		p.mu.Unlock()
		b, err := net.Dial("tcp", target)
		if err != nil || refuse {
			a.Close()
			if b != nil {
				b.Close()
			}
			continue
		}
		p.mu.Lock()
		p.pairs[a] = b
		p.mu.Unlock()
		p.wg.Go(func() {
			defer b.Close()
			buf := make([]byte, 4096)
			for {
				n, err := a.Read(buf)
				p.pass()
				if _, werr := b.Write(buf[:n]); err != nil || werr != nil {
					return
				}
			}
		})
		p.wg.Go(func() {
			p.toClient(a, b)
			a.Close()
			p.mu.Lock()
			delete(p.pairs, a)
			p.mu.Unlock()
		})
	}
}

// toClient copies what the gateway sends, the answer to the handshake and then frames.
func (p *proxy) toClient(a, b net.Conn) {
	var status [len("HTTP/1.1 101")]byte
	if _, err := io.ReadFull(b, status[:]); err != nil {
		return
	}
	if _, err := a.Write(status[:]); err != nil {
		return
	}
	if !bytes.HasSuffix(status[:], []byte(" 101")) {
		io.Copy(a, b)
		return
	}
	for end := 0; end < 4; { // up to an empty line
		var c [1]byte
		if _, err := io.ReadFull(b, c[:]); err != nil {
			return
		}
		if c[0] == "\r\n\r\n"[end] {
			end++
		} else {
			end = 0
		}
		if _, err := a.Write(c[:]); err != nil {
			return
		}
	}
	for {
		frame, err := readFrame(b)
		if err != nil {
			return
		}
		p.pass()
		if p.spoil != nil {
			p.mu.Lock()
			frame = p.spoil(p.frames, frame)
			p.frames++
			p.mu.Unlock()
		}
		if _, err := a.Write(frame); err != nil {
			return
		}
	}
}

// readFrame reads one unmasked frame.
func readFrame(r io.Reader) ([]byte, error) {
	frame := make([]byte, 2, 256)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, err
	}
	size := int(frame[1])
	if size == 126 {
		frame = frame[:4]
		if _, err := io.ReadFull(r, frame[2:]); err != nil {
			return nil, err
		}
		size = int(binary.BigEndian.Uint16(frame[2:]))
	}
	head := len(frame)
	frame = append(frame, make([]byte, size)...)
	_, err := io.ReadFull(r, frame[head:])
	return frame, err
}
