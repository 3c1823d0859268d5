package dashboard_test

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"ws-gateway/server/servertest"
)

var (
	update = flag.Bool("update", false, "make screenshot.png anew, from a minute of traffic")
	shots  = flag.String("shots", "", "the `folder` where to keep the screenshots")
)

// axe is axe-core 4.14.1; its licence is beside it.
//
//go:embed testdata/axe.js
var axe string

// faults returns what axe finds serious or worse about the page as it is.
func (b *browser) faults() []string {
	b.t.Helper()
	return eval[[]string](b, `axe.run().then(({violations}) => violations
		.filter((v) => v.impact === "serious" || v.impact === "critical")
		.map((v) => v.impact + " " + v.id + ": " + v.nodes.map((n) => n.html + " " + n.failureSummary).join("; ")))`)
}

// background returns the colour of the page's corner and keeps the screenshot.
func (b *browser) background(name string) color.NRGBA {
	b.t.Helper()
	data := b.screenshot()
	dir := *shots
	if dir == "" {
		dir = b.t.TempDir()
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	return color.NRGBAModel.Convert(img.At(2, img.Bounds().Max.Y-2)).(color.NRGBA)
}

// glyphs returns how many different pictures the fonts here have of a blank, of what no font
// has, and of four Chinese characters.
func (b *browser) glyphs() int {
	b.t.Helper()
	return eval[int](b, `new Set([..." \u{10FFFF}中文推送"].map((c) => {
		const pen = Object.assign(document.createElement("canvas"), {width: 40, height: 40}).getContext("2d")
		pen.font = "32px " + getComputedStyle(document.body).fontFamily
		pen.fillText(c, 4, 32)
		return pen.canvas.toDataURL()
	})).size`)
}

// TestLooks shows the page in each language, theme and size that it is made for.
func TestLooks(t *testing.T) {
	g := start(t)
	b := open(t, g.StatURL+"/")
	if n := b.glyphs(); n != 6 {
		t.Fatalf("the fonts here make %d pictures of 6 characters: install one that has Chinese, as make tools does", n)
	}
	b.subscribed()
	b.push("hello", "", "2 subscribed here")
	b.write(anonymous+` [name="app"]`, "im")
	b.click(anonymous + " .subscribe button")
	b.shows(anonymous+" .log", "rule im")
	eval[bool](b, axe+"; true")
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"desk", 1440, 900}, {"phone", 375, 812}} {
		b.do(chromedp.EmulateViewport(size.width, size.height))
		for _, language := range []string{"en", "zh"} {
			b.choose("#language", language)
			title := map[string]string{"en": "Push a message", "zh": "推送一条消息"}[language]
			b.shows("#push-title", title)
			b.shows(`[data-chart="sessions"] h3`, map[string]string{"en": "Sessions", "zh": "会话"}[language])
			b.shows(`[data-chart="sessions"] output`, "2")
			b.shows("#node", map[string]string{"en": "test · up 0:00:", "zh": "test · 已运行 0:00:"}[language])
			b.shows("#receipt", map[string]string{"en": "offset 1, 2 subscribed", "zh": "位置 1，本机 2 个订阅"}[language])
			for _, theme := range []string{"light", "dark"} {
				b.choose("#theme", theme)
				name := strings.Join([]string{size.name, language, theme}, "-")
				eval[bool](b, `scrollTo({top: 0, behavior: "instant"}), true`)
				if c := b.background(name); (c.R < 128) != (theme == "dark") {
					t.Errorf("%s: the background is %v", name, c)
				}
				if wide := eval[int64](b, `document.documentElement.scrollWidth`); wide > size.width {
					t.Errorf("%s: the page is %d wide", name, wide)
				}
				for _, fault := range b.faults() {
					t.Errorf("%s: %s", name, fault)
				}
			}
		}
	}
	if untold := eval[[]string](b, `[...document.querySelectorAll("[data-t]")].filter((e) => !e.textContent.trim()).map((e) => e.dataset.t)`); len(untold) > 0 {
		t.Errorf("no words for %q", untold)
	}

	// What was chosen is there at the next visit.
	b.do(chromedp.Reload())
	b.ready()
	b.shows("#push-title", "推送一条消息")
	if got := eval[string](b, `document.documentElement.dataset.theme + " " + document.documentElement.lang`); got != "dark zh-CN" {
		t.Errorf("after a reload the page is %s", got)
	}
	// Without a choice the system's counts.
	b.choose("#theme", "auto")
	b.prefers("dark")
	if c := b.background("system-dark"); c.R > 128 {
		t.Errorf("with a dark system the background is %v", c)
	}
	b.prefers("light")
	if c := b.background("system-light"); c.R < 128 {
		t.Errorf("with a light system the background is %v", c)
	}
}

