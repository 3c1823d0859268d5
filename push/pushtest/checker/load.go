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
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 10 * time.Second},
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
			if p.push(e, key) && key != "" {
				p.push(e, key) // a retry that nobody needed
			}
		})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// push pushes e once and notes the outcome. It reports whether it was accepted.
func (p *pusher) push(e Event, key string) (accepted bool) {
	body, _ := json.Marshal(map[string]any{"app": e.App, "member_id": e.Member, "text": e.Op})
	r, _ := http.NewRequest(http.MethodPost, "http://"+p.g.addr+"/push", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
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
	// A request with a key is sent again by net/http itself when its connection breaks: then
	// this may be the end of a second attempt.
	case errors.As(err, &refused) && refused.Op == "dial" && key == "":
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
	case bytes.Contains(answer, []byte(`"outcome":"unknown"`)):
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

	last    chan struct{} // asks for one more link that stays
	settled chan error

	at map[string]*position // by app; nil: never subscribed
}

type position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

func newClient(g *gateway, h *History, o Options, i int) *client {
	c := &client{
		g: g, h: h, o: o, name: fmt.Sprint("client ", i), member: 1 + int64(i%members),
		rng: rand.New(rand.NewPCG(o.Seed, uint64(2000+i))), at: map[string]*position{},
		last: make(chan struct{}), settled: make(chan error, 1),
	}
	for n := range topics {
		if n != i%topics { // all but one
			c.apps = append(c.apps, topic(n))
		}
	}
	return c
}

// run comes and goes until load ends, then stays until watch does.
func (c *client) run(load, watch context.Context) {
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
	case <-c.last:
	case <-watch.Done():
		return
	}
	stay, cancel := context.WithTimeout(watch, 3*time.Second)
	defer cancel()
	err := c.visit(stay, false)
	if stay.Err() == nil {
		c.settled <- fmt.Errorf("%s was not let stay at the end: %w", c.name, err)
		return
	}
	c.settled <- nil
}

// settle has the client come back once more, to collect what it missed.
func (c *client) settle(ctx context.Context) error {
	select {
	case c.last <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-c.settled:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// visit connects, subscribes where it was, and receives until ctx ends. A lazy visitor does
// not read for a while.
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
	return nil
}

// readWindows has somebody who was never there read all that the logs hold.
func readWindows(ctx context.Context, g *gateway, h *History, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
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
