package push_test

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"ws-gateway/push"
	"ws-gateway/stat"
)

// tailed returns what reads the events of a hub's pushes, texts among them.
func tailed(t *testing.T, tail *stat.Tail) (next func() stat.Event) {
	t.Helper()
	server := httptest.NewServer(stat.Handler(t.Context(), stat.HandlerOptions{Tail: tail}))
	t.Cleanup(server.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/stat/tail?payload=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	body := bufio.NewReader(resp.Body)
	return func() (e stat.Event) {
		t.Helper()
		for {
			line, err := body.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				if err := json.Unmarshal([]byte(data), &e); err != nil {
					t.Fatal(err)
				}
				return e
			}
		}
	}
}

func TestTailShowsWhatBecameOfPushes(t *testing.T) {
	tail := new(stat.Tail)
	h := with(t, "{default: deny, apps: {match: {}, im: {visibility: private}}}", func(o *push.Options) { o.Tail = tail })
	s, _ := subscribe(t, h, "match", 7, 0)
	s.Start()
	next := tailed(t, tail)
	message := func(app string, member int64, text string) push.Message {
		return push.Message{App: app, Member: member, From: 5, Text: text}
	}
	want := func(app, text, kind string, code, subscribers int, offset uint64, duplicate bool) {
		t.Helper()
		e := next()
		if e.App != app || e.Text != text || e.Bytes != len(text) || e.Kind != kind || e.Code != code || e.From != 5 ||
			e.Subscribers != subscribers || e.Offset != offset || e.Duplicate != duplicate || (e.Epoch != "") != (offset > 0) {
			t.Errorf("the tail shows %+v, want %s of %q to %s, code %d, %d subscribers, offset %d", e, kind, text, app, code, subscribers, offset)
		}
	}
	ctx := t.Context()

	h.Publish(ctx, message("match", -1, "a"))
	want("match", "a", "push", 0, 1, 1, false)
	h.Publish(ctx, message("match", 8, "b"))
	want("match", "b", "push", 0, 0, 2, false)
	h.Publish(ctx, message("im", -1, "c"))
	want("im", "c", "refused", 400, 0, 0, false)
	long := strings.Repeat("x", 1000)
	h.Publish(ctx, message(long, -1, "d"))
	want(long[:128]+"...", "d", "refused", 400, 0, 0, false)

	batch := []push.Message{message("match", -1, "e"), message("match", 7, "f")}
	h.PublishBatch(ctx, batch)
	want("match", "e", "push", 0, 1, 3, false)
	want("match", "f", "push", 0, 1, 4, false)
	h.PublishBatch(ctx, append(batch, message("nowhere", -1, "g")))
	want("match", "e", "refused", 404, 0, 0, false)
	want("match", "f", "refused", 404, 0, 0, false)
	want("nowhere", "g", "refused", 404, 0, 0, false)

	h.PublishOnce(ctx, "", "key", batch[:1])
	want("match", "e", "push", 0, 1, 5, false)
	h.PublishOnce(ctx, "", "key", batch[:1])
	want("match", "e", "push", 0, 1, 5, true)
	h.PublishOnce(ctx, "", "key", batch[1:])
	want("match", "f", "refused", 422, 0, 0, false)
}
