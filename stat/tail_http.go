package stat

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// tailBeat is how often a viewer that has nothing to see is written to, so that one who has
// gone is noticed.
const tailBeat = 15 * time.Second

// tailHandler serves GET /stat/tail.
type tailHandler struct {
	done    <-chan struct{} // ends all streams
	tail    *Tail
	metrics *Metrics
	max     int // viewers
}

func newTailHandler(ctx context.Context, t *Tail, m *Metrics, viewers int) *tailHandler {
	if viewers == 0 {
		viewers = defaultViewers
	}
	return &tailHandler{done: ctx.Done(), tail: t, metrics: m, max: viewers}
}

// ServeHTTP sends server-sent events (WHATWG HTML, section 9.2) whose data is an [Event].
func (h *tailHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, err := parseFilter(r.URL.RawQuery)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	v, ok := h.tail.watch(f, h.max)
	if !ok {
		h.metrics.Refused(ReasonStatViewers)
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusServiceUnavailable, "too many viewers")
		return
	}
	defer h.tail.leave(v)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold events back
	h.show(v, w, r)
}

// show writes what v has until it goes.
func (h *tailHandler) show(v *viewer, w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	beat := time.NewTicker(tailBeat)
	defer beat.Stop()
	out := []byte(": what happens from here on\n\n")
	for {
		// Only recorders of tests have no deadline; for them it does not matter.
		_ = control.SetWriteDeadline(time.Now().Add(streamPatience))
		if _, err := w.Write(out); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-h.done:
			return
		case <-beat.C:
			out = append(out[:0], ":\n\n"...)
		case <-v.wake:
			events, dropped := v.take()
			if dropped > 0 {
				events = append(events, Event{Time: time.Now(), Kind: EventDropped, Dropped: dropped})
			}
			out = out[:0]
			for i := range events {
				out = append(appendEvent(append(out, "data: "...), &events[i]), "\n\n"...)
			}
		}
	}
}

// appendEvent appends e as JSON in which everything is escaped that is not printable: JSON
// itself lets a text turn around what a terminal shows (U+202E), or clear it (U+009B).
func appendEvent(dst []byte, e *Event) []byte {
	data, err := json.Marshal(e)
	if err != nil {
		panic(err) // an Event is plain data
	}
	for {
		i := bytes.IndexFunc(data, func(r rune) bool { return !unicode.IsPrint(r) })
		if i < 0 {
			return append(dst, data...)
		}
		dst = append(dst, data[:i]...)
		r, n := utf8.DecodeRune(data[i:])
		for _, unit := range utf16.Encode([]rune{r}) {
			dst = fmt.Appendf(dst, `\u%04x`, unit)
		}
		data = data[i+n:]
	}
}

// parseFilter reads a query string strictly.
func parseFilter(query string) (f filter, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return f, errors.New("bad query string")
	}
	for name, list := range values {
		if len(list) > 1 {
			return f, fmt.Errorf("parameter %s is given twice", name)
		}
		value, ok := list[0], true
		switch name {
		case "member":
			f.member, err = strconv.ParseInt(value, 10, 64)
			ok = err == nil && (f.member == -1 || f.member > 0)
		case "app":
			f.app, ok = value, value != ""
		case "session":
			f.session, err = strconv.ParseUint(value, 10, 64)
			ok = err == nil && f.session > 0
		case "payload":
			f.payload, err = strconv.ParseBool(value)
			ok = err == nil
		default:
			return f, fmt.Errorf("unknown parameter %q; there are member, app, session, payload", name)
		}
		if !ok {
			return f, fmt.Errorf("bad value of parameter %s: %q", name, value)
		}
	}
	return f, nil
}
