package dashboard_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long the page may take for one step. Nothing waits for it unless it fails.
const patience = time.Minute

// A browser is one tab of Chromium, which fails the test for what it complains of.
type browser struct {
	t     *testing.T
	ctx   context.Context
	heard chan struct{} // closed when the tab is gone

	mu         sync.Mutex
	complaints []string // guarded by mu
	tolerated  string   // "": nothing; guarded by mu
}

// open starts Chromium, whose user prefers English and light colours, and opens url in it.
func open(t *testing.T, url string) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("these tests need Chromium: make tools installs it, or apt-get install chromium")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(program), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1440, 1000),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(patience),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	b := &browser{t: t, ctx: ctx, heard: make(chan struct{})}
	messages := chromedp.Console(ctx)
	go b.hear(messages)
	t.Cleanup(func() {
		if t.Failed() {
			b.describe()
		}
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("end Chromium: %v", err)
		}
		cancel()
		stop()
		<-b.heard
		for _, c := range b.complaints {
			t.Errorf("the browser complains: %s", c)
		}
	})
	call(b, emulation.SetLocaleOverride, emulation.SetLocaleOverrideParams{Locale: "en-US"})
	b.prefers("light")
	b.do(chromedp.Navigate(url))
	b.ready()
	return b
}

// ready waits until the page is complete and shows numbers.
func (b *browser) ready() {
	b.t.Helper()
	b.until(`document.querySelector("#member") && document.querySelector("#link").dataset.state === "live"`)
}

// hear notes the errors of the page, of its scripts and of its Content-Security-Policy.
func (b *browser) hear(messages iter.Seq2[chromedp.ConsoleMessage, error]) {
	defer close(b.heard)
	for m, err := range messages {
		if err != nil {
			return
		}
		b.mu.Lock()
		expected := b.tolerated != "" && strings.Contains(m.Text, b.tolerated)
		if m.IsException() || m.Type == "error" || m.Type == "warning" {
			if !expected {
				b.complaints = append(b.complaints, fmt.Sprintf("%s %s: %s (%s)", m.Source, m.Type, m.Text, m.URL))
			}
		}
		b.mu.Unlock()
	}
}

// tolerate takes complaints with the text for no fault from now on.
func (b *browser) tolerate(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tolerated = text
}

// call calls a command of the DevTools protocol that has no action.
func call[P, R any](b *browser, command cdp.Command[P, R], params P) {
	b.t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		b.t.Fatal(err)
	}
}

// prefers sets the colours that the user prefers: light or dark.
func (b *browser) prefers(colours string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: colours}},
	})
}

// do does actions in order.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// until waits until a JavaScript expression is true.
func (b *browser) until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool]("Boolean("+expression+")", chromedp.WithPollingTimeout(0))); err != nil {
		b.t.Fatalf("wait for %s: %v", expression, err)
	}
}

// shows waits until the element has the text.
func (b *browser) shows(selector, text string) {
	b.t.Helper()
	quoted, _ := json.Marshal(text)
	b.until(fmt.Sprintf(`(document.querySelector(%q)?.textContent ?? "").includes(%s)`, selector, quoted))
}

// eval returns what a JavaScript expression, which may be a promise, comes to.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return v
}

// write replaces the text of an input.
func (b *browser) write(selector, text string) {
	b.t.Helper()
	eval[any](b, fmt.Sprintf(`document.querySelector(%q).select()`, selector))
	b.do(chromedp.SendKeys(chromedp.CSS(selector), cmp.Or(text, kb.Backspace)))
}

// choose picks an option of a select.
func (b *browser) choose(selector, value string) {
	b.t.Helper()
	b.do(chromedp.SetValue(chromedp.CSS(selector), value))
	eval[bool](b, fmt.Sprintf(`document.querySelector(%q).dispatchEvent(new Event("change"))`, selector))
}

// click clicks on what the selector finds first.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

// screenshot returns what is in sight, as PNG.
func (b *browser) screenshot() []byte {
	b.t.Helper()
	png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	return png
}

// describe logs what the page looked like.
func (b *browser) describe() {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText")); err == nil {
		b.t.Logf("the page at the end:\n%s", text)
	}
}
