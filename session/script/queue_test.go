package script_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"ws-gateway/push"
	"ws-gateway/server/servertest"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/session/script"
	"ws-gateway/session/sessiontest"
)

// A consumer that reads gets a backlog of any size, however little may wait for one connection.
func TestQueueBacklog(t *testing.T) {
	const jobs, batch = 2000, 100
	for _, mode := range []string{transport.ModeAuto, transport.ModeGoroutine} {
		t.Run(mode, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/door.lua", fmt.Sprintf(`function on_message(msg)
				local err
				for i = 1, %d do _, err = mix.queue.push("jobs", msg.data .. i .. (" "):rep(8000)) end
				mix.websocket():send(tostring(err))
			end`, batch))
			g := servertest.Start(t, func(o *servertest.Options) {
				o.Doors = map[string]string{"/door": dir + "/door.lua"}
				o.Script.Timeout = 10 * time.Second
				o.Transport = transport.Options{Mode: mode, QueueBytes: 4 << 10}
			})
			door := g.Dial("/door")
			fill := func() {
				for i := range jobs / batch {
					door.Send(fmt.Sprint(i, " "))
					door.Want("nil")
				}
			}
			link := g.Dial("/ws/v1")
			read := func() {
				t.Helper()
				for i := range jobs {
					want := fmt.Sprintf(`"t":"jobs","d":"%d %d `, i/batch, i%batch+1)
					if got := link.Next(); !strings.Contains(got, want) {
						t.Fatalf("job %d: %.80s, want %s", i, got, want)
					}
				}
			}
			fill()
			link.Send(`{"m":"queue.pop","p":{"t":["jobs"]},"i":1}`)
			link.Want(`{"E":null,"r":{"s":true},"i":1}`)
			read()
			fill() // nothing is read meanwhile
			read()
		})
	}
}

// A sipper is a link whose socket takes as many frames as the test lets it.
type sipper struct {
	*sessiontest.Pipe
	room int // frames that the socket takes
	held []*push.Frame
	then []func()
}

func (p *sipper) Send(f *push.Frame) error {
	p.held = append(p.held, f)
	p.take(0)
	return nil
}

func (p *sipper) Queued() int               { return len(p.held) }
func (p *sipper) Unsent(f *push.Frame) bool { return slices.Contains(p.held, f) }
func (p *sipper) Drained(f func())          { p.then = append(p.then, f) }

// take makes room for n frames more.
func (p *sipper) take(n int) {
	for p.room += n; len(p.held) > 0 && p.room > 0; p.room-- {
		p.Pipe.Send(p.held[0])
		p.held = p.held[1:]
	}
	if len(p.held) == 0 {
		then := p.then
		p.then = nil
		for _, f := range then {
			f()
		}
	}
}

// sip opens a link that pops jobs and has room for n of them.
func (f *fixture) sip(n int) *sipper {
	f.t.Helper()
	p := &sipper{Pipe: sessiontest.NewPipe(f.t), room: n + 1}
	r := httptest.NewRequest("GET", "http://127.0.0.1:5000/ws/v1", nil)
	r.RemoteAddr = "127.0.0.1:4000"
	p.Attach(script.NewMesh(f.host, nil).Link(p, r))
	f.t.Cleanup(func() { p.Hangup(session.CloseNormal) })
	p.Receive(`{"m":"queue.pop","p":{"t":["jobs"]},"i":1}`)
	if got, want := p.Next(), `{"E":null,"r":{"s":true},"i":1}`; got != want {
		f.t.Fatalf("pop: %s, want %s", got, want)
	}
	return p
}

// want fails the test unless these jobs are all that has come.
func (p *sipper) want(t *testing.T, jobs ...string) {
	t.Helper()
	var got []string
	for _, m := range p.Unread() {
		_, job, _ := strings.Cut(m.Text, `"d":"`)
		got = append(got, strings.TrimSuffix(job, `"},"id":null}`))
	}
	if !slices.Equal(got, jobs) {
		t.Errorf("a link got %q, want %q", got, jobs)
	}
}

// A link is given more when its socket has taken what it was given. What a socket has not
// taken when its link ends goes to others, in its place.
func TestQueueWaitsForSockets(t *testing.T) {
	f := start(t, `function on_message(msg) mix.websocket():send(tostring(mix.queue.push("jobs", msg.data))) end`, script.Options{})
	door := f.connect()
	push := func(job, waiting string) {
		t.Helper()
		door.Receive(job)
		if got := door.Next(); got != waiting {
			t.Errorf("with job %s %s wait, want %s", job, got, waiting)
		}
	}
	for i := range 6 {
		push(fmt.Sprint(i+1), fmt.Sprint(i+1))
	}
	a := f.sip(2) // and 3 is under way
	a.want(t, "1", "2")
	b := f.sip(1) // and 5 is under way
	b.want(t, "4")
	push("7", "2") // behind 6
	a.Hangup(session.CloseAbnormal)
	b.Hangup(session.CloseAbnormal)
	c := f.sip(1)
	c.want(t, "3") // and 5 is under way
	c.take(1)
	c.want(t, "5")
	c.Receive("ping") // waits behind 6
	c.take(1)
	c.want(t, "6")
	c.Hangup(session.CloseAbnormal) // which has 6
	d := f.sip(9)
	d.want(t, "7")
	push("8", "0")
	d.want(t, "8")
}
