package config

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/caarlos0/env/v11"
	"github.com/dustin/go-humanize"
)

// An Error says what is wrong with one setting.
type Error struct {
	Setting string // its whole name
	Problem string // includes what is allowed; never the value of a secret
}

// Error returns one line.
func (e *Error) Error() string { return e.Setting + ": " + e.Problem }

// Load reads the settings from environ, which has the form of [os.Environ], and checks them.
// Its error wraps one [*Error] per bad setting; it prints as one line for each.
func Load(environ []string) (*Config, error) {
	vars := env.ToMap(environ)
	c := new(Config)
	errs := unknown(vars)
	var several env.AggregateError
	if err := env.ParseWithOptions(c, env.Options{Prefix: Prefix, Environment: vars, FuncMap: parsers}); errors.As(err, &several) {
		for _, err := range several.Errors {
			errs = append(errs, parseError(err, vars))
		}
	} else if err != nil {
		errs = append(errs, parseError(err, vars))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if c.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return nil, &Error{Prefix + "NODE", "is needed, as the host has no name: " + err.Error()}
		}
		c.Node = name
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// parsers reads each type of setting. Their errors say what is wrong and what is right.
var parsers = map[reflect.Type]env.ParserFunc{
	reflect.TypeFor[int](): func(s string) (any, error) {
		n, err := strconv.Atoi(s)
		return n, because(err, "is not a whole number")
	},
	reflect.TypeFor[float64](): func(s string) (any, error) {
		n, err := strconv.ParseFloat(s, 64)
		if err == nil && (math.IsNaN(n) || math.IsInf(n, 0)) {
			err = strconv.ErrRange
		}
		return n, because(err, "is not a number")
	},
	reflect.TypeFor[time.Duration](): func(s string) (any, error) {
		d, err := time.ParseDuration(s)
		return d, because(err, "is not a duration; write it like 500ms, 10s or 1m30s")
	},
	reflect.TypeFor[Bytes](): func(s string) (any, error) {
		n, err := humanize.ParseBytes(s)
		if err == nil && n > math.MaxInt {
			err = strconv.ErrRange
		}
		return Bytes(n), because(err, "is not a size; write it like 4096, 64KiB or 1MiB")
	},
	reflect.TypeFor[[]string](): func(s string) (any, error) { return list(s), nil },
	reflect.TypeFor[[]Secret](): func(s string) (any, error) {
		var keys []Secret
		for _, k := range list(s) {
			keys = append(keys, Secret(k))
		}
		return keys, nil
	},
	reflect.TypeFor[[]netip.Prefix]():    func(s string) (any, error) { return networks(s) },
	reflect.TypeFor[map[string]string](): func(s string) (any, error) { return pairs[string](s) },
	reflect.TypeFor[map[string]Secret](): func(s string) (any, error) { return pairs[Secret](s) },
}

// because replaces a library's error by the problem as a user of the setting knows it.
func because(err error, problem string) error {
	if err == nil {
		return nil
	}
	return errors.New(problem)
}

// list splits a comma list, without spaces and empty elements.
func list(s string) []string {
	var l []string
	for e := range strings.SplitSeq(s, ",") {
		if e = strings.TrimSpace(e); e != "" {
			l = append(l, e)
		}
	}
	return l
}

// networks reads a list of networks and single addresses.
func networks(s string) ([]netip.Prefix, error) {
	var l []netip.Prefix
	for _, e := range list(s) {
		p, err := netip.ParsePrefix(e)
		if err != nil {
			a, err := netip.ParseAddr(e)
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("has %q, which is neither a network like 10.0.0.0/8 nor an address", e)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		l = append(l, p.Masked())
	}
	return l, nil
}

// pairs reads a list of name=value.
func pairs[V ~string](s string) (map[string]V, error) {
	m := make(map[string]V)
	for i, e := range list(s) {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" || value == "" {
			return nil, fmt.Errorf("has no name=value as element %d", i+1)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("has %s twice", name)
		}
		m[name] = V(value)
	}
	return m, nil
}

// parseError turns an error of the env package, which knows fields, into one of a setting.
func parseError(err error, vars map[string]string) error {
	var pe env.ParseError
	if !errors.As(err, &pe) {
		return err
	}
	f, _ := reflect.TypeFor[Config]().FieldByName(pe.Name)
	s := setting(f)
	problem := pe.Err.Error()
	if strings.Contains(s.Allowed, "|") {
		problem = "is not one of " + readable(s.Allowed)
	}
	if f.Type.Kind() == reflect.Map {
		problem += "; it is for " + s.Doc
	}
	if !s.Secret {
		problem = strconv.Quote(vars[s.Name]) + " " + problem
	}
	return &Error{s.Name, problem}
}

// unknown returns an error for each variable that has the prefix and is not a setting.
func unknown(vars map[string]string) []error {
	var errs []error
	known := make(map[string]bool)
	for _, s := range Settings() {
		known[s.Name] = true
	}
	for name, value := range vars {
		switch {
		case !strings.HasPrefix(name, Prefix) || known[name] || value == "": // empty is not set
		case slices.Contains(ofCluster, name):
			errs = append(errs, &Error{name, "is for a cluster, and " + alone})
		default:
			errs = append(errs, &Error{name, "is not a setting; the nearest is " + nearest(name)})
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errs
}

// ofCluster are the settings of a cluster. Whoever sets one must not find out later that there
// is none.
var ofCluster = []string{Prefix + "NATS", Prefix + "CLUSTER", Prefix + "CLUSTER_ROUTES", Prefix + "CLUSTER_SECRET"}

const alone = "this build runs one node"

// nearest returns the setting whose name has the least edit distance from name.
func nearest(name string) string {
	return slices.MinFunc(Settings(), func(a, b Setting) int {
		return cmp.Compare(levenshtein.ComputeDistance(name, a.Name), levenshtein.ComputeDistance(name, b.Name))
	}).Name
}
