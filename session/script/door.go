package script

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	lua "github.com/yuin/gopher-lua"
	"golang.org/x/time/rate"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// A Door is an endpoint whose protocol is a script.
type Door struct {
	Path string // of its URL

	host    *Host
	file    string
	logger  *slog.Logger
	places  chan struct{} // one item for each state in use
	watcher *fsnotify.Watcher
	watched sync.WaitGroup
	said    rate.Sometimes // bounds what clients can make the log say; metrics count every failure

	mu      sync.Mutex
	program *program // the newest that loads; guarded by mu
	idle    []*state // of program, the one used last at the end; guarded by mu
}

// Open starts a session in the door's protocol on a connection that r asked for, and runs
// the script's on_handshake; it may wait. The result is what the transport drives.
func (d *Door) Open(conn session.Conn, r *http.Request) session.Handler {
	c := &client{door: d}
	return d.host.opts.Gateway.OpenProtocol(conn, c, func(s *session.Session) { c.open(s, r) })
}

// closes reports whether the script wants to know of connections that are gone.
func (d *Door) closes() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.program.closes
}

// load compiles the script and tries it in a state, which becomes the first of the pool. On
// an error everything stays as it was.
func (d *Door) load() error {
	p, err := compile(d.file)
	if err != nil {
		return err
	}
	s, err := newState(d, p)
	if err != nil {
		return err
	}
	p.closes = s.onClose != nil
	d.mu.Lock()
	defer d.mu.Unlock()
	d.program, d.idle = p, []*state{s}
	return nil
}

// take returns a state of the newest program for c, making one if all are in use.
func (d *Door) take(c *client) (*state, error) {
	select {
	case d.places <- struct{}{}:
	default: // those that have them may be waiting for others
		c.session.Wait(func() { d.places <- struct{}{} })
	}
	d.mu.Lock()
	p := d.program
	if n := len(d.idle); n > 0 {
		s := d.idle[n-1]
		d.idle = d.idle[:n-1]
		d.mu.Unlock()
		return s, nil
	}
	d.mu.Unlock()
	s, err := newState(d, p)
	if err != nil {
		<-d.places
	}
	return s, err
}

// give puts a state back into the pool, unless there is a newer program.
func (d *Door) give(s *state, err error) {
	d.mu.Lock()
	if s.program == d.program && reusable(err) {
		d.idle = append(d.idle, s)
	}
	d.mu.Unlock()
	<-d.places
}

// call runs a function of the script for c. prepare picks it in the state that was chosen,
// and its arguments; nil means that there is nothing to run. The error has been logged and
// counted.
func (d *Door) call(c *client, prepare func(*state) (*lua.LFunction, []lua.LValue)) error {
	s, err := d.take(c)
	if err != nil {
		d.logger.Error("script does not load", "err", err)
		return err
	}
	fn, args := prepare(s)
	if fn == nil {
		d.give(s, nil)
		return nil
	}
	d.host.enter()
	ran, err := s.call(c, fn, args...)
	d.host.leave()
	s.release()
	if ran > maxHeld {
		c.session.Flush()
	}
	d.give(s, err)
	d.report(c, ran, err)
	return err
}

// maxHeld is how long a call may have run for its answers to leave together with those of
// other calls behind it.
const maxHeld = time.Millisecond

// report counts and logs how a call ended.
func (d *Door) report(c *client, ran time.Duration, err error) {
	m := d.host.opts.Metrics
	outcome := "ok"
	switch {
	case errors.Is(err, errTime):
		outcome = "timeout"
		m.Refused(stat.ReasonScriptTime)
	case errors.Is(err, errWait):
		outcome = "timeout"
		m.Refused(stat.ReasonScriptWait)
	case errors.Is(err, errMemory):
		outcome = "error"
		m.Refused(stat.ReasonScriptMemory)
	case err != nil:
		outcome = "error"
	}
	m.Script(d.Path, outcome, ran)
	if err != nil {
		d.said.Do(func() { d.logger.Error("script failed", "client", c.id, "err", err) })
	}
}

// settle is how long files must have been left alone before they are read: editors and
// deployments write in several steps.
const settle = 100 * time.Millisecond

// watch loads the script again whenever it or a file beside it changes.
func (d *Door) watch() error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	d.watcher = w
	// Directories, not files: a file that is replaced by renaming is another file.
	err = filepath.WalkDir(filepath.Dir(d.file), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return w.Add(path)
	})
	if err != nil {
		w.Close()
		return err
	}
	d.watched.Go(d.follow)
	return nil
}

func (d *Door) follow() {
	due := time.NewTimer(0)
	<-due.C
	defer due.Stop()
	for {
		select {
		case e, ok := <-d.watcher.Events:
			if !ok {
				return
			}
			if e.Has(fsnotify.Create) {
				if info, err := os.Stat(e.Name); err == nil && info.IsDir() {
					_ = d.watcher.Add(e.Name) // a module in it is also found without: on the next change here
					due.Reset(settle)         // it may be a link that the script's own leads through
				}
			}
			if filepath.Ext(e.Name) == ".lua" && !e.Has(fsnotify.Chmod) {
				due.Reset(settle)
			}
		case err, ok := <-d.watcher.Errors:
			if !ok {
				return
			}
			d.logger.Warn("watch script", "err", err)
			due.Reset(settle) // changes may have been lost
		case <-due.C:
			if err := d.load(); err != nil {
				d.logger.Error("changed script does not load, the old one stays", "file", d.file, "err", err)
			} else {
				d.logger.Info("script loaded again", "file", d.file)
			}
		}
	}
}

// stop ends watch.
func (d *Door) stop() {
	d.watcher.Close()
	d.watched.Wait()
}
