package push_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
)

// benchmarkPush measures requests over one connection, net/http on both ends included.
func benchmarkPush(b *testing.B, handler http.Handler, body string) {
	server := httptest.NewServer(handler)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := fmt.Appendf(nil, "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	answer := make([]byte, 1<<20)
	read := func() {
		n := 0
		for {
			m, err := conn.Read(answer[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += m
			head := bytes.Index(answer[:n], []byte("\r\n\r\n"))
			if head >= 0 && (answer[n-1] == '}' || answer[n-1] == ']' || answer[n-1] == '\n') {
				return
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		read()
	}
}

func BenchmarkHandler(b *testing.B) {
	const one = `{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`
	b.Run("bare", func(b *testing.B) { // what net/http costs without us
		benchmarkPush(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusAccepted)
			w.Write([]byte("{}"))
		}), one)
	})
	for name, body := range map[string]string{"one": one, "batch=100": "[" + strings.Repeat(one+",", 99) + one + "]"} {
		b.Run(name, func(b *testing.B) {
			memory := log.NewMemory(log.Options{})
			defer memory.Close()
			hub := push.NewHub(push.Options{Log: memory})
			defer hub.Close()
			s, _ := hub.Subscribe(&apps.App{Name: "match"}, discard{}, push.SubscribeOptions{Member: -1, Encoding: textOnly})
			s.Start()
			defer s.Close()
			benchmarkPush(b, push.Handler(push.HandlerOptions{Hub: hub}), body)
		})
	}
}

type discard struct{}

func (discard) Deliver(*push.Frame) {}
func (discard) Queue(*push.Frame)   {}
func (discard) Flush()              {}
