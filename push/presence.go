package push

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"ws-gateway/apps"
)

// A Presence counts who is in which app, for apps that have presence. Its methods may be
// called concurrently.
type Presence interface {
	// Join counts one more connection of member in app, or with [apps.Anonymous] of nobody
	// known. It does not wait.
	Join(app string, member int64)
	// Leave undoes one Join. It does not wait.
	Leave(app string, member int64)
	// Members returns who is in app now, of the members at most limit; 0 is no limit.
	Members(ctx context.Context, app string, limit int) (Attendance, error)
	// Watch makes deliver receive every event, those of one app's member one at a time and
	// in order. It must not block. stop ends it, after which deliver is not called again.
	Watch(deliver func(Event)) (stop func())
}

// An Event is a member whose first connection has joined an app, or whose last one has left.
// Clients that are anonymous make none.
type Event struct {
	App    string
	Member int64
	Joined bool // or else it left
}

// An Attendance is who is in an app.
type Attendance struct {
	Members   []Attendant // by rising id
	Omitted   int         // members that are not in Members, because of its limit
	Anonymous int         // connections of nobody known
}

// An Attendant is a member who is in an app.
type Attendant struct {
	Member      int64
	Connections int
}

// ErrNoPresence is returned for an app whose rules have no presence, and by a hub without one.
var ErrNoPresence = errors.New("push: app has no presence")

// Members returns who is subscribed to app now, of the members at most limit; 0 is no limit.
func (h *Hub) Members(ctx context.Context, app *apps.App, limit int) (Attendance, error) {
	if !h.Present(app) {
		return Attendance{}, ErrNoPresence
	}
	return h.opts.Presence.Members(ctx, app.Name, limit)
}

// Present reports whether it is counted who is in app.
func (h *Hub) Present(app *apps.App) bool { return app.Presence && h.opts.Presence != nil }

// AnswerPresence answers GET /presence: who is in an app.
func (h *Hub) AnswerPresence(r *http.Request) ([]byte, error) {
	params, err := parameters(r, "app")
	if err != nil {
		return nil, err
	}
	app, err := h.lookup(params["app"])
	if err != nil {
		return nil, err
	}
	a, err := h.Members(r.Context(), app, 0)
	switch {
	case errors.Is(err, ErrNoPresence):
		return nil, &RefusedError{Status: http.StatusNotFound, Message: "app has no presence"}
	case err != nil:
		h.opts.Logger.Warn("read presence", "app", app.Name, "err", err)
		return nil, &RefusedError{Status: http.StatusServiceUnavailable, Message: "presence unavailable", RetryAfter: time.Second}
	}
	b := append([]byte(`{"code":200,"app":"`), app.Name...)
	return append(a.AppendJSON(append(b, '"')), '}'), nil
}

// AppendJSON appends a to the members of a JSON object, with a comma before it.
func (a Attendance) AppendJSON(b []byte) []byte {
	b = append(b, `,"members":[`...)
	for i, m := range a.Members {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"member_id":`...)
		b = strconv.AppendInt(b, m.Member, 10)
		b = append(b, `,"connections":`...)
		b = strconv.AppendInt(b, int64(m.Connections), 10)
		b = append(b, '}')
	}
	b = append(b, `],"anonymous":`...)
	b = strconv.AppendInt(b, int64(a.Anonymous), 10)
	if a.Omitted > 0 {
		b = append(b, `,"omitted":`...)
		b = strconv.AppendInt(b, int64(a.Omitted), 10)
	}
	return b
}
