package server

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/go-chi/chi/v5"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/client/js"
)

// routes is the whole HTTP surface for clients and backends.
func (s *Server) routes() *chi.Mux {
	native := s.websocket(func(c session.Conn, _ *http.Request) session.Handler { return s.opts.Sessions.Open(c) })

	r := chi.NewMux()
	r.Method(http.MethodGet, "/", native)
	r.Method(http.MethodGet, "/ws", native)
	for path, door := range s.opts.Doors {
		r.Method(http.MethodGet, path, s.websocket(door))
	}
	script := js.Handler()
	r.Method(http.MethodGet, "/client.js", script)
	r.Method(http.MethodHead, "/client.js", script)
	r.Method(http.MethodPost, "/push", push.Handler(push.HandlerOptions{
		Hub:     s.opts.Hub,
		Keys:    s.opts.Keys,
		MaxBody: s.opts.MaxBody,
		Logger:  s.opts.Logger,
		Metrics: s.opts.Metrics,
	}))
	r.Method(http.MethodGet, "/push", s.opts.Keys.Guard(s.websocket(s.link)))
	r.Method(http.MethodGet, "/presence", s.opts.Keys.Call(s.opts.Hub.AnswerPresence))
	r.Method(http.MethodGet, "/history", s.opts.Keys.Call(s.opts.Hub.AnswerHistory))
	r.Method(http.MethodPost, "/disconnect", s.opts.Keys.Call(s.opts.Sessions.AnswerDisconnect))
	r.Method(http.MethodPost, "/unsubscribe", s.opts.Keys.Call(s.opts.Sessions.AnswerUnsubscribe))
	r.Method(http.MethodPost, "/revoke", s.opts.Keys.Call(s.opts.Sessions.AnswerRevoke))
	if mesh := s.opts.Mesh; mesh != nil {
		r.Post("/v1/mesh/publish", mesh.Publish)
		r.Post("/v1/mesh/send", mesh.Send)
		r.Method(http.MethodGet, "/ws/v1", mesh.Guard(s.websocket(mesh.Link)))
	}
	r.NotFound(func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, "not found")
	})
	r.MethodNotAllowed(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Allow", allowed(r, req.URL.Path))
		answer(w, http.StatusMethodNotAllowed, "method not allowed")
	})
	return r
}

// link opens a backend's link, whose request has passed the keys' Guard.
func (s *Server) link(c session.Conn, r *http.Request) session.Handler {
	l, err := push.NewLink(s.opts.Hub, s.opts.Keys, r)
	if err != nil { // the keys were reloaded just now
		c.Close(session.CloseUnauthorized, session.CloseUnauthorized.Reason())
	}
	return s.opts.Sessions.OpenLink(c, l)
}

// serveHTTP is what the client listener serves.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	defer s.recovered("http", w)
	if hasToken(r.Header["Upgrade"], "websocket") {
		// A WebSocket client whose handshake is refused has no other use for the connection: it must
		// close it (RFC 6455, section 4.1), and if it does not, the gateway need not keep it.
		w.Header().Set("Connection", "close")
	}
	s.router.ServeHTTP(w, r)
}

// allowed lists the methods that have a route for path.
func allowed(routes chi.Routes, path string) string {
	var methods []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		if routes.Match(chi.NewRouteContext(), m, path) {
			methods = append(methods, m)
		}
	}
	return strings.Join(methods, ", ")
}

// answer writes what every error looks like. message needs no escapes in JSON.
func answer(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write([]byte(`{"code":` + strconv.Itoa(status) + `,"message":"` + message + `"}`))
}
