package push_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
)

const keyHeader = "Idempotency-Key"

func TestU07Retry(t *testing.T) {
	b := newBackend(t, push.HandlerOptions{}, "")
	got := b.subscribe("a", push.Everybody)
	duplicate := func(answer string) string { return strings.ReplaceAll(answer, "}", `,"duplicate":true}`) }

	const one = `{"app":"a","text":"one"}`
	first := accepted("a", b.epoch("a"), 1, 1)
	for _, c := range []struct{ name, body, key, want string }{
		{"the first", one, "k", first},
		{"a retry", one, "k", duplicate(first)},
		{"another retry, written otherwise", ` {"text":"one", "member_id":-1, "app":"\u0061"}`, "k", duplicate(first)},
		{"another key", one, `"0-quoted"`, accepted("a", b.epoch("a"), 2, 1)},
		{"without a key", one, "", accepted("a", b.epoch("a"), 3, 1)},
		{"another text", `{"app":"a","text":"two"}`, "k", refused(422, "this idempotency key came with another push before")},
		{"another member", `{"app":"a","member_id":7,"text":"one"}`, "k", refused(422, "this idempotency key came with another push before")},
		{"another batch", `[{"app":"a","text":"two"}]`, "k", refused(422, "this idempotency key came with another push before")},
		{"a batch", `[` + one + `,` + one + `]`, "b", "[" + accepted("a", b.epoch("a"), 4, 1) + "," + accepted("a", b.epoch("a"), 5, 1) + "]"},
		{"the batch again", `[` + one + `,` + one + `]`, "b", "[" + duplicate(accepted("a", b.epoch("a"), 4, 1)) + "," + duplicate(accepted("a", b.epoch("a"), 5, 1)) + "]"},
		{"part of the batch", `[` + one + `]`, "b", refused(422, "this idempotency key came with another push before")},
		{"64 bytes", one, strings.Repeat("k", 64), accepted("a", b.epoch("a"), 6, 1)},
		{"65 bytes", one, strings.Repeat("k", 65), refused(400, "an idempotency key has 1 to 64 bytes")},
		{"65 bytes with a batch", `[` + one + `]`, strings.Repeat("k", 65), refused(400, "an idempotency key has 1 to 64 bytes")},
	} {
		t.Run(c.name, func(t *testing.T) {
			var header []string
			if c.key != "" {
				header = []string{keyHeader, c.key}
			}
			if _, answer := b.post(c.body, header...); answer != c.want {
				t.Errorf("got  %s\nwant %s", answer, c.want)
			}
		})
	}
	if _, answer := b.post(one, keyHeader, "k", keyHeader, "k"); answer != refused(400, "more than one Idempotency-Key") {
		t.Errorf("two keys: %s", answer)
	}
	b.hub.Flush()
	if len(got.texts) != 6 {
		t.Errorf("delivered %d times, want 6: %q", len(got.texts), got.texts)
	}
}

// What one team's backend calls its pushes is no business of another's, by POST or over a link.
func TestU07IdempotencyKeysBelongToAPushKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write := func(lines string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("red\ngreen\n")
	keys, err := push.NewKeys(push.KeysOptions{Keys: []string{"blue"}, File: file})
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, push.HandlerOptions{Keys: keys}, "")
	offset := 0
	check := func(name, key, text string, duplicate bool) {
		t.Helper()
		want := func(n int) string {
			s := accepted("a", b.epoch("a"), n, 0)
			if duplicate {
				s = strings.Replace(s, "}", `,"duplicate":true}`, 1)
			}
			return s
		}
		if !duplicate {
			offset++
		}
		body := `{"app":"a","text":"` + text + `"}`
		if _, answer := b.post(body, keyHeader, "k", "X-Push-Key", key); answer != want(offset) {
			t.Errorf("%s: %s, want %s", name, answer, want(offset))
		}
		req := httptest.NewRequest(http.MethodGet, "/push", nil)
		req.Header.Set("X-Push-Key", key)
		l, err := push.NewLink(b.hub, keys, req)
		if err != nil {
			t.Fatal(err)
		}
		duplicate = true
		frame := `{"id":1,"key":"k",` + body[1:]
		if got := string(l.Receive(t.Context(), []byte(frame))); got != `{"id":1,`+want(offset)[1:] {
			t.Errorf("%s, over a link: %s, want %s", name, got, want(offset))
		}
	}
	check("blue", "blue", "hello", false)
	check("red says the same", "red", "hello", false)
	check("green says something else", "green", "goodbye", false)
	check("green again", "green", "goodbye", true)
	write("# turned round, and longer\nwhite\ngreen\nblack\nred\n")
	if err := keys.Reload(); err != nil {
		t.Fatal(err)
	}
	check("green after a reload", "green", "goodbye", true)
	check("white, which is new", "white", "hello", false)
	check("black, which is too", "black", "hello", false)

	if keys, err = push.NewKeys(push.KeysOptions{}); err != nil {
		t.Fatal(err)
	}
	b, offset = newBackend(t, push.HandlerOptions{Keys: keys}, ""), 0
	check("the key that was made", keys.Generated(), "hello", false)
	if _, answer := b.post(`{"app":"a","text":"hello"}`, keyHeader, "k"); !strings.HasSuffix(answer, `"duplicate":true}`) {
		t.Errorf("without a key, after the one that was made: %s", answer)
	}
}

