package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Validate checks every setting by itself and against the others, as [Load] does. Its error
// wraps one [*Error] per problem.
func (c *Config) Validate() error {
	p := new(problems)
	p.allowed(c)
	if c.Durability != "memory" {
		p.add("DURABILITY", "%q is not memory; disk and quorum need a cluster, and %s", c.Durability, alone)
	}

	p.address("ADDR", c.Addr)
	if len(c.StatAddr) == 0 {
		p.add("STAT_ADDR", "must not be empty")
	}
	for _, addr := range c.StatAddr {
		p.address("STAT_ADDR", addr)
		if c.StatKey == "" && !loopback(addr) {
			p.add("STAT_KEY", "is needed, because %s of WSGW_STAT_ADDR is not a loopback address", addr)
		}
	}
	p.together("TLS_CERT", c.TLSCert, "TLS_KEY", c.TLSKey)
	for _, o := range c.Origins {
		if u, err := url.Parse(o); o != "*" && (err != nil || u.Host == "" || o != u.Scheme+"://"+u.Host) {
			p.add("ORIGINS", "%q is not an origin; write it like https://example.com or https://example.com:8443", o)
		}
	}

	p.auth(c)
	if c.MaxText > c.MaxBody {
		p.add("MAX_TEXT", "is greater than WSGW_MAX_BODY, which would refuse it")
	}
	if c.MaxText > c.QueueBytes {
		p.add("QUEUE_BYTES", "is less than WSGW_MAX_TEXT, so that one message would not fit")
	}
	if c.MaxMessage > c.PartialBytes {
		p.add("PARTIAL_BYTES", "is less than WSGW_MAX_MESSAGE, so that one message would not fit")
	}
	for path := range c.Doors {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#{}*") {
			p.add("DOORS", "%q is not a path; write it like /chat=chat.lua", path)
		}
		if slices.Contains(taken, path) || strings.HasPrefix(path, "/v1/mesh/") {
			p.add("DOORS", "%s is an endpoint of the gateway itself", path)
		}
	}
	for name, u := range c.Redis {
		if u, err := url.Parse(string(u)); err != nil || u.Host == "" {
			p.add("REDIS", "%s has no URL like redis://host:6379", name)
		}
	}
	return errors.Join(p.errs...)
}

// taken are the paths that a door cannot have.
var taken = []string{"/", "/ws", "/ws/v1", "/push", "/presence", "/history", "/disconnect", "/unsubscribe", "/revoke"}

// auth checks that what the chosen authenticator needs is there, and that nothing is set
// for one that was not chosen: somebody would believe it to be in force.
func (p *problems) auth(c *Config) {
	for _, only := range []struct {
		auth, setting string
		set           bool
	}{
		{"static", "MEMBERS_FILE", c.MembersFile != ""},
		{"callback", "AUTH_URL", c.AuthURL != ""},
		{"jwt", "JWT_SECRET", c.JWTSecret != ""},
		{"jwt", "JWT_KEY_FILE", c.JWTKeyFile != ""},
		{"jwt", "JWT_JWKS_URL", c.JWTJWKSURL != ""},
		{"jwt", "JWT_ALGORITHMS", len(c.JWTAlgorithms) > 0},
		{"jwt", "JWT_AUDIENCE", c.JWTAudience != ""},
		{"jwt", "JWT_ISSUER", c.JWTIssuer != ""},
	} {
		if only.set && c.Auth != only.auth {
			p.add(only.setting, "is set, but WSGW_AUTH is %s; set WSGW_AUTH=%s to use it", c.Auth, only.auth)
		}
	}
	switch c.Auth {
	case "static":
		if c.MembersFile == "" {
			p.add("MEMBERS_FILE", "is needed for WSGW_AUTH=static")
		}
	case "callback":
		if c.AuthURL == "" {
			p.add("AUTH_URL", "is needed for WSGW_AUTH=callback")
		} else {
			p.url("AUTH_URL", string(c.AuthURL), false)
		}
	case "jwt":
		p.jwt(c)
	}
}

