package bench

import (
	"bytes"
	"testing"
)

// FuzzFrames feeds a connection whatever a server may send, in two parts: nothing panics, and
// where the stream was cut makes no difference.
func FuzzFrames(f *testing.F) {
	hello := appendServerFrame(nil, append(bytes.Clone(gatewayReply), `{\"code\":200,\"message\":\"hello\"}"}`...))
	push := appendServerFrame(nil, append(appendText(envelope("bench", -1), message{seq: 0, due: 1}, 40), `"}`...))
	good := bytes.Join([][]byte{[]byte(upgradeAnswer), hello, hello, push}, nil)
	f.Add(good, 7)
	f.Add(append(bytes.Clone(good), push...), len(good)+3) // the same twice
	f.Add(append(bytes.Clone(good), 0x89, 0x00), 5)        // a ping
	f.Add(append(bytes.Clone(good), 0x88, 0x02, 0x0F, 0xA8), 5)
	f.Add([]byte("HTTP/1.1 403 Forbidden\r\n\r\n"), 3)
	f.Add(append([]byte(upgradeAnswer), 0x81, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF), 100)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		whole, parts := fuzzConn(), fuzzConn()
		whole.feed(stream, 2)
		cut = min(max(cut, 0), len(stream))
		parts.feed(stream[:cut], 2)
		if parts.phase != over {
			parts.feed(stream[cut:], 2)
		}
		if whole.phase != parts.phase || whole.fleet.received != parts.fleet.received || whole.fleet.verdict != parts.fleet.verdict {
			t.Errorf("whole: %d, %d messages, %+v; cut at %d: %d, %d messages, %+v", whole.phase, whole.fleet.received,
				whole.fleet.verdict, cut, parts.phase, parts.fleet.received, parts.fleet.verdict)
		}
	})
}

// fuzzConn returns a connection that has sent its handshake.
func fuzzConn() *conn {
	fleet := &fleet{target: &target{dialect: native{}}, latency: newHistogram()}
	fleet.changed.L = &fleet.mu
	c := &conn{fleet: fleet, link: nowhere{}, seat: seat{app: "bench", member: -1, streams: 1}, prefix: envelope("bench", -1), ledger: newLedger(0, 1)}
	fleet.phases[connecting]++
	c.connected()
	return c
}

type nowhere struct{}

func (nowhere) write([]byte) error { return nil }
func (nowhere) stopReading()       {}
func (nowhere) close()             {}
