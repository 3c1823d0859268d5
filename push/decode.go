package push

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds of what a backend may send. They are part of the API, so that what one gateway takes
// another takes too, and have no setting.
const (
	maxBatch     = 1000      // messages of one body
	maxDepth     = 32        // nested objects and arrays
	maxMember    = 1<<53 - 1 // the largest integer that JavaScript keeps exactly
	maxRequestID = 64        // bytes of a link's id
	maxKnownName = 64        // a longer object key, in raw bytes, cannot be one of ours
)

// A decoder reads the body of a push. It is reused: its buffers grow to what bodies need.
type decoder struct {
	json     *jsontext.Decoder
	body     []byte
	text     []byte // unquoted
	app      string // of the last message: most often also of the next
	messages []Message
	unknown  int  // keys that were ignored
	full     bool // there are more messages than a batch may have

	// Of a link only, where a frame has keys of its own.
	link bool
	id   []byte // as JSON; nil: none
	key  string // for idempotency
	once bool   // key was there
}

func newDecoder() *decoder {
	return &decoder{json: jsontext.NewDecoder(strings.NewReader(""))}
}

// release forgets what d holds of the last body, and buffers too big to keep around.
func (d *decoder) release() {
	clear(d.messages)
	d.messages = d.messages[:0]
	if cap(d.body) > 64<<10 {
		d.body = nil
	}
	if cap(d.text) > 64<<10 {
		d.text = nil
	}
}

// decode reads the messages of d.body: one object, or an array of them (batch). The messages
// belong to d. What the hub's rules say of them is not checked here. The error is a
// *RefusedError.
func (d *decoder) decode() (ms []Message, batch bool, err error) {
	d.messages, d.unknown, d.full = d.messages[:0], 0, false
	// The decoder reads from a bytes.Buffer in place.
	d.json.Reset(bytes.NewBuffer(d.body))
	switch kind := d.json.PeekKind(); kind {
	case '{':
		err = d.object()
	case '[':
		batch = true
		err = d.array()
	default:
		if _, err = d.json.ReadToken(); err == nil {
			err = errors.New("the body must be a JSON object, or an array of them")
		}
	}
	if err == nil {
		if err = d.end(); err != nil {
			batch = false // it is not about one message
		}
	}
	if err != nil {
		refused := &RefusedError{Status: http.StatusBadRequest, Message: reason(err)}
		if n := len(d.messages); batch && n < maxBatch {
			refused.Message = fmt.Sprintf("message %d: %s", n, refused.Message)
		}
		return nil, batch, refused
	}
	return d.messages, batch, nil
}

// decodeFrame reads the one message of a link's frame. The error is a *RefusedError; d.id is
// set all the same if it was read before.
func (d *decoder) decodeFrame(data []byte) error {
	d.messages, d.unknown, d.id, d.key, d.once = d.messages[:0], 0, nil, "", false
	d.json.Reset(bytes.NewBuffer(data))
	err := errors.New("a frame must be a JSON object")
	if d.json.PeekKind() == '{' {
		err = d.object()
	} else if _, e := d.json.ReadToken(); e != nil {
		err = e
	}
	if err == nil {
		err = d.end()
	}
	if err == nil && d.id == nil {
		err = errors.New("id is missing")
	}
	if err != nil {
		return BadRequest("%s", reason(err))
	}
	return nil
}

// end checks that nothing follows.
func (d *decoder) end() error {
	at := d.json.InputOffset()
	if _, err := d.json.ReadToken(); err != io.EOF {
		return fmt.Errorf("bad JSON: data after the end, at byte %d", at)
	}
	return nil
}

func (d *decoder) array() error {
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	for {
		switch d.json.PeekKind() {
		case ']':
			_, err := d.json.ReadToken()
			return err
		case '{':
			if len(d.messages) == maxBatch {
				d.full = true
				return fmt.Errorf("a batch is at most %d messages", maxBatch)
			}
			if err := d.object(); err != nil {
				return err
			}
		default:
			if _, err := d.json.ReadToken(); err != nil {
				return err
			}
			return errors.New("must be a JSON object")
		}
	}
}

