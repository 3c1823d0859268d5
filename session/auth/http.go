package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// A DialFunc opens connections, as [net.Dialer.DialContext] does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// keepAlive is how long an idle connection is kept: less than the 5 s of Node and Apache, so
// that it is not closed from the other end just as a question goes out.
const keepAlive = 4 * time.Second

// newClient returns the HTTP client of a backend: it keeps connections alive, follows no
// redirect and ignores HTTP_PROXY, for what it sends is secret and its target is fixed.
func newClient(timeout time.Duration, concurrency int, dial DialFunc) *http.Client {
	if dial == nil {
		dial = (&net.Dialer{Timeout: timeout}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            dial,
			TLSHandshakeTimeout:    timeout,
			MaxIdleConns:           concurrency,
			MaxIdleConnsPerHost:    concurrency,
			IdleConnTimeout:        keepAlive,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// A trouble is why a backend cannot tell. Its text holds nothing that the backend sent, for
// that might be a token.
type trouble struct {
	cause string // one of the few below, for logs and metrics
	text  string
}

func (t *trouble) Error() string { return "auth backend: " + t.text }

// The causes of a trouble.
const (
	causeConnect = "connect" // no connection, or no TLS
	causeTimeout = "timeout"
	causeBroken  = "broken" // the connection ended early, or what came was not HTTP
	causeStatus  = "status" // redirects too
	causeSize    = "size"
	causeAnswer  = "answer" // empty, not JSON, or not the JSON agreed on
	causeOpen    = "open"   // not asked, because the last answers were troubles
)

// fetch sends req and returns the status (0: none came) and at most limit bytes of the body,
// decompressed. Its error is a *trouble, or ctx's own when that ended first; timeout is
// what req may take in all.
func fetch(ctx context.Context, c *http.Client, req *http.Request, timeout time.Duration, limit int64) (status int, body []byte, err error) {
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	status, body, err = exchange(c, req.WithContext(timed), limit)
	switch {
	case err == nil:
		return status, body, nil
	case ctx.Err() != nil:
		return status, nil, fmt.Errorf("auth backend: %w", ctx.Err())
	case timed.Err() != nil:
		return status, nil, &trouble{causeTimeout, fmt.Sprintf("no answer within %v", timeout)}
	}
	return status, nil, explain(err)
}

func exchange(c *http.Client, req *http.Request, limit int64) (status int, body []byte, err error) {
	resp, err := c.Do(req)
	if isDial(err) { // nothing was sent: the one case in which asking again is safe
		select {
		case <-time.After(100 * time.Millisecond):
		case <-req.Context().Done():
			return 0, nil, err
		}
		if req.GetBody != nil {
			req.Body, _ = req.GetBody() // of a bytes.Reader: cannot fail
		}
		resp, err = c.Do(req)
	}
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(body)) > limit {
		err = &trouble{causeSize, fmt.Sprintf("answer is larger than %d bytes", limit)}
	}
	return resp.StatusCode, body, err
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// explain turns an error of net/http into a trouble. It repeats only texts that hold nothing
// from the wire: net/http quotes malformed answers.
func explain(err error) error {
	var (
		known *trouble
		op    *net.OpError
		cert  *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &op) && op.Op == "dial":
		return &trouble{causeConnect, op.Error()}
	case errors.As(err, &cert):
		return &trouble{causeConnect, cert.Error()}
	case errors.Is(err, http.ErrSchemeMismatch):
		return &trouble{causeConnect, "it speaks http, not https"}
	case errors.As(err, &op) && (op.Op == "read" || op.Op == "write"):
		return &trouble{causeBroken, op.Error()}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &trouble{causeBroken, "it closed the connection before its answer was complete"}
	}
	return &trouble{causeBroken, "its answer is not valid HTTP"}
}

// parseURL checks the setting that name stands for. Errors do not quote it: a URL may hold
// a password or a key.
func parseURL(name, s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" {
		return nil, fmt.Errorf("%s: want a URL such as https://example.com/path", name)
	}
	return u, nil
}

// A complaint logs troubles, each cause at most once a minute.
type complaint struct {
	logger  *slog.Logger
	message string

	mu    sync.Mutex
	since map[string]*silence // by cause; guarded by mu
}

type silence struct {
	began      time.Time
	suppressed int
}

func newComplaint(l *slog.Logger, message string) *complaint {
	return &complaint{logger: l, message: message, since: make(map[string]*silence)}
}

func (c *complaint) log(t *trouble) {
	c.mu.Lock()
	s, again := c.since[t.cause]
	if again && time.Since(s.began) < time.Minute {
		s.suppressed++
		c.mu.Unlock()
		return
	}
	c.since[t.cause] = &silence{began: time.Now()}
	c.mu.Unlock()
	suppressed := 0
	if again {
		suppressed = s.suppressed
	}
	c.logger.Warn(c.message, "cause", t.cause, "err", t, "suppressed", suppressed)
}
