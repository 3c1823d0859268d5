package stat

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The kinds of events that a [Tail] shows.
const (
	EventConnect = "connect" // a session began
	EventAuth    = "auth"    // a client said who it is, or did not, and was answered
	EventCommand = "command" // a client's command was answered
	EventDenied  = "denied"  // so, but the rules of its app did not allow it
	EventPush    = "push"    // a push was accepted
	EventRefused = "refused" // a push was not accepted
	EventClose   = "close"   // a session ended
	EventDropped = "dropped" // the viewer did not keep up
)

// An Event is one thing that the gateway saw. What does not apply to its kind is zero. It has
// no field for a token: what a client proves itself with is shown to nobody.
type Event struct {
	Time        time.Time  `json:"time"` // 0: when Tail.Event is called
	Kind        string     `json:"event"`
	Session     uint64     `json:"session,omitzero"`
	Member      int64      `json:"member_id,omitzero"` // who the client is or says it is, -1 anonymous; of a push who it is for, -1 everybody
	From        int64      `json:"from,omitzero"`      // the member who pushed
	Remote      netip.Addr `json:"remote,omitzero"`
	Connected   time.Time  `json:"connected,omitzero"` // when the session began
	Op          string     `json:"op,omitzero"`
	App         string     `json:"app,omitzero"`
	Apps        []string   `json:"apps,omitzero"` // what a session that ends was subscribed to
	Code        int        `json:"code,omitzero"` // of the reply, of the answer to a push, or of the close
	Message     string     `json:"message,omitzero"`
	Rule        string     `json:"rule,omitzero"`   // the entry of the apps file that decided
	Reason      string     `json:"reason,omitzero"` // what the client is not told
	Epoch       string     `json:"epoch,omitzero"`
	Offset      uint64     `json:"offset,omitzero"`
	Subscribers int        `json:"subscribers,omitzero"` // sessions of this node that a push was queued to
	Duplicate   bool       `json:"duplicate,omitzero"`   // an earlier push with the same key was accepted
	Bytes       int        `json:"bytes,omitzero"`       // of a push's text
	Text        string     `json:"text,omitzero"`        // of a push; only for viewers who asked for it
	Dropped     uint64     `json:"dropped,omitzero"`     // events that the viewer missed just here
}

// Bounds of a viewer. They have no setting: they are reached by what nobody could read.
const (
	tailEvents   = 1024    // that wait for one viewer; further ones are dropped
	tailText     = 1 << 20 // bytes of text among them
	tailSessions = 4096    // that a viewer follows because of who they said they are
	tailName     = 128     // bytes of an app's name; what is longer is no app
)

// A Tail shows events to whoever watches them, live. Its zero value is ready, and a nil one is
// never watched. It never waits for a viewer: one that does not keep up misses events and is
// told how many. All methods may be called at once, with any lock held.
type Tail struct {
	viewers atomic.Pointer[[]*viewer] // nil: nobody watches; what it points to is never changed

	mu sync.Mutex // held to replace viewers
}

// Active reports whether anybody watches. It costs one atomic load; whoever has events to
// show asks before making them.
func (t *Tail) Active() bool { return t != nil && t.viewers.Load() != nil }

// Event shows e to those who watch what it is about.
func (t *Tail) Event(e Event) {
	if !t.Active() {
		return
	}
	viewers := t.viewers.Load()
	if viewers == nil { // the last one has left just now
		return
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if len(e.App) > tailName {
		e.App = strings.ToValidUTF8(e.App[:tailName], "") + "..."
	}
	for _, v := range *viewers {
		v.offer(e)
	}
}

// watch adds a viewer unless there are max.
func (t *Tail) watch(f filter, max int) (*viewer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var viewers []*viewer
	if p := t.viewers.Load(); p != nil {
		viewers = *p
	}
	if len(viewers) >= max {
		return nil, false
	}
	v := &viewer{filter: f, wake: make(chan struct{}, 1)}
	viewers = append(slices.Clip(viewers), v)
	t.viewers.Store(&viewers)
	return v, true
}

// leave removes v.
func (t *Tail) leave(v *viewer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	viewers := slices.DeleteFunc(slices.Clone(*t.viewers.Load()), func(o *viewer) bool { return o == v })
	if len(viewers) == 0 {
		t.viewers.Store(nil)
		return
	}
	t.viewers.Store(&viewers)
}

// A filter is what a viewer wants to see. Zero fields let everything pass.
type filter struct {
	member  int64
	app     string
	session uint64
	payload bool // texts too
}

// A viewer is one who watches a Tail.
type viewer struct {
	filter filter
	wake   chan struct{} // of capacity 1: sent to when there is something to take

	mu       sync.Mutex
	followed map[uint64]struct{} // sessions that said they are filter.member; guarded by mu
	events   []Event             // guarded by mu
	text     int                 // bytes of text in events; guarded by mu
	dropped  uint64              // behind events; guarded by mu
}

// offer queues e if v wants it and there is room.
func (v *viewer) offer(e Event) {
	if !v.filter.payload {
		e.Text = ""
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.wants(&e) {
		return
	}
	if v.dropped > 0 || len(v.events) == tailEvents || v.text+len(e.Text) > tailText {
		v.dropped++
	} else {
		v.events = append(v.events, e)
		v.text += len(e.Text)
	}
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// wants reports whether e is what v watches; v.mu is held. A session that has said it is the
// member stays of interest even if nobody believed it.
func (v *viewer) wants(e *Event) bool {
	f := &v.filter
	if f.member != 0 {
		_, mine := v.followed[e.Session]
		if !mine && e.Member != f.member && e.From != f.member {
			return false
		}
		switch {
		case e.Session == 0:
		case e.Kind == EventClose:
			delete(v.followed, e.Session)
		case !mine && len(v.followed) < tailSessions:
			if v.followed == nil {
				v.followed = make(map[uint64]struct{})
			}
			v.followed[e.Session] = struct{}{}
		}
	}
	if f.session != 0 && e.Session != f.session {
		return false
	}
	return f.app == "" || e.App == f.app || slices.Contains(e.Apps, f.app)
}

// take returns what is queued, and how many events were dropped behind it.
func (v *viewer) take() (events []Event, dropped uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	events, dropped = v.events, v.dropped
	v.events, v.text, v.dropped = nil, 0, 0
	return events, dropped
}
