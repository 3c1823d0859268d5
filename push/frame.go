package push

import "encoding/binary"

// An Opcode is the type of a WebSocket frame (RFC 6455, section 11.8).
type Opcode uint8

// The opcodes that a gateway sends or receives.
const (
	OpText   Opcode = 1
	OpBinary Opcode = 2
	OpClose  Opcode = 8
	OpPing   Opcode = 9
	OpPong   Opcode = 10
)

// A Frame is what crosses a socket: one or more complete, unmasked WebSocket frames,
// encoded once and shared by every connection that receives them. Nobody changes a Frame
// or its bytes once it has been sent anywhere; the garbage collector frees it.
type Frame struct {
	// Data is the wire bytes of all messages, headers included.
	Data []byte
	// Messages is how many messages of an app Data holds; 0 for replies and control frames.
	Messages int
	// Last is the offset in Data where the last message begins.
	Last int
	// Slow says what a connection does with the frame when its queue is full.
	Slow SlowPolicy
	// Key groups frames for DropOldest and Latest: the frames of one app have one key.
	// Nil for replies and control frames, which are never dropped.
	Key *Key
}

// A Key tells the frames of one app from those of another by its address.
type Key struct{ _ byte }

// A SlowPolicy says what happens to a subscriber that does not keep up.
type SlowPolicy uint8

const (
	// SlowClose closes the session with 4008; it may come back and resume.
	SlowClose SlowPolicy = iota
	// SlowDropOldest drops the app's oldest queued frames to make room.
	SlowDropOldest
	// SlowLatest keeps only the app's newest message of those not yet written.
	SlowLatest
)

// NewFrame returns a frame that holds one message with the given payload, which it copies.
func NewFrame(op Opcode, payload []byte) *Frame {
	return &Frame{Data: append(AppendHeader(make([]byte, 0, len(payload)+10), op, len(payload)), payload...)}
}

// AppendHeader appends the header of a final, unmasked frame with n bytes of payload
// (RFC 6455, section 5.2).
func AppendHeader(dst []byte, op Opcode, n int) []byte {
	dst = append(dst, 0x80|byte(op))
	switch {
	case n < 126:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
}
