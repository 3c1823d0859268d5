package transport_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
)

// BenchmarkSend sends one frame to each of 1000 connections; an operation is all of them.
// by=write is the floor: a loop over the same sockets with nothing but write(2).
func BenchmarkSend(b *testing.B) {
	const conns = 1000
	frame := push.NewFrame(push.OpText, []byte(strings.Repeat("x", 128)))
	for _, by := range []string{"write", "Send"} {
		b.Run(fmt.Sprintf("conns=%d/by=%s", conns, by), func(b *testing.B) {
			conns, clients := connected(b, "event", conns)
			fds := make([]uintptr, len(conns))
			for i, c := range conns {
				fds[i] = transport.Descriptor(c)
			}
			for b.Loop() {
				if by == "Send" {
					for _, c := range conns {
						c.Send(frame)
					}
				} else {
					for _, fd := range fds {
						syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&frame.Data[0])), uintptr(len(frame.Data)))
					}
				}
				b.StopTimer()
				drainAll(b, clients, len(frame.Data))
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(conns))/1000, "us/frame")
		})
	}
}

// BenchmarkQueue queues several frames to each of 1000 connections and then flushes each.
func BenchmarkQueue(b *testing.B) {
	const conns = 1000
	frame := push.NewFrame(push.OpText, []byte(strings.Repeat("x", 128)))
	for _, frames := range []int{4, 16} {
		b.Run(fmt.Sprintf("conns=%d/frames=%d", conns, frames), func(b *testing.B) {
			s, clients := connected(b, "event", conns)
			for b.Loop() {
				for range frames {
					for _, c := range s {
						c.Queue(frame)
					}
				}
				for _, c := range s {
					c.Flush()
				}
				b.StopTimer()
				drainAll(b, clients, frames*len(frame.Data))
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/conns/float64(frames)/1000, "us/frame")
		})
	}
}

// BenchmarkEcho is one message there and back, over a connection among idle ones.
func BenchmarkEcho(b *testing.B) {
	for _, kind := range kinds() {
		b.Run("kind="+kind, func(b *testing.B) {
			s := serve(b, kind, transport.Options{}, echo)
			c, _ := s.dial()
			in, out := []byte(text(strings.Repeat("x", 50))), make([]byte, 52)
			b.ReportAllocs()
			for b.Loop() {
				c.Conn.Write(in)
				io.ReadFull(c.br, out)
			}
		})
	}
}

// connected returns both ends of n connections.
func connected(b *testing.B, kind string, n int) (conns []session.Conn, clients []*client) {
	s := serve(b, kind, transport.Options{}, nil)
	for range n {
		c, p := s.dial()
		c.SetDeadline(noDeadline)
		conns, clients = append(conns, p.conn), append(clients, c)
	}
	return conns, clients
}

func drainAll(b *testing.B, clients []*client, bytes int) {
	buf := make([]byte, bytes)
	for _, c := range clients {
		if _, err := io.ReadFull(c.Conn, buf); err != nil {
			b.Fatal(err)
		}
	}
	runtime.Gosched()
}
