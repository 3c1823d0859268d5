package stat

import (
	"cmp"
	"math"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// A Snapshot is everything that [Metrics] knows at one moment. Its counts are those of this
// node since it started, unless said otherwise.
type Snapshot struct {
	Node          string    `json:"node"`
	Version       string    `json:"version"`
	Time          time.Time `json:"time"`
	UptimeSeconds float64   `json:"uptime_seconds"`

	Sessions      Sessions `json:"sessions"`
	Subscriptions int      `json:"subscriptions"` // the sum of those of Apps

	// Pushes and Deliveries count the messages accepted and those queued to subscribers, in
	// every app that ever was: they only grow, while an app can be gone from Apps. They are
	// never less than those of Apps together.
	Pushes     uint64 `json:"pushes"`
	Deliveries uint64 `json:"deliveries"`

	// Apps is sorted by name and has every app that is in use and those that are Named.
	Apps []App `json:"apps"`

	SessionsOpened uint64            `json:"sessions_opened"`
	SessionsClosed map[string]uint64 `json:"sessions_closed"` // by close code; no zeros, as in all maps here
	Auth           map[string]uint64 `json:"auth"`            // by result
	Commands       map[string]uint64 `json:"commands"`        // by op
	PushResults    map[string]uint64 `json:"push_results"`    // messages, by result
	Refused        map[string]uint64 `json:"refused"`         // by reason
	SlowDropped    map[string]uint64 `json:"slow_dropped"`    // messages, by policy
	Resumes        Resumes           `json:"resumes"`
	WrittenBytes   uint64            `json:"written_bytes"`

	HandshakeTime Times `json:"handshake_time"`
	AuthTime      Times `json:"auth_time"`
	PushTime      Times `json:"push_time"`
	QueueTime     Times `json:"queue_time"` // between a message's acceptance and its fan-out

	Process Process `json:"process"`
}

// Sessions counts the sessions that are open.
type Sessions struct {
	Total     int `json:"total"`
	Members   int `json:"members"`
	Anonymous int `json:"anonymous"`
	Pending   int `json:"pending"` // did not yet say who they are
}

// An App is what a Snapshot says of one app.
type App struct {
	Name          string   `json:"name"`
	Named         bool     `json:"named"`         // the apps file names it without a pattern
	Subscriptions int      `json:"subscriptions"` // sessions subscribed
	Members       int      `json:"members"`       // different members among them
	Pushes        uint64   `json:"pushes"`
	Deliveries    uint64   `json:"deliveries"`
	Log           Log      `json:"log"`
	Position      Position `json:"position"`
}

// Log is the size of an app's history.
type Log struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// Position is the newest position of an app's log.
type Position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// Resumes counts the subscriptions that asked for what they missed.
type Resumes struct {
	Recovered   uint64 `json:"recovered"`
	Unrecovered uint64 `json:"unrecovered"`
	Messages    uint64 `json:"messages"` // sent again
}

// Times is a distribution of durations.
type Times struct {
	Count      uint64   `json:"count"`
	SumSeconds float64  `json:"sum_seconds"`
	Buckets    []Bucket `json:"buckets"`
}

// A Bucket counts the durations of at most LE seconds. The durations over the last
// bucket's bound are only in the count of their [Times].
type Bucket struct {
	LE    float64 `json:"le"`
	Count uint64  `json:"count"`
}

// Process is what the operating system and the Go runtime know. What a system does not tell
// is 0.
type Process struct {
	RSSBytes   uint64  `json:"rss_bytes"`
	HeapBytes  uint64  `json:"heap_bytes"` // of live and not yet swept objects
	CPUSeconds float64 `json:"cpu_seconds"`
	Goroutines int     `json:"goroutines"`
	OpenFiles  uint64  `json:"open_files"`
	MaxFiles   uint64  `json:"max_files"`
}

// A Source fills in its part of a snapshot: fields that are the zero value before, and
// entries appended to Apps, in any order. Entries of one name are added up, so that one
// source may know the named apps and another those in use. It may be called from several
// goroutines at once and must not call Snapshot.
type Source func(*Snapshot)

// AddSource makes every later snapshot ask s.
func (m *Metrics) AddSource(s Source) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sources = append(slices.Clip(m.sources), s)
}

// Snapshot returns what is known now. The caller owns it. That of a nil *Metrics is zero.
func (m *Metrics) Snapshot() Snapshot {
	if m == nil {
		return Snapshot{}
	}
	s := m.gather()
	s.Node, s.Version = m.node, m.version
	s.Time = time.Now()
	s.UptimeSeconds = s.Time.Sub(m.start).Seconds()

	s.SessionsOpened = m.opened.sum()
	s.SessionsClosed = nonZero(m.closed, strconv.Itoa)
	s.Auth = nonZero(m.auth, word)
	s.Commands = nonZero(m.commands, func(c command) string { return c.op })
	s.PushResults = nonZero(m.pushed, word)
	s.Refused = nonZero(m.refused, word)
	s.SlowDropped = nonZero(m.slowDropped, word)
	s.Resumes = Resumes{
		Recovered:   count(m.resumed.known[true]),
		Unrecovered: count(m.resumed.known[false]),
		Messages:    count(m.resumedMsgs),
	}
	s.WrittenBytes = count(m.written)

	s.HandshakeTime = times(m.handshakes)
	s.AuthTime = times(m.authDuration)
	s.PushTime = times(m.pushDuration)
	s.QueueTime = times(m.queueTime)
	s.Process = m.readProcess()
	return s
}

