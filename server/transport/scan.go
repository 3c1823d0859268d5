package transport

import (
	"encoding/binary"

	"ws-gateway/push"
)

// A verdict is what scan says about the bytes behind the complete messages.
type verdict uint8

const (
	incomplete verdict = iota // nothing wrong so far
	unusual                   // a close frame or an error, which the decoder will judge
	wasteful                  // a message in fragments so small that it costs more than its limit
)

// A scanner finds the boundaries of messages (RFC 6455, section 5.2), so that the decoder is
// given complete ones only and never has to wait. It judges nothing: what is not plainly in
// order is left to the decoder. Its fields are what it knows about an incomplete message;
// the zero value stands before a message.
type scanner struct {
	next    int  // offset of the first frame that is not complete
	need    int  // with fewer bytes than this, scanning on finds nothing new
	size    int  // payload of the message's frames before next
	partway bool // frames of the message lie before next
}

// A scan is what a scanner found.
type scan struct {
	data     []byte // what was scanned, without pings and pongs
	whole    int    // length of the part of data that is complete messages
	messages int    // how many these are
	verdict  verdict
	pongs    []byte // frames that answer the pings
}

// scan goes on where the last call stopped. data begins with a message: the one that the
// scanner knows about, with more bytes behind it. Pings and pongs are cut out of it in
// place; they may lie between the fragments of a message, and the decoder would look for
// another frame behind them. limit bounds the payload of a message. The scanner then
// stands behind the complete messages.
func (s *scanner) scan(data []byte, limit int) scan {
	var found scan
	w, r := s.next, s.next // data up to w is kept, up to r it has been looked at
scanning:
	for {
		h, need, ok := parseHeader(data[r:])
		isData := h.op < push.OpClose
		switch {
		case !ok, need != 2 && isData && (h.op == 0) != s.partway:
			found.verdict = unusual
			break scanning
		case need == 0 && isData && h.size > limit-s.size:
			found.verdict = unusual
			break scanning
		case need == 0:
			need = h.head + h.size
		}
		if need > len(data)-r || h.head == 0 {
			s.need = w + need
			if s.need-found.whole > limit+limit/4+1024 {
				found.verdict = wasteful
			}
			break
		}
		frame := data[r : r+need]
		switch h.op {
		case push.OpClose:
			found.verdict = unusual
			break scanning
		case push.OpPing:
			found.pongs = appendPong(found.pongs, frame[h.head-4:h.head], frame[h.head:])
			fallthrough
		case push.OpPong:
			r += need
			continue
		}
		if w != r {
			copy(data[w:], frame)
		}
		r, w = r+need, w+need
		s.size, s.partway = s.size+h.size, true
		if h.final {
			s.size, s.partway = 0, false
			found.whole = w
			found.messages++
		}
	}
	if w != r {
		data = data[:w+copy(data[w:], data[r:])]
	}
	s.next, s.need = w-found.whole, s.need-found.whole
	found.data = data
	return found
}

// A header is the header of a client's frame.
type header struct {
	op    push.Opcode // 0 is a continuation
	final bool
	head  int // length of the header
	size  int // length of the payload, cut to 1 GiB
}

// parseHeader reads the header that p begins with. need is 0 or, when the header is not
// complete, the length that p must have to go on: 2 means that nothing is known yet. !ok
// means that a frame can't begin so.
func parseHeader(p []byte) (h header, need int, ok bool) {
	if len(p) < 2 {
		return h, 2, true
	}
	h.op, h.final = push.Opcode(p[0]&0x0f), p[0]&0x80 != 0
	size, length := uint64(p[1]&0x7f), 0
	switch {
	case p[0]&0x70 != 0, p[1]&0x80 == 0: // reserved bits, no mask
		return h, 0, false
	case h.op >= push.OpClose && (h.op > push.OpPong || size > 125 || !h.final):
		return h, 0, false
	case h.op > push.OpBinary && h.op < push.OpClose:
		return h, 0, false
	case size == 126:
		length = 2
	case size == 127:
		length = 8
	}
	if len(p) < 2+length {
		return h, 2 + length, true
	}
	switch length {
	case 2:
		size = uint64(binary.BigEndian.Uint16(p[2:]))
	case 8:
		size = binary.BigEndian.Uint64(p[2:])
	}
	if size >= 1<<63 {
		return h, 0, false
	}
	if len(p) < 2+length+4 {
		return h, 2 + length + 4, true
	}
	h.head, h.size = 2+length+4, int(min(size, 1<<30))
	return h, 0, true
}

// appendPong appends the answer to a ping with the given masked payload.
func appendPong(dst, mask, payload []byte) []byte {
	dst = push.AppendHeader(dst, push.OpPong, len(payload))
	for i, b := range payload {
		dst = append(dst, b^mask[i&3])
	}
	return dst
}
