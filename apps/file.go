package apps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v4"
)

// Bounds of an apps file, which its operator writes: beyond them it is surely another file. They
// have no setting.
const (
	maxFile = 1 << 20 // bytes
	maxApps = 10_000  // entries
)

// A FileError says what is wrong with an apps file and where. It is one line.
type FileError struct {
	File         string
	Line, Column int    // from 1; 0 when it is about the whole file
	Key          string // the path to what is wrong, as in apps.match.history.ttl; may be empty
	Reason       string
}

// Error implements error: file:line:column: key: reason.
func (e *FileError) Error() string {
	s := e.File
	if e.Line > 0 {
		s = fmt.Sprintf("%s:%d:%d", s, e.Line, e.Column)
	}
	if e.Key != "" {
		s += ": " + e.Key
	}
	return s + ": " + e.Reason
}

// parse makes rules of data, the text of the file called name.
func parse(name string, data []byte) (*rules, error) {
	if len(data) > maxFile {
		return nil, &FileError{File: name, Reason: fmt.Sprintf("larger than %d bytes", maxFile)}
	}
	if i := invalidUTF8(data); i >= 0 {
		line := bytes.Count(data[:i], []byte("\n")) + 1
		return nil, &FileError{File: name, Line: line, Column: i - bytes.LastIndexByte(data[:i], '\n'), Reason: "not UTF-8"}
	}
	p := &parser{file: name, fallback: defaultRule(name)}
	root, err := p.document(data)
	if err != nil {
		return nil, err
	}
	err = p.object(root, "", []key{
		{"default", p.parseDefault},
		{"apps", p.parseApps},
	})
	if err != nil {
		return nil, err
	}
	if t := findTie(p.list); t != nil {
		return nil, &FileError{File: name, Line: t.b.line, Column: t.b.column, Key: join("apps", t.b.key), Reason: fmt.Sprintf(
			"ties with %s of line %d: both match %s with equally long literal parts", t.a.key, t.a.line, t.name)}
	}
	return newRules(p.list, p.fallback, p.deny), nil
}

// invalidUTF8 returns where data stops being UTF-8, -1 if it does not.
func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// A parser turns the nodes of one file into rules. Its methods return a *FileError.
type parser struct {
	file     string
	list     []*rule
	fallback *rule
	deny     bool
}

// fail is the error about node, which stands at path.
func (p *parser) fail(node *yaml.Node, path, format string, args ...any) error {
	return &FileError{File: p.file, Line: node.Line, Column: node.Column, Key: path, Reason: fmt.Sprintf(format, args...)}
}

// document returns the root of the only document in data.
func (p *parser) document(data []byte) (*yaml.Node, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, p.syntax(err)
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0:
		// A file that lost its content must not open every app.
		return nil, &FileError{File: p.file, Reason: `empty: a file without rules of its own says "apps: {}"`}
	case err != nil:
		return nil, p.syntax(err)
	}
	switch err := loader.Load(&second); {
	case err == nil:
		return nil, p.fail(&second, "", "a second document: the file holds one")
	case !errors.Is(err, io.EOF):
		return nil, p.syntax(err)
	}
	return doc.Content[0], nil
}

