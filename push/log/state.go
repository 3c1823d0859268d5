package log

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"time"

	"ws-gateway/push"
)

// What an orderly stop hands over to the next start is one file: magic, a body of varints and
// strings with their length, and the SHA-256 of both. It is written beside its place, synced
// and renamed, and it is removed before anything of it is used: so no crash leaves a file whose
// offsets have been given out since.
const (
	stateFile = "log.state"
	lockFile  = "lock"
	magic     = "ws-gateway log, format 2\n"
	maxAge    = 24 * time.Hour // an older file is more likely a restored copy than a long stop
	maxAhead  = time.Hour      // of this clock
	maxString = 1 << 30        // bytes
)

// errSaved is returned to pushes that come after Save.
var errSaved = errors.New("log is handed over to the next start")

// OpenMemory returns the log that [Memory.Save] has left in dir, which is made if need be, or
// an empty one in a new epoch when there is none that can be trusted: opts.Logger is told why.
// With dir "" it is NewMemory. The error is about a directory that cannot be used, or that
// another process uses.
func OpenMemory(dir string, opts Options) (*Memory, error) {
	l := newMemory(opts)
	if dir != "" {
		if err := l.take(dir); err != nil {
			return nil, fmt.Errorf("WSGW_STATE_DIR: %w", err)
		}
	}
	go l.sweep()
	return l, nil
}

