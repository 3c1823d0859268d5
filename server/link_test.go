package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
)

func TestLink(t *testing.T) {
	g := servertest.Start(t)
	subscriber := g.Subscriber("match")
	link := g.Dial("/push")
	for i := range 100 { // without waiting for answers
		link.Send(fmt.Sprintf(`{"id":%d,"app":"match","text":"%d"}`, i, i))
	}
	for i := range 100 {
		if got, want := link.Next(), fmt.Sprintf(`{"id":%d,"code":202,"app":"match",`, i); !strings.HasPrefix(got, want) {
			t.Fatalf("answer %d is %s", i, got)
		}
		subscriber.Want(fmt.Sprintf(`{"app":"match","member_id":-1,"text":"%d"}`, i))
	}
	if members, anonymous, pending := g.Sessions.Counts(); members+anonymous+pending != 1 {
		t.Errorf("%d sessions: a link is none", members+anonymous+pending)
	}
	g.Drain()
	if _, code := link.Closed(); code != 1012 {
		t.Errorf("N02: a stop closes the link with %d", code)
	}
}

func TestLinkNeedsTheRightToPush(t *testing.T) {
	open := servertest.Start(t)
	locked := servertest.Start(t, func(o *servertest.Options) { o.Keys = push.KeysOptions{Keys: []string{"key"}} })
	for _, c := range []struct {
		name   string
		g      *servertest.Gateway
		header []string
		status int
	}{
		{"this machine", open, nil, 101},
		{"U03 a page of another origin, which POST would have to ask", open, []string{"Origin", "http://localhost:3000"}, 403},
		{"U03 a rebound name", open, []string{"Host", "evil.example"}, 421},
		{"through a proxy", open, []string{"X-Forwarded-For", "192.0.2.1"}, 401},
		{"U04 no key", locked, nil, 401},
		{"U04 wrong key", locked, []string{"X-Push-Key", "guess"}, 401},
		{"key", locked, []string{"Authorization", "Bearer key"}, 101},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, resp, err := c.g.TryDial(c.g.URL+"/push", c.header...)
			if resp == nil || resp.StatusCode != c.status {
				t.Errorf("answered %v, %v; want %d", resp, err, c.status)
			}
		})
	}
	if resp, body := locked.Do(http.MethodGet, locked.URL+"/push", "", "X-Push-Key", "key"); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("GET without an upgrade: %d %s", resp.StatusCode, body)
	}
}
