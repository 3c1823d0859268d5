package log

import (
	"encoding/binary"
	"strings"

	"ws-gateway/push"
)

// A record is a message as it is kept: one allocation, without pointers for the garbage
// collector to follow. It is the time in 8 bytes, flags in one, how far back the message before
// in its chain is, the member and the sender where there are any, and the text. The app and the
// offset follow from where it is kept.
type record string

// The flags of a record, and in the file of a handed over log.
const (
	isBinary = 1 << iota
	isLossy
	isPlain

	isPrivate // a record has a member
	isFrom    // and a sender
)

func flagsOf(m *push.Message) (flags byte) {
	if m.Binary {
		flags |= isBinary
	}
	if m.Lossy {
		flags |= isLossy
	}
	if m.Plain {
		flags |= isPlain
	}
	return flags
}

func setFlags(m *push.Message, flags byte) {
	m.Binary, m.Lossy, m.Plain = flags&isBinary != 0, flags&isLossy != 0, flags&isPlain != 0
}

const (
	flagsAt = 8 // bytes of time before them
	maxHead = flagsAt + 1 + 3*binary.MaxVarintLen64
)

func newRecord(m *push.Message) record {
	head := binary.LittleEndian.AppendUint64(make([]byte, 0, maxHead), uint64(m.Time))
	head = append(head, flagsOf(m))
	head = binary.AppendUvarint(head, m.Offset-m.Prev)
	if m.Private() {
		head[flagsAt] |= isPrivate
		head = binary.AppendUvarint(head, uint64(m.Member))
	}
	if m.From != 0 {
		head[flagsAt] |= isFrom
		head = binary.AppendUvarint(head, uint64(m.From))
	}
	var b strings.Builder
	b.Grow(len(head) + len(m.Text))
	b.Write(head)
	b.WriteString(m.Text)
	return record(b.String())
}

// message returns the message that r keeps; its text is a part of r.
func (r record) message(app string, offset uint64) push.Message {
	var head [maxHead]byte
	copy(head[:], r)
	m := push.Message{App: app, Member: push.Everybody, Offset: offset, Time: int64(binary.LittleEndian.Uint64(head[:]))}
	flags := head[flagsAt]
	setFlags(&m, flags)
	at := flagsAt + 1
	next := func() uint64 {
		n, size := binary.Uvarint(head[at:])
		at += size
		return n
	}
	m.Prev = offset - next()
	if flags&isPrivate != 0 {
		m.Member = int64(next())
	}
	if flags&isFrom != 0 {
		m.From = int64(next())
	}
	m.Text = string(r[at:])
	return m
}

// time returns when r was accepted, Unix time in ns.
func (r record) time() int64 { return int64(binary.LittleEndian.Uint64([]byte(r[:flagsAt]))) }
