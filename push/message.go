package push

import (
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Everybody is the member id of a message for all subscribers of its app.
const Everybody int64 = -1

// A Position is a place in an app's log. Offsets only grow inside an epoch, with holes; a
// new epoch means that continuity cannot be proved.
type Position struct {
	Epoch  string
	Offset uint64
}

// A Message is one push. The caller of [Hub.Publish] fills App, Member, From and Text; the
// log sets the rest. Once accepted it is shared and never changed.
type Message struct {
	App    string
	Text   string
	Member int64  // Everybody, or the only member that may see it
	From   int64  // the member who pushed it; 0 for a backend
	Binary bool   // Text is bytes, not text; see [Encoding]
	Plain  bool   // Text is known to be UTF-8 in which JSON needs nothing escaped; see [Message.AppendText]
	Lossy  bool   // slow subscribers may not get it, by their app's rules, and are not to ask for it; set by the hub
	Offset uint64 // in the app's log, from 1
	Prev   uint64 // offset of the previous message of the same chain: the app's public ones, or Member's private ones; 0: none. Never too low; too high once the log had to forget that chain
	Time   int64  // when it was accepted, Unix time in ns
}

// Private reports whether only one member may see m.
func (m *Message) Private() bool { return m.Member > 0 }

// AppendText appends m.Text to dst as a JSON string, with as few escapes as JSON allows. What
// is not UTF-8 is replaced.
func (m *Message) AppendText(dst []byte) []byte {
	if m.Plain {
		return append(append(append(dst, '"'), m.Text...), '"')
	}
	dst, _ = jsontext.AppendQuote(dst, m.Text)
	return dst
}

// visible reports whether a subscriber who is member may see m.
func (m *Message) visible(member int64) bool { return m.Member <= 0 || m.Member == member }

// An Encoding turns messages into what a kind of client receives. Encodings are told apart
// by address, and a message is encoded once for all subscribers with the same one.
type Encoding struct {
	Op     Opcode
	Binary Opcode // of the frames of binary messages; 0: Op
	// Append appends the payload of m's frame to dst. It must not keep or change m.
	Append func(dst []byte, m *Message) []byte
}

// A parcel is a message on its way to subscribers, with the frames made of it so far.
type parcel struct {
	*Message
	came  int64 // by Hub.now
	slow  SlowPolicy
	key   *Key
	alone bool // one shard has it: what that encodes is of no use to another

	mu     sync.Mutex
	frames []encoded // by encoding; guarded by mu
}

type encoded struct {
	by *Encoding
	f  *Frame
}

// frame returns p encoded by e, made once and shared by all shards.
func (p *parcel) frame(e *Encoding) *Frame {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.frames {
		if x.by == e {
			return x.f
		}
	}
	f := &Frame{Data: appendFrame(make([]byte, 0, len(p.Text)+len(p.App)+96), e, p.Message), Messages: 1, Slow: p.slow, Key: p.key}
	p.frames = append(p.frames, encoded{e, f})
	return f
}

// appendFrame appends the complete frame of m as e encodes it.
func appendFrame(dst []byte, e *Encoding, m *Message) []byte {
	const room = 10 // the longest header
	start := len(dst)
	dst = append(dst, "          "[:room]...)
	dst = e.Append(dst, m)
	n := len(dst) - start - room
	var header [room]byte
	op := e.Op
	if m.Binary && e.Binary != 0 {
		op = e.Binary
	}
	h := AppendHeader(header[:0], op, n)
	copy(dst[start:], h)
	copy(dst[start+len(h):], dst[start+room:])
	return dst[:start+len(h)+n]
}

// maxFrame is how many bytes of messages are put into one Frame at most, so that a slow
// reader's queue is counted and dropped in small parts. A longer message is alone in its Frame.
const maxFrame = 64 << 10

// join returns frames that hold the messages of ps in order.
func join(ps []*parcel, e *Encoding) []*Frame {
	if len(ps) == 1 {
		return []*Frame{ps[0].frame(e)}
	}
	var out []*Frame
	var f *Frame
	for i, p := range ps {
		var next []byte // p's frame, if it is there to be shared
		size := len(p.Text) + len(p.App) + 96
		if !p.alone {
			next = p.frame(e).Data
			size = len(next)
		}
		if f == nil || len(f.Data)+size > maxFrame {
			f = &Frame{Data: make([]byte, 0, min(size*(len(ps)-i), max(maxFrame, size))), Slow: p.slow, Key: p.key}
			out = append(out, f)
		}
		f.Last = len(f.Data)
		f.Messages++
		if next != nil {
			f.Data = append(f.Data, next...)
		} else {
			f.Data = appendFrame(f.Data, e, p.Message)
		}
	}
	return out
}
