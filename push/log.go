package push

import (
	"context"
	"errors"

	"ws-gateway/apps"
)

// A Log keeps what was pushed to each app, for as long as the app's rules say, and gives
// every message its position. Its methods may be called concurrently; appends to one app
// are made one after another by the bus.
type Log interface {
	// Append sets Offset, Prev and Time of ms, a run of messages of app, and keeps copies of them
	// in this order. With app.History.Size 0 it only numbers them. It returns the epoch and how
	// many were appended: all, or the first n if there is an error. Of the others none was
	// kept, unless the error is ErrUnknownOutcome: then any may have been.
	Append(ctx context.Context, app *apps.App, ms []Message) (epoch string, n int, err error)
	// Since returns what q asks for, up to the newest message or further than any position that
	// Top or the bus has told of before.
	Since(ctx context.Context, q Query) (Page, error)
	// Top returns the position of app's newest message, offset 0 when it never had one.
	Top(app string) Position
	// Durability says what a kept message survives: "memory", "disk" or "quorum".
	Durability() string
}

// A LogMeter is a Log that can say how much it keeps.
type LogMeter interface {
	// Usage returns what is kept of app now.
	Usage(app string) Usage
}

// A Query asks for a part of an app's log.
type Query struct {
	App    string
	Member int64  // whose private messages are included; Everybody for none
	All    bool   // everybody's private messages are, for a reader who keeps them apart
	After  uint64 // messages after this offset; ignored with Last > 0
	Last   int    // only the newest this many, if > 0
	Limit  int    // at most this many messages; 0 for all
	Bytes  int    // and at most so many bytes of text, but one message in any case; 0 for all
}

// A Page is a part of an app's log, oldest message first.
type Page struct {
	Messages []Message
	// Top is the position of the newest message of the app, whether in the page or not.
	Top Position
	// Floor is the offset of the newest message that the query would have been about if it
	// were still kept. A log that has forgotten it says the highest that it may be.
	Floor uint64
	// More reports that Query.Limit or Bytes cut the page.
	More bool
}

// Complete reports whether p's log can prove that nothing is lost which came after the position
// and which p's query was about.
func (p *Page) Complete(after Position) bool {
	return after.Epoch == p.Top.Epoch && p.Floor <= after.Offset && after.Offset <= p.Top.Offset
}

// Usage is what a log keeps of one app.
type Usage struct {
	Messages int
	Bytes    int // text and bookkeeping
	Top      Position
}

// ErrUnknownOutcome is returned when nobody can tell whether messages were accepted: each may
// be delivered, at most once.
var ErrUnknownOutcome = errors.New("push: outcome unknown")

// A Bus carries accepted messages to every node's hub, in the order of each app's log.
type Bus interface {
	// Publish appends ms, a run of messages of app, to the log and hands what was appended to
	// every subscriber of the bus. It returns once that is as durable as the log makes it; the
	// results are those of [Log.Append]. ms belongs to the bus from then on.
	Publish(ctx context.Context, app *apps.App, ms []Message) (epoch string, n int, err error)
	// Subscribe makes deliver receive every message, in runs of one app, for each app called once
	// at a time. It must not block, and ms is shared: nobody changes it any more. ctx is
	// Publish's, or derived from it, if that is where the call is made: then the runs are,
	// in order, what it publishes. stop ends it, after which deliver is not called again.
	Subscribe(deliver func(ctx context.Context, app *apps.App, ms []Message)) (stop func())
}
