//go:build unix

// Package checker proves the promises about delivery: it pushes to a real gateway, has
// clients come and go and resume, hurts the gateway meanwhile, and judges what everybody saw.
//
// [Run] makes a [History]; [Judge] says what is wrong with it. What an accepted message, a
// resume and a position are is said in session/PROTOCOL.md and push/API.md.
package checker

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// An Event is one line of a history. Which fields are set depends on Kind.
type Event struct {
	At   time.Duration `json:"at"` // since the run began
	Kind Kind          `json:"kind"`
	// Who is the pusher or the client.
	Who    string `json:"who,omitempty"`
	Member int64  `json:"member,omitempty"` // of the client, or that the op is for; -1: everybody
	App    string `json:"app,omitempty"`
	Op     string `json:"op,omitempty"` // the text of a push, unique in the run
	Epoch  string `json:"epoch,omitempty"`
	Offset uint64 `json:"offset,omitempty"`
	Prev   uint64 `json:"prev,omitempty"`
	Note   string `json:"note,omitempty"`
}

// A Kind says what happened.
type Kind string

const (
	Pushed    Kind = "pushed"    // Op was sent, outcome to follow
	Accepted  Kind = "accepted"  // 202: Epoch and Offset are the answer's
	Refused   Kind = "refused"   // surely not accepted
	Unknown   Kind = "unknown"   // nobody can tell
	Joined    Kind = "joined"    // Who subscribed afresh: Epoch and Offset are the reply's
	Resumed   Kind = "resumed"   // Who resumed and was told that all will come
	Unresumed Kind = "unresumed" // Who was told that something may be missing; goes on at Epoch, Offset
	Received  Kind = "received"
	Window    Kind = "window" // Op was in the log at the end, at this place among the others
	Fault     Kind = "fault"  // Note says what was done to the gateway
)

// A History is what happened, in the order in which it was noted. Its methods may be called
// concurrently.
type History struct {
	began time.Time
	lines io.Writer // gets every event as a line of JSON; may be nil

	mu     sync.Mutex
	events []Event      // guarded by mu
	counts map[Kind]int // guarded by mu
}

// NewHistory returns an empty history.
func NewHistory(lines io.Writer) *History {
	return &History{began: time.Now(), lines: lines, counts: map[Kind]int{}}
}

// Add notes e.
func (h *History) Add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.At = time.Since(h.began)
	h.events = append(h.events, e)
	h.counts[e.Kind]++
	if h.lines != nil {
		line, _ := json.Marshal(e) // plain fields
		_, _ = h.lines.Write(append(line, '\n'))
	}
}

// Count returns how many events of a kind there are so far.
func (h *History) Count(k Kind) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[k]
}

// Events returns all events so far.
func (h *History) Events() []Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events
}
