package logging

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxText  = 256       // bytes of a message or of an attribute
	maxStack = 16 * 1024 // bytes of an attribute called stack, which no stranger writes
	ellipsis = "..."
)

// Clean returns a handler that passes records on to next with every text made harmless: what
// is not printable (control characters, terminal escapes, bidirectional overrides, invalid
// UTF-8) is escaped as in a Go string, and text over 256 bytes is cut, "..." marking it. So a
// client that puts a newline into what it sends can't forge a line, and one that sends 64 KiB
// can't fill the disk. Attributes of any other type are formatted with fmt first, unless they
// are numbers, booleans, times or groups: a duration is 1.5s in JSON too.
//
// An attribute called stack keeps its lines, and 16 KiB.
func Clean(next slog.Handler) slog.Handler { return &clean{next} }

type clean struct{ next slog.Handler }

// Enabled implements [slog.Handler].
func (c *clean) Enabled(ctx context.Context, l slog.Level) bool { return c.next.Enabled(ctx, l) }

// Handle implements [slog.Handler].
func (c *clean) Handle(ctx context.Context, r slog.Record) error {
	cleaned := slog.NewRecord(r.Time, r.Level, text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		cleaned.AddAttrs(attr(a))
		return true
	})
	return c.next.Handle(ctx, cleaned)
}

// WithAttrs implements [slog.Handler].
func (c *clean) WithAttrs(as []slog.Attr) slog.Handler { return &clean{c.next.WithAttrs(attrs(as))} }

// WithGroup implements [slog.Handler].
func (c *clean) WithGroup(name string) slog.Handler { return &clean{c.next.WithGroup(name)} }

func attrs(as []slog.Attr) []slog.Attr {
	cleaned := make([]slog.Attr, len(as))
	for i, a := range as {
		cleaned[i] = attr(a)
	}
	return cleaned
}

func attr(a slog.Attr) slog.Attr {
	v := a.Value.Resolve()
	switch {
	case v.Kind() == slog.KindGroup:
		v = slog.GroupValue(attrs(v.Group())...)
	case v.Kind() == slog.KindDuration:
		v = slog.StringValue(v.Duration().String())
	case v.Kind() == slog.KindString && a.Key == "stack":
		v = slog.StringValue(lines(v.String()))
	case v.Kind() == slog.KindString:
		v = slog.StringValue(text(v.String()))
	case v.Kind() == slog.KindAny && v.Any() != nil:
		v = slog.StringValue(text(format(v.Any())))
	}
	return slog.Attr{Key: text(a.Key), Value: v}
}

// format returns the text of a value; bytes are text too.
func format(v any) string {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(v)
}

// text escapes s and cuts it. It returns s itself when there is nothing to do.
func text(s string) string {
	if len(s) <= maxText && printable(s) {
		return s
	}
	return escape(s, maxText, "")
}

// lines is text for a stack trace.
func lines(s string) string { return escape(s, maxStack, "\n\t") }

// Escape returns s, of any length, with everything that is not printable escaped as in a Go
// string: fit for a line on a terminal.
func Escape(s string) string {
	if printable(s) {
		return s
	}
	return escape(s, math.MaxInt, "")
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// escape returns s with everything escaped that neither is printable nor in keep, in at most
// limit bytes.
func escape(s string, limit int, keep string) string {
	var b strings.Builder
	fits := 0 // what of b remains if it has to be cut
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		part := s[i : i+n]
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) && !strings.ContainsRune(keep, r) {
			quoted := strconv.QuoteToASCII(part)
			part = quoted[1 : len(quoted)-1]
		}
		if b.Len()+len(part) > limit {
			return b.String()[:fits] + ellipsis
		}
		b.WriteString(part)
		if b.Len() <= limit-len(ellipsis) {
			fits = b.Len()
		}
		i += n
	}
	return b.String()
}
