package stat

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Other is the label value that stands for every value outside a label's vocabulary, so
// that nothing a stranger sends can make a new time series.
const Other = "other"

// The reasons for which a limit refuses something, for [Metrics.Refused]. Each limit of the
// configuration has one.
const (
	ReasonConnections        = "connections"         // sessions at once
	ReasonHandshakes         = "handshakes"          // handshakes at once
	ReasonHandshakeRate      = "handshake_rate"      // handshakes a second
	ReasonAddressConnections = "address_connections" // sessions of one address
	ReasonMemberConnections  = "member_connections"  // sessions of one member
	ReasonHeaderFields       = "header_fields"       // header fields of one handshake
	ReasonDraining           = "draining"            // a handshake while the gateway stops
	ReasonOrigin             = "origin"              // a browser page of a foreign origin
	ReasonHost               = "host"                // a Host that is not loopback where no key protects
	ReasonAuthFailures       = "auth_failures"       // refused logins of one address
	ReasonAuthQueue          = "auth_queue"          // logins waiting for the auth backend
	ReasonAuthDeadline       = "auth_deadline"       // no auth message in time
	ReasonCommandRate        = "command_rate"        // commands a second of one session
	ReasonSubscriptions      = "subscriptions"       // subscriptions of one session
	ReasonBadMessages        = "bad_messages"        // bad messages in a row
	ReasonMessageSize        = "message_size"        // a message from a client
	ReasonPartialBytes       = "partial_bytes"       // incomplete messages held for clients
	ReasonQueueBytes         = "queue_bytes"         // frames queued to one session
	ReasonWriteTimeout       = "write_timeout"       // time in which a session takes nothing of what is queued
	ReasonWriteMinimum       = "write_minimum"       // what it takes at least
	ReasonPushKey            = "push_key"            // a push without a right key
	ReasonPushKeyFailures    = "push_key_failures"   // wrong keys from one address
	ReasonPushRate           = "push_rate"           // messages a second of one key
	ReasonPushBody           = "push_body"           // the body of one request, also of a call other than a push
	ReasonPushBodyTime       = "push_body_time"      // time for one request to come, with its body
	ReasonPushText           = "push_text"           // the text of one message
	ReasonPushBatch          = "push_batch"          // messages of one batch
	ReasonPushHost           = "push_host"           // a keyless push to a Host that is not loopback
	ReasonPushBacklog        = "push_backlog"        // time that messages wait for their fan-out
	ReasonPushIdempotency    = "push_idempotency"    // idempotency keys remembered at once
	ReasonCallUnavailable    = "call_unavailable"    // a backend's call that the log or the presence did not answer
	ReasonHistoryMemory      = "history_memory"      // all logs together: each time that they had to forget something
	ReasonMemory             = "memory"              // the process
	ReasonScriptTime         = "script_time"         // running time of one call into a script
	ReasonScriptWait         = "script_wait"         // time that one call into a script waits for others
	ReasonScriptMemory       = "script_memory"       // what one call into a script makes
	ReasonScriptHost         = "script_host"         // an address that a script may not reach
	ReasonScriptAnswer       = "script_answer"       // the size of an HTTP answer to a script
	ReasonScriptContext      = "script_context"      // what is kept for one connection of a script
	ReasonScriptQueue        = "script_queue"        // what a script pushes to a queue for backends, and topics that they pop
	ReasonStatKey            = "stat_key"            // a request to the stat server without its key
	ReasonStatViewers        = "stat_viewers"        // viewers of the live stream at once
)

var reasons = []string{
	ReasonConnections, ReasonHandshakes, ReasonHandshakeRate, ReasonAddressConnections,
	ReasonMemberConnections, ReasonHeaderFields, ReasonDraining, ReasonOrigin, ReasonHost, ReasonAuthFailures, ReasonAuthQueue,
	ReasonAuthDeadline, ReasonCommandRate, ReasonSubscriptions, ReasonBadMessages,
	ReasonMessageSize, ReasonPartialBytes, ReasonQueueBytes, ReasonWriteTimeout, ReasonWriteMinimum,
	ReasonPushKey, ReasonPushKeyFailures, ReasonPushRate, ReasonPushBody, ReasonPushBodyTime,
	ReasonPushText, ReasonPushBatch, ReasonPushHost, ReasonPushBacklog, ReasonPushIdempotency,
	ReasonCallUnavailable, ReasonHistoryMemory, ReasonMemory,
	ReasonScriptTime, ReasonScriptWait, ReasonScriptMemory, ReasonScriptHost, ReasonScriptAnswer,
	ReasonScriptContext, ReasonScriptQueue,
	ReasonStatKey, ReasonStatViewers,
}

