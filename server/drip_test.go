package server_test

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"ws-gateway/server/servertest"
)

// P10: a client that drips its first message is late for it, not at fault with the frame.
func TestP10DrippingClient(t *testing.T) {
	t.Parallel() // it takes ten seconds, of which nearly all is waiting
	g := servertest.Start(t)
	nc, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	r, _ := http.NewRequest(http.MethodGet, g.URL+"/", nil)
	for name, value := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
	} {
		r.Header.Set(name, value)
	}
	if err := r.Write(nc); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 64<<10)
	if _, err := nc.Read(in); err != nil {
		t.Fatal(err)
	}
	nc.Write([]byte{0x81, 0x80 + 100}) // and never the rest
	nc.SetReadDeadline(time.Now().Add(time.Minute))
	n, got := 0, ""
	for err == nil {
		n, err = nc.Read(in)
		got += string(in[:n])
	}
	if !strings.Contains(got, `\"missing auth message\"`) || !strings.HasSuffix(got, "\x11\x94missing auth") {
		t.Errorf("got %q, want 400 and 4500", got)
	}
}
