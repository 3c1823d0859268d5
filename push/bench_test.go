package push_test

import (
	"fmt"
	"strings"
	"testing"

	"ws-gateway/push"
	"ws-gateway/push/log"
)

// A sink is a subscriber that only counts.
type sink struct{ frames, messages int }

func (s *sink) Deliver(f *push.Frame) { s.frames++; s.messages += f.Messages }
func (s *sink) Queue(f *push.Frame)   { s.Deliver(f) }
func (s *sink) Flush()                {}

var plain = &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte { return append(dst, m.Text...) }}

// BenchmarkHubPublish measures what a delivery costs before it reaches a socket.
func BenchmarkHubPublish(b *testing.B) {
	for _, n := range []int{0, 1, 100, 1000, 5000} {
		b.Run(fmt.Sprintf("subs=%d", n), func(b *testing.B) {
			l := log.NewMemory(log.Options{})
			defer l.Close()
			h := push.NewHub(push.Options{Log: l, Shards: 2})
			defer h.Close()
			app, err := h.Lookup("match")
			if err != nil {
				b.Fatal(err)
			}
			for i := range n {
				sub, _ := h.Subscribe(app, new(sink), push.SubscribeOptions{Member: -1, Encoding: plain, Shard: uint64(i)})
				sub.Start()
			}
			m := push.Message{App: "match", Member: -1, Text: strings.Repeat("x", 128)}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Publish(b.Context(), m); err != nil {
					h.Flush()
				}
			}
			h.Flush()
			if n > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/delivery")
			}
		})
	}
}
