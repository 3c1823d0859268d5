package client_test

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
	"ws-gateway/session/client"
)

// lose has p lose the messages of match between the first one and from, and hold those back
// from there to the last one, to. It then hands them over at once, each as often as times says:
// before the gateway answers anything that the client asks at their sight.
func lose(p *proxy, from, to, times int) {
	var held []byte
	done := false
	p.spoil = func(_ int, frame []byte) []byte {
		offset := offsetOf(frame)
		if done || offset < 2 {
			return frame
		}
		if offset >= from {
			held = append(held, bytes.Repeat(frame, times)...)
		}
		if done = offset == to; done {
			return held
		}
		return nil
	}
}

// offsetOf returns the offset of the message in frame, 0 if it is none.
func offsetOf(frame []byte) int {
	_, rest, _ := strings.Cut(string(frame), `,"offset":`)
	digits, _, _ := strings.Cut(rest, ",")
	return atoi(digits)
}

// What came behind a gap that the gateway's log cannot fill is delivered, behind the word that
// something is missing, and each message once.
func TestClientKeepsWhatCameBehindAGap(t *testing.T) {
	for _, test := range []struct {
		name    string
		history string
		times   int
		buffer  int
		cut     bool // the link breaks before the gateway answers
		want    []string
	}{
		{"filled", "100", 1, 0, false, []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}},
		{"not filled", "2", 1, 0, false, []string{"1", "missed", "7", "8", "9", "10"}},
		{"not filled, each twice", "2", 2, 0, false, []string{"1", "missed", "7", "8", "9", "10"}},
		{"not filled over a link", "2", 1, 0, true, []string{"1", "missed", "7", "8", "9", "10"}},
		{"not filled, little room", "2", 1, 3, false, []string{"1", "missed", "7", "8", "10"}},
		{"filled over a link", "100", 1, 0, true, []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := servertest.Start(t, func(o *servertest.Options) {
				o.Apps = "apps:\n  match: {history: {size: " + test.history + "}}\n"
			})
			p := newProxy(t, address(g))
			lose(p, 7, 9, test.times)
			spoil, replies := p.spoil, 0
			answer := make(chan struct{}) // to the resume
			p.spoil = func(n int, frame []byte) []byte {
				if strings.Contains(string(frame), "subscribe match success") {
					if replies++; replies == 2 {
						close(answer)
						if test.cut {
							return nil
						}
					}
				}
				return spoil(n, frame)
			}
			opts := quick()
			opts.Buffer = test.buffer
			opts.Member, opts.Token = 123456, token("654321")
			c := dial(t, p.url(), opts)
			var got []string
			s := subscribe(t, c, "match", client.SubscribeOptions{Missed: func() { got = append(got, "missed") }})
			for i := 1; i <= 9; i++ {
				member := push.Everybody
				if i%4 == 0 { // the other chain
					member = 123456
				}
				publish(t, g, "match", member, strconv.Itoa(i))
			}
			<-answer
			if test.cut {
				p.cut()
			} else if err := c.Ping(t.Context()); err != nil { // the client has the answer too
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			for m := range s.Messages(ctx) {
				got = append(got, m.Text)
				if strconv.FormatUint(m.Offset, 10) != m.Text || s.Position() != m.Position {
					t.Errorf("message %s is at %v, and the subscription at %v", m.Text, m.Position, s.Position())
				}
				if m.Text == test.want[len(test.want)-2] {
					publish(t, g, "match", push.Everybody, "10")
				}
				if m.Text == "10" {
					break
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
