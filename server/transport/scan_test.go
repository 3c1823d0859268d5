package transport

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/gorilla/websocket"

	"ws-gateway/push"
	"ws-gateway/session"
)

// A heard is what a connection makes of a stream.
type heard struct {
	messages []string // opcode and payload
	code     session.CloseCode
}

// piecewise reads the stream as a connection does, in pieces as cuts says.
func piecewise(t *testing.T, stream []byte, cuts []byte, limit int) (h heard, wasted bool) {
	d := newDecoder(limit)
	var s scanner
	var buf []byte
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		buf = append(buf, stream[:n]...)
		stream = stream[n:]
		if len(buf) < s.need {
			continue
		}
		found := s.scan(buf, limit)
		got := 0
		err := d.decode(found.data[:found.whole], found.messages, func(op push.Opcode, data []byte) bool {
			h.messages = append(h.messages, string(rune(op))+string(data))
			got++
			return true
		})
		if err != nil || got != found.messages {
			t.Fatalf("%d of %d complete messages decoded: %v", got, found.messages, err)
		}
		if s.next != 0 && s.next > len(found.data)-found.whole || s.need <= len(found.data)-found.whole && found.verdict == incomplete {
			t.Fatalf("scanner stands at %d and needs %d of %d bytes", s.next, s.need, len(found.data)-found.whole)
		}
		buf = append([]byte(nil), found.data[found.whole:]...)
		switch found.verdict {
		case unusual:
			err := d.judge(buf)
			if errors.Is(err, errDry) {
				t.Fatalf("scanner finds % x unusual, gorilla does not", buf)
			}
			h.code, _, _ = closeCode(err)
			return h, false
		case wasteful:
			return h, true
		}
	}
	return h, false
}

// atOnce reads the stream as gorilla does on its own.
func atOnce(stream []byte, limit int) (h heard) {
	d := newDecoder(limit)
	d.src.left = stream
	for {
		op, r, err := d.ws.NextReader()
		var data []byte
		if err == nil {
			data, err = io.ReadAll(r)
		}
		if err != nil {
			if !errors.Is(err, errDry) {
				h.code, _, _ = closeCode(err)
			}
			return h
		}
		h.messages = append(h.messages, string(rune(op))+string(data))
	}
}

// FuzzScan cuts streams into pieces: the messages and the close code have to be those that
// gorilla finds in the stream as a whole.
func FuzzScan(f *testing.F) {
	frame := func(first byte, payload string) string {
		b := push.AppendHeader(nil, 0, len(payload))
		b[0], b[1] = first, b[1]|0x80
		return string(b) + "\x00\x00\x00\x00" + payload
	}
	for _, stream := range []string{
		frame(0x81, "hello") + frame(0x82, "\x00"),
		frame(0x01, "he") + frame(0x89, "ping") + frame(0x00, "ll") + frame(0x8a, "pong") + frame(0x80, "o") + frame(0x81, "x"),
		frame(0x81, string(make([]byte, 300))),
		frame(0x81, string(make([]byte, 1000))) + frame(0x80, ""),
		frame(0x01, "a") + frame(0x81, "b"),
		frame(0x81, "a") + "\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		frame(0x81, "a") + frame(0x88, "\x03\xe8bye") + frame(0x81, "b"),
		frame(0x88, "\x03"), frame(0x88, "\x03\xe8\xff"), frame(0x88, "\x03\xed"),
		frame(0x09, ""), frame(0xc1, "a"), frame(0x83, "a"), "\x81\x01a",
		frame(0x01, string(make([]byte, 600))) + frame(0x80, string(make([]byte, 600))),
	} {
		f.Add([]byte(stream), []byte{})
		f.Add([]byte(stream), []byte{0})
		f.Add([]byte(stream), []byte{3, 0, 7})
	}
	const limit = 1000
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		got, wasted := piecewise(t, bytes.Clone(stream), cuts, limit)
		want := atOnce(bytes.Clone(stream), limit)
		if wasted { // gorilla has no such rule: it may go on
			want.messages = want.messages[:len(got.messages)]
			want.code = 0
		}
		if got.code != want.code {
			t.Errorf("close code %d, gorilla's is %d", got.code, want.code)
		}
		if len(got.messages) != len(want.messages) {
			t.Fatalf("%d messages, gorilla has %d", len(got.messages), len(want.messages))
		}
		for i := range got.messages {
			if got.messages[i] != want.messages[i] {
				t.Errorf("message %d is %q, gorilla's is %q", i, got.messages[i], want.messages[i])
			}
		}
	})
}

// TestGorilla holds the habits of gorilla/websocket that this package relies on, beside
// those that the other tests need anyway.
func TestGorilla(t *testing.T) {
	t.Run("ErrReadLimit from the header alone", func(t *testing.T) {
		if err := newDecoder(10).judge([]byte("\x81\x8b\x00\x00\x00\x00")); !errors.Is(err, websocket.ErrReadLimit) {
			t.Errorf("message of 11 bytes, limit 10: %v", err)
		}
	})
	t.Run("invalid UTF-8 in a close frame has its own text", func(t *testing.T) {
		err := newDecoder(10).judge([]byte("\x88\x83\x00\x00\x00\x00\x03\xe8\xff"))
		if code, _, _ := closeCode(err); code != session.CloseInvalidUTF8 {
			t.Errorf("code %d for %v, want 1007", code, err)
		}
	})
	t.Run("a connection has no state between messages", func(t *testing.T) {
		d := newDecoder(10)
		in := []byte("\x81\x81\x00\x00\x00\x00a\x81\x81\x00\x00\x00\x00b")
		for range 3 {
			got := ""
			if err := d.decode(bytes.Clone(in), 2, func(_ push.Opcode, data []byte) bool {
				got += string(data)
				return false // and what is left is forgotten
			}); err != nil || got != "a" {
				t.Fatalf("decoded %q, %v; want a", got, err)
			}
		}
	})
}
