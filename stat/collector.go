package stat

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// describe names a metric that an appCollector yields.
func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

var (
	sessionsDesc    = describe("sessions", "Sessions open now, by kind.", "kind")
	appsDesc        = describe("apps", "Apps that are in use or named in the apps file.")
	subsDesc        = describe("app_subscriptions", "Sessions subscribed to an app now.", "app")
	membersDesc     = describe("app_members", "Different members subscribed to an app now.", "app")
	pushesDesc      = describe("app_pushes_total", "Messages accepted for an app.", "app")
	deliveriesDesc  = describe("app_deliveries_total", "Messages of an app queued to subscribers.", "app")
	logMessagesDesc = describe("app_log_messages", "Messages in an app's log.", "app")
	logBytesDesc    = describe("app_log_bytes", "Bytes in an app's log.", "app")
)

// appCollector makes metrics of what the sources say. An app that the apps file names has
// its own series; all others are added up as [Other], so that strangers who make up app
// names make no series.
type appCollector struct {
	metrics *Metrics

	mu         sync.Mutex
	pushes     monotonic // guarded by mu
	deliveries monotonic // guarded by mu
}

var _ prometheus.Collector = (*appCollector)(nil)

// Describe implements [prometheus.Collector].
func (c *appCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		sessionsDesc, appsDesc, subsDesc, membersDesc, pushesDesc, deliveriesDesc, logMessagesDesc, logBytesDesc,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (c *appCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.metrics.gather()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(sessionsDesc, s.Sessions.Members, "members")
	gauge(sessionsDesc, s.Sessions.Anonymous, "anonymous")
	gauge(sessionsDesc, s.Sessions.Pending, "pending")
	gauge(appsDesc, len(s.Apps))

	apps := byLabel(s.Apps)
	for label, a := range apps {
		gauge(subsDesc, a.Subscriptions, label)
		gauge(membersDesc, a.Members, label)
		gauge(logMessagesDesc, a.Log.Messages, label)
		gauge(logBytesDesc, int(a.Log.Bytes), label)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for label, n := range c.pushes.update(s.Pushes, apps, func(a *App) uint64 { return a.Pushes }) {
		ch <- prometheus.MustNewConstMetric(pushesDesc, prometheus.CounterValue, float64(n), label)
	}
	for label, n := range c.deliveries.update(s.Deliveries, apps, func(a *App) uint64 { return a.Deliveries }) {
		ch <- prometheus.MustNewConstMetric(deliveriesDesc, prometheus.CounterValue, float64(n), label)
	}
}

// byLabel returns the named apps by the label that they get, and the sum of all others. A
// named app whose name is itself "other" is part of that sum. It adds up in apps itself.
func byLabel(apps []App) map[string]*App {
	labels := map[string]*App{Other: {}}
	for i := range apps {
		label := Other
		if apps[i].Named {
			label = strings.ToValidUTF8(apps[i].Name, "\uFFFD") // prometheus refuses all else
		}
		if sum, ok := labels[label]; ok {
			sum.add(apps[i])
		} else {
			labels[label] = &apps[i]
		}
	}
	return labels
}

// monotonic splits a total that never falls among counters that never fall either, although
// the counts of the apps start again when an app comes back after it was gone.
type monotonic struct {
	total uint64            // as of the last update
	last  map[string]uint64 // the apps' own counts as of the last update, by label
	sum   map[string]uint64 // the counters, by label
}

// update returns the counters by label: those of every app that was ever named, and what is
// left of total as [Other].
func (m *monotonic) update(total uint64, apps map[string]*App, value func(*App) uint64) map[string]uint64 {
	if m.sum == nil {
		m.last, m.sum = make(map[string]uint64), map[string]uint64{Other: 0}
	}
	left := total - min(m.total, total)
	m.total = max(m.total, total)
	for label, a := range apps {
		if label == Other {
			continue
		}
		n := value(a)
		more := n
		if last := m.last[label]; n >= last {
			more = n - last
		}
		m.last[label] = n
		m.sum[label] += more
		left -= min(more, left) // an app that a reload has just named was in the rest before
	}
	m.sum[Other] += left
	return m.sum
}
