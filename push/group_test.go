package push_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/stat"
)

// A grouped is an inbox that is delivered to together with others.
type grouped struct {
	inbox
	sizes chan int // how many at a time
}

func (g *grouped) DeliverAll(ds []push.Delivery) {
	g.sizes <- len(ds)
	for _, d := range ds {
		d.To.Deliver(d.Frame)
	}
}

// Whatever state the members of a group are in, each gets what it may see, once and in order.
func TestGroups(t *testing.T) {
	h := with(t, "apps: {}", func(o *push.Options) { o.Shards = 1 })
	app, _ := h.Lookup("match")
	sizes := make(chan int, 1000)
	marked := &push.Encoding{Op: push.OpText, Append: func(dst []byte, m *push.Message) []byte { return append(dst, m.Text+"!"...) }}
	var subs []*push.Subscription
	var all []*grouped
	for i := range 100 {
		opts := push.SubscribeOptions{Member: int64(1000 + i), Encoding: plain}
		if i%3 == 0 {
			opts.Encoding = marked
		}
		g := &grouped{sizes: sizes}
		s, _ := h.Subscribe(app, g, opts)
		if i%10 != 1 {
			s.Start()
		}
		subs, all = append(subs, s), append(all, g)
	}
	publish(t, h, "match", -1, "a")
	publish(t, h, "match", 1007, "mine")
	publish(t, h, "match", -1, "b")
	h.Flush()
	subs[5].Close()
	publish(t, h, "match", -1, "c")
	h.Flush()
	for i, g := range all {
		if i%10 == 1 {
			if got := g.texts(); got != "" {
				t.Errorf("subscriber %d has not started and got %q", i, got)
			}
			subs[i].Start()
		}
		want := []string{"a", "b", "c"}
		switch i {
		case 5:
			want = []string{"a", "b"}
		case 7:
			want = []string{"a", "mine", "b", "c"}
		}
		if i%3 == 0 {
			for j := range want {
				want[j] += "!"
			}
		}
		text := strings.Join(want, " ")
		if got := g.texts(); got != text {
			t.Errorf("subscriber %d got %q, want %q", i, got, text)
		}
	}
	close(sizes)
	most := 0
	for n := range sizes {
		most = max(most, n)
	}
	if most < 10 || most > 16 {
		t.Errorf("at most %d were delivered to at a time, want 10 to 16", most)
	}
}

// Private messages of one pass go to their members together, and to nobody else.
func TestPrivateGroups(t *testing.T) {
	h := with(t, "apps: {}", func(o *push.Options) { o.Shards = 1 })
	app, _ := h.Lookup("match")
	sizes := make(chan int, 100)
	const members = 16
	var all [members]*grouped
	var batch []push.Message
	for i := range all {
		all[i] = &grouped{sizes: sizes}
		s, _ := h.Subscribe(app, all[i], push.SubscribeOptions{Member: int64(1 + i), Encoding: plain})
		s.Start()
		batch = append(batch, push.Message{App: "match", Member: int64(1 + i), Text: fmt.Sprint("for ", 1+i)})
	}
	batch = append(batch, push.Message{App: "match", Member: 3, Text: "more"})
	if _, err := h.PublishBatch(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	h.Flush()
	for i, g := range all {
		want := fmt.Sprint("for ", 1+i)
		if i == 2 {
			want += " more"
		}
		if got := g.texts(); got != want {
			t.Errorf("member %d got %q, want %q", 1+i, got, want)
		}
	}
	var s stat.Snapshot
	if h.Fill(&s); s.Deliveries != members+1 {
		t.Errorf("%d deliveries are counted, want %d", s.Deliveries, members+1)
	}
	select {
	case n := <-sizes:
		if n != members-1 {
			t.Errorf("%d were delivered to at a time, want all but the one with two messages", n)
		}
	default:
		t.Error("nobody was delivered to together")
	}
}

// A subscriber that somebody else is talking to comes last in its group.
func TestGroupWaitsForNobody(t *testing.T) {
	h := with(t, "apps: {}", func(o *push.Options) { o.Shards = 1 })
	const n = 12
	var subs [n]*push.Subscription
	in := make(chan struct{}, 2*n)
	var all [n]*inbox
	for i := range all {
		subs[i], all[i] = subscribe(t, h, "match", int64(1+i), 0)
		all[i].in = in
		subs[i].Start()
	}
	busy, free, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(free) })
	defer release()
	go func() {
		defer close(done)
		subs[4].SetEncoding(plain, func(push.Position) { close(busy); <-free })
	}()
	<-busy
	publish(t, h, "match", -1, "x")
	for i := range n - 1 {
		select {
		case <-in:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of the others are kept waiting", n-1-i)
		}
	}
	release()
	<-done
	h.Flush()
	for i, r := range all {
		if got := r.texts(); got != "x" {
			t.Errorf("subscriber %d got %q, want one x", i, got)
		}
	}
	if len(in) != 1 {
		t.Errorf("%d deliveries to the busy one, want 1", len(in))
	}
}
