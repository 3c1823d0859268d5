//go:build unix

package checker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// A pusher is a backend.
type pusher struct {
	g    *gateway
	h    *History
	o    Options
	name string
	rng  *rand.Rand
	http *http.Client
}

func newPusher(g *gateway, h *History, o Options, i int) *pusher {
	return &pusher{
		g: g, h: h, o: o, name: fmt.Sprint("pusher ", i),
		rng:  rand.New(rand.NewPCG(o.Seed, uint64(1000+i))),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: o.Patience},
	}
}

// run pushes until ctx ends. Half of the pushers wait for each answer, the others have a few
// pushes under way.
func (p *pusher) run(ctx context.Context) {
	defer p.http.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, 1+p.rng.IntN(2)*3)
	for n := 0; ctx.Err() == nil; n++ {
		e := Event{Who: p.name, App: topic(p.rng.IntN(topics)), Member: -1, Op: fmt.Sprint(p.name, "/", n)}
		if p.rng.IntN(5) == 0 {
			e.Member = 1 + p.rng.Int64N(members)
		}
		key := ""
		if p.rng.IntN(10) == 0 {
			key = e.Op
		}
		pause := time.Duration(p.rng.Int64N(int64(20 * time.Millisecond)))
		e.Kind = Pushed
		p.h.Add(e)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if p.push(e, key, false) && key != "" {
				p.push(e, key, true) // nobody needed it
			}
		})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// lastOf is the text of the last message of an app.
func lastOf(app string) string { return "the last of " + app }

// finish pushes the last message of every app.
func (p *pusher) finish() error {
	defer p.http.CloseIdleConnections()
	for n := range topics {
		e := Event{Kind: Pushed, Who: p.name, App: topic(n), Member: -1, Op: lastOf(topic(n))}
		p.h.Add(e)
		if !p.push(e, "", false) {
			return fmt.Errorf("%s was not accepted", e.Op)
		}
	}
	return nil
}

