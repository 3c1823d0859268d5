// Package apps holds the topics that clients subscribe to and the rules that say who may.
//
// [Load] reads the apps file (APPS.md is its reference) into a [Registry], which answers what
// rules an app name has ([Registry.Lookup]), whether a member may do something with it
// ([Registry.Authorize]), and why ([Registry.Explain]). [Registry.Reload] reads the file again.
package apps

import (
	"fmt"
	"time"
)

// Anonymous is the member id of a client that did not prove who it is.
const Anonymous int64 = -1

// MaxMember is the greatest member id: the greatest integer that JavaScript holds exactly.
const MaxMember int64 = 1<<53 - 1

// A Member is somebody whose rights are asked for. Any ID that is not 1..MaxMember counts as
// anonymous, and an anonymous client has no roles, whatever Roles says.
type Member struct {
	ID    int64    // Anonymous, or 1..MaxMember
	Roles []string // for role:NAME
}

// known reports whether m proved who it is.
func (m Member) known() bool { return m.ID > 0 && m.ID <= MaxMember }

// An Action is what a member wants to do with an app.
type Action uint8

const (
	Subscribe Action = iota // receive the app's messages
	Push                    // send a message to its subscribers
	Presence                // ask who is subscribed
)

// String returns the word that clients and the apps file use for a.
func (a Action) String() string {
	switch a {
	case Subscribe:
		return "subscribe"
	case Push:
		return "push"
	case Presence:
		return "presence"
	}
	return "unknown action"
}

// ParseAction returns the action whose word, as of String, is given.
func ParseAction(word string) (Action, error) {
	for a := Subscribe; a <= Presence; a++ {
		if a.String() == word {
			return a, nil
		}
	}
	return 0, fmt.Errorf("action %q is not one of subscribe, push, presence", word)
}

// What an app does for a subscriber that does not keep up ([App.Slow]).
const (
	SlowClose      = "close"       // close it with 4008; it may come back and resume
	SlowDropOldest = "drop_oldest" // drop the oldest message that waits for it
	SlowLatest     = "latest"      // keep only the newest message that waits for it
)

// An App is the resolved rule set of one app name. It is immutable and shared by everybody
// who looks the name up; a reload makes new ones.
type App struct {
	Name     string
	Rule     string // the entry of the apps file that decided: a name, a pattern, or "default"
	Named    bool   // the file names the app itself, without a pattern: it gets its own metrics
	Private  bool   // pushes must name a member
	Owner    int64  // the {member_id} in the name, 0 where the rule has none
	Presence bool
	History  History
	Slow     string // SlowClose, SlowDropOldest or SlowLatest

	rule *rule
}

// History bounds what an app's log keeps. Size 0 turns the log off.
type History struct {
	Size int           // messages
	TTL  time.Duration // age at which a message is dropped
}
