package session

import (
	"strconv"

	"ws-gateway/apps"
	"ws-gateway/push"
)

// A Protocol is what a session speaks with its client: the native one, or a script's.
type Protocol interface {
	// Receive handles one message of s, as [Handler.Receive].
	Receive(s *Session, op push.Opcode, data []byte) (wait func())
	// Encoding returns how pushes look to the clients of this protocol.
	Encoding() *push.Encoding
}

// Closer is implemented by protocols that act when a client is gone.
type Closer interface {
	// Closed is called once, after the last Receive.
	Closed(s *Session, code CloseCode)
}

// The encodings of the native protocol: what every subscriber gets, and what those who
// asked for positions get.
var (
	envelope = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
		return append(appendEnvelope(dst, m), '}')
	}}
	positioned = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
		dst = append(appendEnvelope(dst, m), `,"offset":`...)
		dst = strconv.AppendUint(dst, m.Offset, 10)
		prev := m.Prev
		if m.Lossy { // a gap is nothing to cure
			prev = 0
		}
		dst = append(dst, `,"prev":`...)
		dst = strconv.AppendUint(dst, prev, 10)
		return append(dst, '}')
	}}
)

// events is how the native protocol tells who joins and leaves an app: as replies that nobody
// has asked for just then.
var events = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte {
	return reply{code: 200, message: m.Text + " " + m.App + " " + strconv.FormatInt(m.From, 10)}.append(dst)
}}

// appendEnvelope appends {"app":…,"member_id":…,"text":…[,"from":…] without the brace that closes it.
func appendEnvelope(dst []byte, m *push.Message) []byte {
	member := m.Member
	if member <= 0 {
		member = push.Everybody
	}
	dst = append(dst, `{"app":"`...)
	dst = append(dst, m.App...) // a name of an app needs no escapes
	dst = append(dst, `","member_id":`...)
	dst = strconv.AppendInt(dst, member, 10)
	dst = append(dst, `,"text":`...)
	dst = m.AppendText(dst)
	if m.From > 0 {
		dst = append(dst, `,"from":`...)
		dst = strconv.AppendInt(dst, m.From, 10)
	}
	return dst
}

// gatewayApp is the reserved app of the gateway's own replies.
const gatewayApp = "gateway"

// A reply is what the gateway itself says.
type reply struct {
	code    int
	message string
	id      []byte // of the command; nil: none
	more    []byte // further members of the object, each with a comma before it

	about // not for the client
}

// frame returns r as it crosses the socket.
func (r reply) frame() *push.Frame {
	return push.NewFrame(push.OpText, r.append(make([]byte, 0, 256)))
}

// append appends r as a message of the gateway.
func (r reply) append(dst []byte) []byte {
	text := make([]byte, 0, 128)
	text = append(text, `{"code":`...)
	text = strconv.AppendInt(text, int64(r.code), 10)
	text = append(text, `,"message":`...)
	text = appendQuote(text, r.message)
	if r.id != nil {
		text = append(text, `,"id":`...)
		text = append(text, r.id...)
	}
	text = append(text, r.more...)
	text = append(text, '}')
	m := push.Message{App: gatewayApp, Member: push.Everybody, Text: string(text)}
	return envelope.Append(dst, &m)
}

// native is the protocol of session/PROTOCOL.md.
type native struct{}

// Encoding implements [Protocol].
func (native) Encoding() *push.Encoding { return envelope }

// Receive implements [Protocol].
func (native) Receive(s *Session, op push.Opcode, data []byte) (wait func()) {
	if op != push.OpText {
		s.conn.Close(CloseUnsupported, CloseUnsupported.Reason())
		return nil
	}
	c, err := parseCommand(data)
	if s.kind() == pending {
		if err != nil {
			s.missingAuth(malformed(err))
			return nil
		}
		if c.has&hasMember == 0 || c.has&(hasOp|hasApp) != 0 {
			s.missingAuth(errNoAuth)
			return nil
		}
		return s.authenticate(c)
	}
	if !s.Allow() {
		return nil
	}
	if err != nil {
		s.bad(c.id, malformed(err))
		return nil
	}
	return s.do(c)
}

// do carries out a command of a session that is past its first frame.
func (s *Session) do(c command) (wait func()) {
	if c.has&(hasMember|hasToken) != 0 {
		if c.has&(hasOp|hasApp) != 0 || c.has&hasMember == 0 {
			s.bad(c.id, errMixed)
			return nil
		}
		s.good()
		return s.authenticate(c)
	}
	if c.has&hasOp == 0 {
		c.op = "subscribe"
	}
	o, known := operations[c.op]
	if !known || c.has&o.needs != o.needs || o.needs&hasApp != 0 && !apps.ValidName(c.app) || c.has&hasLast != 0 && c.has&hasPosition != 0 {
		s.bad(c.id, errIncomplete)
		return nil
	}
	s.good()
	o.do(s, c)
	return nil
}

// An operation is what an op stands for, and the keys that it cannot do without.
type operation struct {
	needs keys
	do    func(s *Session, c command)
}

var operations map[string]operation

func init() { // its methods refer to it
	operations = map[string]operation{
		"subscribe":   {hasApp, (*Session).subscribe},
		"unsubscribe": {hasApp, (*Session).unsubscribe},
		"push":        {hasApp | hasText, (*Session).push},
		"presence":    {hasApp, (*Session).presence},
		"ping":        {0, (*Session).pong},
	}
}