// take reads and removes what is in dir.
func (l *Memory) take(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := lockDir(filepath.Join(dir, lockFile))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	path := filepath.Join(dir, stateFile)
	found := newMemory(Options{MaxBytes: l.max})
	saved, problem := found.read(path)
	if err := os.Remove(path); err == nil {
		if err := syncDir(dir); err != nil {
			return err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Remove(path + ".new"); err != nil && !errors.Is(err, os.ErrNotExist) { // of a stop that was cut short
		return err
	}
	switch {
	case problem == nil:
		l.epoch, l.apps, l.floor = found.epoch, found.apps, found.floor
		l.bytes.Store(found.bytes.Load())
		l.log.Info("log taken over", "epoch", l.epoch, "apps", len(l.apps), "bytes", l.Bytes(), "saved", saved)
		if l.Bytes() > l.max {
			l.shrink()
		}
	case errors.Is(problem, os.ErrNotExist):
		l.log.Info("no log to take over: new epoch", "epoch", l.epoch, "dir", dir)
	default:
		l.log.Warn("log not taken over: new epoch", "epoch", l.epoch, "file", path, "err", problem)
	}
	l.dir, l.lock = dir, lock
	return nil
}

// Save hands the log over to the next start. Nothing is appended from then on. It does nothing
// for a log without a directory.
func (l *Memory) Save() error {
	if l.dir == "" {
		return nil
	}
	l.saved.Store(true)
	path := filepath.Join(l.dir, stateFile)
	if err := l.write(path + ".new"); err != nil {
		os.Remove(path + ".new")
		return fmt.Errorf("save log: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save log: %w", err)
	}
	if err := syncDir(l.dir); err != nil {
		return fmt.Errorf("save log: %w", err)
	}
	return nil
}

func (l *Memory) write(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	w := &writer{out: bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<16)}
	w.out.WriteString(magic)
	w.uint(uint64(time.Now().UnixNano()))
	w.string(l.epoch)
	l.mu.RLock()
	apps := maps.Clone(l.apps)
	l.mu.RUnlock()
	for name, h := range apps {
		h.mu.Lock() // an append that began before Save ends here
		if !h.gone {
			w.uint(1)
			w.string(name)
			w.history(h)
		}
		h.mu.Unlock()
	}
	w.uint(0)
	l.mu.RLock()
	w.uint(l.floor) // of what is gone by now, too
	l.mu.RUnlock()
	if err := w.out.Flush(); err != nil {
		return err
	}
	if _, err := f.Write(sum.Sum(nil)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// A writer keeps its first error for Flush.
type writer struct {
	out *bufio.Writer
	buf [binary.MaxVarintLen64]byte
}

func (w *writer) uint(n uint64) { w.out.Write(w.buf[:binary.PutUvarint(w.buf[:], n)]) }
func (w *writer) int(n int64)   { w.out.Write(w.buf[:binary.PutVarint(w.buf[:], n)]) }
func (w *writer) string(s string) {
	w.uint(uint64(len(s)))
	w.out.WriteString(s)
}

func (w *writer) history(h *history) {
	w.int(int64(h.ttl))
	w.int(h.used.UnixNano())
	for _, offset := range [...]uint64{h.top, h.public, h.forgot} {
		w.uint(offset)
	}
	w.uint(uint64(len(h.private)))
	for member, newest := range h.private {
		w.int(member)
		w.uint(newest)
	}
	w.uint(uint64(len(h.records)))
	for i := range h.records {
		m := h.message(i)
		w.uint(m.Offset)
		w.uint(m.Prev)
		w.int(m.Time)
		w.int(m.Member)
		w.int(m.From)
		w.uint(uint64(flagsOf(&m)))
		w.string(m.Text)
	}
}

// read fills l, which is empty, from a file that Save has written.
func (l *Memory) read(path string) (saved time.Time, err error) {
	f, err := os.Open(path)
	if err != nil {
		return saved, err
	}
	defer f.Close()
	size, err := verify(f)
	if err != nil {
		return saved, err
	}
	r := &reader{in: bufio.NewReaderSize(io.LimitReader(f, size), 1<<16), left: size}
	if head := make([]byte, len(magic)); r.full(head) && string(head) != magic {
		return saved, errors.New("of another format")
	}
	saved = time.Unix(0, int64(r.uint()))
	if age := time.Since(saved); age > maxAge || age < -maxAhead {
		return saved, fmt.Errorf("too old, or the clock was changed: saved at %s", saved.UTC().Format(time.RFC3339))
	}
	l.epoch = r.string()
	for r.uint() == 1 {
		name := r.string()
		h := r.history(name)
		if l.apps[name] != nil {
			r.err = errDamaged
		}
		l.apps[name] = h
		l.bytes.Add(h.bytes)
	}
	l.floor = r.uint()
	if r.err == nil && r.left > 0 {
		r.err = errDamaged
	}
	return saved, r.err
}

var errDamaged = errors.New("damaged")

// verify compares f with the checksum at its end, and returns the length of what comes before,
// where f is read next.
func verify(f *os.File) (size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if size = info.Size() - sha256.Size; size < int64(len(magic)) || !info.Mode().IsRegular() {
		return 0, errDamaged
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, size); err != nil {
		return 0, err
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return 0, err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return 0, errDamaged
	}
	_, err = f.Seek(0, io.SeekStart)
	return size, err
}

// A reader reads what a writer wrote, and nothing once it has failed.
type reader struct {
	in   *bufio.Reader
	left int64 // bytes
	err  error
}

// ReadByte implements [io.ByteReader].
func (r *reader) ReadByte() (byte, error) {
	b, err := r.in.ReadByte()
	if err == nil {
		r.left--
	}
	return b, err
}

func (r *reader) full(p []byte) bool {
	if r.err == nil {
		_, r.err = io.ReadFull(r.in, p)
		r.left -= int64(len(p))
	}
	return r.err == nil
}

func (r *reader) uint() (n uint64) {
	if r.err == nil {
		n, r.err = binary.ReadUvarint(r)
	}
	return n
}

func (r *reader) int() (n int64) {
	if r.err == nil {
		n, r.err = binary.ReadVarint(r)
	}
	return n
}

func (r *reader) string() string {
	n := r.uint()
	if r.err == nil && n > uint64(min(r.left, maxString)) {
		r.err = errDamaged
	}
	if r.err != nil {
		return ""
	}
	p := make([]byte, n)
	r.full(p)
	return string(p)
}

func (r *reader) history(app string) *history {
	h := &history{name: app, ttl: time.Duration(r.int()), used: time.Unix(0, r.int()), bytes: perHistory}
	h.top, h.public, h.forgot = r.uint(), r.uint(), r.uint()
	h.lost = h.public
	for n := r.uint(); n > 0 && r.err == nil; n-- {
		if h.private == nil {
			h.private = make(map[int64]uint64)
		}
		member := r.int()
		h.private[member] = r.uint()
	}
	h.bytes += int64(len(h.private)) * perChain
	n := r.uint()
	if n > h.top {
		r.err = cmp.Or(r.err, errDamaged)
	}
	public := false
	for offset := h.top - n + 1; n > 0 && r.err == nil; n, offset = n-1, offset+1 {
		m := &push.Message{Offset: r.uint(), Prev: r.uint(), Time: r.int(), Member: r.int(), From: r.int()}
		setFlags(m, byte(r.uint()))
		m.Text = r.string()
		newest := h.public
		if m.Private() {
			newest = h.private[m.Member]
		} else if !public { // what the oldest one follows is lost
			public, h.lost = true, m.Prev
		}
		if r.err == nil && (m.Offset != offset || m.Offset > newest) {
			r.err = errDamaged
		}
		h.add(newRecord(m))
	}
	return h
}

// syncDir makes what happened to the names in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
