package dashboard_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"ws-gateway/server/servertest"
	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/stat"
)

// The panes of the page.
const (
	anonymous = "#anonymous"
	member    = "#member"
)

// connected waits until the client of a pane is connected.
func (b *browser) connected(pane string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector("%s .state").dataset.state === "connected"`, pane))
}

// subscribed connects both panes and has them subscribe to match.
func (b *browser) subscribed() {
	b.t.Helper()
	for _, pane := range []string{anonymous, member} {
		b.click(pane + " .link")
		b.connected(pane)
		b.click(pane + " .subscribe button")
		b.shows(pane+" .log", `subscribe match success`)
	}
}

// push pushes text to match with the form, to everybody or to one member.
func (b *browser) push(text, to, receipt string) {
	b.t.Helper()
	b.write(`#push [name="text"]`, text)
	b.write(`#push [name="member"]`, to)
	b.click("#push .main")
	b.shows("#receipt", receipt)
}

// times says how often the log of a pane has a text.
func (b *browser) times(pane, text string) int {
	b.t.Helper()
	return strings.Count(eval[string](b, fmt.Sprintf(`document.querySelector("%s .log").textContent`, pane)), text)
}

func TestFirstMessage(t *testing.T) {
	g := start(t)
	b := open(t, g.StatURL+"/")
	b.subscribed()
	for _, pane := range []string{anonymous, member} {
		b.shows(pane+" .log", `"member_id":`)
		if b.times(pane, `hello `) != 1 {
			t.Errorf("%s: the auth message is not answered once", pane)
		}
	}
	if n := b.times(member, string(auth.DemoToken)); n > 0 {
		t.Errorf("the log of the member shows its token")
	}

	b.push("for all of you", "", "202: offset 1, 2 subscribed here")
	for _, pane := range []string{anonymous, member} {
		b.shows(pane+" .log", `{"app":"match","member_id":-1,"text":"for all of you","offset":1,"prev":0}`)
		b.shows(pane+" .subscriptions", "match · 1")
	}
	b.push("for one of you", "123456", "202: offset 2, 1 subscribed here")
	b.shows(member+" .log", `{"app":"match","member_id":123456,"text":"for one of you","offset":2,"prev":0}`)
	b.push("the end", "", "202: offset 3")
	b.shows(anonymous+" .log", "the end")
	if b.times(anonymous, "for one of you") > 0 {
		t.Error("an anonymous client sees a member's message")
	}
	b.click(anonymous + " .subscriptions button")
	b.shows(anonymous+" .log", "unsubscribe match success")
	b.until(`document.querySelector("#anonymous .subscriptions").children.length === 0`)
}

// TestCurl does what the page says can be done in a terminal.
func TestCurl(t *testing.T) {
	g := start(t, keyed)
	b := open(t, g.StatURL+"/")
	b.subscribed()
	b.tolerate("status of 401")
	b.push(`it's "quoted" $HOME 中文`, "", "401: push key missing")
	b.write(`#push [name="key"]`, "0123456789abcdef")
	b.click("#push .main")
	b.shows("#receipt", "202: offset 1")
	b.shows(member+" .log", `it's \"quoted\" $HOME 中文","offset":1`)

	command := eval[string](b, `document.querySelector("#curl").textContent`)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", "exec "+strings.Replace(command, "curl", "curl -sS", 1)).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"offset":2`) {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	b.shows(member+" .log", `it's \"quoted\" $HOME 中文","offset":2`)

	b.do(chromedp.Click(chromedp.CSS("#copy")))
	b.until(`document.querySelector("#receipt").textContent === "Copied" || getSelection().toString() !== ""`)
}

func TestResume(t *testing.T) {
	clients, stats := servertest.FreeAddr(t), servertest.FreeAddr(t)
	at := func(o *servertest.Options) { o.Server.Addr, o.Server.StatAddrs = clients, []string{stats} }
	g := start(t, at)
	b := open(t, g.StatURL+"/")
	b.subscribed()
	b.push("before", "", "202: offset 1, 2 subscribed here")
	b.shows(member+" .log", "before")

	b.click(member + " .link")
	b.shows(member+" .log", "closed 1000")
	b.push("missed", "", "202: offset 2, 1 subscribed here")
	b.click(member + " .link")
	b.shows(member+" .log", `\"recovered\":true`)
	b.shows(member+" .log", `"text":"missed","offset":2`)

	// The gateway ends the link, and the client comes back by itself.
	if n := g.Sessions.Disconnect(auth.DemoMember, session.CloseSlow); n != 1 {
		t.Fatalf("%d sessions of the member", n)
	}
	g.Push(`{"app":"match","text":"missed again"}`)
	b.shows(member+" .log", `"text":"missed again","offset":3`)
	b.shows(member+" .log", "closed 4008")
	b.connected(member)
	if missed, before := b.times(member, `"missed"`), b.times(member, `"before"`); missed != 1 || before != 1 {
		t.Errorf("messages came %d and %d times, want once", missed, before)
	}
	if r := g.Metrics.Snapshot().Resumes; r.Recovered != 2 || r.Unrecovered != 0 {
		t.Errorf("resumes: %+v, want 2 recovered", r)
	}
}

