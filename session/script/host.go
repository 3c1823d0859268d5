// Package script speaks protocols that are written in Lua. Each [Door] is an endpoint with a
// script that says what its clients send and receive; DOORS.md is what the author of a
// script needs to know.
//
// A [Host] has the doors of a gateway. Each door keeps a pool of states, Lua virtual
// machines with its script loaded. A state serves one call at a time, for any connection, and
// is put back to what it was after each one ([snapshot]): what a script wants to keep of a
// connection, it keeps in the connection's context. The order of one connection's messages
// is kept by the transport, which gives the next one only after the last was dealt with.
//
// Scripts are an operator's code, not an enemy's, but a client may lead them to the
// enemy's input; so what a call can take is bounded ([budget], [rewrite]).
package script

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/stat"
)

// Options configure a [Host]. Gateway and Hub are needed to serve clients; the zero value of
// everything else works.
type Options struct {
	Gateway *session.Gateway
	Hub     *push.Hub
	Logger  *slog.Logger  // nil: discard
	Metrics *stat.Metrics // nil: none

	Timeout   time.Duration     // running time of one call; 0: 50 ms
	Wait      time.Duration     // waiting time of one call; 0: 10 s
	States    int               // virtual machines of one door, each of about 80 KB; 0: 128
	HTTPAllow []netip.Prefix    // what mix.http may reach beside public addresses and loopback
	Redis     map[string]string // name -> redis:// URL, for mix.redis.connection
	Option    map[string]string // for mix.server.option

	HTTPBytes    int // of one answer to mix.http, 1 MiB at most; 0: 64 KiB
	ContextKeys  int // of one connection; 0: 128
	ContextBytes int // of one connection; 0: 64 KiB

	QueueTopics int // of mix.queue; 0: 100
	QueueItems  int // of one topic; 0: 2000
	QueueBytes  int // of all topics together; 0: 64 MiB
}

// A Host runs the scripts of a gateway's doors.
type Host struct {
	opts    Options
	clients sync.Map // int64 -> *client
	first   int64    // what client ids count from
	running chan struct{}
	http    *httpClient
	redis   *redisPool
	queues  *queues

	waits     context.Context // of all that scripts wait for
	interrupt context.CancelFunc

	mu      sync.Mutex
	closed  bool           // guarded by mu
	doors   []*Door        // guarded by mu
	workers sync.WaitGroup // Add with mu held
}

// NewHost returns a host without doors. Close it.
func NewHost(opts Options) (*Host, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.Timeout = cmp.Or(opts.Timeout, 50*time.Millisecond)
	opts.Wait = cmp.Or(opts.Wait, 10*time.Second)
	opts.States = cmp.Or(opts.States, 128)
	opts.HTTPBytes = cmp.Or(opts.HTTPBytes, 64<<10)
	opts.ContextKeys = cmp.Or(opts.ContextKeys, 128)
	opts.ContextBytes = cmp.Or(opts.ContextBytes, 64<<10)
	opts.QueueTopics = cmp.Or(opts.QueueTopics, 100)
	opts.QueueItems = cmp.Or(opts.QueueItems, 2000)
	opts.QueueBytes = cmp.Or(opts.QueueBytes, 64<<20)
	redis, err := newRedisPool(opts.Redis)
	if err != nil {
		return nil, err
	}
	waits, interrupt := context.WithCancel(context.Background())
	return &Host{
		opts: opts,
		// Ids go on growing over restarts, so that a backend's old one names nobody new.
		first:   time.Now().UnixMilli() << 10,
		running: make(chan struct{}, runtime.GOMAXPROCS(0)),
		http:    newHTTPClient(opts),
		redis:   redis,
		queues:  newQueues(opts.QueueTopics, opts.QueueItems, opts.QueueBytes),
		waits:   waits, interrupt: interrupt,
	}, nil
}

// Interrupt ends what scripts wait for, now and from now on: it fails, or nothing came. What
// they run is bounded already, so that every call ends soon.
func (h *Host) Interrupt() { h.interrupt() }

// Close stops watching files and waits for the calls in progress, which after maxWait it
// interrupts. Connections are the gateway's to close, before.
func (h *Host) Close() {
	h.mu.Lock()
	doors := h.doors
	h.closed = true
	h.mu.Unlock()
	defer time.AfterFunc(maxWait, h.interrupt).Stop()
	for _, d := range doors {
		d.stop()
	}
	h.workers.Wait()
	h.interrupt()
	h.redis.close()
	h.http.close()
}

// background runs f on a goroutine that Close waits for. After Close it does nothing.
func (h *Host) background(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.workers.Go(f)
	}
}

// enter takes one of the places for running scripts: as many as there are processors, so
// that running time is time on a processor and the gateway's own work is never far behind.
func (h *Host) enter() { h.running <- struct{}{} }

// leave gives the place back.
func (h *Host) leave() { <-h.running }

// client returns the connection with that id.
func (h *Host) client(id int64) (*client, bool) {
	c, ok := h.clients.Load(id)
	if !ok {
		return nil, false
	}
	return c.(*client), true
}

// Check says what is wrong with doors, which are scripts by path, and with the URLs of Redis
// servers: each problem in a line. It asks no server.
func Check(doors, urls map[string]string) error {
	pool, err := newRedisPool(urls)
	if err == nil {
		pool.close()
	}
	for _, path := range slices.Sorted(maps.Keys(doors)) {
		if problem := CheckScript(doors[path]); problem != nil {
			err = errors.Join(err, doorError(path, doors[path], problem))
		}
	}
	return err
}

// doorError names the setting of which a door's script is a part.
func doorError(path, file string, err error) error {
	return fmt.Errorf("WSGW_DOORS: %s=%s: %w", path, file, err)
}

// CheckScript compiles and loads a script and the modules it requires, without serving
// anybody.
func CheckScript(file string) error {
	p, err := compile(file)
	if err != nil {
		return err
	}
	h, err := NewHost(Options{})
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = newState(&Door{host: h, logger: h.opts.Logger}, p)
	return err
}

// Doors returns the doors in the order in which they were opened.
func (h *Host) Doors() []*Door {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.doors)
}

var errHostClosed = errors.New("host is closed")

// Door opens a door: file is its script, path the URL path that its clients ask for. A
// script that does not load is an error.
func (h *Host) Door(path, file string) (*Door, error) {
	d := &Door{
		Path:   path,
		host:   h,
		file:   file,
		logger: h.opts.Logger.With("door", path),
		places: make(chan struct{}, h.opts.States),
		said:   rate.Sometimes{First: 20, Interval: time.Second},
	}
	if err := d.load(); err != nil {
		return nil, doorError(path, file, err)
	}
	if err := d.watch(); err != nil {
		return nil, doorError(path, file, fmt.Errorf("watch it: %w", err))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		d.stop()
		return nil, errHostClosed
	}
	h.doors = append(h.doors, d)
	return d, nil
}
