package logging_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/slogtest"
	"time"
	"unicode/utf8"

	"ws-gateway/stat/logging"
)

// hostile has what must never reach a terminal or a line of its own.
const hostile = "a\x1b[2Jb\nlevel=ERROR\r\x00\x7f\u0085\u202e\u2028\xff\ufffdc"

const escaped = `a\x1b[2Jb\nlevel=ERROR\r\x00\x7f\u0085\u202e\u2028\xff` + "\ufffd" + `c`

type secret struct{}

func (secret) LogValue() slog.Value { return slog.StringValue("[hidden]") }

type valuer string

func (v valuer) LogValue() slog.Value { return slog.StringValue(string(v)) }

// logged returns the one JSON record that log writes.
func logged(t *testing.T, log func(*slog.Logger)) map[string]any {
	t.Helper()
	var out bytes.Buffer
	log(logging.New(&out, logging.Options{}))
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Fatalf("%d lines, want 1:\n%s", n, out.String())
	}
	m := make(map[string]any)
	if err := json.Unmarshal(out.Bytes(), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestM04EscapesEveryWayIn(t *testing.T) {
	for _, tt := range []struct {
		name string
		log  func(*slog.Logger)
		at   []string // keys down to the text
	}{
		{"message", func(l *slog.Logger) { l.Info(hostile) }, []string{"msg"}},
		{"string", func(l *slog.Logger) { l.Info("m", "k", hostile) }, []string{"k"}},
		{"error", func(l *slog.Logger) { l.Info("m", "k", errors.New(hostile)) }, []string{"k"}},
		{"bytes", func(l *slog.Logger) { l.Info("m", "k", []byte(hostile)) }, []string{"k"}},
		{"LogValuer", func(l *slog.Logger) { l.Info("m", "k", valuer(hostile)) }, []string{"k"}},
		{"With", func(l *slog.Logger) { l.With("k", hostile).Info("m") }, []string{"k"}},
		{"WithGroup", func(l *slog.Logger) { l.WithGroup("g").Info("m", "k", hostile) }, []string{"g", "k"}},
		{"With after WithGroup", func(l *slog.Logger) { l.WithGroup("g").With("k", hostile).Info("m") }, []string{"g", "k"}},
		{"Group", func(l *slog.Logger) { l.Info("m", slog.Group("g", slog.Group("h", "k", hostile))) }, []string{"g", "h", "k"}},
		{"key", func(l *slog.Logger) { l.Info("m", hostile, escaped) }, []string{escaped}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var v any = logged(t, tt.log)
			for _, key := range tt.at {
				v = v.(map[string]any)[key]
			}
			if v != escaped {
				t.Errorf("\n got %s\nwant %s", v, escaped)
			}
		})
	}
}

func TestM04TextHasNoRawControls(t *testing.T) {
	var out bytes.Buffer
	log := logging.New(&out, logging.Options{Format: "text"})
	log.With("w", hostile).WithGroup("g").Warn(hostile, "k", hostile, "e", errors.New(hostile), "list", []string{hostile})
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.HasSuffix(s, "\n") || strings.ContainsAny(s, "\x1b\r\x00\x7f\u0085\u202e\u2028") {
		t.Errorf("raw control characters: %q", s)
	}
	if !utf8.Valid(out.Bytes()) {
		t.Errorf("invalid UTF-8: %q", out.String())
	}
}

func TestM04CutsLongText(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"fits", strings.Repeat("a", 256), strings.Repeat("a", 256)},
		{"64 KiB", strings.Repeat("a", 65536), strings.Repeat("a", 253) + "..."},
		{"whole characters", strings.Repeat("€", 100), strings.Repeat("€", 84) + "..."},
		{"whole escapes", strings.Repeat("\x00", 100), strings.Repeat(`\x00`, 63) + "..."},
		{"escapes that fit", strings.Repeat("\x00", 64), strings.Repeat(`\x00`, 64)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := logged(t, func(l *slog.Logger) { l.Info("m", "k", tt.in) })["k"]; got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestStackKeepsItsLines(t *testing.T) {
	stack := strings.Repeat("main.main()\n\t/src/main.go:1\n", 100)
	if got := logged(t, func(l *slog.Logger) { l.Error("panic", "stack", stack) })["stack"]; got != stack {
		t.Errorf("got %.100q (%d bytes), want all %d bytes", got, len(got.(string)), len(stack))
	}
	long := logged(t, func(l *slog.Logger) { l.Error("panic", "stack", strings.Repeat("x\x1b\n", 10000)) })["stack"].(string)
	if len(long) > 16384 || strings.Contains(long, "\x1b") {
		t.Errorf("%d bytes, raw escape: %t", len(long), strings.Contains(long, "\x1b"))
	}
}

func TestValuesThatAreNotText(t *testing.T) {
	m := logged(t, func(l *slog.Logger) {
		l.Info("m", "n", 7, "b", true, "d", time.Second, "addr", netip.MustParseAddr("::1"), "secret", secret{}, "none", nil)
	})
	for key, want := range map[string]any{"n": 7.0, "b": true, "d": "1s", "addr": "::1", "secret": "[hidden]", "none": nil} {
		if m[key] != want {
			t.Errorf("%s = %v, want %v", key, m[key], want)
		}
	}
}

func TestFormatAndLevel(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	logging.New(file, logging.Options{Level: slog.LevelWarn}).Info("hidden")
	logging.New(file, logging.Options{Level: slog.LevelWarn, Format: "auto"}).Warn("shown")
	logging.New(file, logging.Options{Level: slog.LevelDebug, Format: "text"}).Debug("as text", "k", 1)
	got, _ := os.ReadFile(file.Name())
	json, text, _ := strings.Cut(string(got), "\n")
	if !strings.HasPrefix(json, `{"time":`) || !strings.Contains(json, `"msg":"shown"`) {
		t.Errorf("a file got %q first, want JSON of the warning only", json)
	}
	if !strings.HasSuffix(text, " DBG as text k=1\n") {
		t.Errorf("text is %q", text)
	}
}

func TestHandlerContract(t *testing.T) {
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return logging.New(&out, logging.Options{}).Handler()
	}, func(t *testing.T) map[string]any {
		m := make(map[string]any)
		if err := json.Unmarshal(out.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		return m
	})
}

func FuzzClean(f *testing.F) {
	f.Add("m", hostile)
	f.Fuzz(func(t *testing.T, msg, value string) {
		var out bytes.Buffer
		logging.New(&out, logging.Options{Format: "text"}).Info(msg, "k", value)
		if out.Len() > 2*(256+256)+64 || bytes.Count(out.Bytes(), []byte("\n")) != 1 || bytes.ContainsAny(out.Bytes(), "\x1b\r\x00") || !utf8.Valid(out.Bytes()) {
			t.Errorf("%d bytes: %q", out.Len(), out.String())
		}
	})
}

func BenchmarkClean(b *testing.B) {
	log := logging.New(bytes.NewBuffer(nil), logging.Options{Level: slog.LevelError})
	hot := slog.New(logging.Clean(slog.DiscardHandler))
	for name, l := range map[string]*slog.Logger{"enabled=false": log, "enabled=discard": hot} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Info("session closed", "session", 7, "remote", "127.0.0.1")
			}
		})
	}
}
