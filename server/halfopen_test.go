package server_test

import (
	"io"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
)

// M03, S02: a peer that is gone without a word, its cable pulled, is in the counts until a
// ping stays unanswered, and not longer.
func TestM03HalfOpenPeersLeaveTheCounts(t *testing.T) {
	t.Parallel()
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Transport.PingInterval, o.Transport.PongTimeout = 5*time.Second, time.Second // it is to be seen first
		o.Apps = "apps: {match: {presence: true}}"
	})
	const here, gone = `{"code":200,"app":"match","members":[],"anonymous":1}`, `{"code":200,"app":"match","members":[],"anonymous":0}`
	c := through(t, g.Server.Addr().String(), "/", "")
	c.send(push.OpText, `{"member_id":-1}`)
	c.send(push.OpText, `{"app":"match"}`)
	c.next()
	c.next()
	if got := g.Get(g.StatURL + "/stat"); got != "match 1\n" {
		t.Fatalf("/stat is %q with it there", got)
	}
	if got := g.Get(g.URL + "/presence?app=match"); got != here {
		t.Errorf("presence is %s with it there", got)
	}
	io.Copy(io.Discard, c.r) // pings that nobody answers, then the end
	for deadline := time.Now().Add(time.Minute); g.Get(g.StatURL+"/stat") != "match 0\n" || g.Get(g.URL+"/presence?app=match") != gone; {
		if time.Now().After(deadline) {
			t.Fatalf("/stat is %q and presence %s when the peer is gone", g.Get(g.StatURL+"/stat"), g.Get(g.URL+"/presence?app=match"))
		}
	}
	if n := g.Metrics.Snapshot().SessionsClosed["4012"]; n != 1 {
		t.Errorf("%d sessions are counted as gone for want of a pong, want 1", n)
	}
}
