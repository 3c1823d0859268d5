package transport_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
)

func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, echo)
		long := strings.Repeat("0123456789", 5000)
		tests := map[string]struct {
			in     string
			pieces int // written in as many pieces, with a pause between
			want   []message
		}{
			"text":                   {text("hello"), 1, []message{{1, "hello"}}},
			"binary":                 {masked(fin|2, "\xff\x00"), 1, []message{{2, "\xff\x00"}}},
			"empty":                  {text(""), 1, []message{{1, ""}}},
			"two in a segment":       {text("a") + text("b"), 1, []message{{1, "a"}, {1, "b"}}},
			"126 bytes":              {text(long[:126]), 1, []message{{1, long[:126]}}},
			"50 KB":                  {text(long), 1, []message{{1, long}}},
			"50 KB in pieces":        {text(long) + text("b"), 7, []message{{1, long}, {1, "b"}}},
			"64 KiB, the limit":      {text(strings.Repeat("x", 65536)), 1, []message{{1, strings.Repeat("x", 65536)}}},
			"byte by byte":           {text("hello") + text("again"), 22, []message{{1, "hello"}, {1, "again"}}},
			"long byte by byte":      {text(long[:300]), 308, []message{{1, long[:300]}}},
			"fragments":              {masked(1, "he") + masked(0, "ll") + masked(fin, "o"), 1, []message{{1, "hello"}}},
			"empty fragments":        {masked(1, "") + masked(0, "") + masked(fin, ""), 1, []message{{1, ""}}},
			"character in fragments": {masked(1, "\xe2\x82") + masked(fin, "\xac"), 1, []message{{1, "€"}}},
			"ping":                   {masked(fin|9, "p") + text("a"), 1, []message{{1, "a"}, {10, "p"}}},
			"pong":                   {masked(fin|10, "p") + text("a"), 1, []message{{1, "a"}}},
			"ping between fragments": {masked(1, "he") + masked(fin|9, "p") + masked(0, "ll") + masked(fin|10, "") + masked(fin, "o"), 1,
				[]message{{1, "hello"}, {10, "p"}}},
			"ten pings": {strings.Repeat(masked(fin|9, "p"), 10), 1,
				[]message{{10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}, {10, "p"}}},
			"fragment, ping, fragment and a cut frame": {masked(1, "he") + masked(fin|9, "") + masked(fin, "llo") + text(long[:1000]), 2,
				[]message{{10, ""}, {1, "hello"}, {1, long[:1000]}}},
		}
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				c, p := s.dial()
				c.t = t
				size := (len(test.in) + test.pieces - 1) / test.pieces
				for rest := test.in; rest != ""; {
					n := min(size, len(rest))
					c.write(rest[:n])
					rest = rest[n:]
				}
				left := map[message]int{}
				for range test.want {
					op, got, err := c.read()
					if err != nil {
						t.Fatal(err)
					}
					left[message{op, got}]++
				}
				for _, m := range test.want {
					if left[m]--; left[m] < 0 {
						t.Errorf("message %d %s has not come back", m.op, printable(m.text))
					}
				}
				c.write(closing(1000, "done"))
				c.wantClose(1000)
				p.wantClosed(t, 1000)
			})
		}
	})
}

