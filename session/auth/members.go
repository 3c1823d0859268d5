package auth

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// A membersFile is a members file as read. It is immutable.
type membersFile struct {
	members map[int64]member

	// The most proofs of each kind that one member has, and the costliest argon2id one.
	digests, stretches int
	decoy              stretched
}

// parseMembers reads a members file; name is for its errors, "name:line:column: what".
//
//	members:
//	  42: {tokens: ["sha256:SALT:HEX"], roles: [gold]}
func parseMembers(name string, data []byte) (*membersFile, error) {
	p := membersParser{name}
	var doc yaml.Node
	err := yaml.Load(data, &doc)
	var at *yaml.LoadError
	switch {
	case errors.As(err, &at) && at.Mark.Line > 0:
		return nil, fmt.Errorf("%s:%d:%d: %s", name, at.Mark.Line, at.Mark.Column, at.Message)
	case err != nil || len(doc.Content) == 0:
		return nil, fmt.Errorf("%s:1:1: want one YAML document with the key members", name)
	}
	file := &membersFile{members: make(map[int64]member)}
	found := false
	err = p.mapping(doc.Content[0], func(key, value *yaml.Node) error {
		if key.Value != "members" {
			return p.errorf(key, "unknown key %q (want members)", key.Value)
		}
		found = true
		return p.mapping(value, func(key, value *yaml.Node) error {
			id, err := strconv.ParseInt(key.Value, 10, 64)
			if err != nil || id < 1 || id > maxMember || strconv.FormatInt(id, 10) != key.Value {
				return p.errorf(key, "member %q: want an integer from 1 to %d", key.Value, int64(maxMember))
			}
			m, err := p.member(key, value)
			if err != nil {
				return err
			}
			file.add(id, m)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, p.errorf(doc.Content[0], "want the key members")
	}
	return file, nil
}

func (f *membersFile) add(id int64, m member) {
	f.members[id] = m
	f.digests = max(f.digests, len(m.digests))
	f.stretches = max(f.stretches, len(m.stretched))
	for _, s := range m.stretched {
		if s.cost() > f.decoy.cost() {
			f.decoy = s
		}
	}
}

// A membersParser walks the YAML tree, which still knows where everything stood.
type membersParser struct{ name string }

func (p membersParser) errorf(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d:%d: %s", p.name, n.Line, n.Column, fmt.Sprintf(format, args...))
}

func (p membersParser) member(key, n *yaml.Node) (m member, err error) {
	err = p.mapping(n, func(key, value *yaml.Node) error {
		switch key.Value {
		case "tokens":
			return p.sequence(value, func(n *yaml.Node) error { return p.token(&m, n) })
		case "roles":
			return p.sequence(value, func(n *yaml.Node) error {
				if !validRole(n.Value) || len(m.roles) == maxRoles {
					return p.errorf(n, "roles: want at most %d, each 1 to %d bytes without spaces", maxRoles, maxRole)
				}
				if !slices.Contains(m.roles, n.Value) {
					m.roles = append(m.roles, n.Value)
				}
				return nil
			})
		}
		return p.errorf(key, "unknown key %q (want tokens or roles)", key.Value)
	})
	if err == nil && len(m.digests)+len(m.stretched) == 0 {
		err = p.errorf(key, "member %s has no tokens", key.Value)
	}
	return m, err
}

func (p membersParser) token(m *member, n *yaml.Node) error {
	proof, err := parseProof(n.Value)
	switch proof := proof.(type) {
	case digest:
		m.digests = append(m.digests, proof)
	case stretched:
		m.stretched = append(m.stretched, proof)
	default:
		return p.errorf(n, "token: %v", err)
	}
	return nil
}

// mapping calls do for every key of n. Keys are scalars and occur once.
func (p membersParser) mapping(n *yaml.Node, do func(key, value *yaml.Node) error) error {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return p.errorf(n, "want a mapping (key: value)")
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode {
			return p.errorf(key, "want a plain key")
		}
		if line, ok := seen[key.Value]; ok {
			return p.errorf(key, "%q is already on line %d", key.Value, line)
		}
		seen[key.Value] = key.Line
		if err := do(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// sequence calls do for every scalar of n.
func (p membersParser) sequence(n *yaml.Node, do func(*yaml.Node) error) error {
	n = resolve(n)
	if n.Kind != yaml.SequenceNode {
		return p.errorf(n, "want a list")
	}
	for _, item := range n.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode || item.ShortTag() == "!!null" {
			return p.errorf(item, "want a text")
		}
		if err := do(item); err != nil {
			return err
		}
	}
	return nil
}

// resolve returns what an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
