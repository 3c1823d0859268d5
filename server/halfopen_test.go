package server_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"ws-gateway/server/servertest"
)

// M03, S02: a peer that is gone without a word, its cable pulled, is in the counts until a
// ping stays unanswered, and not longer.
func TestM03HalfOpenPeersLeaveTheCounts(t *testing.T) {
	t.Parallel()
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Transport.PingInterval, o.Transport.PongTimeout = 5*time.Second, time.Second // it is to be seen first
	})
	conn, err := net.Dial("tcp", g.Server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	masked := func(text string) string { // with a key of zeros the payload stays as it is
		return string([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}) + text
	}
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n%s%s",
		conn.RemoteAddr(), "", "")
	r := bufio.NewReader(conn)
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	io.WriteString(conn, masked(`{"member_id":-1}`)+masked(`{"app":"match"}`))
	for n := 0; n < 2; n++ { // the two replies
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			t.Fatal(err)
		}
		if head[1] > 125 {
			t.Fatalf("a reply of %d bytes", head[1])
		}
		if _, err := r.Discard(int(head[1])); err != nil {
			t.Fatal(err)
		}
	}
	if got := g.Get(g.StatURL + "/stat"); got != "match 1\n" {
		t.Fatalf("/stat is %q with it there", got)
	}
	io.Copy(io.Discard, r) // pings that nobody answers, then the end
	for deadline := time.Now().Add(time.Minute); g.Get(g.StatURL+"/stat") != ""; {
		if time.Now().After(deadline) {
			t.Fatalf("/stat is %q when the peer is gone", g.Get(g.StatURL+"/stat"))
		}
	}
}
