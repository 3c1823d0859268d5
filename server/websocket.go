package server

import (
	"encoding/base64"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// maxHeaders is how many header fields a handshake may have. It has no setting: browsers send
// about 15.
const maxHeaders = 100

const notWebSocket = "this is a WebSocket endpoint: connect with a WebSocket client; " +
	"behind a reverse proxy, have it pass on the Upgrade and Connection headers over HTTP/1.1"

// websocket returns the endpoint of a door.
func (s *Server) websocket(open Door) http.Handler {
	turns := newTurns(s.opts.Limits.Handshakes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		if no := s.check(r); no != nil {
			s.refuse(w, no)
			return
		}
		remote := s.opts.Proxies.Remote(r)
		if s.opts.Failures != nil && !s.opts.Failures.Allowed(remote) {
			s.refuse(w, &refusal{http.StatusTooManyRequests, "too many refused tokens from this address", stat.ReasonAuthFailures, time.Minute})
			return
		}
		if no := turns.take(r.Context()); no != nil {
			s.refuse(w, no)
			return
		}
		defer turns.done()
		seat, no := s.limits.take(remote)
		if no != nil {
			s.refuse(w, no)
			return
		}
		opened := false
		defer func() {
			if !opened {
				seat.giveUp()
			}
		}()
		err := s.opts.Transport.Upgrade(w, r, remote, func(c session.Conn) session.Handler {
			seat.Handler = open(c, r)
			opened = true // from here on the handler is told when the connection ends
			return seat
		})
		if err != nil {
			s.log.Debug("upgrade", "remote", remote, "err", err)
			return
		}
		s.opts.Metrics.HandshakeDuration(time.Since(start))
	})
}

// refuse answers a handshake that is not accepted.
func (s *Server) refuse(w http.ResponseWriter, no *refusal) {
	if no.reason != "" {
		s.opts.Metrics.Refused(no.reason)
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if no.status == http.StatusUpgradeRequired { // RFC 9110, section 15.5.22
		h.Set("Upgrade", "websocket")
		h.Add("Connection", "Upgrade")
		h.Set("Sec-Websocket-Version", "13")
	}
	if no.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(no.retry.Seconds()))))
	}
	w.WriteHeader(no.status)
	w.Write([]byte(no.message + "\n"))
}

// check says what is wrong with a handshake (RFC 6455, section 4.2.1), if anything is.
func (s *Server) check(r *http.Request) *refusal {
	bad := func(status int, message string) *refusal { return &refusal{status: status, message: message} }
	h := r.Header
	switch {
	case !r.ProtoAtLeast(1, 1),
		!hasToken(h["Upgrade"], "websocket"),
		!hasToken(h["Connection"], "upgrade"):
		return bad(http.StatusUpgradeRequired, notWebSocket)
	case len(h["Sec-Websocket-Version"]) != 1 || h["Sec-Websocket-Version"][0] != "13":
		return bad(http.StatusUpgradeRequired, "Sec-WebSocket-Version must be 13")
	case len(h["Sec-Websocket-Key"]) != 1 || !isKey(h["Sec-Websocket-Key"][0]):
		return bad(http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64")
	case r.ContentLength != 0:
		return bad(http.StatusBadRequest, "a handshake has no body")
	case fields(h) > maxHeaders:
		return &refusal{status: http.StatusRequestHeaderFieldsTooLarge, message: "too many header fields", reason: stat.ReasonHeaderFields}
	case !s.origins.allow(r):
		return &refusal{status: http.StatusForbidden, reason: stat.ReasonOrigin,
			message: "origin not allowed: the operator lists the origins of web pages in WSGW_ORIGINS"}
	case s.draining.Load():
		return &refusal{status: http.StatusServiceUnavailable, message: "going away", reason: stat.ReasonDraining, retry: retryLater()}
	}
	return nil
}

// fields counts the header's lines.
func fields(h http.Header) (n int) {
	for _, values := range h {
		n += len(values)
	}
	return n
}

// hasToken reports whether token is in a list that spans the values of a header.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

func isKey(s string) bool {
	var buf [18]byte
	if len(s) != base64.StdEncoding.EncodedLen(16) || strings.ContainsAny(s, "\r\n") {
		return false
	}
	n, err := base64.StdEncoding.Decode(buf[:], []byte(s))
	return err == nil && n == 16
}
