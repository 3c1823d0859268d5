package push_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/push/presence"
	"ws-gateway/stat"
)

// An answer has at most 1 MiB of text, from the end that was asked for; what it leaves out can
// be asked for next.
func TestHistoryIsCut(t *testing.T) {
	h := with(t, "apps: {}", nil)
	for range 20 {
		publish(t, h, "match", -1, strings.Repeat("x", 60<<10)) // of which 17 are less than 1 MiB
	}
	for _, c := range []struct {
		query       string
		first, last uint64
	}{{"", 4, 20}, {"&after=0", 1, 17}, {"&after=17", 18, 20}, {"&limit=3", 18, 20}, {"&after=4&limit=2", 5, 6}} {
		answer, err := h.AnswerHistory(httptest.NewRequest("GET", "/history?app=match"+c.query, nil))
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Messages []struct{ Offset uint64 } }
		if err := json.Unmarshal(answer, &got); err != nil {
			t.Fatal(err)
		}
		var want []struct{ Offset uint64 }
		for o := c.first; o <= c.last; o++ {
			want = append(want, struct{ Offset uint64 }{o})
		}
		if fmt.Sprint(got.Messages) != fmt.Sprint(want) {
			t.Errorf("%q: offsets %v, want %v", c.query, got.Messages, want)
		}
	}
}

// brokenLog keeps messages and cannot read them.
type brokenLog struct{ push.Log }

var errBroken = errors.New("broken")

func (brokenLog) Since(context.Context, push.Query) (push.Page, error) { return push.Page{}, errBroken }

// A brokenPresence does not know who is there.
type brokenPresence struct{ push.Presence }

func (brokenPresence) Members(context.Context, string, int) (push.Attendance, error) {
	return push.Attendance{}, errBroken
}

// What a call is refused for is counted.
func TestCallsAreCounted(t *testing.T) {
	m := stat.New(stat.Options{})
	memory := log.NewMemory(log.Options{})
	t.Cleanup(memory.Close)
	h := with(t, "apps: {match: {presence: true}}", func(o *push.Options) { o.Log, o.Presence = brokenLog{memory}, brokenPresence{presence.NewMemory()} })
	keys, err := push.NewKeys(push.KeysOptions{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		do     func(*http.Request) ([]byte, error)
		method string
		body   string
		want   string
		reason string
	}{
		{"body", push.Body, "POST", strings.Repeat(" ", 4097), `413 {"code":413,"message":"the body is over 4096 bytes"}`, stat.ReasonPushBody},
		{"history", h.AnswerHistory, "GET", "", `503 {"code":503,"message":"log unavailable"}`, stat.ReasonCallUnavailable},
		{"presence", h.AnswerPresence, "GET", "", `503 {"code":503,"message":"presence unavailable"}`, stat.ReasonCallUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := m.Snapshot().Refused[c.reason]
			r := httptest.NewRequest(c.method, "http://127.0.0.1:5000/x?app=match", strings.NewReader(c.body))
			r.RemoteAddr = "127.0.0.1:4000"
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			keys.Call(c.do).ServeHTTP(w, r)
			if got := fmt.Sprint(w.Code, " ", w.Body); got != c.want {
				t.Errorf("answered %s, want %s", got, c.want)
			}
			if n := m.Snapshot().Refused[c.reason] - before; n != 1 {
				t.Errorf("counted %d times as %s", n, c.reason)
			}
		})
	}
}
