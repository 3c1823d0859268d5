package push

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/stat"
)

// HandlerOptions configure [Handler].
type HandlerOptions struct {
	Hub     *Hub          // required
	Keys    *Keys         // nil: loopback peers only
	MaxBody int64         // bytes; 0: 1 MiB
	Logger  *slog.Logger  // nil: discard
	Metrics *stat.Metrics // nil: none
}

// Handler returns what serves POST /push; API.md is its contract. The router decides about
// the method.
func Handler(opts HandlerOptions) http.Handler {
	h := &handler{hub: opts.Hub, keys: opts.Keys, maxBody: opts.MaxBody, log: opts.Logger, metrics: opts.Metrics}
	if h.keys == nil {
		h.keys, _ = NewKeys(KeysOptions{Metrics: opts.Metrics}) // without a file nothing can fail
	}
	if h.maxBody == 0 {
		h.maxBody = 1 << 20
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.calls.New = func() any { return &call{decoder: newDecoder()} }
	return h
}

type handler struct {
	hub     *Hub
	keys    *Keys
	maxBody int64
	log     *slog.Logger
	metrics *stat.Metrics
	calls   sync.Pool // of *call
}

// A call is what one request needs, reused.
type call struct {
	*decoder
	answer []byte
}

var (
	errMediaType  = &RefusedError{Status: http.StatusUnsupportedMediaType, Message: "Content-Type must be application/json, without Content-Encoding"}
	errIncomplete = &RefusedError{Status: http.StatusBadRequest, Message: "the body did not arrive complete"}
	errLate       = &RefusedError{Status: http.StatusBadRequest, Message: "the body did not arrive in time"}
)

// incomplete returns what err, of reading a body, is answered with.
func incomplete(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errLate
	}
	return errIncomplete
}

// add appends a receipt to the answer.
func (c *call) add(app string, r Receipt) {
	c.answer = append(appendReceipt(append(c.answer, '{'), app, r), '}')
}

// jsonType is shared by all answers: header values are only read.
var jsonType = []string{"application/json"}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	c := h.calls.Get().(*call)
	defer func() {
		c.release()
		h.calls.Put(c)
	}()
	c.answer = c.answer[:0]
	if err := h.serve(c, r); err != nil {
		h.refuse(w, err, max(1, len(c.messages)))
		return
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(http.StatusAccepted)
	w.Write(c.answer)
	h.metrics.PushDuration(time.Since(start))
}

// serve accepts what r pushes and leaves the answer in c.
func (h *handler) serve(c *call, r *http.Request) error {
	budget, err := h.keys.authorize(r)
	if err != nil {
		return err
	}
	if !isJSON(r.Header) {
		return errMediaType
	}
	if err := h.read(c.decoder, r); err != nil {
		return err
	}
	messages, batch, err := c.decode()
	h.metrics.PushUnknownKeys(c.unknown)
	if c.full {
		h.metrics.Refused(stat.ReasonPushBatch)
	}
	if err != nil {
		return err
	}
	if wait := budget.take(len(messages)); wait > 0 {
		h.metrics.Refused(stat.ReasonPushRate)
		return errRate(wait)
	}
	key, once, err := idempotencyKey(r.Header)
	if err != nil {
		return err
	}
	if !batch && !once {
		receipt, err := h.hub.Publish(r.Context(), messages[0])
		if err != nil {
			return err
		}
		count(h.metrics, []Receipt{receipt})
		c.add(messages[0].App, receipt)
		return nil
	}
	var receipts []Receipt
	if once {
		receipts, err = h.hub.PublishOnce(r.Context(), budget.by, key, messages)
	} else {
		receipts, err = h.hub.PublishBatch(r.Context(), messages)
	}
	switch {
	case err != nil && batch:
		return inBatch(err, len(receipts))
	case err != nil:
		return err
	case !batch:
		count(h.metrics, receipts)
		c.add(messages[0].App, receipts[0])
		return nil
	}
	c.answer = append(c.answer, '[')
	count(h.metrics, receipts)
	for i, receipt := range receipts {
		if i > 0 {
			c.answer = append(c.answer, ',')
		}
		c.add(messages[i].App, receipt)
	}
	c.answer = append(c.answer, ']')
	return nil
}

// idempotencyKey returns the key of a push that may be tried again, if it has one. What it
// looks like is the backend's business.
func idempotencyKey(header http.Header) (key string, once bool, err error) {
	switch keys := header["Idempotency-Key"]; len(keys) {
	case 0:
		return "", false, nil
	case 1:
		return keys[0], true, nil
	}
	return "", false, BadRequest("more than one Idempotency-Key")
}