// TestViolations sends what RFC 6455 does not allow, each on a connection of its own.
func TestViolations(t *testing.T) {
	length64 := func(first byte, n uint64) string {
		return string(binary.BigEndian.AppendUint64([]byte{first, 0xff}, n)) + "\x01\x02\x03\x04"
	}
	tests := map[string]struct {
		in   string
		code session.CloseCode
	}{
		"P01 unmasked":                     {"\x81\x01a", 1002},
		"P01 RSV1":                         {masked(fin|0x40|1, "a"), 1002},
		"P01 RSV2":                         {masked(fin|0x20|1, "a"), 1002},
		"P01 RSV3":                         {masked(fin|0x10|1, "a"), 1002},
		"P01 opcode 3":                     {masked(fin|3, "a"), 1002},
		"P01 opcode 11":                    {masked(fin|11, ""), 1002},
		"P01 opcode 15":                    {masked(fin|15, ""), 1002},
		"P01 long ping":                    {masked(fin|9, strings.Repeat("x", 126)), 1002},
		"P01 long close":                   {masked(fin|8, "\x03\xe8"+strings.Repeat("x", 124)), 1002},
		"P01 fragmented ping":              {masked(9, "a"), 1002},
		"P01 stray continuation":           {masked(fin, "a"), 1002},
		"P01 continuation after a message": {text("a") + masked(fin, "a"), 1002},
		"P01 text inside a message":        {masked(1, "a") + text("b"), 1002},
		"P01 violation after a ping":       {masked(fin|9, "") + masked(1, "a") + "\x81\x01a", 1002},
		"P02 top bit":                      {length64(fin|1, 1<<63), 1009},
		"P02 all bits":                     {length64(fin|1, 1<<64-1), 1009},
		"P02 2^63-1":                       {length64(fin|1, 1<<63-1), 1009},
		"P02 2^63-1 behind a fragment":     {masked(1, "a") + length64(fin, 1<<63-1), 1009},
		"P02 without a mask key":           {length64(fin|1, 1<<63)[:10], 1009},
		"P03 header of 64 KiB and one":     {length64(fin|1, 65537), 1009},
		"P03 two fragments":                {masked(1, strings.Repeat("x", 65536)) + masked(fin, "x"), 1009},
		"P03 many fragments":               {masked(1, "x") + strings.Repeat(masked(0, strings.Repeat("x", 1000)), 66), 1009},
		"P03 tiny fragments":               {masked(1, "x") + strings.Repeat(masked(0, "x"), 15_000), 1009},
		"P03 endless empty fragments":      {masked(1, "") + strings.Repeat(masked(0, ""), 15_000), 1009},
		"P04 not UTF-8":                    {text("a\xff"), 1007},
		"P04 surrogate":                    {text("\xed\xa0\x80"), 1007},
		"P04 cut character":                {text("\xe2\x82"), 1007},
		"P04 in fragments":                 {masked(1, "\xe2") + masked(fin, "a"), 1007},
		"P04 close reason":                 {closing(1000, "\xff"), 1007},
		"P06 999":                          {closing(999, ""), 1002},
		"P06 1004":                         {closing(1004, ""), 1002},
		"P06 1005":                         {closing(1005, ""), 1002},
		"P06 1006":                         {closing(1006, ""), 1002},
		"P06 1016":                         {closing(1016, ""), 1002},
		"P06 5000":                         {closing(5000, ""), 1002},
		"P06 one byte":                     {masked(fin|8, "\x03"), session.CloseNoStatus},
		"P06 empty":                        {masked(fin|8, ""), session.CloseNoStatus},
		"P06 1000":                         {closing(1000, ""), 1000},
		"P06 4999 with reason":             {closing(4999, "bye"), 4999},
		"P06 1012":                         {closing(1012, ""), 1012},
	}
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, echo)
		healthy, _ := s.dial() // in the middle of a message all the time
		healthy.SetDeadline(noDeadline)
		healthy.write(masked(1, ""))
		answered := time.Hour // the quickest answer to a valid close frame
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				c, p := s.dial()
				c.t, healthy.t = t, t
				go io.WriteString(c.Conn, text("before")+test.in) // the server need not read it all
				c.want(push.OpText, "before")
				start := time.Now()
				c.wantClose(test.code)
				p.wantClosed(t, test.code)
				if strings.HasPrefix(name, "P06") && test.code != session.CloseProtocolError {
					answered = min(answered, time.Since(start))
				}
				healthy.write(masked(fin, name) + masked(1, ""))
				healthy.want(push.OpText, name)
			})
		}
		if answered > time.Second {
			t.Errorf("P06: a close frame is answered after %v at best, want within 1s", answered)
		}
	})
}

// TestRandomStreams sends valid streams, cut at random places.
func TestRandomStreams(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, echo)
		for seed := range uint64(40) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			var in strings.Builder
			var want []string
			for range 1 + rnd.IntN(20) {
				m := strings.Repeat("x", rnd.IntN(1<<rnd.IntN(13)))
				want = append(want, m)
				op := byte(1)
				for rnd.IntN(3) == 0 { // a fragment
					n := rnd.IntN(len(m) + 1)
					in.WriteString(masked(op, m[:n]))
					m, op = m[n:], 0
					if rnd.IntN(2) == 0 {
						in.WriteString(masked(fin|10, "pong"))
					}
				}
				in.WriteString(masked(fin|op, m))
			}
			c, p := s.dial()
			go func() {
				for rest := in.String(); rest != ""; {
					n := 1 + rnd.IntN(min(len(rest), 1+rnd.IntN(2000)))
					if _, err := io.WriteString(c.Conn, rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			for _, m := range want {
				c.want(push.OpText, m)
			}
			c.write(closing(1001, ""))
			c.wantClose(1001)
			p.wantClosed(t, 1001)
		}
	})
}

