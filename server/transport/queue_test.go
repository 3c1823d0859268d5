package transport

import (
	"strings"
	"testing"

	"ws-gateway/push"
)

// A frame that has begun stays until it is whole, whatever its policy: also when the socket says
// that it takes more, and then takes nothing.
func TestBegunFrameIsNotDropped(t *testing.T) {
	for _, tt := range []struct {
		name   string
		slow   push.SlowPolicy
		behind []string
	}{
		{"latest", push.SlowLatest, nil},
		{"latest, with others", push.SlowLatest, []string{"b"}},
		{"drop oldest, with others", push.SlowDropOldest, []string{"b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := new(push.Key)
			frame := func(data string) *push.Frame {
				return &push.Frame{Data: []byte(data), Messages: 1, Slow: tt.slow, Key: key}
			}
			q := newQueue()
			q.push(frame("123"), 1)
			for _, data := range tt.behind {
				q.push(frame(data), 0)
			}
			if q.single() == nil {
				q.gather(make([]byte, 0, 16))
			}
			q.wrote(0)
			const maxBytes = 3 // room for what has begun and one more
			if _, ok := q.admit(frame("c"), maxBytes, 16, true); !ok {
				t.Fatal("no room was made")
			}
			var left strings.Builder
			for _, e := range q.entries {
				left.Write(e.rest())
			}
			if left.String() != "23c" {
				t.Errorf("%q is left, want %q", left.String(), "23c")
			}
		})
	}
}
