package pushtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"ws-gateway/apps"
	"ws-gateway/push"
)

// TestPresence checks that what open returns is a [push.Presence]. Each call of open must
// return an empty one; settle must return once what was done has had its effect everywhere.
func TestPresence(t *testing.T, open func(t *testing.T) push.Presence, settle func()) {
	const app = "room:7"
	members := func(t *testing.T, p push.Presence, limit int) string {
		t.Helper()
		settle()
		a, err := p.Members(t.Context(), app, limit)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(a)
	}
	// watch returns what was told of app so far, in words.
	watch := func(p push.Presence) (told func() []string, stop func()) {
		var mu sync.Mutex
		var events []string
		stop = p.Watch(func(e push.Event) {
			mu.Lock()
			defer mu.Unlock()
			word := "leave"
			if e.Joined {
				word = "join"
			}
			events = append(events, fmt.Sprint(word, " ", e.App, " ", e.Member))
		})
		return func() []string {
			settle()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(events)
		}, stop
	}

	t.Run("members and connections", func(t *testing.T) {
		p := open(t)
		want := func(step, want string) {
			t.Helper()
			if got := members(t, p, 0); got != want {
				t.Errorf("%s: %s, want %s", step, got, want)
			}
		}
		want("nobody", "{[] 0 0}")
		p.Join(app, 43)
		p.Join(app, 42)
		p.Join(app, 42)
		p.Join(app, apps.Anonymous)
		p.Join(app, apps.Anonymous)
		p.Join("room:8", 42)
		want("four and one elsewhere", "{[{42 2} {43 1}] 0 2}")
		p.Leave(app, 42)
		p.Leave(app, apps.Anonymous)
		want("one connection each left", "{[{42 1} {43 1}] 0 1}")
		p.Leave(app, 42)
		p.Leave(app, apps.Anonymous)
		want("they are gone", "{[{43 1}] 0 0}")
		p.Leave(app, 43)
		want("all are", "{[] 0 0}")
	})

	t.Run("limit", func(t *testing.T) {
		p := open(t)
		for m := range int64(10) {
			p.Join(app, m+1)
		}
		settle()
		for limit, shown := range map[int]int{0: 10, 1: 1, 9: 9, 10: 10, 11: 10} {
			a, err := p.Members(t.Context(), app, limit)
			if err != nil || len(a.Members) != shown || a.Omitted != 10-shown {
				t.Errorf("limit %d: %d shown, %d omitted, %v", limit, len(a.Members), a.Omitted, err)
			}
			if !slices.IsSortedFunc(a.Members, func(x, y push.Attendant) int { return int(x.Member - y.Member) }) {
				t.Errorf("not by id: %v", a.Members)
			}
		}
	})

	t.Run("events", func(t *testing.T) {
		p := open(t)
		told, stop := watch(p)
		p.Join(app, 42)
		p.Join(app, 42) // the same member: no news
		p.Join(app, apps.Anonymous)
		p.Leave(app, 42)
		p.Leave(app, apps.Anonymous)
		p.Join("room:8", 42)
		p.Leave(app, 42)
		p.Join(app, 42)
		want := []string{"join room:7 42", "join room:8 42", "leave room:7 42", "join room:7 42"}
		if got := told(); !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		stop()
		p.Leave(app, 42)
		if got := told(); len(got) != len(want) {
			t.Errorf("told %q after stop", got[len(want):])
		}
	})

	t.Run("events of one member alternate, whoever it is", func(t *testing.T) {
		p := open(t)
		told, stop := watch(p)
		defer stop()
		var wg sync.WaitGroup
		for c := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(c), 0))
				for range 300 {
					m := r.Int64N(3) + 1
					p.Join(app, m)
					if _, err := p.Members(t.Context(), app, 2); err != nil {
						t.Error(err)
					}
					p.Leave(app, m)
				}
			})
		}
		wg.Wait()
		in := map[string]bool{}
		for _, e := range told() {
			var word, room, member string
			if _, err := fmt.Sscan(e, &word, &room, &member); err != nil {
				t.Fatal(err)
			}
			if in[member] == (word == "join") {
				t.Fatalf("member %s: two events of %s in a row", member, word)
			}
			in[member] = word == "join"
		}
		for m, there := range in {
			if there {
				t.Errorf("member %s never left", m)
			}
		}
		if got := members(t, p, 0); got != "{[] 0 0}" {
			t.Errorf("in the end: %s", got)
		}
	})
}