// TestRestart is about a gateway that is gone, and comes back at the same addresses.
func TestRestart(t *testing.T) {
	clients, stats := servertest.FreeAddr(t), servertest.FreeAddr(t)
	at := func(o *servertest.Options) { o.Server.Addr, o.Server.StatAddrs = clients, []string{stats} }
	g := start(t, at)
	b := open(t, g.StatURL+"/")
	b.subscribed()
	b.push("before", "", "202: offset 1, 2 subscribed here")

	b.tolerate("net::ERR_")
	g.Stop()
	b.shows("#link", "no data")
	b.click("#push .main")
	b.shows("#receipt", "the gateway does not answer")
	start(t, at)
	b.until(`document.querySelector("#link").dataset.state === "live"`)
	for _, pane := range []string{anonymous, member} {
		b.connected(pane)
		b.shows(pane+" .log", `\"recovered\":false`)
		b.shows(pane+" .log", "match: what was missed is no longer there")
	}
	b.push("after", "", "2 subscribed here")
	b.shows(member+" .log", `"text":"after"`)
}

// A silverSmith gives members who know the demo's token the role silver.
type silverSmith struct{ auth.Demo }

func (s silverSmith) Authenticate(ctx context.Context, c session.Credentials) (session.Identity, error) {
	id, err := s.Demo.Authenticate(ctx, c)
	id.Roles = []string{"silver"}
	return id, err
}

func TestRefusalIsExplained(t *testing.T) {
	g := start(t, func(o *servertest.Options) { o.Session.Auth = silverSmith{} })
	b := open(t, g.StatURL+"/")
	b.subscribed()
	b.write(anonymous+` [name="app"]`, "im")
	b.click(anonymous + " .subscribe button")
	b.shows(anonymous+" .log", `\"code\":403,\"message\":\"subscribe im forbidden\"`)
	b.shows(anonymous+" .log", "rule im (apps.yaml:4:3), which names the app: subscribe lets in members; an anonymous client is none of them")
	if n := b.times(anonymous, "rule "); n != 1 {
		t.Errorf("%d explanations, want 1", n)
	}

	b.write(member+` .say [name="text"]`, "hi")
	b.click(member + " .say button")
	b.shows(member+" .log", "rule match (apps.yaml:3:3), which names the app: push lets in nobody")
	b.click(member + " .presence")
	b.shows(member+" .log", "presence is off")

	b.write(member+` [name="app"]`, "vip:1")
	b.click(member + " .subscribe button")
	b.shows(member+" .log", "rule vip:* (apps.yaml:6:3), the only pattern that matches: subscribe lets in role:gold; member 123456 (silver) is none of them")

	b.write(member+` .login [name="token"]`, "wrong")
	b.click(member + " .link") // disconnects
	b.shows(member+" .state", "not connected")
	b.click(member + " .link")
	b.shows(member+" .log", `\"code\":401,\"message\":\"unauthorized\"`)
}

func TestMembersTalk(t *testing.T) {
	g := start(t)
	b := open(t, g.StatURL+"/")
	b.write(member+` [name="app"]`, "room:7")
	b.click(member + ` [name="events"]`)
	b.click(member + " .subscribe button") // connects, too
	b.shows(member+" .log", "subscribe room:7 success")
	b.write(member+` .say [name="text"]`, "good morning")
	b.click(member + " .say button")
	b.shows(member+" .log", `"text":"good morning","from":123456`)
	b.click(member + " .presence")
	b.shows(member+" .log", `\"members\":[{\"member_id\":123456,\"connections\":1}]`)
}

// TestTenThousandApps is about the table: only the rows in sight exist.
func TestTenThousandApps(t *testing.T) {
	g := start(t)
	g.Metrics.AddSource(func(s *stat.Snapshot) {
		for i := range 10_000 {
			s.Apps = append(s.Apps, stat.App{Name: fmt.Sprintf("video:%d", i), Subscriptions: i % 977, Pushes: uint64(i)})
		}
	})
	b := open(t, g.StatURL+"/")
	eval[bool](b, `document.querySelector("#apps").scrollIntoView(), true`)
	b.until(`document.querySelector("#found").textContent === "10002"`)
	if first := eval[string](b, `document.querySelector("#rows tbody tr th").textContent`); first != "video:1953" && first != "video:976" {
		t.Errorf("the first of the busiest apps is %s", first)
	}
	const rows = `document.querySelectorAll("#rows tbody tr").length`
	if n := eval[int](b, rows); n < 10 || n > 60 {
		t.Errorf("%d rows exist", n)
	}
	b.until(`(document.querySelector("#rows").scrollTop = 5000 * 28, document.querySelector('#rows tbody tr[aria-rowindex="5005"]'))`)

	// Sorting by name, with the keyboard.
	b.do(chromedp.Focus(chromedp.CSS("#rows th:first-child button")), chromedp.KeyEvent("\r"))
	b.until(`document.querySelector("#rows thead th").getAttribute("aria-sort") === "ascending"`)
	b.write("#filter", "999")
	b.shows("#found", "19 of 10002")
	names := eval[[]string](b, `[...document.querySelectorAll("#rows tbody th")].map((th) => th.textContent)`)
	if len(names) != 19 || names[0] != "video:1999" || names[18] != "video:9999" {
		t.Errorf("999 finds %q", names)
	}
	b.write("#filter", "no such app")
	b.shows("#found", "0 of 10002")

	// What a key in the filter costs the page. The bound is what people notice, many times
	// what it takes.
	cost := eval[float64](b, `(() => {
		const filter = document.querySelector("#filter"), costs = []
		for (let i = 0; i < 21; i++) {
			filter.value = ["", "v", "vi", "video:", "9", "99"][i % 6]
			const start = performance.now()
			filter.dispatchEvent(new Event("input"))
			document.querySelector("#rows").getBoundingClientRect()
			costs.push(performance.now() - start)
		}
		return costs.sort((a, b) => a - b)[10]
	})()`)
	t.Logf("a key in the filter costs %.1f ms", cost)
	if cost > 100 {
		t.Errorf("a key in the filter costs %.1f ms", cost)
	}
}