func TestWordsAreTheSameInAllLanguages(t *testing.T) {
	g := start(t)
	b := open(t, g.StatURL+"/")
	missing := eval[[]string](b, `import("/dashboard/words.js").then(({words}) => {
		const [en, zh] = [Object.keys(words.en), Object.keys(words.zh)]
		return [...en.filter((k) => !zh.includes(k)), ...zh.filter((k) => !en.includes(k))]
	})`)
	if len(missing) > 0 {
		t.Errorf("words of one language only: %q", missing)
	}
}

// TestKeyboard goes through the page without a mouse.
func TestKeyboard(t *testing.T) {
	g := start(t)
	b := open(t, g.StatURL+"/")
	active := func() string {
		return eval[string](b, `(({tagName, id, name, className, hash}) => [tagName, id, name, className, hash].filter(Boolean).join(" "))(document.activeElement)`)
	}
	var seen []string
	for range 40 {
		b.do(chromedp.KeyEvent("\t"))
		if at := active(); at != "BODY" {
			seen = append(seen, at)
		}
	}
	all := strings.Join(seen, "\n")
	for _, want := range []string{
		"A skip #try", "A #live", "SELECT language", "SELECT theme", "INPUT app", "TEXTAREA text", "BUTTON copy",
		"INPUT gateway", "BUTTON link main", "BUTTON presence", "DIV log", "INPUT token", "INPUT filter", "DIV rows",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the tabulator does not come to %s:\n%s", want, all)
		}
	}
	if !strings.HasPrefix(all, "A skip #try") {
		t.Errorf("the first stop is not the one that skips:\n%s", all)
	}
	b.do(chromedp.Focus(chromedp.CSS(`#push [name="app"]`)), chromedp.KeyEvent("\r"))
	b.shows("#receipt", "202: offset 1, 0 subscribed here")
}

// TestScreenshot makes the picture of the README when it is asked to.
func TestScreenshot(t *testing.T) {
	const file = "screenshot.png"
	if !*update {
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%v: go test -run TestScreenshot -update makes it", err)
		}
		return
	}
	g := start(t)
	b := open(t, g.StatURL+"/")
	b.do(chromedp.EmulateViewport(1440, 960, chromedp.EmulateScale(1.25)))
	b.subscribed()
	traffic(t, g, 75*time.Second)
	b.push(`{"goal":"2:1","minute":87}`, "", "subscribed here")
	b.write(anonymous+` [name="app"]`, "im")
	b.click(anonymous + " .subscribe button")
	b.shows(anonymous+" .log", "rule im")
	eval[bool](b, `scrollTo({top: 0, behavior: "instant"}), document.activeElement.blur(), true`)
	if err := os.WriteFile(file, b.screenshot(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// traffic has clients come and go, and pushes for them, for a while.
func traffic(t *testing.T, g *servertest.Gateway, d time.Duration) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(d)
	app := func() string { return fmt.Sprintf("video:%d", int(rand.ExpFloat64()*2)) }
	var clients []*servertest.Client
	for n := 0; ; n++ {
		select {
		case <-end:
			return
		case <-tick.C:
		}
		if n%8 == 0 {
			clients = append(clients, g.Subscriber(app()))
		}
		if len(clients) > 50 {
			clients[0].Close()
			clients = clients[1:]
		}
		for range 1 + n/60%9 {
			g.Push(fmt.Sprintf(`{"app":%q,"text":"%s"}`, app(), strings.Repeat("x", rand.IntN(400))))
		}
		if n%40 == 0 {
			g.Push(`{"app":"im","member_id":123456,"text":"not for everybody"}`)
		}
	}
}
