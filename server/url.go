package server

import (
	"net"
	"net/netip"
	"slices"
	"strings"
)

// URL returns the root, without a slash at its end, of what the server listens at for clients
// (scheme "ws") or backends ("http"); with TLS the scheme gets its s. The host is unspecified,
// such as [::], where that is what it listens at.
func (s *Server) URL(scheme string) string { return s.root(scheme, s.Addr().String()) }

// LocalURL returns the same with a host at which this machine reaches it.
func (s *Server) LocalURL(scheme string) string { return s.root(scheme, reachable(s.Addr())) }

// LocalStatURL returns the same of the first address of the stat server, which there must be.
func (s *Server) LocalStatURL() string { return "http://" + reachable(s.StatAddrs()[0]) }

// LocalPageURL returns the same of the first address of the stat server that browsers do not
// refuse for its port; "" if there is none.
func (s *Server) LocalPageURL() string {
	for _, a := range s.StatAddrs() {
		if tcp, ok := a.(*net.TCPAddr); ok && !slices.Contains(badPorts, tcp.Port) {
			return "http://" + reachable(a)
		}
	}
	return ""
}

// badPorts are those from 1024 on that no browser opens:
// https://fetch.spec.whatwg.org/#port-blocking
var badPorts = []int{1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}

func (s *Server) root(scheme, host string) string {
	if s.cert != nil {
		scheme += "s"
	}
	return scheme + "://" + host
}

// reachable returns an address at which one reaches a listener from its own machine, as in a URL.
func reachable(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	if ap.Addr().IsUnspecified() {
		ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port())
	}
	return strings.Replace(ap.String(), "%", "%25", 1) // RFC 6874: the zone of a link-local address
}