// syntax is the error about text that is not YAML.
func (p *parser) syntax(err error) error {
	e := &FileError{File: p.file, Reason: "not YAML: " + oneLine(err.Error())}
	var at *yaml.LoadError
	if errors.As(err, &at) {
		e.Line, e.Column, e.Reason = at.Mark.Line, at.Mark.Column, "not YAML: "+oneLine(at.Message)
		if strings.Contains(at.ContextMsg, "alias") || strings.Contains(at.Message, "anchor") {
			e.Reason += "; a pattern that begins with * needs quotes"
		}
	}
	return e
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// A key is one that an object may have, with what reads its value.
type key struct {
	name string
	read func(value *yaml.Node, path string) error
}

// object reads node as an object that has no keys but the given ones, each once at most.
func (p *parser) object(node *yaml.Node, path string, keys []key) error {
	return p.members(node, path, func(k, value *yaml.Node, path string) error {
		names := make([]string, len(keys))
		for i, key := range keys {
			if key.name == k.Value {
				return key.read(value, path)
			}
			names[i] = key.name
		}
		return p.fail(k, path, "unknown key%s", suggest(k.Value, names))
	})
}

// members calls read for each member of node, in the order of the file.
func (p *parser) members(node *yaml.Node, path string, read func(k, value *yaml.Node, path string) error) error {
	if err := p.plain(node, path); err != nil {
		return err
	}
	if node.Kind != yaml.MappingNode {
		return p.fail(node, path, "must be an object (key: value), not %s", describe(node))
	}
	seen := make(map[string]*yaml.Node)
	for i := 0; i < len(node.Content); i += 2 {
		k, value := node.Content[i], node.Content[i+1]
		if err := p.plain(k, path); err != nil {
			return err
		}
		if k.Kind != yaml.ScalarNode {
			return p.fail(k, path, "a key must be a word, not %s", describe(k))
		}
		at := join(path, k.Value)
		if first := seen[k.Value]; first != nil {
			return p.fail(k, at, "duplicate of line %d", first.Line)
		}
		seen[k.Value] = k
		if err := read(k, value, at); err != nil {
			return err
		}
	}
	return nil
}

// plain refuses what makes a value depend on text elsewhere. Without it a rule means what it
// says on its own line, and a small file cannot grow into a large one.
func (p *parser) plain(node *yaml.Node, path string) error {
	switch {
	case node.Kind == yaml.AliasNode, node.Anchor != "", node.Tag == "!!merge":
		return p.fail(node, path, "anchors, aliases and merge keys are not supported")
	case node.Style&yaml.TaggedStyle != 0:
		return p.fail(node, path, "tags are not supported")
	}
	return nil
}

// scalar returns the text of node, which must be a plain value and not null.
func (p *parser) scalar(node *yaml.Node, path, want string) (string, error) {
	if err := p.plain(node, path); err != nil {
		return "", err
	}
	if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
		return "", p.fail(node, path, "must be %s, not %s", want, describe(node))
	}
	return node.Value, nil
}

// word reads node as one of words.
func (p *parser) word(node *yaml.Node, path string, words ...string) (string, error) {
	want := strings.Join(words, " or ")
	if n := len(words) - 1; n > 1 {
		want = strings.Join(words[:n], ", ") + " or " + words[n]
	}
	s, err := p.scalar(node, path, want)
	if err != nil {
		return "", err
	}
	for _, w := range words {
		if s == w {
			return w, nil
		}
	}
	return "", p.fail(node, path, "must be %s, not %s%s", want, describe(node), near(s, words))
}

// describe says what node is, for an error.
func describe(node *yaml.Node) string {
	switch {
	case node.Kind == yaml.MappingNode:
		return "an object"
	case node.Kind == yaml.SequenceNode:
		return "a list"
	case node.Tag == "!!null":
		return "nothing"
	}
	return quote(node.Value)
}

// maxQuoted bounds how much of a value an error repeats.
const maxQuoted = 64

func quote(s string) string {
	if len(s) > maxQuoted {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:maxQuoted], ""))
	}
	return fmt.Sprintf("%q", s)
}

// join adds a key to a path, quoted when it would not read well.
func join(path, key string) string {
	if !readable(key) {
		key = quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func readable(key string) bool {
	for i := range len(key) {
		if c := key[i]; c <= ' ' || c >= 0x7f || c == '"' {
			return false
		}
	}
	return key != "" && len(key) <= 2*maxName
}

// suggest ends an error about a word that is none of words.
func suggest(got string, words []string) string {
	if s := near(got, words); s != "" {
		return s
	}
	return "; known are " + strings.Join(words, ", ")
}

// near asks whether the nearest of words was meant, if one is near.
func near(got string, words []string) string {
	best, distance := "", 3
	for _, w := range words {
		if len(got) > 2*len(w)+2 {
			continue // not near, and could be very long
		}
		if d := levenshtein.ComputeDistance(strings.ToLower(got), w); d < distance && d < len(w) {
			best, distance = w, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}
