// Package peer answers who is at the other end of a request, for all that trust this machine
// more than others. It sits beside the packages that everybody may import.
package peer

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Addr returns the address of the TCP peer that sent r, which may be a proxy: IPv4 as IPv4,
// and without a zone. The zero Addr stands for a peer that has none.
func Addr(r *http.Request) netip.Addr {
	a, _ := netip.ParseAddrPort(r.RemoteAddr)
	return Plain(a.Addr())
}

// Plain returns a without its zone, and as IPv4 where it is IPv4 in IPv6.
func Plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// Forwarded returns the name of a header that only a proxy sets, or "". With one, the TCP
// peer is not who asks: a proxy lends its own address to strangers.
func Forwarded(h http.Header) string {
	for name := range h {
		switch {
		case name == "Forwarded", name == "X-Real-Ip", name == "Via", strings.HasPrefix(name, "X-Forwarded-"):
			return name
		}
	}
	return ""
}

// IsThisMachine reports whether a Host header, or the host of a URL, names this machine, with
// or without a port. No name server is asked: another name that leads here could have been
// made to, by a web page that wants to be taken for a local one.
func IsThisMachine(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Network returns what a limit per address counts as one: an IPv4 address, or the /64 that an
// IPv6 customer has to itself.
func Network(a netip.Addr) netip.Prefix {
	a = Plain(a)
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.Prefix(bits)
	return p
}
