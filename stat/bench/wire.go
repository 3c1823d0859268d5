package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// What crosses the socket (RFC 6455). The generator writes and reads it by hand: it has to
// cost far less than the server that it measures.
const (
	opText  = 0x1
	opClose = 0x8
	opPing  = 0x9
	opPong  = 0xA

	// The key of every handshake and the answer to it (RFC 6455, section 1.3). It guards
	// against caches and confused servers, of which there are none here.
	wsKey    = "dGhlIHNhbXBsZSBub25jZQ=="
	wsAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

	maxFrame = 16 << 20 // a longer one is an error
)

var (
	errHandshake = errors.New("the answer to the handshake is not 101 Switching Protocols")
	errFrame     = errors.New("bad frame")
)

// upgradeRequest returns the opening handshake.
func upgradeRequest(host, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + wsKey + "\r\n\r\n")
}

// upgradeAnswer is what a server that is nothing but WebSocket says to upgradeRequest.
const upgradeAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: " + wsAccept + "\r\n\r\n"

// parseUpgrade returns the length of the answer to the handshake at the start of b, or 0
// when it is not complete.
func parseUpgrade(b []byte) (n int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > 16<<10 {
			return 0, errHandshake
		}
		return 0, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 101 ")) || !bytes.Contains(b[:end], []byte(wsAccept)) {
		line, _, _ := bytes.Cut(b, []byte("\r\n"))
		return 0, fmt.Errorf("%w: %q", errHandshake, line)
	}
	return end + 4, nil
}

// appendFrame appends a client's frame, whose payload is masked with zeros: legal, and the
// same work for the server as any mask.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n <= 0xFFFF:
		dst = binary.BigEndian.AppendUint16(append(dst, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 0x80|127), uint64(n))
	}
	dst = append(dst, 0, 0, 0, 0)
	return append(dst, payload...)
}

// appendServerFrame appends an unmasked text frame.
func appendServerFrame(dst, payload []byte) []byte {
	dst = append(dst, 0x80|opText)
	if n := len(payload); n < 126 {
		dst = append(dst, byte(n))
	} else {
		dst = binary.BigEndian.AppendUint16(append(dst, 126), uint16(n))
	}
	return append(dst, payload...)
}

// parseFrame returns the frame at the start of b and its length, or 0 when it is not
// complete. Fragments and masks are errors: no gateway that is measured sends them.
func parseFrame(b []byte) (op byte, payload []byte, n int, err error) {
	if len(b) < 2 {
		return 0, nil, 0, nil
	}
	if b[0]&0xF0 != 0x80 || b[1]&0x80 != 0 {
		return 0, nil, 0, errFrame
	}
	head, size := 2, int(b[1])
	switch size {
	case 126:
		if len(b) < 4 {
			return 0, nil, 0, nil
		}
		head, size = 4, int(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if len(b) < 10 {
			return 0, nil, 0, nil
		}
		long := binary.BigEndian.Uint64(b[2:])
		if long > maxFrame {
			return 0, nil, 0, errFrame
		}
		head, size = 10, int(long)
	}
	if len(b) < head+size {
		return 0, nil, 0, nil
	}
	return b[0] & 0x0F, b[head : head+size], head + size, nil
}

// A message is what a push of the generator says in its text: which stream it belongs to,
// its place there, and when it was due.
type message struct {
	stream int
	seq    uint64
	due    int64 // Unix time in ns
}

const (
	streamDigits, seqDigits, dueDigits = 4, 8, 16

	minText = streamDigits + seqDigits + dueDigits
	maxLane = 1 << (4 * streamDigits) // streams of a run
)

// appendText appends m as a text of size bytes.
func appendText(dst []byte, m message, size int) []byte {
	dst = appendHex(dst, uint64(m.stream), streamDigits)
	dst = appendHex(dst, m.seq, seqDigits)
	dst = appendHex(dst, uint64(m.due), dueDigits)
	for range size - minText {
		dst = append(dst, 'x')
	}
	return dst
}

func appendHex(dst []byte, v uint64, digits int) []byte {
	for i := digits - 1; i >= 0; i-- {
		dst = append(dst, "0123456789abcdef"[v>>(4*i)&0xF])
	}
	return dst
}

// hexValue is the value of a digit, 0x10 of anything else.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0x10
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

func parseHex(b []byte) (v uint64, ok bool) {
	var bad byte
	for _, c := range b {
		d := hexValue[c]
		bad |= d
		v = v<<4 | uint64(d&0xF)
	}
	return v, bad&0x10 == 0
}

// parseText reads what appendText wrote.
func parseText(b []byte) (m message, ok bool) {
	if len(b) < minText {
		return m, false
	}
	stream, ok1 := parseHex(b[:streamDigits])
	seq, ok2 := parseHex(b[streamDigits : streamDigits+seqDigits])
	due, ok3 := parseHex(b[streamDigits+seqDigits : minText])
	return message{int(stream), seq, int64(due)}, ok1 && ok2 && ok3
}

// appendPush appends the object that pushes m.
func appendPush(dst []byte, app string, member int64, m message, size int) []byte {
	dst = append(dst, `{"app":"`...)
	dst = append(dst, app...)
	dst = append(dst, `","member_id":`...)
	dst = strconv.AppendInt(dst, member, 10)
	dst = append(dst, `,"text":"`...)
	dst = appendText(dst, m, size)
	return append(dst, `"}`...)
}

// envelope returns what every message of app for member starts with, up to its text.
func envelope(app string, member int64) []byte {
	return fmt.Appendf(nil, `{"app":%q,"member_id":%d,"text":"`, app, member)
}

// gatewayReply is what every reply of the gateway itself starts with.
var gatewayReply = envelope("gateway", -1)
