package log_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/push/log"
)

var kept = &apps.App{Name: "kept", History: apps.History{Size: 1000, TTL: time.Hour}}

// reopen opens the log of dir and returns what it logged.
func reopen(t testing.TB, dir string, o log.Options) (*log.Memory, string) {
	t.Helper()
	var said bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&said, nil))
	l, err := log.OpenMemory(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l, said.String()
}

func save(t testing.TB, l *log.Memory) {
	t.Helper()
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// fill makes a log in dir with some of everything, saves it and returns its file.
func fill(t testing.TB, dir string) (file string, top push.Position) {
	t.Helper()
	l, _ := reopen(t, dir, log.Options{})
	for i := range 200 {
		add(t, l, kept, []int64{-1, 42, 43, -1}[i%4], strings.Repeat("text ", i))
	}
	top = l.Top(kept.Name)
	save(t, l)
	return filepath.Join(dir, "log.state"), top
}

func TestN02WarmRestart(t *testing.T) {
	dir := t.TempDir() + "/made"
	l, said := reopen(t, dir, log.Options{})
	if !strings.Contains(said, "new epoch") {
		t.Errorf("the first start says %q", said)
	}
	private := &apps.App{Name: "im", Private: true, History: kept.History}
	live := &apps.App{Name: "live"}
	var before []*push.Message
	for i := range 10 {
		before = append(before, appendOne(t, l, kept, push.Message{App: kept.Name, Member: -1, From: 7, Binary: i%2 == 0, Lossy: i%3 == 0, Plain: i == 5, Text: fmt.Sprint("ü\x00", i)}))
	}
	mine := add(t, l, private, 42, "to 42")
	add(t, l, private, 43, "to 43")
	unkept := add(t, l, live, -1, "x")
	tops := []push.Position{l.Top("kept"), l.Top("im"), l.Top("live"), l.Top("never")}
	save(t, l)

	l, said = reopen(t, dir, log.Options{})
	defer l.Close()
	if !strings.Contains(said, "log taken over") {
		t.Errorf("the second start says %q", said)
	}
	for i, app := range []string{"kept", "im", "live", "never"} {
		if top := l.Top(app); top != tops[i] {
			t.Errorf("top of %s is %v, was %v", app, top, tops[i])
		}
	}
	p, err := l.Since(t.Context(), push.Query{App: "kept", Member: -1, After: before[3].Offset})
	if err != nil || !p.Complete(push.Position{Epoch: tops[0].Epoch, Offset: before[3].Offset}) || len(p.Messages) != 6 {
		t.Fatalf("resume over the restart: %+v, %v", p, err)
	}
	for i, m := range p.Messages {
		if m != *before[4+i] {
			t.Errorf("message is %+v, was %+v", m, *before[4+i])
		}
	}
	if next := add(t, l, kept, -1, "y"); next.Offset != tops[0].Offset+1 || next.Prev != tops[0].Offset {
		t.Errorf("the next message is %d after %d", next.Offset, next.Prev)
	}
	if next := add(t, l, private, 42, "y"); next.Offset != tops[1].Offset+1 || next.Prev != mine.Offset {
		t.Errorf("the next private message is %d after %d, want %d after %d", next.Offset, next.Prev, tops[1].Offset+1, mine.Offset)
	}
	if next := add(t, l, live, -1, "y"); next.Offset <= unkept.Offset {
		t.Errorf("offset %d of an app without history was given again", next.Offset)
	}
	if _, err := os.Stat(filepath.Join(dir, "log.state")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

// D03: what a process that crashed had taken over is not there for the next.
func TestD03NothingIsLeftForAfterACrash(t *testing.T) {
	dir := t.TempDir()
	_, top := fill(t, dir)
	l, _ := reopen(t, dir, log.Options{})
	add(t, l, kept, -1, "accepted, then the process crashes")
	l.Close()
	l, _ = reopen(t, dir, log.Options{})
	defer l.Close()
	if l.Top(kept.Name).Epoch == top.Epoch {
		t.Error("the epoch goes on: offsets are given twice")
	}
}

// D02: any damage to the file means a new epoch, and a word about it.
func TestD02DamagedFile(t *testing.T) {
	dir := t.TempDir()
	file, top := fill(t, dir)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	try := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, said := reopen(t, dir, log.Options{})
		defer l.Close()
		if !strings.Contains(said, "level=WARN") || l.Top(kept.Name).Epoch == top.Epoch || l.Bytes() != 0 {
			t.Errorf("%s: taken over as %v with %d bytes, and says %q", name, l.Top(kept.Name), l.Bytes(), said)
		}
	}
	const block = 4 << 10
	for at := 0; at < len(whole); at += block {
		flipped := bytes.Clone(whole)
		flipped[min(at+at/block%block, len(whole)-1)] ^= 1 << (at / block % 8)
		try(fmt.Sprint("a bit flipped in block ", at/block), flipped)
		zeroed := bytes.Clone(whole)
		clear(zeroed[at:min(at+block, len(whole))])
		try(fmt.Sprint("no block ", at/block), zeroed)
		try(fmt.Sprint("cut off at ", at), whole[:at])
	}
	try("one byte short", whole[:len(whole)-1])
	try("one byte more", append(bytes.Clone(whole), 0))
	other := bytes.Replace(whole[:len(whole)-sha256.Size], []byte("format 2"), []byte("format 1"), 1)
	sum := sha256.Sum256(other)
	try("another format", append(other, sum[:]...))
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, said := reopen(t, dir, log.Options{}); l.Top(kept.Name) != top {
		t.Errorf("undamaged it is not taken over: %q", said)
	} else {
		l.Close()
	}
}

func TestOldFileIsNotTakenOver(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		taken bool
	}{{24 * time.Hour, true}, {24*time.Hour + time.Second, false}} {
		synctest.Test(t, func(t *testing.T) {
			dir := t.TempDir()
			_, top := fill(t, dir)
			time.Sleep(c.after)
			l, said := reopen(t, dir, log.Options{})
			defer l.Close()
			if taken := l.Top(kept.Name) == top; taken != c.taken {
				t.Errorf("after %v: taken over %v, %q", c.after, taken, said)
			}
		})
	}
}

// The time that the gateway was down counts as time.
func TestMessagesExpireOverARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l, _ := reopen(t, dir, log.Options{})
		from := l.Top(kept.Name)
		add(t, l, kept, -1, "old")
		time.Sleep(40 * time.Minute)
		last := add(t, l, kept, -1, "young")
		save(t, l)
		time.Sleep(30 * time.Minute)
		l, _ = reopen(t, dir, log.Options{})
		defer l.Close()
		p, _ := l.Since(t.Context(), push.Query{App: kept.Name, Member: -1, After: from.Offset})
		if p.Complete(from) || len(p.Messages) != 1 || p.Messages[0].Text != "young" {
			t.Errorf("since the start: %+v", p)
		}
		from.Offset = last.Offset - 1
		p, _ = l.Since(t.Context(), push.Query{App: kept.Name, Member: -1, After: from.Offset})
		if !p.Complete(from) || len(p.Messages) != 1 {
			t.Errorf("since the old one: %+v", p)
		}
	})
}

