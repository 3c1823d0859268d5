package server_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"ws-gateway/server/servertest"
)

// masked returns a text frame of less than 126 bytes, masked with zeros.
func masked(text string) string {
	return string([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}) + text
}

// quiet keeps logging out of a benchmark.
func quiet(o *servertest.Options) {
	l := slog.New(slog.DiscardHandler)
	o.Server.Logger, o.Session.Logger, o.Push.Logger, o.Transport.Logger, o.Keys.Logger = l, l, l, l, l
}

// BenchmarkLink measures a push over a link, in a pipeline of 100, both ends and the kernel
// included.
func BenchmarkLink(b *testing.B) {
	g := servertest.Start(b, quiet)
	link := g.Dial("/push")
	b.ReportAllocs()
	sent := 0
	for b.Loop() {
		link.Send(`{"id":1,"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`)
		if sent++; sent%100 == 0 {
			for range 100 {
				link.Next()
			}
		}
	}
}

// BenchmarkConnect measures connecting, saying who one is, subscribing and going away again,
// both ends and the kernel included.
func BenchmarkConnect(b *testing.B) {
	g := servertest.Start(b, quiet)
	const request = "GET / HTTP/1.1\r\n" + goodHandshake + "\r\n"
	commands := masked(`{"member_id":123456,"token":"654321"}`) + masked(`{"app":"match"}`)
	addr := g.Server.Addr().String()
	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		io.WriteString(conn, request)
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				b.Fatal(err)
			}
			if strings.TrimSpace(line) == "" {
				break
			}
		}
		io.WriteString(conn, commands)
		for range 2 {
			head, err := r.Peek(2)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := r.Discard(2 + int(head[1])); err != nil {
				b.Fatal(err)
			}
		}
		conn.Close()
	}
}

// BenchmarkPush measures a push over a connection that stays, from curl's view: request,
// routing, key, parser, hub, one subscriber, answer.
func BenchmarkPush(b *testing.B) {
	g := servertest.Start(b, quiet)
	client, r := raw(b, g, "GET / HTTP/1.1\r\n"+goodHandshake+"\r\n")
	client.SetDeadline(time.Time{})
	if _, err := http.ReadResponse(r, nil); err != nil {
		b.Fatal(err)
	}
	io.WriteString(client, masked(`{"member_id":-1,"token":""}`)+masked(`{"app":"match"}`))
	for range 2 {
		if _, err := r.ReadString('}'); err != nil {
			b.Fatal(err)
		}
	}
	go io.Copy(io.Discard, r)
	const body = `{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`
	conn, err := net.Dial("tcp", g.Server.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request := fmt.Appendf(nil, "POST /push HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	answers := bufio.NewReader(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		if answer, err := answers.ReadString('}'); err != nil || !strings.Contains(answer, " 202 ") {
			b.Fatalf("%s %v", answer, err)
		}
	}
}
