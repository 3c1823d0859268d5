package sessiontest_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

// An echo answers every message with itself; "wait" is echoed a second later.
type echo struct {
	conn   session.Conn
	closed []session.CloseCode
}

func (e *echo) Receive(op push.Opcode, data []byte) func() {
	text := string(data)
	if text == "wait" {
		return func() {
			time.Sleep(time.Second)
			e.conn.Send(push.NewFrame(op, []byte(text)))
		}
	}
	e.conn.Send(push.NewFrame(op, data))
	return nil
}

func (e *echo) Closed(code session.CloseCode) { e.closed = append(e.closed, code) }

func open(t *testing.T) (*sessiontest.Pipe, *echo) {
	p := sessiontest.NewPipe(t)
	e := &echo{conn: p}
	p.Attach(e)
	return p, e
}

func TestPipeCarriesMessages(t *testing.T) {
	p, _ := open(t)
	p.Receive("a")
	p.ReceiveFrame(push.OpBinary, []byte(strings.Repeat("b", 70_000)))
	if got := p.Next(); got != "a" {
		t.Errorf("first message %q, want a", got)
	}
	want := []sessiontest.Message{{Op: push.OpBinary, Text: strings.Repeat("b", 70_000)}}
	if got := p.Unread(); !slices.Equal(got, want) {
		t.Errorf("unread %d messages, want one binary of 70000 bytes", len(got))
	}
	if got := len(p.Frames()); got != 2 {
		t.Errorf("%d frames written, want 2", got)
	}
	p.Hangup(session.CloseNormal)
}

func TestPipeQueueWaitsForFlush(t *testing.T) {
	p, _ := open(t)
	p.Queue(push.NewFrame(push.OpText, []byte("a")))
	if got := p.Unread(); got != nil {
		t.Errorf("client heard %v before Flush", got)
	}
	p.Flush()
	if got := p.Next(); got != "a" {
		t.Errorf("client heard %q after Flush, want a", got)
	}
	p.Hangup(session.CloseNormal)
}

func TestPipeEndsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, e := open(t)
		start := time.Now()
		go p.Receive("wait")
		synctest.Wait()
		p.Abort(session.CloseSlow)
		p.Close(session.CloseNormal, "late")
		if err := p.Send(push.NewFrame(push.OpText, nil)); err != session.ErrClosed {
			t.Errorf("Send after Abort: %v, want ErrClosed", err)
		}
		if code, reason := p.Wait(); code != session.CloseSlow || reason != "" || !p.Aborted() {
			t.Errorf("ended with %d %q, want an abort with 4008", code, reason)
		}
		if time.Since(start) != time.Second {
			t.Errorf("Closed ran %v after the message, want after its wait of 1s", time.Since(start))
		}
		if !slices.Equal(e.closed, []session.CloseCode{session.CloseSlow}) {
			t.Errorf("Closed calls %v, want one with 4008", e.closed)
		}
	})
}

func TestPipeSlow(t *testing.T) {
	p, _ := open(t)
	p.SetSlow(true)
	if err := p.Send(push.NewFrame(push.OpText, nil)); err != session.ErrSlow {
		t.Errorf("Send on a slow pipe: %v, want ErrSlow", err)
	}
	p.Hangup(session.CloseAbnormal)
}

func TestDecodeRefusesMalformedFrames(t *testing.T) {
	for name, data := range map[string]string{
		"masked":          "\x81\x81\x00\x00\x00\x00a",
		"fragment":        "\x01\x01a",
		"reserved bit":    "\xc1\x01a",
		"cut payload":     "\x81\x02a",
		"cut header":      "\x81\x7e\x00",
		"one byte":        "\x81",
		"wasteful length": "\x81\x7e\x00\x01a",
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := sessiontest.Decode([]byte(data)); err == nil {
				t.Errorf("decoded as %v, want an error", m)
			}
		})
	}
}