// gather asks the sources and puts their answers in order.
func (m *Metrics) gather() Snapshot {
	m.mu.Lock()
	sources := m.sources
	m.mu.Unlock()
	var s Snapshot
	for _, fill := range sources {
		fill(&s)
	}
	s.Apps = addUp(s.Apps)
	for i := range s.Apps {
		s.Subscriptions += s.Apps[i].Subscriptions
	}
	return s
}

// addUp sorts apps by name and makes one of those that have the same.
func addUp(apps []App) []App {
	slices.SortFunc(apps, func(a, b App) int { return strings.Compare(a.Name, b.Name) })
	sum := apps[:0]
	for _, a := range apps {
		if len(sum) == 0 || sum[len(sum)-1].Name != a.Name {
			sum = append(sum, a)
			continue
		}
		sum[len(sum)-1].add(a)
	}
	if sum == nil {
		sum = []App{} // an empty list in JSON, not null
	}
	return sum
}

// add adds the numbers of b to a. The position stays a's, unless it has none.
func (a *App) add(b App) {
	a.Named = a.Named || b.Named
	a.Subscriptions += b.Subscriptions
	a.Members += b.Members
	a.Pushes += b.Pushes
	a.Deliveries += b.Deliveries
	a.Log.Messages += b.Log.Messages
	a.Log.Bytes += b.Log.Bytes
	if a.Position == (Position{}) {
		a.Position = b.Position
	}
}

// limit keeps the n apps with the most subscriptions, pushes deciding between equals, and
// adds the rest up in one called [Other] at the end.
func (s *Snapshot) limit(n int) {
	if len(s.Apps) <= n {
		return
	}
	slices.SortFunc(s.Apps, func(a, b App) int {
		return cmp.Or(cmp.Compare(b.Subscriptions, a.Subscriptions), cmp.Compare(b.Pushes, a.Pushes))
	})
	rest := App{Name: Other}
	for _, a := range s.Apps[n:] {
		a.Named, a.Position = false, Position{}
		rest.add(a)
	}
	s.Apps = s.Apps[:n]
	slices.SortFunc(s.Apps, func(a, b App) int { return strings.Compare(a.Name, b.Name) })
	s.Apps = append(s.Apps, rest)
}

func word(s string) string { return s }

// nonZero returns the values of c that are not zero, added up by name.
func nonZero[K comparable](c counters[K], name func(K) string) map[string]uint64 {
	values := make(map[string]uint64)
	for k, counter := range c.known {
		if n := count(counter); n > 0 {
			values[name(k)] += n
		}
	}
	if c.other != nil {
		if n := count(c.other); n > 0 {
			values[Other] += n
		}
	}
	return values
}

// sum returns the sum of all of c's counters.
func (c *counters[K]) sum() uint64 {
	total := count(c.other)
	for _, counter := range c.known {
		total += count(counter)
	}
	return total
}

// read returns the value of one metric. Write fails only for metrics that were not made by
// prometheus itself.
func read(metric prometheus.Metric) *dto.Metric {
	var d dto.Metric
	if err := metric.Write(&d); err != nil {
		panic(err)
	}
	return &d
}

func count(c prometheus.Counter) uint64 { return uint64(read(c).GetCounter().GetValue()) }

func times(h prometheus.Histogram) Times {
	d := read(h).GetHistogram()
	t := Times{Count: d.GetSampleCount(), SumSeconds: d.GetSampleSum()}
	for _, b := range d.GetBucket() {
		if le := b.GetUpperBound(); !math.IsInf(le, 1) {
			t.Buckets = append(t.Buckets, Bucket{LE: le, Count: b.GetCumulativeCount()})
		}
	}
	return t
}

// readProcess asks the same collector that /metrics shows, which knows every operating
// system. A number that it cannot get is missing from what it returns.
func (m *Metrics) readProcess() Process {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	p := Process{Goroutines: runtime.NumGoroutine(), HeapBytes: heap[0].Value.Uint64()}
	families, _ := m.process.Gather()
	for _, f := range families {
		d := f.GetMetric()[0]
		switch f.GetName() {
		case "process_cpu_seconds_total":
			p.CPUSeconds = d.GetCounter().GetValue()
		case "process_resident_memory_bytes":
			p.RSSBytes = uint64(d.GetGauge().GetValue())
		case "process_open_fds":
			p.OpenFiles = uint64(d.GetGauge().GetValue())
		case "process_max_fds":
			p.MaxFiles = uint64(d.GetGauge().GetValue())
		}
	}
	return p
}