// TestLostConnections ends connections without a close frame.
func TestLostConnections(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, nil)
		tests := map[string]struct {
			in   string
			end  func(c *client)
			want []string
		}{
			"idle":                        {"", func(c *client) { c.Close() }, nil},
			"reset idle":                  {"", (*client).reset, nil},
			"in a frame":                  {text("abc")[:7], func(c *client) { c.Close() }, nil},
			"in a message":                {masked(1, "abc"), func(c *client) { c.Close() }, nil},
			"half-close with data before": {text("a") + text("b"), func(c *client) { c.tcp.CloseWrite() }, []string{"a", "b"}},
		}
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				c, p := s.dial()
				c.t = t
				c.write(test.in)
				test.end(c)
				for _, m := range test.want {
					if got := wait(t, p.got, "message"); got.text != m {
						t.Errorf("received %q, want %q", got.text, m)
					}
				}
				p.wantClosed(t, session.CloseAbnormal)
			})
		}
		t.Run("reset in a frame", func(t *testing.T) {
			c, p := s.dial()
			c.write(text("a") + text("abc")[:7])
			wait(t, p.got, "message")
			c.reset()
			p.wantClosed(t, session.CloseAbnormal)
		})
	})
}

// TestClose ends connections from the server's side.
func TestClose(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{}, nil)
		t.Run("Close", func(t *testing.T) {
			c, p := s.dial()
			p.conn.Send(push.NewFrame(push.OpText, []byte("last")))
			p.conn.Close(4500, "no auth")
			p.conn.Close(4000, "too late")
			p.conn.Abort(4001)
			if err := p.conn.Send(push.NewFrame(push.OpText, nil)); err != session.ErrClosed {
				t.Errorf("Send after Close: %v, want ErrClosed", err)
			}
			c.want(push.OpText, "last")
			c.want(push.OpClose, "\x11\x94no auth")
			c.write(closing(4500, "")) // the answer of a well-behaved client
			if _, err := io.ReadAll(c.br); err != nil && !isReset(err) {
				t.Errorf("behind the close frame: %v", err)
			}
			c.Close()
			p.wantClosed(t, 4500)
		})
		t.Run("Close while the client sends", func(t *testing.T) {
			c, p := s.dial()
			p.conn.Close(4500, "no auth")
			c.write(strings.Repeat(text("more"), 10_000))
			c.want(push.OpClose, "\x11\x94no auth")
			c.Close()
			p.wantClosed(t, 4500)
		})
		t.Run("long reason", func(t *testing.T) {
			c, p := s.dial()
			p.conn.Close(1000, strings.Repeat("x", 122)+"€")
			c.want(push.OpClose, "\x03\xe8"+strings.Repeat("x", 122))
			c.Close()
			p.wantClosed(t, 1000)
		})
		t.Run("Abort", func(t *testing.T) {
			c, p := s.dial()
			p.conn.Abort(session.CloseRevoked)
			c.wantClose(session.CloseRevoked)
			p.wantClosed(t, session.CloseRevoked)
			p.conn.Flush()
			p.conn.Abort(1000)
			p.conn.Close(1000, "")
		})
	})
}

// TestUnansweredClose has clients that do not answer a close frame.
func TestUnansweredClose(t *testing.T) {
	var peers []*peer
	start := time.Now()
	for _, kind := range kinds() {
		_, p := serve(t, kind, transport.Options{}, nil).dial()
		p.conn.Close(4500, "")
		peers = append(peers, p)
	}
	for _, p := range peers {
		p.wantClosed(t, 4500)
		if d := time.Since(start); d < 4*time.Second {
			t.Errorf("the client got %v to answer the close frame, want 5s", d)
		}
	}
}
