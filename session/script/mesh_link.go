package script

import (
	"net/http"
	"slices"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// maxTopicsPopped is how many topics one link may pop.
const maxTopicsPopped = 100

// A link is one backend's WebSocket. Requests are answered in order; what it pops from
// queues comes in between.
type link struct {
	mesh  *Mesh
	conn  session.Conn
	take  take
	valid func() bool // the key that it was opened with still is

	consumer  *consumer
	published chan struct{} // closed when leaving and not busy
	mu        sync.Mutex
	topics    map[string]bool // popped; guarded by mu
	busy      bool            // a request is being answered; guarded by mu
	leaving   bool            // Leave was called: no other is; guarded by mu
}

var (
	_ session.Handler = (*link)(nil)
	_ session.Backend = (*link)(nil)
)

// Link opens a link on a connection that r, which must have passed [Mesh.Guard], asked for.
func (m *Mesh) Link(conn session.Conn, r *http.Request) session.Handler {
	l := &link{mesh: m, conn: conn, topics: make(map[string]bool), published: make(chan struct{})}
	var err error
	if l.take, l.valid, err = m.keys.Authorize(r); err != nil { // the keys were reloaded just now
		l.valid = func() bool { return false }
		l.authorized()
	}
	l.consumer = &consumer{conn: conn, authorized: l.authorized}
	m.host.opts.Gateway.AddBackend(l)
	return l
}

// authorized reports whether the link's key is good, and closes it otherwise.
func (l *link) authorized() bool {
	if l.valid() {
		return true
	}
	l.conn.Close(session.CloseUnauthorized, session.CloseUnauthorized.Reason())
	return false
}

// Receive implements [session.Handler].
func (l *link) Receive(op push.Opcode, data []byte) (wait func()) {
	if op != push.OpText {
		l.conn.Close(session.CloseUnsupported, session.CloseUnsupported.Reason())
		return nil
	}
	if string(data) == "ping" {
		l.say([]byte("pong"))
		return nil
	}
	data = append([]byte(nil), data...)
	return func() { l.serve(data) } // a publish may wait for other nodes
}

// Closed implements [session.Handler].
func (l *link) Closed(session.CloseCode) {
	l.mesh.host.queues.closed(l.consumer)
	l.mesh.host.opts.Gateway.RemoveBackend(l)
}

// Leave implements [session.Backend].
func (l *link) Leave() (done <-chan struct{}) {
	l.mu.Lock()
	l.leaving = true
	busy := l.busy
	l.mu.Unlock()
	if !busy {
		l.left()
	}
	return l.published
}

// left ends a link that is leaving.
func (l *link) left() {
	close(l.published)
	l.conn.Close(session.CloseServiceRestart, session.CloseServiceRestart.Reason())
}

// begin reports whether there may be another request; end follows.
func (l *link) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = !l.leaving
	return l.busy
}

func (l *link) end() {
	l.mu.Lock()
	l.busy = false
	leaving := l.leaving
	l.mu.Unlock()
	if leaving {
		l.left()
	}
}

// say sends data, or ends a link that does not keep up.
func (l *link) say(data []byte) {
	if l.conn.Send(push.NewFrame(push.OpText, data)) == session.ErrSlow {
		l.conn.Abort(session.CloseSlow)
	}
}

// A request is one frame of a backend.
type request struct {
	Method string         `json:"m"`
	Params jsontext.Value `json:"p"`
	ID     jsontext.Value `json:"i"`
	// OldID is what some samples of CONNMIX's documents call ID.
	OldID jsontext.Value `json:"id"`
}

func (l *link) serve(data []byte) {
	if !l.begin() {
		return
	}
	defer l.end()
	if !l.authorized() {
		return
	}
	var r request
	bad := json.Unmarshal(data, &r) != nil
	if bad {
		r = request{}
	}
	id := r.ID
	if id == nil {
		id = r.OldID
	}
	if k := id.Kind(); len(id) > maxLinkID || k != '"' && k != '0' {
		id = jsontext.Value("null")
	}
	answer := func(result []byte, err error) {
		out := append(appendMesh(nil, result, err), `,"i":`...)
		l.say(append(append(out, id...), '}'))
	}
	switch {
	case bad:
		answer(nil, invalid("not a valid request"))
	case r.Method == "queue.pop":
		if err := l.start(r.Params, func() { answer(success, nil) }); err != nil {
			answer(nil, err)
		}
	default:
		answer(l.do(r))
	}
}

// do carries out a request and returns its result, or a *meshError.
func (l *link) do(r request) ([]byte, error) {
	var p params
	if len(r.Params) > 0 && json.Unmarshal(r.Params, &p) != nil {
		return nil, invalid("p is not valid")
	}
	switch r.Method {
	case "mesh.publish":
		return l.mesh.publish(p, l.take)
	case "mesh.send":
		return l.mesh.send(p, l.take)
	case "conn.call":
		return l.mesh.call(p)
	case "queue.unpop":
		return l.stop()
	}
	return nil, invalid("unknown method")
}

// start begins to pop topics; answer is called before the first item goes out.
func (l *link) start(data jsontext.Value, answer func()) error {
	var p struct {
		T []string `json:"t"`
	}
	if len(data) == 0 || json.Unmarshal(data, &p) != nil || len(p.T) == 0 {
		return invalid("t must be topics")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.topics)+len(p.T) > maxTopicsPopped {
		l.mesh.host.opts.Metrics.Refused(stat.ReasonScriptQueue)
		return &meshError{codePop, "too many topics"}
	}
	for i, n := range p.T {
		if l.topics[n] || slices.Contains(p.T[:i], n) {
			return &meshError{codePopAgain, "popped already: " + n}
		}
	}
	if err := l.mesh.host.queues.pop(l.consumer, p.T, answer); err != nil {
		l.mesh.host.opts.Metrics.Refused(stat.ReasonScriptQueue)
		return &meshError{codePop, err.Error()}
	}
	for _, n := range p.T {
		l.topics[n] = true
	}
	return nil
}

// stop ends all popping.
func (l *link) stop() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.topics) == 0 {
		return nil, &meshError{codeUnpop, "nothing is popped"}
	}
	clear(l.topics)
	l.mesh.host.queues.unpop(l.consumer)
	return success, nil
}