// object reads one message and appends it to d.messages.
func (d *decoder) object() error {
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	m := Message{Member: Everybody}
	var hasApp, hasText bool
	for d.json.PeekKind() != '}' {
		name, err := d.json.ReadValue()
		if err != nil {
			return err
		}
		known, err := d.known(name)
		if err != nil {
			return err
		}
		switch known {
		case "app":
			hasApp = true
			m.App, _, err = d.string(known)
			d.app = m.App
		case "text":
			hasText = true
			m.Text, m.Plain, err = d.string(known)
		case "member_id":
			m.Member, err = d.member()
		case "id":
			d.id, err = d.requestID()
		case "key":
			d.once = true
			d.key, _, err = d.string(known)
		default:
			d.unknown++
			err = d.skip()
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.json.ReadToken(); err != nil {
		return err
	}
	switch {
	case !hasApp:
		return errors.New("app is missing")
	case !hasText:
		return errors.New("text is missing")
	}
	d.messages = append(d.messages, m)
	return nil
}

var (
	bodyKeys = []string{"app", "member_id", "text"}
	linkKeys = append(bodyKeys, "id", "key")
)

// known returns the key of a message that name, a JSON string, stands for; "" for any other.
// A key that only differs in case is an error: another parser might have taken it.
func (d *decoder) known(name jsontext.Value) (string, error) {
	switch string(name) {
	case `"app"`:
		return "app", nil
	case `"member_id"`:
		return "member_id", nil
	case `"text"`:
		return "text", nil
	}
	keys := bodyKeys
	if d.link {
		keys = linkKeys
	}
	if len(name) > maxKnownName {
		return "", nil
	}
	var buf [maxKnownName]byte
	plain, err := jsontext.AppendUnquote(buf[:0], name)
	if err != nil {
		return "", err
	}
	for _, key := range keys {
		switch {
		case string(plain) == key: // written with escapes
			return key, nil
		case strings.EqualFold(string(plain), key):
			return "", fmt.Errorf("key %q must be written %q", plain, key)
		}
	}
	return "", nil
}

// string reads the value of key. It is plain if it is written without escapes: then it needs
// none when it is written again.
func (d *decoder) string(key string) (s string, plain bool, err error) {
	v, err := d.json.ReadValue()
	if err != nil {
		return "", false, err
	}
	if v.Kind() != '"' {
		return "", false, fmt.Errorf("%s must be a string", key)
	}
	if bytes.IndexByte(v, '\\') < 0 {
		raw := v[1 : len(v)-1]
		if string(raw) == d.app {
			return d.app, true, nil
		}
		return string(raw), true, nil
	}
	d.text, err = jsontext.AppendUnquote(d.text[:0], v)
	return string(d.text), false, err
}

// requestID reads what a link's answer begins with: an integer or a short string.
func (d *decoder) requestID() ([]byte, error) {
	v, err := d.json.ReadValue()
	if err != nil {
		return nil, err
	}
	id := bytes.Clone(v)
	switch v.Kind() {
	case '0':
		if len(v) <= maxRequestID && !bytes.ContainsAny(v, ".eE") {
			return id, nil
		}
	case '"':
		d.text, err = jsontext.AppendUnquote(d.text[:0], v)
		if err != nil || len(d.text) <= maxRequestID {
			return id, err
		}
	}
	return nil, fmt.Errorf("id must be an integer or a string of at most %d bytes", maxRequestID)
}

func (d *decoder) member() (int64, error) {
	v, err := d.json.ReadValue()
	if err != nil {
		return 0, err
	}
	// ParseInt takes no fraction and no exponent; of what it takes more than JSON does,
	// nothing gets here.
	if v.Kind() == '0' {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err == nil && (n == Everybody || n >= 1 && n <= maxMember) {
			return n, nil
		}
	}
	return 0, errors.New("member_id must be -1 or an integer from 1 to 2^53-1")
}

// skip reads a value that nobody asked for, but which must be good JSON all the same.
func (d *decoder) skip() error {
	depth := d.json.StackDepth()
	for {
		if _, err := d.json.ReadToken(); err != nil {
			return err
		}
		switch n := d.json.StackDepth(); {
		case n > maxDepth:
			return fmt.Errorf("bad JSON: nested deeper than %d, at byte %d", maxDepth, d.json.InputOffset())
		case n == depth:
			return nil
		}
	}
}

// reason puts err in words for the backend's developer.
func reason(err error) string {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "bad JSON: it ends too early"
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "bad JSON: duplicate key in an object"
	case errors.As(err, &syntax):
		return fmt.Sprintf("bad JSON: %v, at byte %d", syntax.Err, syntax.ByteOffset)
	default:
		return err.Error()
	}
}
