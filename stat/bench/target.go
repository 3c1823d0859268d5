package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// A target is the gateway under test.
type target struct {
	addr    netip.AddrPort
	host    string      // as in the URL
	tls     *tls.Config // nil: plain TCP
	dialect dialect     // of its clients
	upgrade []byte      // the opening handshake
	pushKey string
}

// newTarget resolves the URL of a gateway: ws, wss, http or https, the path being that of
// the WebSocket.
func newTarget(ctx context.Context, raw, pushKey string) (*target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, err
	}
	t := &target{host: u.Host, dialect: native{}, pushKey: pushKey}
	port := u.Port()
	switch u.Scheme {
	case "ws", "http":
		if port == "" {
			port = "80"
		}
	case "wss", "https":
		t.tls = &tls.Config{ServerName: u.Hostname()}
		if port == "" {
			port = "443"
		}
	default:
		return nil, fmt.Errorf("url %q: the scheme must be ws, wss, http or https", raw)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("url %q: bad port", raw)
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil, err
	}
	ip := ips[0].Unmap()
	for _, other := range ips {
		if other.Unmap().Is4() { // so that loopback has more than one address
			ip = other.Unmap()
			break
		}
	}
	t.addr = netip.AddrPortFrom(ip, uint16(n))
	path := u.RequestURI()
	t.upgrade = upgradeRequest(t.host, path)
	return t, nil
}

// enterBy has the clients connect to a door whose script is barrage.lua, at that path.
func (t *target) enterBy(door string) {
	t.dialect, t.upgrade = barrage{}, upgradeRequest(t.host, door)
}

// dial opens a connection to t.
func (t *target) dial(ctx context.Context) (net.Conn, error) {
	if t.tls != nil {
		d := tls.Dialer{Config: t.tls}
		return d.DialContext(ctx, "tcp", t.addr.String())
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", t.addr.String())
}

// A backend is one connection that pushes over POST. Its requests are written by hand: an
// http.Client costs as much as the server that answers it.
type backend struct {
	target *target
	head   []byte // of the request, up to the value of Content-Length
	conn   net.Conn
	r      *bufio.Reader
	buf    []byte
}

func (t *target) backend() *backend {
	b := &backend{target: t}
	b.head = append(b.head, "POST /push HTTP/1.1\r\nHost: "+t.host+"\r\nContent-Type: application/json\r\n"...)
	if t.pushKey != "" {
		b.head = append(b.head, "Authorization: Bearer "+t.pushKey+"\r\n"...)
	}
	b.head = append(b.head, "Content-Length: "...)
	return b
}

// answerTimeout is how long a push may take.
const answerTimeout = 30 * time.Second

// post sends one body and returns the status of the answer, and the answer itself when the
// push was not accepted.
func (b *backend) post(ctx context.Context, body []byte) (status int, answer string, err error) {
	if b.conn == nil {
		if b.conn, err = b.target.dial(ctx); err != nil {
			return 0, "", err
		}
		b.r = bufio.NewReaderSize(b.conn, 16<<10)
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	defer context.AfterFunc(ctx, func() { b.conn.SetDeadline(time.Now()) })()
	b.conn.SetDeadline(time.Now().Add(answerTimeout))
	b.buf = append(b.buf[:0], b.head...)
	b.buf = strconv.AppendInt(b.buf, int64(len(body)), 10)
	b.buf = append(b.buf, "\r\n\r\n"...)
	b.buf = append(b.buf, body...)
	if _, err := b.conn.Write(b.buf); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(b.r, nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		text, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return resp.StatusCode, string(text), err
	}
	if resp.Close {
		return 0, "", errors.New("the gateway closes the connection after a push")
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, "", err
}

func (b *backend) close() {
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
}
