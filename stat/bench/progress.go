package bench

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// A progress shows how far a run is: a bar on a terminal, a line now and then elsewhere.
// It is used by one goroutine.
type progress struct {
	w        io.Writer
	scenario string
	width    int           // of the terminal; 0: none
	every    time.Duration // between lines

	phase string
	unit  string // of the rate; "": none is shown
	began time.Time
	shown time.Time
	count uint64 // when shown
	start uint64
}

func newProgress(w io.Writer, scenario string) *progress {
	p := &progress{w: w, scenario: scenario, every: 5 * time.Second}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.width, p.every = 80, 100*time.Millisecond
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			p.width = w
		}
	}
	return p
}

// begin starts a phase that counts things called unit, from count on.
func (p *progress) begin(phase, unit string, count uint64) {
	now := time.Now()
	p.phase, p.unit, p.began, p.shown, p.count, p.start = phase, unit, now, now, count, count
	if p.width == 0 {
		fmt.Fprintf(p.w, "%s: %s\n", p.scenario, phase)
	}
}

// tell shows that the phase is done to the given part, 0 to 1, and has counted so far.
func (p *progress) tell(part float64, count uint64) {
	now := time.Now()
	since := now.Sub(p.shown)
	if since < p.every {
		return
	}
	part = min(max(part, 0), 1)
	left := "?"
	if spent := now.Sub(p.began); part > 0 {
		left = time.Duration(float64(spent) / part * (1 - part)).Round(time.Second).String()
	}
	rate := ""
	if p.unit != "" {
		rate = fmt.Sprintf("  %s %s/s", thousands(float64(count-p.count)/since.Seconds()), p.unit)
	}
	p.shown, p.count = now, count
	if p.width == 0 {
		fmt.Fprintf(p.w, "%s: %s %3.0f %%%s, %s left\n", p.scenario, p.phase, part*100, rate, left)
		return
	}
	head := fmt.Sprintf("%s: %s ", p.scenario, p.phase)
	tail := fmt.Sprintf(" %3.0f %%%s  %s left", part*100, rate, left)
	room := max(0, min(40, p.width-len(head)-len(tail)-3))
	full := int(part * float64(room))
	fmt.Fprintf(p.w, "\r\x1b[K%s[%s%s]%s", head, strings.Repeat("=", full), strings.Repeat(" ", room-full), tail)
}

// end clears the bar.
func (p *progress) end() {
	if p.width > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// thousands formats v with spaces between groups of three digits.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + " " + s[i:]
	}
	return s
}
