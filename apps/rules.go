package apps

import (
	"cmp"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
)

// A rule is one entry of the apps file, or what stands in for one.
type rule struct {
	key          string   // as the file writes it, or "default"
	pattern      *pattern // nil for a name and the default
	app          App      // of every name, but for Name and Owner
	subscribe    acl
	push         acl
	where        string // file:line:column, or what stands in for it
	line, column int    // 0 unless from a file
}

// resolve returns the app called name that r decides about.
func (r *rule) resolve(name string, owner int64) *App {
	app := r.app
	app.Name, app.Owner, app.rule = name, owner, r
	return &app
}

// rules is one version of the apps file. It is immutable but for its cache.
type rules struct {
	names    map[string]*App
	patterns map[string][]*rule // by prefix; those with the longest literal part first
	prefixes []int              // lengths of the keys of patterns, in any order
	fallback *rule              // about names that no entry matches
	deny     bool               // default: deny, so that there are no such apps
	named    []string           // sorted

	// cache holds apps that a pattern or the default decided about, so that a busy app costs
	// no allocation a push. Strangers choose names: the least recently used goes when full.
	cache *lru.Cache[string, *App]
}

// maxCached bounds a cache to about 2 MiB.
const maxCached = 8192

// defaultApp is what an entry that says nothing gets.
var defaultApp = App{History: History{Size: defaultHistorySize, TTL: defaultHistoryTTL}, Slow: SlowClose}

// defaultRule decides about the apps that no entry matches.
func defaultRule(where string) *rule {
	r := &rule{key: "default", app: defaultApp, subscribe: anyone, push: nobody, where: where}
	r.app.Rule = r.key
	return r
}

// builtIn are the rules of a gateway without an apps file: those of the original, which has
// public apps and a private one.
func builtIn() *rules {
	const where = "built in"
	im := &rule{key: "im", app: defaultApp, subscribe: members, push: nobody, where: where}
	im.app.Rule, im.app.Private = im.key, true
	return newRules([]*rule{im}, defaultRule(where), false)
}

// newRules prepares list, in which no keys are the same and no patterns tie, for lookups.
func newRules(list []*rule, fallback *rule, deny bool) *rules {
	cache, _ := lru.New[string, *App](maxCached) // fails for sizes below 1 only
	rs := &rules{fallback: fallback, deny: deny, cache: cache,
		names: make(map[string]*App), patterns: make(map[string][]*rule)}
	for _, r := range list {
		if r.pattern != nil {
			prefix := r.pattern.prefix()
			rs.patterns[prefix] = append(rs.patterns[prefix], r)
			continue
		}
		rs.names[r.key] = r.resolve(r.key, 0)
		if r.app.Named {
			rs.named = append(rs.named, r.key)
		}
	}
	slices.Sort(rs.named)
	for prefix, group := range rs.patterns {
		slices.SortFunc(group, longestLiteral)
		if !slices.Contains(rs.prefixes, len(prefix)) {
			rs.prefixes = append(rs.prefixes, len(prefix))
		}
	}
	return rs
}

func longestLiteral(a, b *rule) int { return cmp.Compare(b.pattern.literal, a.pattern.literal) }

// lookup is Registry.Lookup.
func (rs *rules) lookup(name string) (*App, error) {
	if app, ok := rs.names[name]; ok {
		return app, nil
	}
	if app, ok := rs.cache.Get(name); ok {
		return app, nil
	}
	if !ValidName(name) {
		return nil, ErrBadName
	}
	r, owner := rs.match(name)
	if owner == misspelt {
		return nil, &memberError{r}
	}
	if r == rs.fallback && rs.deny {
		return nil, ErrUnknownApp
	}
	name = strings.Clone(name) // which may be a piece of a large body
	app := r.resolve(name, owner)
	rs.cache.Add(name, app)
	return app, nil
}

// match returns the rule about name, which no entry spells out, and the owner that its pattern
// reads out of name. The pattern with the longest literal part wins; no two that match are
// equally long, since the file would have been refused; one that name is misspelt for counts,
// but not against another that is as long.
func (rs *rules) match(name string) (best *rule, owner int64) {
	best, longest := rs.fallback, -1
	for _, n := range rs.prefixes {
		if n > len(name) {
			continue
		}
		for _, r := range rs.patterns[name[:n]] {
			if r.pattern.literal < longest {
				break
			}
			if o, ok := r.pattern.match(name); ok && (o != misspelt || r.pattern.literal > longest) {
				best, owner, longest = r, o, r.pattern.literal
			}
		}
	}
	return best, owner
}