// push pushes e once and notes the outcome. It reports whether it was accepted. What becomes of
// a retry says nothing about e, unless it is accepted.
func (p *pusher) push(e Event, key string, retry bool) (accepted bool) {
	body, _ := json.Marshal(map[string]any{"app": e.App, "member_id": e.Member, "text": e.Op})
	r, _ := http.NewRequest(http.MethodPost, "http://"+p.g.addr+"/push", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
		r.GetBody = nil // or net/http would send it again by itself, and hide what became of the first
	}
	if p.o.Tamper != nil {
		p.o.Tamper.Send(r)
	}
	resp, err := p.http.Do(r)
	var answer []byte
	if err == nil {
		answer, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	var refused *net.OpError
	switch {
	case errors.As(err, &refused) && refused.Op == "dial" && !retry:
		e.Kind = Refused
	case err != nil:
		e.Kind, e.Note = Unknown, err.Error()
	case resp.StatusCode == http.StatusAccepted:
		if p.o.Tamper != nil {
			answer = p.o.Tamper.Answer(answer)
		}
		var receipt struct {
			Epoch  string
			Offset uint64
		}
		if err := json.Unmarshal(answer, &receipt); err != nil {
			e.Kind, e.Note = Unknown, err.Error()
			break
		}
		e.Kind, e.Epoch, e.Offset = Accepted, receipt.Epoch, receipt.Offset
	case retry || bytes.Contains(answer, []byte(`"outcome":"unknown"`)):
		e.Kind = Unknown
	default:
		e.Kind, e.Note = Refused, string(answer)
	}
	p.h.Add(e)
	return e.Kind == Accepted
}

// A client is a subscriber who comes and goes.
type client struct {
	g      *gateway
	h      *History
	o      Options
	name   string
	member int64
	rng    *rand.Rand
	apps   []string

	back    chan struct{} // closed when it is to come back once more
	joined  chan struct{} // closed when it has, and is subscribed to all apps
	settled chan struct{} // closed when it has all that there is
	err     error         // why it could not; of whoever has seen settled closed

	at map[string]*position // by app; nil: never subscribed
	// The apps without a reply yet, and those whose last message has not come; nil before it
	// is to come back.
	unanswered, unfinished map[string]bool
}

type position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

func newClient(g *gateway, h *History, o Options, i int) *client {
	c := &client{
		g: g, h: h, o: o, name: fmt.Sprint("client ", i), member: 1 + int64(i%members),
		rng: rand.New(rand.NewPCG(o.Seed, uint64(2000+i))), at: map[string]*position{},
		back: make(chan struct{}), joined: make(chan struct{}), settled: make(chan struct{}),
	}
	for n := range topics {
		if n != i%topics { // all but one
			c.apps = append(c.apps, topic(n))
		}
	}
	return c
}

// run comes and goes until load ends, then comes back when it is to, unless watch ends before.
func (c *client) run(load, watch context.Context) {
	defer close(c.settled)
	for load.Err() == nil {
		stay, cancel := context.WithTimeout(load, 200*time.Millisecond+time.Duration(c.rng.Int64N(int64(3*time.Second))))
		_ = c.visit(stay, c.rng.IntN(8) == 0)
		cancel()
		if watch.Err() != nil {
			return
		}
		select {
		case <-time.After(time.Duration(c.rng.Int64N(int64(500 * time.Millisecond)))):
		case <-load.Done():
		}
	}
	select {
	case <-c.back:
	case <-watch.Done():
		return
	}
	c.unanswered, c.unfinished = map[string]bool{}, map[string]bool{}
	for _, app := range c.apps {
		c.unanswered[app], c.unfinished[app] = true, true
	}
	stay, cancel := context.WithTimeout(watch, c.o.Patience)
	defer cancel()
	if err := c.visit(stay, false); err != nil && stay.Err() == nil {
		c.err = fmt.Errorf("%s was not let stay at the end: %w", c.name, err)
	} // else Judge says what did not come
}

// wait waits until stage is closed, or the client is through with all.
func (c *client) wait(ctx context.Context, stage <-chan struct{}) error {
	select {
	case <-stage:
		return nil
	case <-c.settled:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// visit connects, subscribes where it was, and receives until ctx ends, or until everything
// has come if it is the last time. A lazy visitor does not read for a while.
func (c *client) visit(ctx context.Context, lazy bool) error {
	ws, _, err := websocket.Dial(ctx, "ws://"+c.g.addr+"/", nil)
	if err != nil {
		return err
	}
	defer ws.CloseNow()
	ws.SetReadLimit(1 << 20)
	send := func(v any) error {
		b, _ := json.Marshal(v)
		return ws.Write(ctx, websocket.MessageText, b)
	}
	if err := send(map[string]any{"member_id": c.member, "token": token(c.member)}); err != nil {
		return err
	}
	for _, app := range c.apps {
		if err := send(map[string]any{"app": app, "position": c.at[app]}); err != nil {
			return err
		}
	}
	if lazy {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	for {
		_, frame, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		frames := [][]byte{frame}
		if c.o.Tamper != nil {
			frames = c.o.Tamper.Receive(c.name, frame)
		}
		for _, f := range frames {
			if err := c.receive(f); err != nil {
				return err
			}
		}
		if c.unfinished != nil && len(c.unfinished) == 0 {
			return nil
		}
	}
}

// receive notes what frame says.
func (c *client) receive(frame []byte) error {
	var m struct {
		App, Text    string
		Offset, Prev uint64
	}
	if err := json.Unmarshal(frame, &m); err != nil {
		return err
	}
	if m.App != "gateway" {
		at := c.at[m.App]
		if at == nil {
			at = new(position)
			c.at[m.App] = at
		}
		c.h.Add(Event{Kind: Received, Who: c.name, Member: c.member, App: m.App, Op: m.Text, Epoch: at.Epoch, Offset: m.Offset, Prev: m.Prev})
		c.at[m.App] = &position{at.Epoch, m.Offset}
		if m.Text == lastOf(m.App) {
			delete(c.unfinished, m.App)
		}
		return nil
	}
	var reply struct {
		Code      int
		Message   string
		Position  *position
		Recovered *bool
	}
	if err := json.Unmarshal([]byte(m.Text), &reply); err != nil {
		return err
	}
	var app string
	if _, err := fmt.Sscanf(reply.Message, "subscribe %s success", &app); err != nil || reply.Position == nil {
		if reply.Code != http.StatusOK {
			return fmt.Errorf("answered %d %s", reply.Code, reply.Message)
		}
		return nil
	}
	e := Event{Kind: Joined, Who: c.name, Member: c.member, App: app, Epoch: reply.Position.Epoch, Offset: reply.Position.Offset}
	if reply.Recovered != nil && *reply.Recovered {
		e.Kind, e.Epoch, e.Offset = Resumed, c.at[app].Epoch, c.at[app].Offset
	} else {
		if reply.Recovered != nil {
			e.Kind = Unresumed
		}
		c.at[app] = reply.Position
	}
	c.h.Add(e)
	if delete(c.unanswered, app); c.unanswered != nil && len(c.unanswered) == 0 {
		c.unanswered = nil
		close(c.joined)
	}
	return nil
}

// readWindows has somebody who was never there read all that the logs hold.
func readWindows(ctx context.Context, g *gateway, h *History, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, o.Patience)
	defer cancel()
	for n := range topics {
		after := uint64(0)
		for more := true; more; {
			r, _ := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/history?app=%s&after=%d&limit=500", g.addr, topic(n), after), nil)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				return err
			}
			var page struct {
				Position position
				Messages []struct {
					Offset uint64
					Text   string
				}
			}
			err = json.NewDecoder(resp.Body).Decode(&page)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusOK {
				return fmt.Errorf("read the log of %s: %d, %w", topic(n), resp.StatusCode, err)
			}
			for _, m := range page.Messages {
				h.Add(Event{Kind: Window, App: topic(n), Epoch: page.Position.Epoch, Offset: m.Offset, Op: m.Text})
				after = m.Offset
			}
			more = len(page.Messages) > 0
		}
	}
	return nil
}
