// Package logging makes the gateway's logger: text for people on a terminal, JSON for
// machines, and nothing that a stranger sent reaches either of them raw.
package logging

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// Options configures [New]. The zero value logs from info up, as JSON unless on a terminal.
type Options struct {
	Level  slog.Level
	Format string // "text", "json", or "auto" (also ""): text on a terminal, JSON otherwise
}

// New returns a logger that writes to w. On a terminal the text has colours, unless the
// environment has NO_COLOR. See [Clean] for what happens to attributes.
func New(w io.Writer, o Options) *slog.Logger {
	f, ok := w.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	if o.Format == "json" || o.Format != "text" && !terminal {
		return slog.New(Clean(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: o.Level})))
	}
	text := &tint.Options{Level: o.Level, TimeFormat: "2006-01-02T15:04:05.000Z07:00", NoColor: true}
	if terminal {
		text.TimeFormat, text.NoColor = time.TimeOnly, os.Getenv("NO_COLOR") != ""
	}
	return slog.New(Clean(tint.NewTextHandler(w, text)))
}
