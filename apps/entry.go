package apps

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"
)

const (
	defaultHistorySize = 100
	defaultHistoryTTL  = 5 * time.Minute

	// What a file may ask for; WSGW_HISTORY_MEMORY bounds what all logs together take.
	maxHistorySize = 100_000
	minHistoryTTL  = time.Second
	maxHistoryTTL  = 30 * 24 * time.Hour
)

// parseDefault reads default: public or deny.
func (p *parser) parseDefault(node *yaml.Node, path string) error {
	word, err := p.word(node, path, "public", "deny")
	p.fallback.where = fmt.Sprintf("%s:%d:%d", p.file, node.Line, node.Column)
	p.deny = word == "deny"
	return err
}

// parseApps reads the entries.
func (p *parser) parseApps(node *yaml.Node, path string) error {
	if node.Kind == yaml.MappingNode && len(node.Content)/2 > maxApps {
		return p.fail(node, path, "%d entries, at most %d are allowed", len(node.Content)/2, maxApps)
	}
	return p.members(node, path, func(k, value *yaml.Node, path string) error {
		r := &rule{key: k.Value, app: defaultApp, subscribe: anyone, push: nobody,
			where: fmt.Sprintf("%s:%d:%d", p.file, k.Line, k.Column), line: k.Line, column: k.Column}
		r.app.Rule = r.key
		if isPattern(r.key) {
			pattern, err := parsePattern(r.key)
			if err != nil {
				return p.fail(k, path, "%v", err)
			}
			r.pattern = pattern
		} else {
			if reason := badName(r.key); reason != "" {
				return p.fail(k, path, "%s", reason)
			}
			r.app.Named = true
		}
		p.list = append(p.list, r)
		return p.parseEntry(r, value, path)
	})
}

// parseEntry reads what one entry says, which may be nothing.
func (p *parser) parseEntry(r *rule, node *yaml.Node, path string) error {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" && node.Value == "" {
		return p.plain(node, path)
	}
	var subscribe, push *yaml.Node // as they depend on visibility, which may come after them
	keep := func(at **yaml.Node) func(*yaml.Node, string) error {
		return func(value *yaml.Node, _ string) error { *at = value; return nil }
	}
	err := p.object(node, path, []key{
		{"visibility", func(value *yaml.Node, path string) error {
			word, err := p.word(value, path, "public", "private")
			r.app.Private = word == "private"
			return err
		}},
		{"subscribe", keep(&subscribe)},
		{"push", keep(&push)},
		{"presence", func(value *yaml.Node, path string) error {
			word, err := p.word(value, path, "true", "false")
			r.app.Presence = word == "true"
			return err
		}},
		{"history", func(value *yaml.Node, path string) error { return p.parseHistory(r, value, path) }},
		{"slow", func(value *yaml.Node, path string) (err error) {
			r.app.Slow, err = p.word(value, path, SlowClose, SlowDropOldest, SlowLatest)
			return err
		}},
	})
	if err != nil {
		return err
	}
	if r.app.Private {
		r.subscribe = members
	}
	if err := p.parseACL(r, Subscribe, subscribe, join(path, "subscribe"), &r.subscribe); err != nil {
		return err
	}
	return p.parseACL(r, Push, push, join(path, "push"), &r.push)
}

// parseHistory reads off, false or {size, ttl}.
func (p *parser) parseHistory(r *rule, node *yaml.Node, path string) error {
	if node.Kind != yaml.MappingNode {
		const want = "off or an object of size and ttl"
		s, err := p.scalar(node, path, want)
		if err != nil {
			return err
		}
		if s != "off" && s != "false" {
			return p.fail(node, path, "must be %s, not %s", want, describe(node))
		}
		r.app.History = History{}
		return nil
	}
	return p.object(node, path, []key{
		{"size", func(value *yaml.Node, path string) error {
			const want = "a number of messages, 1 to 100000"
			s, err := p.scalar(value, path, want)
			if err != nil {
				return err
			}
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 || n > maxHistorySize || strconv.Itoa(n) != s {
				return p.fail(value, path, "must be %s, not %s (history: off keeps none)", want, describe(value))
			}
			r.app.History.Size = n
			return nil
		}},
		{"ttl", func(value *yaml.Node, path string) error {
			const want = "a duration from 1s to 720h, such as 90s, 10m or 1h30m"
			s, err := p.scalar(value, path, want)
			if err != nil {
				return err
			}
			d, err := time.ParseDuration(s)
			if err != nil || d < minHistoryTTL || d > maxHistoryTTL {
				return p.fail(value, path, "must be %s, not %s", want, describe(value))
			}
			r.app.History.TTL = d
			return nil
		}},
	})
}

// parseACL reads the list of who may do a into list, which stays what it is when node is nil.
func (p *parser) parseACL(r *rule, a Action, node *yaml.Node, path string, list *acl) error {
	if node == nil {
		return nil
	}
	if err := p.plain(node, path); err != nil {
		return err
	}
	if node.Kind != yaml.SequenceNode {
		return p.fail(node, path, "must be a list such as [members, \"role:gold\", 42], not %s", describe(node))
	}
	principals := make([]string, 0, len(node.Content))
	seen := make(map[string]bool)
	for _, item := range node.Content {
		s, err := p.scalar(item, path, principalForms)
		if err != nil {
			return err
		}
		if reason := badPrincipal(s); reason != "" {
			return p.fail(item, path, "%s", reason)
		}
		switch {
		case seen[s]:
			return p.fail(item, path, "%s is in the list twice", quote(s))
		case s == "owner" && (r.pattern == nil || !r.pattern.owned):
			return p.fail(item, path, "owner needs %s in the name of the entry", memberPart)
		case s == "anyone" && a == Push:
			return p.fail(item, path, "anyone cannot push, as nobody could tell it from the backend; members can")
		case s == "anyone" && r.app.Private:
			return p.fail(item, path, "anyone cannot subscribe to a private app, whose pushes name a member; members can")
		}
		seen[s] = true
		principals = append(principals, s)
	}
	*list = newACL(principals)
	return nil
}

const (
	principalForms = "anyone, members, owner, role:NAME or a member id"
	maxRole        = 128
)

// badPrincipal says what is wrong with s as an item of a list.
func badPrincipal(s string) string {
	if s == "anyone" || s == "members" || s == "owner" {
		return ""
	}
	if role, ok := strings.CutPrefix(s, rolePrefix); ok {
		switch {
		case role == "" || len(role) > maxRole:
			return fmt.Sprintf("the name of a role has 1 to %d bytes", maxRole)
		case role != strings.TrimSpace(role) || strings.ContainsFunc(role, unicode.IsControl):
			return fmt.Sprintf("%s cannot be the name of a role", quote(role))
		}
		return ""
	}
	if _, ok := parseMember(s); ok {
		return ""
	}
	if s != "" && isDigit(s[len(s)-1]) {
		return fmt.Sprintf("must be %s, not %s; a member id is 1 to %d", principalForms, quote(s), MaxMember)
	}
	return fmt.Sprintf("must be %s, not %s%s", principalForms, quote(s), near(s, []string{"anyone", "members", "owner"}))
}