// count counts what was accepted together.
func count(m *stat.Metrics, receipts []Receipt) {
	result := stat.PushAccepted
	if len(receipts) > 0 && receipts[0].Duplicate {
		result = stat.PushDuplicate
	}
	m.Pushed(result, len(receipts))
}

// maxAnnounced is how much memory a body gets for its length alone.
const maxAnnounced = 16 << 10

// read reads r's body into d.
func (h *handler) read(d *decoder, r *http.Request) error {
	limit := h.maxBody
	if r.ContentLength > limit {
		return h.tooLarge()
	}
	d.body = d.body[:0]
	if r.ContentLength > 0 {
		// One byte more, so that the read that fills it also meets the end. What is longer has
		// only been announced: memory is for what comes.
		d.body = grow(d.body, min(int(r.ContentLength), maxAnnounced)+1)
	}
	for {
		if len(d.body) == cap(d.body) {
			d.body = grow(d.body, 512)
		}
		n, err := r.Body.Read(d.body[len(d.body):cap(d.body)])
		d.body = d.body[:len(d.body)+n]
		switch {
		case int64(len(d.body)) > limit:
			return h.tooLarge()
		case err == io.EOF:
			return nil
		case err != nil:
			return incomplete(err)
		}
	}
}

// grow makes room for n more bytes in b.
func grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	return append(b, make([]byte, n)...)[:len(b)]
}

func (h *handler) tooLarge() error {
	h.metrics.Refused(stat.ReasonPushBody)
	return &RefusedError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf("the body is over %d bytes", h.maxBody)}
}

func errRate(wait time.Duration) error {
	return &RefusedError{Status: http.StatusTooManyRequests, Message: "too many messages for this push key", RetryAfter: wait}
}

// isJSON reports whether a body is said to be JSON and nothing around it. A browser sends
// such a type to a foreign host only with the host's consent.
func isJSON(header http.Header) bool {
	types := header["Content-Type"]
	if len(types) != 1 || len(header["Content-Encoding"]) > 0 {
		return false
	}
	if types[0] == "application/json" {
		return true
	}
	media, params, err := mime.ParseMediaType(types[0])
	if err != nil || media != "application/json" {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}

// inBatch makes the hub's error about a batch, of which the first n were accepted, one about
// the request.
func inBatch(err error, n int) error {
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	e := *refused
	var invalid *BatchError
	switch {
	case n > 0: // no longer all or nothing: the log failed in the middle
		e.Message = fmt.Sprintf("%s; the first %d messages were accepted", e.Message, n)
		e.Outcome = "unknown"
	case errors.As(err, &invalid):
		e.Message = fmt.Sprintf("message %d: %s", invalid.Index, e.Message)
	}
	return &e
}

// refuse answers r, whose n messages were not accepted.
func (h *handler) refuse(w http.ResponseWriter, err error, n int) {
	var e *RefusedError
	if !errors.As(err, &e) {
		h.log.Error("push failed", "err", err)
		e = errInternal
	}
	if e == errLate {
		h.metrics.Refused(stat.ReasonPushBodyTime)
	}
	h.metrics.Pushed(e.result(), n)
	WriteError(w, e)
}

// result is what e is counted as.
func (e *RefusedError) result() string {
	switch {
	case e.Outcome == "unknown":
		return stat.PushUnknown
	case e.Status == http.StatusUnauthorized:
		return stat.PushUnauthorized
	case e.Status == http.StatusTooManyRequests, e.Status >= 500:
		return stat.PushRefused
	}
	return stat.PushBad
}

// appendReceipt appends the answer to one accepted message, without its braces. Names of apps
// and epochs are of a kind that needs no escapes.
func appendReceipt(b []byte, app string, r Receipt) []byte {
	b = append(b, `"code":202,"app":"`...)
	b = append(b, app...)
	b = append(b, `","epoch":"`...)
	b = append(b, r.Epoch...)
	b = append(b, `","offset":`...)
	b = strconv.AppendUint(b, r.Offset, 10)
	b = append(b, `,"durability":"`...)
	b = append(b, r.Durability...)
	b = append(b, `","subscribers":`...)
	b = strconv.AppendInt(b, int64(r.Subscribers), 10)
	if r.Duplicate {
		b = append(b, `,"duplicate":true`...)
	}
	return b
}

// appendError appends the answer to what was refused, without its braces.
func appendError(b []byte, e *RefusedError) []byte {
	b = append(b, `"code":`...)
	b = strconv.AppendInt(b, int64(e.Status), 10)
	b = append(b, `,"message":`...)
	b, _ = jsontext.AppendQuote(b, e.Message) // what is not UTF-8 is replaced
	if e.Outcome != "" {
		b = append(b, `,"outcome":"`...)
		b = append(b, e.Outcome...)
		b = append(b, '"')
	}
	return b
}
