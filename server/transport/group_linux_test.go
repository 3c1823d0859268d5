package transport_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"ws-gateway/push"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

// TestSendAll sends to connections in every state. What SendAll leaves alone is then sent one by
// one, as its callers do.
func TestSendAll(t *testing.T) {
	each(t, func(t *testing.T, kind string) {
		s := serve(t, kind, transport.Options{QueueBytes: 2 * len(dam.Data)}, nil)
		const n, stalled, closed, lost, large = 20, 3, 5, 7, 17
		clients, peers := make([]*client, n), make([]*peer, n)
		all := make([]session.Sending, n, n+2)
		for i := range n {
			clients[i], peers[i] = s.dial()
			all[i] = session.Sending{Conn: peers[i].conn, Frame: push.NewFrame(push.OpText, fmt.Append(nil, "hello ", i))}
		}
		if err := peers[stalled].conn.Send(dam); err != nil {
			t.Fatal(err)
		}
		peers[closed].conn.Close(session.CloseGoingAway, "")
		if kind == "event" {
			unix.Shutdown(int(transport.Descriptor(peers[lost].conn)), unix.SHUT_WR)
		}
		all[large].Frame = dam
		pipe := sessiontest.NewPipe(t)
		all = append(all, session.Sending{Conn: pipe, Frame: dam}, session.Sending{Frame: dam})

		frames := make([]*push.Frame, len(all))
		for i, sending := range all {
			frames[i] = sending.Frame
		}
		peers[0].conn.(session.Group).SendAll(all)
		for i, sending := range all {
			alone := kind != "event" || i == stalled || i == closed || i >= n
			switch {
			case alone && sending.Frame != frames[i]:
				t.Errorf("%d: the frame was taken, want it left to Send", i)
			case !alone && sending.Frame != nil:
				t.Errorf("%d: the frame was left to Send", i)
			case alone && i < n:
				if err := peers[i].conn.Send(sending.Frame); (err != nil) != (i == closed) {
					t.Errorf("%d: Send: %v", i, err)
				}
			}
		}
		for i, c := range clients {
			switch {
			case i == closed:
				c.wantClose(session.CloseGoingAway)
				continue
			case i == lost && kind == "event":
				peers[i].wantClosed(t, session.CloseAbnormal)
				continue
			case i == stalled:
				c.wantDam()
			}
			if i == large {
				c.wantDam()
			} else {
				c.want(push.OpText, fmt.Sprint("hello ", i))
			}
			if err := peers[i].conn.Send(push.NewFrame(push.OpText, []byte("more"))); err != nil {
				t.Errorf("%d: Send after it: %v", i, err)
			}
			c.want(push.OpText, "more")
		}
	})
}
