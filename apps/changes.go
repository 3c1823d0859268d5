package apps

import (
	"fmt"
	"slices"
	"strings"
)

// changes says in which ways rs differs from old, a line each.
func (rs *rules) changes(old *rules) []string {
	var list []string
	if a, b := old.defaultWord(), rs.defaultWord(); a != b {
		list = append(list, fmt.Sprintf("default: %s -> %s", a, b))
	}
	before, after := old.entries(), rs.entries()
	var keys []string
	for key := range before {
		keys = append(keys, key)
	}
	for key := range after {
		if before[key] == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		switch a, b := before[key], after[key]; {
		case a == nil:
			list = append(list, fmt.Sprintf("%s: added (%s)", key, b.summary()))
		case b == nil:
			list = append(list, key+": removed")
		default:
			list = append(list, b.changes(a)...)
		}
	}
	return list
}

func (rs *rules) defaultWord() string {
	if rs.deny {
		return "deny"
	}
	return "public"
}

// entries returns the rules by key, without the fallback.
func (rs *rules) entries() map[string]*rule {
	m := make(map[string]*rule)
	for name, app := range rs.names {
		m[name] = app.rule
	}
	for _, group := range rs.patterns {
		for _, r := range group {
			m[r.key] = r
		}
	}
	return m
}

// A setting is one key of an entry with its value, for people.
type setting struct{ key, value string }

// settings returns what r decides besides who may do what.
func (r *rule) settings() []setting {
	visibility, history, presence := "public", "off", "false"
	if r.app.Private {
		visibility = "private"
	}
	if h := r.app.History; h.Size > 0 {
		history = fmt.Sprintf("%d for %v", h.Size, h.TTL)
	}
	if r.app.Presence {
		presence = "true"
	}
	return []setting{{"visibility", visibility}, {"presence", presence}, {"history", history}, {"slow", r.app.Slow}}
}

// summary is r in one line.
func (r *rule) summary() string {
	words := []string{"subscribe: " + r.subscribe.text, "push: " + r.push.text}
	for _, s := range r.settings() {
		words = append(words, s.key+": "+s.value)
	}
	return strings.Join(words, "; ")
}

// changes says in which ways r differs from old, which has the same key, a line each.
func (r *rule) changes(old *rule) []string {
	var list []string
	for _, acl := range []struct {
		key      string
		old, now *acl
	}{{"subscribe", &old.subscribe, &r.subscribe}, {"push", &old.push, &r.push}} {
		if added := missing(acl.now, acl.old); len(added) > 0 {
			list = append(list, fmt.Sprintf("%s: %s: added %s", r.key, acl.key, bounded(added, "")))
		}
		if removed := missing(acl.old, acl.now); len(removed) > 0 {
			list = append(list, fmt.Sprintf("%s: %s: removed %s", r.key, acl.key, bounded(removed, "")))
		}
	}
	before := old.settings()
	for i, s := range r.settings() {
		if s != before[i] {
			list = append(list, fmt.Sprintf("%s: %s: %s -> %s", r.key, s.key, before[i].value, s.value))
		}
	}
	return list
}

// missing returns the principals of a that are not in b.
func missing(a, b *acl) []string {
	in := make(map[string]bool)
	for _, p := range b.principals() {
		in[p] = true
	}
	return slices.DeleteFunc(a.principals(), func(p string) bool { return in[p] })
}