// A gatedLog is a log that waits for each message, and may fail at it.
type gatedLog struct {
	push.Log
	pass    chan error
	appends atomic.Int32
}

func (g *gatedLog) Append(ctx context.Context, app *apps.App, ms []push.Message) (string, int, error) {
	for i := range ms {
		g.appends.Add(1)
		if err := <-g.pass; err != nil {
			epoch, n, _ := g.Log.Append(ctx, app, ms[:i])
			return epoch, n, err
		}
	}
	return g.Log.Append(ctx, app, ms)
}

// once runs f with a hub over a gated log, in a bubble of time.
func once(t *testing.T, o push.Options, f func(t *testing.T, h *push.Hub, g *gatedLog)) {
	synctest.Test(t, func(t *testing.T) {
		l := log.NewMemory(log.Options{})
		defer l.Close()
		g := &gatedLog{Log: l, pass: make(chan error, 1000)}
		o.Log = g
		h := push.NewHub(o)
		defer h.Close()
		f(t, h, g)
	})
}

var hello = []push.Message{{App: "a", Member: push.Everybody, Text: "hello"}}

func TestU07RacingRetriesShareOnePublish(t *testing.T) {
	once(t, push.Options{}, func(t *testing.T, h *push.Hub, g *gatedLog) {
		var wg sync.WaitGroup
		var duplicates atomic.Int32
		offsets := make([]uint64, 8)
		for i := range offsets {
			ctx, cancel := context.WithCancel(t.Context())
			wg.Go(func() {
				r, err := h.PublishOnce(ctx, "", "k", hello)
				if err != nil {
					t.Errorf("racer %d: %v", i, err)
					return
				}
				offsets[i] = r[0].Offset
				if r[0].Duplicate {
					duplicates.Add(1)
				}
			})
			synctest.Wait()
			if i == 0 {
				cancel() // the first leaves; the others need its publish all the same
			}
			defer cancel()
		}
		g.pass <- nil
		wg.Wait()
		if n := g.appends.Load(); n != 1 || duplicates.Load() != 7 {
			t.Errorf("%d appends and %d duplicates, want 1 and 7", n, duplicates.Load())
		}
		if slices.Max(offsets) != 1 || slices.Min(offsets) != 1 {
			t.Errorf("offsets %v, want all 1", offsets)
		}
	})
}