// The results of a client's auth message, for [Metrics.Authenticated].
const (
	AuthAccepted     = "accepted"     // it is a member now
	AuthAnonymous    = "anonymous"    // it asked to be anonymous
	AuthUnauthorized = "unauthorized" // the token was refused
	AuthUnavailable  = "unavailable"  // the backend could not answer
	AuthMissing      = "missing"      // no valid auth message came
	AuthRenewed      = "renewed"      // a member renewed its token
)

var authResults = []string{
	AuthAccepted, AuthAnonymous, AuthUnauthorized, AuthUnavailable, AuthMissing, AuthRenewed,
}

// The results of a push, for [Metrics.Pushed].
const (
	PushAccepted     = "accepted"     // in the log and queued
	PushDuplicate    = "duplicate"    // answered from an earlier one with the same key
	PushBad          = "bad"          // not a valid push
	PushUnauthorized = "unauthorized" // no right key
	PushRefused      = "refused"      // over a limit, or surely not stored
	PushUnknown      = "unknown"      // the store did not say whether it has it
)

var pushResults = []string{
	PushAccepted, PushDuplicate, PushBad, PushUnauthorized, PushRefused, PushUnknown,
}

var (
	transports   = []string{"event", "goroutine"}
	slowPolicies = []string{"close", "drop_oldest", "latest"}
	commandOps   = []string{"auth", "subscribe", "unsubscribe", "push", "presence", "ping", "invalid"}
	commandCodes = []string{"200", "400", "401", "403", "404", "429", "503"}
	// closeCodes are the codes that the gateway sends or understands. A client may send any
	// of 3000-4999, so the rest is folded.
	closeCodes = []string{
		"1000", "1001", "1002", "1003", "1005", "1006", "1007", "1009", "1011", "1012", "1013",
		"4008", "4010", "4012", "4013", "4015", "4500", "4501", "4502", "4503", "4504",
	}
)

// counters are the counters of a family whose one label has a fixed vocabulary: all are
// made beforehand, so that counting is a lookup by the caller's own value and an atomic add.
type counters[K comparable] struct {
	known map[K]prometheus.Counter // read only
	other prometheus.Counter
}

// of returns the counter of k, or the one of all unknown values.
func (c *counters[K]) of(k K) prometheus.Counter {
	if known, ok := c.known[k]; ok {
		return known
	}
	return c.other
}

// maxWords bounds a vocabulary that the code or the operator makes up as it runs.
const maxWords = 64

// words is the vocabulary of a label whose values come from the program or its operator,
// never from a stranger: the first maxWords values seen stand for themselves, the rest for
// Other. The zero value is ready to use.
type words struct {
	mu   sync.Mutex
	seen map[string]bool // guarded by mu
}

// fold returns word when it is part of the vocabulary or there is room for it, else Other.
func (w *words) fold(word string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[word] {
		return word
	}
	if len(w.seen) == maxWords {
		return Other
	}
	if w.seen == nil {
		w.seen = make(map[string]bool)
	}
	w.seen[word] = true
	return word
}

// durations are the histograms of a family whose two labels are [words].
type durations struct {
	vec   *prometheus.HistogramVec
	words [2]words

	mu    sync.RWMutex
	known map[[2]string]prometheus.Observer // guarded by mu
}

// of returns the histogram of two words.
func (d *durations) of(first, second string) prometheus.Observer {
	key := [2]string{first, second}
	d.mu.RLock()
	known := d.known[key]
	d.mu.RUnlock()
	if known != nil {
		return known
	}
	folded := [2]string{d.words[0].fold(first), d.words[1].fold(second)}
	o := d.vec.WithLabelValues(folded[0], folded[1])
	if folded == key {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.known == nil {
			d.known = make(map[[2]string]prometheus.Observer)
		}
		d.known[key] = o
	}
	return o
}
