package server_test

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server"
	"ws-gateway/server/servertest"
	"ws-gateway/session/auth"
	"ws-gateway/stat"
)

// countedElsewhere are the limits whose own tests look at what is counted.
var countedElsewhere = []string{
	stat.ReasonConnections, stat.ReasonAddressConnections, stat.ReasonHandshakes, stat.ReasonHandshakeRate,
	stat.ReasonHeaderFields, stat.ReasonMemory, stat.ReasonPushBodyTime,
	stat.ReasonAuthQueue,                                                                           // session/auth
	stat.ReasonDraining, stat.ReasonPartialBytes, stat.ReasonWriteTimeout, stat.ReasonWriteMinimum, // transport
	stat.ReasonPushBatch, stat.ReasonPushBacklog, stat.ReasonPushIdempotency, stat.ReasonCallUnavailable, stat.ReasonHistoryMemory, // push
	stat.ReasonScriptTime, stat.ReasonScriptWait, stat.ReasonScriptHost, stat.ReasonScriptAnswer, stat.ReasonScriptContext, stat.ReasonScriptQueue, // script
	stat.ReasonStatViewers,
}

// A limit counts what it refuses, once each, and no other limit does.
func TestRefusalsAreCounted(t *testing.T) {
	const member, from = `{"member_id":123456,"token":"654321"}`, "192.0.2.66"
	big := filepath.Join(t.TempDir(), "big.lua")
	if err := os.WriteFile(big, []byte(`function on_message(msg) local t = {} while true do t[#t+1] = string.rep("x", 1000000) end end`), 0o600); err != nil {
		t.Fatal(err)
	}
	keyed := func(o *servertest.Options) { o.Keys.Keys, o.Keys.Rate = []string{"key"}, 1 }
	wantStatus := func(t *testing.T, got, want int, answer string) {
		t.Helper()
		if got != want {
			t.Errorf("answered %d %s, want %d", got, answer, want)
		}
	}
	wantClosed := func(t *testing.T, c *servertest.Client, want int) {
		t.Helper()
		if _, got := c.Closed(); got != want {
			t.Errorf("closed with %d, want %d", got, want)
		}
	}
	tests := []struct {
		name   string
		want   map[string]uint64
		change func(*servertest.Options)
		refuse func(t *testing.T, g *servertest.Gateway)
	}{
		{"a member's oldest session", map[string]uint64{stat.ReasonMemberConnections: 1},
			func(o *servertest.Options) { o.Session.MaxPerMember = 1 },
			func(t *testing.T, g *servertest.Gateway) {
				first, second := g.Dial("/"), g.Dial("/")
				first.Login(member, "123456")
				second.Login(member, "123456")
				wantClosed(t, first, 4504)
				second.Subscribe("match")
			}},
		{"foreign pages", map[string]uint64{stat.ReasonOrigin: 3}, nil,
			func(t *testing.T, g *servertest.Gateway) {
				_, resp, _ := g.TryDial(g.URL, "Origin", "https://evil.example")
				wantStatus(t, resp.StatusCode, 403, "")
				status, answer := g.Push(`{"app":"a","text":"x"}`, "Origin", "https://evil.example")
				wantStatus(t, status, 403, answer)
				resp, answer = g.Do("POST", g.StatURL+"/stat", "", "Origin", "https://evil.example")
				wantStatus(t, resp.StatusCode, 403, answer)
			}},
		{"rebound names", map[string]uint64{stat.ReasonHost: 1, stat.ReasonPushHost: 1}, nil,
			func(t *testing.T, g *servertest.Gateway) {
				resp, answer := g.Do("GET", g.StatURL+"/stat", "", "Host", "evil.example")
				wantStatus(t, resp.StatusCode, 421, answer)
				status, answer := g.Push(`{"app":"a","text":"x"}`, "Host", "evil.example")
				wantStatus(t, status, 421, answer)
			}},
		{"the stat server's key", map[string]uint64{stat.ReasonStatKey: 1},
			func(o *servertest.Options) { o.Stat.Key = "key" },
			func(t *testing.T, g *servertest.Gateway) {
				resp, answer := g.Do("GET", g.StatURL+"/stat", "")
				wantStatus(t, resp.StatusCode, 401, answer)
			}},
		{"A11 guesses, over one connection and of those who come again", map[string]uint64{stat.ReasonAuthFailures: 2},
			func(o *servertest.Options) {
				failures := auth.NewFailures(3)
				o.Session.Failures, o.Server.Failures = failures, failures
				o.Server.Proxies = server.NewProxies([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, nil)
			},
			func(t *testing.T, g *servertest.Gateway) {
				c := g.Dial("/", "X-Forwarded-For", from)
				for range 4 {
					c.Send(`{"member_id":123456,"token":"guess"}`)
					c.Want(servertest.Reply(`{"code":401,"message":"unauthorized"}`))
				}
				_, resp, _ := g.TryDial(g.URL, "X-Forwarded-For", from)
				wantStatus(t, resp.StatusCode, 429, "")
				g.Dial("/", "X-Forwarded-For", "192.0.2.67")
			}},
		{"silence", map[string]uint64{stat.ReasonAuthDeadline: 1},
			func(o *servertest.Options) { o.Session.AuthDeadline = 100 * time.Millisecond },
			func(t *testing.T, g *servertest.Gateway) { wantClosed(t, g.Dial("/"), 4500) }},
		{"P18 commands", map[string]uint64{stat.ReasonCommandRate: 1},
			func(o *servertest.Options) { o.Session.CommandRate, o.Session.CommandBurst = 0.001, 2 },
			func(t *testing.T, g *servertest.Gateway) {
				c := g.Subscriber("match")
				c.Send(`{"op":"ping"}`)
				c.Want(servertest.Reply(`{"code":200,"message":"pong"}`))
				c.Send(`{"op":"ping"}`)
				wantClosed(t, c, 4013)
			}},
		{"P09 bad messages", map[string]uint64{stat.ReasonBadMessages: 1}, nil,
			func(t *testing.T, g *servertest.Gateway) {
				c := g.Subscriber("match")
				for range 10 {
					c.Send(`no command`)
					c.Want(servertest.Reply(`{"code":400,"message":"bad subscribe message"}`))
				}
				wantClosed(t, c, 4501)
			}},
		{"P03 long messages", map[string]uint64{stat.ReasonMessageSize: 2}, nil,
			func(t *testing.T, g *servertest.Gateway) {
				for _, path := range []string{"/", "/push"} {
					c := g.Dial(path)
					c.Send(strings.Repeat("x", 64<<10+1))
					wantClosed(t, c, 1009)
				}
			}},
		{"S01 what waits for who does not read", map[string]uint64{stat.ReasonQueueBytes: 1},
			func(o *servertest.Options) { o.Transport.QueueBytes, o.Transport.WriteTimeout = 256<<10, time.Minute },
			func(t *testing.T, g *servertest.Gateway) {
				stalled := through(t, g.Server.Addr().String(), "/", "")
				stalled.send(push.OpText, `{"member_id":-1}`)
				stalled.send(push.OpText, `{"app":"match"}`)
				stalled.next()
				stalled.next()
				text := strings.Repeat("x", 60<<10)
				for range 1000 {
					g.Push(`{"app":"match","text":"` + text + `"}`)
					if g.Metrics.Snapshot().SessionsClosed["4008"] > 0 {
						return
					}
				}
				t.Error("60 MB wait for a client that does not read")
			}},
		{"U04 push keys", map[string]uint64{stat.ReasonPushKey: 10, stat.ReasonPushKeyFailures: 1}, keyed,
			func(t *testing.T, g *servertest.Gateway) {
				for i := range 11 {
					status, answer := g.Push(`{"app":"a","text":"x"}`, "X-Push-Key", "guess")
					wantStatus(t, status, []int{401, 429}[i/10], answer)
				}
			}},
		{"a key's rate", map[string]uint64{stat.ReasonPushRate: 1}, keyed,
			func(t *testing.T, g *servertest.Gateway) {
				full := "[" + strings.Repeat(`{"app":"a","text":"x"},`, 999) + `{"app":"a","text":"x"}]`
				for _, want := range []int{202, 429} {
					status, answer := g.Push(full, "X-Push-Key", "key")
					wantStatus(t, status, want, answer)
				}
			}},
		{"U01 sizes of pushes", map[string]uint64{stat.ReasonPushBody: 1, stat.ReasonPushText: 1}, nil,
			func(t *testing.T, g *servertest.Gateway) {
				for _, size := range []int{64<<10 + 1, 1 << 20} {
					status, answer := g.Push(`{"app":"a","text":"` + strings.Repeat("x", size) + `"}`)
					wantStatus(t, status, 413, answer)
				}
			}},
		{"L01 what a script makes", map[string]uint64{stat.ReasonScriptMemory: 1},
			func(o *servertest.Options) { o.Doors, o.Script.Timeout = map[string]string{"/big": big}, time.Minute },
			func(t *testing.T, g *servertest.Gateway) {
				c := g.Dial("/big")
				c.Send("x")
				wantClosed(t, c, 1011)
			}},
		{"P16 subscriptions", map[string]uint64{stat.ReasonSubscriptions: 1}, nil,
			func(t *testing.T, g *servertest.Gateway) {
				c := g.Dial("/")
				c.Login(`{"member_id":-1}`, "stranger")
				for i := range 128 {
					c.Subscribe("app:" + string(rune('a'+i%26)) + strings.Repeat("x", i/26))
				}
				c.Send(`{"app":"one:more"}`)
				c.Want(servertest.Reply(`{"code":400,"message":"too many subscriptions"}`))
				c.Subscribe("app:a") // has it already
			}},
	}
	counted := slices.Clone(countedElsewhere)
	for _, c := range tests {
		counted = slices.AppendSeq(counted, maps.Keys(c.want))
		t.Run(c.name, func(t *testing.T) {
			var change []func(*servertest.Options)
			if c.change != nil {
				change = append(change, c.change)
			}
			g := servertest.Start(t, change...)
			c.refuse(t, g)
			if got := g.Metrics.Snapshot().Refused; !maps.Equal(got, c.want) {
				t.Errorf("counted %v, want %v", got, c.want)
			}
		})
	}
	g := servertest.Start(t)
	for _, series := range regexp.MustCompile(`wsgateway_refused_total{reason="(.*)"}`).FindAllStringSubmatch(g.Get(g.StatURL+"/metrics"), -1) {
		if reason := series[1]; reason != stat.Other && !slices.Contains(counted, reason) {
			t.Errorf("no test looks at what is refused for %s", reason)
		}
	}
}
