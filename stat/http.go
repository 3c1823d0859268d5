package stat

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// HandlerOptions configures [Handler]. The zero value serves the numbers of nothing, to
// loopback only.
type HandlerOptions struct {
	Metrics *Metrics
	// Ready answers /readyz; nil is always ready.
	Ready *Ready
	// Key is what every request must show, except /healthz and /readyz. Without one only
	// peers on loopback are answered, by a loopback name.
	Key string
	// Reload serves POST /reload: it loads the configuration anew and returns what changed,
	// a line each, or why everything stays as it was. It may be called from several
	// goroutines at once. Nil turns the route off.
	Reload func() ([]string, error)
	// Pprof serves /debug/pprof/.
	Pprof bool
	// Viewers is how many may watch /stat/stream at once, and as many /stat/tail; 0 means 16.
	Viewers int
	// Tail is what /stat/tail shows; nil turns the route off.
	Tail *Tail
	// Dashboard serves / and what it needs below /dashboard/; nil turns both off.
	Dashboard http.Handler
}

// maxScrapes bounds how many requests for /metrics are answered at once; more get 503. It has no
// setting: a scrape takes milliseconds, and one that was refused is made again.
const maxScrapes = 4

// Handler returns the stat server's routes. Streams end when their request does or when ctx
// is done, which is to be before [http.Server.Shutdown]: it waits for them.
func Handler(ctx context.Context, o HandlerOptions) http.Handler {
	numbers := http.NewServeMux()
	numbers.HandleFunc("GET /stat", o.Metrics.serveStat)
	numbers.Handle("GET /stat/stream", newStream(ctx, o.Metrics, o.Viewers))
	numbers.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics.gatherer(), promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	}))
	if o.Tail != nil {
		numbers.Handle("GET /stat/tail", newTailHandler(ctx, o.Tail, o.Metrics, o.Viewers))
	}
	if o.Reload != nil {
		numbers.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) { serveReload(w, o.Reload) })
	}
	if o.Pprof {
		numbers.HandleFunc("GET /debug/pprof/", pprof.Index)
		numbers.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		numbers.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		numbers.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		numbers.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
		numbers.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	if o.Dashboard != nil {
		numbers.Handle("GET /{$}", o.Dashboard)
		numbers.Handle("/dashboard/", o.Dashboard)
	}

	probes := http.NewServeMux()
	probes.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, status{http.StatusOK, "alive"})
	})
	probes.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if reason := o.Ready.Reason(); reason != "" {
			fail(w, http.StatusServiceUnavailable, reason)
			return
		}
		answer(w, http.StatusOK, status{http.StatusOK, "ready"})
	})

	routes := http.NewServeMux()
	routes.Handle("/", newGuard(o.Key, o.Metrics).protect(numbers))
	routes.Handle("/healthz", probes)
	routes.Handle("/readyz", probes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		routes.ServeHTTP(w, r)
	})
}

// gatherer returns all that /metrics shows.
func (m *Metrics) gatherer() prometheus.Gatherer {
	if m == nil {
		return prometheus.Gatherers{}
	}
	return prometheus.Gatherers{m.registry, m.process}
}

// serveStat answers with a line per app, or with the whole snapshot where JSON is asked for.
func (m *Metrics) serveStat(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Vary", "Accept")
	if acceptsJSON(r.Header.Values("Accept")) {
		answer(w, http.StatusOK, m.Snapshot())
		return
	}
	var apps []App
	if m != nil {
		apps = m.gather().Apps
	}
	lines := make([]byte, 0, 32*len(apps))
	for i := range apps {
		if a := &apps[i]; a.Named || a.Subscriptions > 0 {
			lines = append(appendName(lines, a.Name), ' ')
			lines = append(strconv.AppendInt(lines, int64(a.Subscriptions), 10), '\n')
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(lines) //nolint:errcheck // the client has gone
}

// appendName appends an app's name, quoted when it could be taken for more than one word.
func appendName(dst []byte, name string) []byte {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c > '~' || c == '"' {
			return strconv.AppendQuoteToASCII(dst, name)
		}
	}
	return append(dst, name...)
}

// acceptsJSON reports whether an Accept header names JSON; "*/*" means text.
func acceptsJSON(accept []string) bool {
	for _, value := range accept {
		for part := range strings.SplitSeq(value, ",") {
			kind, params, err := mime.ParseMediaType(part)
			if err != nil || kind != "application/json" {
				continue
			}
			if q, err := strconv.ParseFloat(params["q"], 64); err != nil || q > 0 {
				return true
			}
		}
	}
	return false
}

// serveReload calls reload and says what came of it.
func serveReload(w http.ResponseWriter, reload func() ([]string, error)) {
	changes, err := reload()
	if err != nil {
		fail(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	if changes == nil {
		changes = []string{}
	}
	answer(w, http.StatusOK, struct {
		Code    int      `json:"code"`
		Changes []string `json:"changes"`
	}{http.StatusOK, changes})
}

// status is the body of an answer that has no other.
type status struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// fail answers with an error.
func fail(w http.ResponseWriter, code int, message string) { answer(w, code, status{code, message}) }

// answer writes v as JSON.
func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is one of our own plain structs
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(body, '\n')) //nolint:errcheck // the client has gone
}
