package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"ws-gateway/stat"
)

// Bounds of calls. They have no setting: a call is never longer, and a history has pages.
const (
	maxCallBody      = 4 << 10 // bytes of a call other than a push
	maxHistory       = 1000    // messages of one answer
	defaultHistory   = 100
	maxHistoryAnswer = 1 << 20 // bytes of text in one answer, unless one message alone is longer
)

// Call returns what serves one of the backends' calls behind the push key, by the rules of
// POST /push: with what do returns, which is JSON, and 200, or as the *RefusedError says.
func (k *Keys) Call(do func(r *http.Request) (answer []byte, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := k.authorize(r)
		var answer []byte
		if err == nil {
			answer, err = do(r)
		}
		if err != nil {
			k.refuse(w, err)
			return
		}
		w.Header()["Content-Type"] = jsonType
		w.Write(answer)
	})
}

// Guard lets only requests with a right to push pass to next, and answers the others.
func (k *Keys) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := k.authorize(r); err != nil {
			k.refuse(w, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (k *Keys) refuse(w http.ResponseWriter, err error) {
	var e *RefusedError
	switch {
	case !errors.As(err, &e):
		k.opts.Logger.Error("call failed", "err", err)
	case e == errLate:
		k.opts.Metrics.Refused(stat.ReasonPushBodyTime)
	case e == errLarge:
		k.opts.Metrics.Refused(stat.ReasonPushBody)
	case e.Status == http.StatusServiceUnavailable:
		k.opts.Metrics.Refused(stat.ReasonCallUnavailable)
	}
	WriteError(w, err)
}

var errInternal = &RefusedError{Status: http.StatusInternalServerError, Message: "internal error"}

// WriteError answers an HTTP request with err: as a *RefusedError says, or 500 for any other.
func WriteError(w http.ResponseWriter, err error) {
	e := errInternal
	errors.As(err, &e)
	if e.Status == http.StatusUnauthorized {
		w.Header()["Www-Authenticate"] = []string{"Bearer"}
	}
	if e.RetryAfter > 0 {
		w.Header()["Retry-After"] = []string{strconv.Itoa(e.retrySeconds())}
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(e.Status)
	w.Write(append(appendError([]byte{'{'}, e), '}'))
}

func (e *RefusedError) retrySeconds() int { return int(math.Ceil(e.RetryAfter.Seconds())) }

// BadRequest returns the error that is answered with 400 and this message.
func BadRequest(format string, args ...any) error {
	return &RefusedError{Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

var errLarge = &RefusedError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the body is over %d bytes", maxCallBody)}

// Body returns the JSON that a call other than a push has sent, of at most 4 KiB. That it is
// valid is not checked.
func Body(r *http.Request) ([]byte, error) {
	if !isJSON(r.Header) {
		return nil, errMediaType
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxCallBody+1))
	switch {
	case err != nil:
		return nil, incomplete(err)
	case len(body) > maxCallBody:
		return nil, errLarge
	}
	return body, nil
}

// parameters reads a query string strictly: each known name at most once, and no other.
func parameters(r *http.Request, known ...string) (map[string]string, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, BadRequest("bad query string")
	}
	out := make(map[string]string, len(known))
	for _, name := range known {
		if v, ok := values[name]; ok {
			if len(v) > 1 {
				return nil, BadRequest("parameter %s is given twice", name)
			}
			out[name] = v[0]
			delete(values, name)
		}
	}
	for name := range values {
		return nil, BadRequest("unknown parameter %q", name)
	}
	if _, ok := out["app"]; !ok {
		return nil, BadRequest("parameter app is missing")
	}
	return out, nil
}

// natural reads a parameter that is an integer from low to high; it is def if it is missing.
func natural(params map[string]string, name string, def, low, high uint64) (uint64, error) {
	s, ok := params[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < low || n > high || strconv.FormatUint(n, 10) != s {
		return 0, BadRequest("%s must be an integer from %d to %d", name, low, high)
	}
	return n, nil
}

// AnswerHistory answers GET /history: the newest messages of an app, or those after an offset.
func (h *Hub) AnswerHistory(r *http.Request) ([]byte, error) {
	params, err := parameters(r, "app", "member_id", "after", "limit")
	if err != nil {
		return nil, err
	}
	app, err := h.lookup(params["app"])
	if err != nil {
		return nil, err
	}
	q := Query{App: app.Name, Member: Everybody, Bytes: maxHistoryAnswer}
	if s := params["member_id"]; s != "-1" {
		member, err := natural(params, "member_id", 0, 1, maxMember)
		if err != nil {
			return nil, BadRequest("member_id must be -1 or an integer from 1 to 2^53-1")
		}
		if member > 0 {
			q.Member = int64(member)
		}
	}
	limit, err := natural(params, "limit", defaultHistory, 1, maxHistory)
	if err != nil {
		return nil, err
	}
	if _, ok := params["after"]; ok {
		after, err := natural(params, "after", 0, 0, math.MaxUint64)
		if err != nil {
			return nil, BadRequest("after must be an integer, 0 or more")
		}
		q.After, q.Limit = after, int(limit)
	} else {
		q.Last = int(limit)
	}
	return h.history(r.Context(), q)
}

func (h *Hub) history(ctx context.Context, q Query) ([]byte, error) {
	page, err := h.log.Since(ctx, q)
	if err != nil {
		h.opts.Logger.Warn("read log", "app", q.App, "err", err)
		return nil, &RefusedError{Status: http.StatusServiceUnavailable, Message: "log unavailable", RetryAfter: time.Second}
	}
	b := append([]byte(`{"code":200,"app":"`), q.App...)
	b = append(b, `","position":{"epoch":"`...)
	b = append(b, page.Top.Epoch...)
	b = append(b, `","offset":`...)
	b = strconv.AppendUint(b, page.Top.Offset, 10)
	b = append(b, `},"messages":[`...)
	for i := range page.Messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMessage(b, &page.Messages[i])
	}
	return append(b, ']', '}'), nil
}

func appendMessage(b []byte, m *Message) []byte {
	b = append(b, `{"offset":`...)
	b = strconv.AppendUint(b, m.Offset, 10)
	b = append(b, `,"prev":`...)
	b = strconv.AppendUint(b, m.Prev, 10)
	b = append(b, `,"member_id":`...)
	b = strconv.AppendInt(b, m.Member, 10)
	b = append(b, `,"text":`...)
	b = m.AppendText(b)
	if m.From > 0 {
		b = append(b, `,"from":`...)
		b = strconv.AppendInt(b, m.From, 10)
	}
	b = append(b, `,"time":"`...)
	b = time.Unix(0, m.Time).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	return append(b, '"', '}')
}