func TestNothingIsAppendedAfterSave(t *testing.T) {
	dir := t.TempDir()
	l, _ := reopen(t, dir, log.Options{})
	defer l.Close()
	add(t, l, kept, -1, "x")
	if err := l.Save(); err != nil {
		t.Fatal(err)
	}
	for _, app := range []*apps.App{kept, {Name: "new"}} {
		if _, n, err := l.Append(t.Context(), app, []push.Message{{App: app.Name, Member: -1}}); n != 0 || err == nil {
			t.Errorf("a message of %s was accepted, and is not in the file", app.Name)
		}
	}
}

func TestRestartWithLessMemory(t *testing.T) {
	dir := t.TempDir()
	_, top := fill(t, dir)
	l, _ := reopen(t, dir, log.Options{MaxBytes: 20_000})
	defer l.Close()
	p, _ := l.Since(t.Context(), push.Query{App: kept.Name, Member: -1, Last: 1})
	if l.Bytes() > 20_000 || p.Top != top || len(p.Messages) != 1 {
		t.Errorf("%d bytes, top %v, newest %v", l.Bytes(), p.Top, p.Messages)
	}
}

func TestN08DirectoryOfAnother(t *testing.T) {
	dir := t.TempDir()
	l, _ := reopen(t, dir, log.Options{})
	want := fmt.Sprint("WSGW_STATE_DIR: ", dir, "/lock: another gateway uses this directory, process ", os.Getpid())
	if _, err := log.OpenMemory(dir, log.Options{}); err == nil || err.Error() != want {
		t.Errorf("opened twice: %v, want %s", err, want)
	}
	l.Close()
	l, _ = reopen(t, dir, log.Options{})
	l.Close()
	file := dir + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := log.OpenMemory(file, log.Options{}); err == nil {
		t.Error("a file was opened as a directory")
	}
}

// FuzzState gives a file that is whole but says anything.
func FuzzState(f *testing.F) {
	file, _ := fill(f, f.TempDir())
	whole, err := os.ReadFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[:len(whole)-sha256.Size])
	f.Add([]byte("ws-gateway log, format 2\n\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(t *testing.T, body []byte) {
		dir := t.TempDir()
		sum := sha256.Sum256(body)
		if err := os.WriteFile(dir+"/log.state", append(body, sum[:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		l, _ := reopen(t, dir, log.Options{MaxBytes: 1 << 20})
		defer l.Close()
		add(t, l, kept, -1, "x")
	})
}

// BenchmarkSave measures a restart with 100 000 messages.
func BenchmarkSave(b *testing.B) {
	dir := b.TempDir()
	app := &apps.App{Name: "a", History: apps.History{Size: 100_000, TTL: time.Hour}}
	l, _ := reopen(b, dir, log.Options{})
	for range 100_000 {
		add(b, l, app, -1, strings.Repeat("x", 128))
	}
	b.ReportAllocs()
	for b.Loop() {
		save(b, l)
		l, _ = reopen(b, dir, log.Options{})
	}
	l.Close()
}
