// Package stat holds everything that yields numbers: what the other packages count
// ([Metrics]), the same as a plain struct ([Snapshot]), and the HTTP server that shows both
// ([Handler]). METRICS.md explains each metric.
//
// It imports no other package of the gateway: they hand their numbers to it, by calling a
// method of Metrics when something happens, or through a [Source] that is asked for what is.
package stat

import (
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Options configures [New].
type Options struct {
	Node    string // the name of this node; may be empty
	Version string // of the program; may be empty
}

// Metrics counts what happens in one gateway and gathers what is. Every method may be called
// from any goroutine, and on a nil *Metrics, which counts nothing.
//
// The methods that run once per command, push, write or connection do not allocate and do
// not lock.
type Metrics struct {
	node, version string
	start         time.Time

	registry *prometheus.Registry // ours, Go's and the build's
	process  *prometheus.Registry // the process collector, which a Snapshot reads by itself
	apps     appCollector

	opened       counters[string]
	closed       counters[int]
	auth         counters[string]
	authDuration prometheus.Histogram
	authBackend  durations
	commands     counters[command]
	refused      counters[string]
	pushed       counters[string]
	unknownKeys  prometheus.Counter
	pushDuration prometheus.Histogram
	queueTime    prometheus.Histogram
	slowDropped  counters[string]
	resumed      counters[bool]
	resumedMsgs  prometheus.Counter
	handshakes   prometheus.Histogram
	script       durations
	panics       *prometheus.CounterVec
	reloads      *prometheus.CounterVec
	reloadFailed *prometheus.GaugeVec
	written      prometheus.Counter

	panicked, reloaded words

	mu      sync.Mutex
	sources []Source // guarded by mu
}

// command is what a command asked for and how it was answered.
type command struct {
	op   string
	code int
}

// New returns Metrics with a registry of their own, so that two gateways in one process do
// not count together.
func New(o Options) *Metrics {
	m := &Metrics{
		node:     o.Node,
		version:  o.Version,
		start:    time.Now(),
		registry: prometheus.NewRegistry(),
		process:  prometheus.NewRegistry(),
	}
	m.process.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewBuildInfoCollector())

	info := m.gaugeVec("build_info", "The version that runs here; always 1.", "version", "go_version")
	info.WithLabelValues(o.Version, runtime.Version()).Set(1)
	m.gauge("start_time_seconds", "When the gateway started, in seconds since 1970.").
		Set(float64(m.start.UnixMilli()) / 1000)

	m.opened = m.labelled("sessions_opened_total",
		"Client connections that became sessions, by transport.", "transport", transports)
	closed := m.labelled("sessions_closed_total",
		"Sessions that ended, by close code.", "code", closeCodes)
	m.closed = counters[int]{make(map[int]prometheus.Counter), closed.other}
	for _, code := range closeCodes {
		n, _ := strconv.Atoi(code)
		m.closed.known[n] = closed.known[code]
	}

	m.auth = m.labelled("auth_total", "Auth messages of clients, by result.", "result", authResults)
	m.authDuration = m.histogram("auth_duration_seconds",
		"Time from a client's auth message to the answer, waiting included.", seconds(100e-6, 10))
	m.authBackend.vec = m.histogramVec("auth_backend_duration_seconds",
		"Time that an auth backend took for one question.", seconds(100e-6, 10), "backend", "outcome")

	commands := m.counterVec("commands_total",
		"Commands of clients, by what they asked for and the code of the reply.", "op", "code")
	m.commands = counters[command]{make(map[command]prometheus.Counter), commands.WithLabelValues(Other, Other)}
	for _, op := range commandOps {
		for _, code := range commandCodes {
			n, _ := strconv.Atoi(code)
			m.commands.known[command{op, n}] = commands.WithLabelValues(op, code)
		}
	}

	m.refused = m.labelled("refused_total", "What a limit refused, by the limit.", "reason", reasons)
	m.pushed = m.labelled("pushes_total", "Messages pushed, by result.", "result", pushResults)
	m.unknownKeys = m.counter("push_unknown_keys_total", "Keys of pushes that were ignored because they mean nothing.")
	m.pushDuration = m.histogram("push_duration_seconds",
		"Time to answer one push request.", seconds(10e-6, 10))
	m.queueTime = m.histogram("push_queue_seconds",
		"Time that a message waited between being accepted and its fan-out.", seconds(10e-6, 10))
	m.slowDropped = m.labelled("slow_dropped_messages_total",
		"Messages dropped for sessions that did not keep up, by the app's policy.", "policy", slowPolicies)

	resumed := m.counterVec("resumes_total",
		"Subscriptions that asked for what they missed, by whether all of it was there.", "recovered")
	m.resumed = counters[bool]{known: map[bool]prometheus.Counter{
		true: resumed.WithLabelValues("true"), false: resumed.WithLabelValues("false"),
	}}
	m.resumedMsgs = m.counter("resumed_messages_total", "Messages sent again to sessions that resumed.")
	m.handshakes = m.histogram("handshake_duration_seconds",
		"Time from a connection's first byte to its upgrade.", seconds(100e-6, 10))
	m.script.vec = m.histogramVec("script_duration_seconds",
		"Running time of one call into a door's script.", seconds(10e-6, 1), "door", "outcome")
	m.panics = m.counterVec("panics_total", "Panics that were contained, by where.", "where")
	m.reloads = m.counterVec("reloads_total", "Reloads of the configuration, by what and result.", "what", "result")
	m.reloadFailed = m.gaugeVec("reload_failed",
		"1 when the newest reload failed and the configuration before it stays.", "what")
	m.written = m.counter("written_bytes_total", "Bytes written to clients.")

	m.apps.metrics = m
	m.registry.MustRegister(&m.apps)
	return m
}

// seconds returns histogram bounds from low to high, three a decade.
func seconds(low, high float64) []float64 {
	var bounds []float64
	for b := low; b < high; b *= 10 {
		bounds = append(bounds, b, 2.5*b, 5*b)
	}
	return append(bounds, high)
}

const namespace = "wsgateway"

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	return m.gaugeVec(name, help).WithLabelValues()
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	return m.counterVec(name, help).WithLabelValues()
}

func (m *Metrics) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(v)
	return v
}

func (m *Metrics) histogram(name, help string, bounds []float64) prometheus.Histogram {
	return m.histogramVec(name, help, bounds).WithLabelValues().(prometheus.Histogram)
}

func (m *Metrics) histogramVec(name, help string, bounds []float64, labels ...string) *prometheus.HistogramVec {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: bounds,
	}, labels)
	m.registry.MustRegister(v)
	return v
}

// labelled registers a counter with one label and makes a child for each word of its vocabulary.
func (m *Metrics) labelled(name, help, label string, vocabulary []string) counters[string] {
	v := m.counterVec(name, help, label)
	c := counters[string]{make(map[string]prometheus.Counter, len(vocabulary)), v.WithLabelValues(Other)}
	for _, word := range vocabulary {
		c.known[word] = v.WithLabelValues(word)
	}
	return c
}
