package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/sessiontest"
)

// clerk knows the tokens of PROTOCOL.md.
type clerk struct{}

func (clerk) Quick(session.Credentials) bool { return true }

func (clerk) Authenticate(_ context.Context, c session.Credentials) (session.Identity, error) {
	switch fmt.Sprint(c.Member, " ", string(c.Token)) {
	case "123456 654321", "7 7":
		return session.Identity{}, nil
	case "7 a minute":
		return session.Identity{Expires: time.Now().Add(time.Minute)}, nil
	case "123456 ask later":
		return session.Identity{}, errors.New("not now")
	}
	return session.Identity{}, session.ErrUnauthorized
}

// random is what differs each time.
var random = regexp.MustCompile(`in \d+ s$`)

// An exchange is played by its clients against one gateway.
type exchange struct {
	*world
	clients map[string]*sessiontest.Pipe
	unread  map[string][]sessiontest.Message
}

func (e *exchange) client(name string) *sessiontest.Pipe {
	if e.clients[name] == nil {
		e.clients[name] = e.dial("")
	}
	return e.clients[name]
}

// heard returns what a client has received and the exchange did not show yet.
func (e *exchange) heard(name string) []sessiontest.Message {
	e.hub.Flush()
	synctest.Wait()
	e.unread[name] = append(e.unread[name], e.client(name).Unread()...)
	return e.unread[name]
}

func (e *exchange) play(line, epoch string) {
	t := e.t
	t.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	name := strings.TrimRight(verb, "><x")
	switch strings.TrimPrefix(verb, name) {
	case ">":
		if left := e.heard(name); len(left) > 0 {
			t.Errorf("before %s the gateway says %s", line, left[0].Text)
		}
		e.client(name).Receive(strings.ReplaceAll(rest, "5CZXGY2IQA", epoch))
	case "<":
		heard := e.heard(name)
		if len(heard) == 0 {
			t.Fatalf("the gateway does not say %s", line)
		}
		if got := strings.ReplaceAll(heard[0].Text, epoch, "5CZXGY2IQA"); got != rest {
			t.Errorf("got  %s\nwant %s", got, rest)
		}
		e.unread[name] = heard[1:]
	case "x":
		code, reason := e.client(name).Wait()
		if got := random.ReplaceAllString(fmt.Sprintf("%d %s", code, reason), "in 5 s"); got != rest {
			t.Errorf("closed with %s, want %s", got, rest)
		}
	default:
		e.aside(verb, rest)
	}
}

// aside plays what no client does.
func (e *exchange) aside(verb, rest string) {
	e.t.Helper()
	switch verb {
	case "*":
		m := struct {
			App, Text string
			Member    int64 `json:"member_id"`
		}{Member: push.Everybody}
		if err := json.Unmarshal([]byte(rest), &m); err != nil {
			e.t.Fatal(err)
		}
		e.push(push.Message{App: m.App, Member: m.Member, Text: m.Text})
	case "...":
		d, err := time.ParseDuration(rest)
		if err != nil {
			e.t.Fatal(err)
		}
		time.Sleep(d)
	default:
		e.t.Fatalf("nobody knows how to play %s %s", verb, rest)
	}
}

func TestProtocolDocument(t *testing.T) {
	doc, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	file := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(doc)
	rules, err := apps.Parse("apps.yaml", file[1])
	if err != nil {
		t.Fatal(err)
	}
	played := 0
	for _, section := range regexp.MustCompile(`(?m)^## `).Split(string(doc), -1) {
		title, text, _ := strings.Cut(section, "\n")
		for i, block := range regexp.MustCompile("(?s)```frames\n(.*?)```").FindAllStringSubmatch(text, -1) {
			played++
			t.Run(fmt.Sprint(title, " ", i+1), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := &exchange{
						world:   worldOf(t, rules, func(o *session.Options) { o.Auth = clerk{} }),
						clients: map[string]*sessiontest.Pipe{}, unread: map[string][]sessiontest.Message{},
					}
					_, at := e.hub.Subscribe(&apps.App{Name: "probe"}, nil, push.SubscribeOptions{})
					lines := strings.Split(strings.TrimSpace(block[1]), "\n")
					if title != "Who it is" {
						e.client("").Receive(`{"member_id":123456,"token":"654321"}`)
						e.client("").Unread()
					} else {
						e.client("")
					}
					for _, line := range lines {
						e.play(line, at.Epoch)
					}
					for name := range e.clients {
						if left := e.heard(name); len(left) > 0 {
							t.Errorf("in the end the gateway says %s", left[0].Text)
						}
					}
				})
			})
		}
	}
	if played < 15 {
		t.Errorf("only %d exchanges were found", played)
	}
}

// The table of close codes is that of the code, but for those that are never sent.
func TestProtocolDocumentCloseCodes(t *testing.T) {
	doc, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[int]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d{4}) \| ([^|]+) \| (yes|no) \|`).FindAllStringSubmatch(string(doc), -1) {
		var code int
		fmt.Sscan(m[1], &code)
		rows[code] = m[2] + ", " + m[3]
	}
	for n := range 5000 {
		c, want := session.CloseCode(n), ""
		if c.Reason() != "" && c != session.CloseNoStatus && c != session.CloseAbnormal {
			want = c.Reason() + map[bool]string{true: ", yes", false: ", no"}[c.Reconnect()]
		}
		if rows[n] != want {
			t.Errorf("PROTOCOL.md has %q for %d, want %q", rows[n], n, want)
		}
	}
}
