package session

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/push"
)

// Bounds of a command: rules of the protocol, which clients know, without settings.
const (
	maxMember = 1<<53 - 1 // what a browser's number keeps exactly
	maxToken  = 4 << 10   // bytes
	maxID     = 64        // bytes of a command's id
	maxDepth  = 32        // of nested JSON
)

// A command is what a client asks for, as the frame said it. Has tells which keys were there.
type command struct {
	has      keys
	op       string
	app      string
	member   int64 // negative: anonymous
	token    Token
	text     string
	position *push.Position // nil with hasPosition: null
	last     int
	events   bool
	id       []byte // JSON, as replies repeat it
}

// keys is a set of a command's keys.
type keys uint16

const (
	hasOp keys = 1 << iota
	hasApp
	hasMember
	hasToken
	hasText
	hasPosition
	hasLast
	hasEvents
	hasID
)

var keyNames = map[string]keys{
	"op": hasOp, "app": hasApp, "member_id": hasMember, "token": hasToken, "text": hasText,
	"position": hasPosition, "last": hasLast, "events": hasEvents, "id": hasID,
}

// errCommand is returned for a frame that is no command; what exactly is wrong is for logs.
type errCommand string

func (e errCommand) Error() string { return "bad command: " + string(e) }

// A decoder is a JSON decoder and the reader it reads from, both reused.
type decoder struct {
	in  bytes.Reader
	dec *jsontext.Decoder
}

var decoders = sync.Pool{New: func() any {
	d := new(decoder)
	d.dec = jsontext.NewDecoder(&d.in)
	return d
}}

// parseCommand reads one frame strictly: duplicate keys at any depth, keys in the wrong
// case, invalid UTF-8, lone surrogates, trailing bytes and nesting deeper than maxDepth are
// refused. Keys that are not of the protocol are ignored.
func parseCommand(data []byte) (command, error) {
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	d.in.Reset(data)
	d.dec.Reset(&d.in)
	c, err := d.command()
	d.in.Reset(nil)
	return c, err
}

func (d *decoder) command() (c command, err error) {
	tok, err := d.dec.ReadToken()
	if err != nil {
		return c, err
	}
	if tok.Kind() != '{' {
		return c, errCommand("not an object")
	}
	for d.dec.PeekKind() == '"' {
		tok, err := d.dec.ReadToken()
		if err != nil {
			return c, err
		}
		name := tok.String()
		key, known := keyNames[name]
		if !known {
			for k := range keyNames {
				if strings.EqualFold(k, name) {
					return c, errCommand("key in the wrong case")
				}
			}
			if err := d.skip(); err != nil {
				return c, err
			}
			continue
		}
		c.has |= key
		if err := d.value(&c, key); err != nil {
			return c, err
		}
	}
	if _, err := d.dec.ReadToken(); err != nil { // the closing brace
		return c, err
	}
	if _, err := d.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return c, errCommand("bytes after the object")
	}
	return c, nil
}

// value reads the value of key into c.
func (d *decoder) value(c *command, key keys) (err error) {
	switch key {
	case hasOp:
		c.op, err = d.text(16)
	case hasApp:
		c.app, err = d.text(128)
	case hasToken:
		var s string
		s, err = d.text(maxToken)
		c.token = Token(s)
	case hasText:
		c.text, err = d.text(-1)
	case hasMember:
		c.member, err = d.memberID()
	case hasPosition:
		c.position, err = d.position()
	case hasLast:
		var n uint64
		n, err = d.natural()
		c.last = int(min(n, 1<<31-1))
	case hasEvents:
		tok, e := d.dec.ReadToken()
		if e != nil {
			return e
		}
		if k := tok.Kind(); k != 't' && k != 'f' {
			return errCommand("events is not true or false")
		}
		c.events = tok.Bool()
	case hasID:
		c.id, err = d.id()
	}
	return err
}

// text reads a string of at most limit bytes; limit < 0 is none.
func (d *decoder) text(limit int) (string, error) {
	tok, err := d.dec.ReadToken()
	if err != nil {
		return "", err
	}
	if tok.Kind() != '"' {
		return "", errCommand("not a string")
	}
	s := tok.String()
	if limit >= 0 && len(s) > limit {
		return "", errCommand("string too long")
	}
	return s, nil
}

// integer reads a number that is written as an integer: 1.0 and 1e3 are not.
func (d *decoder) integer() (string, error) {
	v, err := d.dec.ReadValue()
	if err != nil {
		return "", err
	}
	if v.Kind() != '0' || bytes.ContainsAny(v, ".eE") {
		return "", errCommand("not an integer")
	}
	return string(v), nil
}

// memberID reads 1..2^53-1, or any negative integer as apps.Anonymous.
func (d *decoder) memberID() (int64, error) {
	s, err := d.integer()
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(s, "-") && s != "-0" {
		return -1, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > maxMember {
		return 0, errCommand("member_id out of range")
	}
	return n, nil
}

func (d *decoder) natural() (uint64, error) {
	s, err := d.integer()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, errCommand("not a natural number")
	}
	return n, nil
}

// position reads null or {"epoch":"…","offset":41}.
func (d *decoder) position() (*push.Position, error) {
	tok, err := d.dec.ReadToken()
	if err != nil {
		return nil, err
	}
	if tok.Kind() == 'n' {
		return nil, nil
	}
	if tok.Kind() != '{' {
		return nil, errCommand("position is not an object")
	}
	p, seen := new(push.Position), 0
	for d.dec.PeekKind() == '"' {
		tok, err := d.dec.ReadToken()
		if err != nil {
			return nil, err
		}
		switch name := tok.String(); {
		case name == "epoch":
			seen |= 1
			p.Epoch, err = d.text(64)
		case name == "offset":
			seen |= 2
			p.Offset, err = d.natural()
		case strings.EqualFold(name, "epoch"), strings.EqualFold(name, "offset"):
			err = errCommand("key in the wrong case")
		default:
			err = d.skip()
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, err
	}
	if seen != 3 {
		return nil, errCommand("position without epoch or offset")
	}
	return p, nil
}

// id reads an integer or a string of at most maxID bytes, as JSON.
func (d *decoder) id() ([]byte, error) {
	switch d.dec.PeekKind() {
	case '"':
		s, err := d.text(maxID)
		if err != nil {
			return nil, err
		}
		return appendQuote(nil, s), nil
	case '0':
		s, err := d.integer()
		if err != nil {
			return nil, err
		}
		if len(s) > maxID {
			return nil, errCommand("id too long")
		}
		return []byte(s), nil
	}
	return nil, errCommand("id is neither integer nor string")
}

// skip reads any value that is not nested too deeply.
func (d *decoder) skip() error {
	depth := d.dec.StackDepth()
	for {
		if _, err := d.dec.ReadToken(); err != nil {
			return err
		}
		switch now := d.dec.StackDepth(); {
		case now == depth:
			return nil
		case now > maxDepth:
			return errCommand("nested too deeply")
		}
	}
}

// appendQuote appends s, which is valid UTF-8, as a JSON string with as few escapes as RFC
// 8259 allows.
func appendQuote(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil { // s was checked when it came in; what is not UTF-8 reads as U+FFFD
		return dst
	}
	return dst
}
