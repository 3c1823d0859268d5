package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	lua "github.com/yuin/gopher-lua"

	"ws-gateway/stat"
)

// maxWait is how long a script may wait for one answer. Scripts rely on it: it is documented, and has
// no setting.
const maxWait = 3 * time.Second

// httpClient is what mix.http uses. It follows no redirects and uses no proxy, and checks
// every address it is about to connect to, after names were resolved.
type httpClient struct {
	client  http.Client
	allow   []netip.Prefix
	metrics *stat.Metrics
}

func newHTTPClient(o Options) *httpClient {
	h := &httpClient{allow: o.HTTPAllow, metrics: o.Metrics}
	dialer := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error { return h.check(address) }}
	h.client = http.Client{
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSHandshakeTimeout:    maxWait,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h
}

func (h *httpClient) close() { h.client.CloseIdleConnections() }

// never are networks that no setting opens: link-local ones, where clouds keep their
// credentials, and those that are not hosts.
var never = prefixes("169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255/32")

// private are networks that must be listed: private and shared ones, and those that embed
// other addresses (RFC 6890).
var private = prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
	"fc00::/7", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16")

func prefixes(ps ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(ps))
	for i, p := range ps {
		out[i] = netip.MustParsePrefix(p)
	}
	return out
}

func contains(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// check says whether scripts may connect to address.
func (h *httpClient) check(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	a := ap.Addr().Unmap().WithZone("")
	if !contains(never, a) && (a.IsLoopback() || contains(h.allow, a) || !contains(private, a)) {
		return nil
	}
	h.metrics.Refused(stat.ReasonScriptHost)
	return fmt.Errorf("address %s is not allowed", a)
}

// httpRequest implements mix.http.request(method, url [, options]).
func (s *state) httpRequest(L *lua.LState) int {
	method, url := L.CheckString(1), L.CheckString(2)
	options := L.OptTable(3, newTable(0, 0))
	if s.client == nil {
		return pushError(L, errNoClient)
	}
	req, timeout, err := newRequest(method, url, options)
	if err != nil {
		return pushError(L, err)
	}
	var resp *http.Response
	var body []byte
	limit := s.door.host.opts.HTTPBytes
	s.wait(L, timeout, func(ctx context.Context) {
		if resp, err = s.door.host.http.client.Do(req.WithContext(ctx)); err != nil {
			return
		}
		defer resp.Body.Close()
		body, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	})
	if err == nil && len(body) > limit {
		s.door.host.opts.Metrics.Refused(stat.ReasonScriptAnswer)
		err = fmt.Errorf("answer is larger than %d bytes", limit)
	}
	if err != nil {
		return pushError(L, err)
	}
	s.b.charge(L, len(body))
	t := newTable(0, 6)
	t.RawSetString("body", lua.LString(body))
	t.RawSetString("body_size", lua.LNumber(len(body)))
	t.RawSetString("status_code", lua.LNumber(resp.StatusCode))
	t.RawSetString("url", lua.LString(resp.Request.URL.String()))
	headers := newTable(0, len(resp.Header))
	for k, v := range resp.Header {
		headers.RawSetString(k, lua.LString(strings.Join(v, ", ")))
	}
	t.RawSetString("headers", headers)
	cookies := newTable(0, 0)
	for _, c := range resp.Cookies() {
		cookies.RawSetString(c.Name, lua.LString(c.Value))
	}
	t.RawSetString("cookies", cookies)
	L.Push(t)
	return 1
}

// newRequest makes the request that options describe, and says how long it may take.
func newRequest(method, url string, options *lua.LTable) (*http.Request, time.Duration, error) {
	var body io.Reader
	switch v := options.RawGetString("body").(type) {
	case *lua.LNilType:
	case lua.LString, lua.LNumber:
		body = strings.NewReader(v.String())
	default:
		return nil, 0, errors.New("body must be a string")
	}
	req, err := http.NewRequest(strings.ToUpper(method), url, body)
	if err != nil {
		return nil, 0, err
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, 0, errors.New("url must be http or https")
	}
	if q := lua.LVAsString(options.RawGetString("query")); q != "" {
		if req.URL.RawQuery != "" {
			q = req.URL.RawQuery + "&" + q
		}
		req.URL.RawQuery = q
	}
	for k, v := range stringsOf(options.RawGetString("headers")) {
		if strings.EqualFold(k, "Host") {
			req.Host = v
		} else {
			req.Header.Set(k, v)
		}
	}
	for k, v := range stringsOf(options.RawGetString("cookies")) {
		req.AddCookie(&http.Cookie{Name: k, Value: v})
	}
	if auth := stringsOf(options.RawGetString("auth")); auth != nil {
		// CONNMIX's two reference pages name the keys differently.
		req.SetBasicAuth(auth["username"]+auth["user"], auth["password"]+auth["pass"])
	}
	timeout := maxWait
	switch v := options.RawGetString("timeout").(type) {
	case lua.LNumber:
		timeout = time.Duration(min(max(float64(v), 0), 1e6) * float64(time.Second))
	case lua.LString:
		if timeout, err = time.ParseDuration(string(v)); err != nil {
			return nil, 0, err
		}
	}
	if timeout <= 0 {
		timeout = maxWait
	}
	return req, min(timeout, maxWait), nil
}

// stringsOf returns the pairs of a table whose keys are strings and whose values are
// strings or numbers; nil if v is no table.
func stringsOf(v lua.LValue) map[string]string {
	t, ok := v.(*lua.LTable)
	if !ok {
		return nil
	}
	out := make(map[string]string)
	t.ForEach(func(k, v lua.LValue) {
		if k, ok := k.(lua.LString); ok && lua.LVCanConvToString(v) {
			out[string(k)] = v.String()
		}
	})
	return out
}
