package apps

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An Explanation says what decides about a member's wish, and why.
type Explanation struct {
	Allowed bool
	Rule    string // the entry that decided: a name, a pattern, or "default"; "" for a bad name
	Where   string // that entry's file:line:column, or "built in"
	Choice  string // why that entry and no other
	Reason  string // what it says about this member
	verdict string
}

// String returns the explanation as lines for people.
func (e Explanation) String() string {
	lines := []string{e.verdict}
	if e.Rule != "" {
		lines = append(lines, fmt.Sprintf("rule: %s (%s), %s", e.Rule, e.Where, e.Choice))
	}
	return strings.Join(append(lines, "reason: "+e.Reason), "\n")
}

// Explain answers what Authorize would, with everything that it keeps to itself: for operators,
// not for clients.
func (r *Registry) Explain(m Member, a Action, name string) Explanation {
	rs := r.current()
	app, err := rs.lookup(name)
	var member *memberError
	switch {
	case errors.Is(err, ErrUnknownApp):
		return Explanation{
			Rule: rs.fallback.key, Where: rs.fallback.where, Choice: "no entry matches", Reason: "default is deny, so the app does not exist",
			verdict: verdict(false, m, a, name),
		}
	case errors.As(err, &member):
		return Explanation{
			Rule: member.rule.key, Where: member.rule.where, Choice: "but for the number", Reason: notMember,
			verdict: fmt.Sprintf("denied: %q is not an app name", name),
		}
	case err != nil:
		return Explanation{Reason: badName(name), verdict: fmt.Sprintf("denied: %q is not an app name", name)}
	}
	e := Explanation{Rule: app.Rule, Where: app.rule.where, Choice: rs.choice(app)}
	var g grant
	e.Allowed, g = app.allows(m, a)
	e.Reason = app.reason(m, a, g)
	e.verdict = verdict(e.Allowed, m, a, name)
	return e
}

func verdict(allowed bool, m Member, a Action, name string) string {
	if allowed {
		return fmt.Sprintf("allowed: %s may %s %s", m, a.verb(), name)
	}
	return fmt.Sprintf("denied: %s may not %s %s", m, a.verb(), name)
}

// String names m for people.
func (m Member) String() string {
	switch {
	case !m.known():
		return "an anonymous client"
	case len(m.Roles) > 0:
		return fmt.Sprintf("member %d (%s)", m.ID, bounded(m.Roles, ""))
	}
	return fmt.Sprintf("member %d", m.ID)
}

// verb completes "member 42 may … match".
func (a Action) verb() string {
	switch a {
	case Subscribe:
		return "subscribe to"
	case Push:
		return "push to"
	case Presence:
		return "see who is in"
	}
	return a.String()
}

// reason says what the app's list makes of m.
func (app *App) reason(m Member, a Action, g grant) string {
	if a == Presence && !app.Presence {
		return "presence is off"
	}
	_, list := app.rule.list(a)
	var is string
	switch g.principal {
	case "":
		switch {
		case list.empty():
			return app.terms(a)
		case m.known() && list.owner:
			is = fmt.Sprintf("%s is none of them (the owner is %d)", m, app.Owner)
		default:
			is = fmt.Sprintf("%s is none of them", m)
		}
	case "anyone":
		return app.terms(a)
	case "owner":
		is = fmt.Sprintf("member %d is the owner", m.ID)
	case rolePrefix:
		is = fmt.Sprintf("member %d has the role %s", m.ID, g.role)
	case "members":
		is = fmt.Sprintf("%d is one", m.ID)
	default:
		is = fmt.Sprintf("member %d is listed", m.ID)
	}
	return app.terms(a) + "; " + is
}

// choice says why app's rule and no other decides about it.
func (rs *rules) choice(app *App) string {
	r := app.rule
	switch {
	case r == rs.fallback:
		return "no entry matches"
	case r.pattern == nil:
		return "which names the app"
	}
	var beaten []*rule
	for _, n := range rs.prefixes {
		if n > len(app.Name) {
			continue
		}
		for _, other := range rs.patterns[app.Name[:n]] {
			if owner, ok := other.pattern.match(app.Name); ok && owner != misspelt && other != r {
				beaten = append(beaten, other)
			}
		}
	}
	slices.SortFunc(beaten, longestLiteral) // equally long ones would be a tie
	others := make([]string, len(beaten))
	for i, other := range beaten {
		others[i] = other.key
	}
	if len(others) == 0 {
		return "the only pattern that matches"
	}
	return "with a longer literal part than " + bounded(others, "") + ", which would match too"
}