func TestU07WaitingForAnotherEndsWithTheContext(t *testing.T) {
	once(t, push.Options{}, func(t *testing.T, h *push.Hub, g *gatedLog) {
		var wg sync.WaitGroup
		wg.Go(func() { h.PublishOnce(t.Context(), "", "k", hello) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := h.PublishOnce(ctx, "", "k", hello); outcome(err) != "unknown" {
			t.Errorf("got %v, want outcome unknown", err)
		}
		g.pass <- nil
		wg.Wait()
	})
}

func outcome(err error) string {
	var e *push.RefusedError
	if errors.As(err, &e) {
		return e.Outcome
	}
	return ""
}

func TestU07KeysAreForgottenAfterTwoMinutes(t *testing.T) {
	once(t, push.Options{}, func(t *testing.T, h *push.Hub, g *gatedLog) {
		close(g.pass)
		publish := func() push.Receipt {
			r, err := h.PublishOnce(t.Context(), "", "k", hello)
			if err != nil {
				t.Fatal(err)
			}
			return r[0]
		}
		publish()
		time.Sleep(2*time.Minute - time.Nanosecond)
		if r := publish(); !r.Duplicate || r.Offset != 1 {
			t.Errorf("just before: %+v", r)
		}
		time.Sleep(time.Nanosecond)
		if r := publish(); r.Duplicate || r.Offset != 2 {
			t.Errorf("after two minutes: %+v", r)
		}
	})
}

func TestU07RememberedKeysAreBounded(t *testing.T) {
	once(t, push.Options{MaxIdempotencyKeys: 5}, func(t *testing.T, h *push.Hub, g *gatedLog) {
		close(g.pass)
		batch := slices.Repeat(hello, 16) // weighs 3
		if _, err := h.PublishOnce(t.Context(), "", "batch", batch); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Second)
		for i := range 2 {
			if _, err := h.PublishOnce(t.Context(), "", fmt.Sprint(i), hello); err != nil {
				t.Fatal(err)
			}
		}
		_, err := h.PublishOnce(t.Context(), "", "one more", hello)
		var e *push.RefusedError
		if !errors.As(err, &e) || e.Status != 429 || e.RetryAfter != 30*time.Second {
			t.Errorf("over the limit: %+v", err)
		}
		if r, err := h.PublishOnce(t.Context(), "", "1", hello); err != nil || !r[0].Duplicate {
			t.Errorf("a retry at the limit: %v, %v", r, err)
		}
		if n := g.appends.Load(); n != 18 {
			t.Errorf("%d appends, want 18", n)
		}
		time.Sleep(30 * time.Second)
		for i := range 3 {
			if _, err := h.PublishOnce(t.Context(), "", fmt.Sprint("later", i), hello); err != nil {
				t.Errorf("after the batch was forgotten: %v", err)
			}
		}
	})
}

func TestU09RefusedPushIsNotRemembered(t *testing.T) {
	once(t, push.Options{}, func(t *testing.T, h *push.Hub, g *gatedLog) {
		g.pass <- io.ErrShortWrite
		if _, err := h.PublishOnce(t.Context(), "", "k", hello); outcome(err) != "rejected" {
			t.Errorf("got %v", err)
		}
		g.pass <- nil
		if r, err := h.PublishOnce(t.Context(), "", "k", hello); err != nil || r[0].Duplicate {
			t.Errorf("after a refusal: %v, %v", r, err)
		}
		bad := []push.Message{{App: "im", Member: push.Everybody}}
		if _, err := h.PublishOnce(t.Context(), "", "bad", bad); outcome(err) != "" || err == nil {
			t.Errorf("got %v", err)
		}
		g.pass <- nil
		if _, err := h.PublishOnce(t.Context(), "", "bad", hello); err != nil {
			t.Errorf("the key of a bad push is taken: %v", err)
		}
	})
}

// An unknown outcome stays one: a retry that published again could deliver twice.
func TestU08UnknownOutcomeIsRemembered(t *testing.T) {
	once(t, push.Options{}, func(t *testing.T, h *push.Hub, g *gatedLog) {
		g.pass <- push.ErrUnknownOutcome
		for range 3 {
			if _, err := h.PublishOnce(t.Context(), "", "k", hello); outcome(err) != "unknown" {
				t.Errorf("got %v", err)
			}
		}
		g.pass <- nil
		g.pass <- io.ErrShortWrite
		for range 3 { // a batch that failed in the middle
			r, err := h.PublishOnce(t.Context(), "", "batch", slices.Repeat(hello, 3))
			if err == nil || len(r) != 1 {
				t.Errorf("got %v, %v; want the receipt of the first and an error", r, err)
			}
		}
		if n := g.appends.Load(); n != 3 {
			t.Errorf("%d appends, want 3", n)
		}
	})
}

func BenchmarkPublishOnce(b *testing.B) {
	for _, c := range []struct {
		name string
		key  func(i int) string
	}{
		{"key=new", func(i int) string { return fmt.Sprint(i) }},
		{"key=same", func(int) string { return "same" }},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := push.NewHub(push.Options{MaxIdempotencyKeys: 1 << 40})
			defer h.Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := h.PublishOnce(b.Context(), "", c.key(i), hello); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