// jwt checks the settings of WSGW_AUTH=jwt.
func (p *problems) jwt(c *Config) {
	sources := 0
	for _, set := range []bool{c.JWTSecret != "", c.JWTKeyFile != "", c.JWTJWKSURL != ""} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		p.add("AUTH", "jwt needs one of WSGW_JWT_SECRET, WSGW_JWT_KEY_FILE and WSGW_JWT_JWKS_URL, and has %d", sources)
	}
	if c.JWTSecret != "" && len(c.JWTSecret) < 32 {
		p.add("JWT_SECRET", "has %d bytes; at least 32 are needed", len(c.JWTSecret))
	}
	if c.JWTJWKSURL != "" {
		p.url("JWT_JWKS_URL", string(c.JWTJWKSURL), true)
	}
	if c.JWTAudience == "" {
		p.add("JWT_AUDIENCE", "is needed for WSGW_AUTH=jwt, so that tokens made for others are refused")
	}
	for _, alg := range c.JWTAlgorithms {
		if hmac := strings.HasPrefix(alg, "HS"); hmac != (c.JWTSecret != "") {
			p.add("JWT_ALGORITHMS", "%s does not go with the kind of key that is set", alg)
		}
	}
}

// problems collects the errors of one Validate.
type problems struct{ errs []error }

// add reports a problem of the setting with the given name, which is without prefix.
func (p *problems) add(name, format string, args ...any) {
	p.errs = append(p.errs, &Error{Prefix + name, fmt.Sprintf(format, args...)})
}

// allowed checks every field against its allowed tag.
func (p *problems) allowed(c *Config) {
	for f, v := range reflect.ValueOf(c).Elem().Fields() {
		allowed := f.Tag.Get("allowed")
		name := f.Tag.Get("env")
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				continue
			}
			v = v.Elem()
		}
		if lo, hi, ok := strings.Cut(allowed, ".."); ok {
			if n := number(v); n < bound(v.Type(), lo) || hi != "" && n > bound(v.Type(), hi) {
				p.add(name, "%v is out of range; allowed is %s", v, readable(allowed))
			}
			continue
		}
		if allowed == "" {
			continue
		}
		for _, word := range spoken(v) {
			if !slices.Contains(strings.Split(allowed, "|"), word) {
				p.add(name, "%q is not one of %s", word, readable(allowed))
			}
		}
	}
}

// spoken returns the words that a value consists of, as one writes them.
func spoken(v reflect.Value) []string {
	switch v := v.Interface().(type) {
	case []string:
		return v
	case slog.Level:
		return []string{strings.ToLower(v.String())}
	default:
		return []string{fmt.Sprint(v)}
	}
}

// number returns a value that has a range as a float, in which all of them are exact enough.
func number(v reflect.Value) float64 {
	if v.CanInt() {
		return float64(v.Int())
	}
	return v.Float()
}

// bound reads one end of a range as a value of the setting's type.
func bound(t reflect.Type, s string) float64 {
	v, err := parsers[t](s)
	if err != nil {
		panic("config: bad allowed tag " + strconv.Quote(s) + ": " + err.Error())
	}
	return number(reflect.ValueOf(v))
}

// address checks an address to listen at.
func (p *problems) address(name, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		p.add(name, "%q is not an address; write it like :5000, 127.0.0.1:5000 or [::1]:5000", addr)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		p.add(name, "%q has no port between 0 and 65535", addr)
	}
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			p.add(name, "%q has no valid IPv6 address", addr)
		}
	}
}

// loopback reports whether listening at addr reaches this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // reported as such
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// together checks that two settings are both set or both not.
func (p *problems) together(a, va, b, vb string) {
	if (va == "") != (vb == "") {
		missing, there := a, b
		if vb == "" {
			missing, there = b, a
		}
		p.add(missing, "is needed, because %s%s is set", Prefix, there)
	}
}

// url checks an absolute HTTP URL. It never quotes it: there may be a password in it.
func (p *problems) url(name, s string, secure bool) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		p.add(name, "is not a URL like https://example.com/path")
	case secure && u.Scheme == "http" && !loopback(net.JoinHostPort(u.Hostname(), "0")):
		p.add(name, "is not https, and its host is not loopback")
	}
}
