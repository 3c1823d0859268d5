package server

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"ws-gateway/stat/peer"
)

// origins decides which web pages may open a connection (RFC 6454; RFC 6455, section 10.2).
// It is what stands between a foreign page and a browser's access to this network.
type origins struct {
	any     bool
	allowed map[string]bool // by normalised origin
}

// newOrigins takes a list of exact origins, such as https://example.com, or "*".
func newOrigins(list []string) (*origins, error) {
	o := &origins{allowed: make(map[string]bool)}
	for _, s := range list {
		if s == "*" {
			o.any = true
			continue
		}
		parsed, err := parseOrigin(s)
		if err != nil {
			return nil, fmt.Errorf("origin %q: %w", s, err)
		}
		o.allowed[parsed.String()] = true
	}
	return o, nil
}

// allow reports whether r may come from where it says it does. No Origin means that it does
// not come from a web page.
func (o *origins) allow(r *http.Request) bool {
	given := r.Header["Origin"]
	if len(given) == 0 || o.any {
		return true
	}
	if len(given) > 1 {
		return false
	}
	from, err := parseOrigin(given[0])
	if err != nil { // "null" too: a sandboxed page, or a local file
		return false
	}
	return o.allowed[from.String()] || peer.IsThisMachine(from.host) || from.is(r)
}

// An origin is scheme, host and port of a web page, in lower case and the port never empty.
type origin struct{ scheme, host, port string }

func (o origin) String() string { return o.scheme + "://" + net.JoinHostPort(o.host, o.port) }

// is reports whether o is the very host that r is addressed to.
func (o origin) is(r *http.Request) bool {
	scheme := o.scheme // without TLS here, a proxy may speak it: believe the page
	if r.TLS != nil {
		scheme = "https"
	}
	to, err := parseOrigin(scheme + "://" + r.Host)
	return err == nil && to.host == o.host && to.port == o.port
}

func parseOrigin(s string) (origin, error) {
	u, err := url.Parse(s)
	if err != nil {
		return origin{}, errors.New("not a URL")
	}
	o := origin{scheme: u.Scheme, host: strings.ToLower(u.Hostname()), port: u.Port()}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return origin{}, errors.New("must start with http:// or https://")
	case o.host == "":
		return origin{}, errors.New("has no host")
	case u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return origin{}, errors.New("must end with the host or port")
	case strings.Contains(o.host, "*"):
		return origin{}, errors.New("must be exact: a * within is no pattern")
	}
	if o.port == "" {
		o.port = "80"
		if o.scheme == "https" {
			o.port = "443"
		}
	}
	return o, nil
}
