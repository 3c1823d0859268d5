package server

import (
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"

	"ws-gateway/stat/peer"
)

// Proxies are the reverse proxies in front of the gateway: of them alone it believes which
// client they speak for. A nil *Proxies believes nobody.
type Proxies struct {
	trusted []netip.Prefix
	log     *slog.Logger
	warned  atomic.Bool
}

// NewProxies returns Proxies that have addresses in trusted. A nil logger discards.
func NewProxies(trusted []netip.Prefix, logger *slog.Logger) *Proxies {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Proxies{trusted: trusted, log: logger}
}

// Remote returns the address of the client that sent r: the TCP peer's, or, when that is a
// trusted proxy, the rightmost address of X-Forwarded-For that is not one. What stands
// further left is the client's own claim. IPv4 comes as IPv4, and without a zone; the zero
// Addr stands for a peer that has none, for whoever comes through a proxy on this machine
// that is not trusted, and for a client on this machine that asks for another host: its name
// may have been rebound by a web page that wants to be taken for local.
func (p *Proxies) Remote(r *http.Request) netip.Addr {
	remote := p.client(r)
	if remote.IsLoopback() && !peer.IsThisMachine(r.Host) {
		return netip.Addr{}
	}
	return remote
}

// client is Remote, whatever host r asks for.
func (p *Proxies) client(r *http.Request) netip.Addr {
	remote := peer.Addr(r)
	if !p.trusts(remote) {
		if peer.Forwarded(r.Header) == "" {
			return remote
		}
		if p != nil && !p.warned.Swap(true) {
			p.log.Warn("forwarded address ignored: if the peer is your proxy, add it to WSGW_TRUSTED_PROXIES", "peer", remote)
		}
		if remote.IsLoopback() {
			return netip.Addr{} // it speaks for anybody, who must not be taken for local
		}
		return remote
	}
	hops := r.Header["X-Forwarded-For"]
	for i := len(hops) - 1; i >= 0; i-- {
		for rest, more := hops[i], true; more; {
			var hop string
			if at := strings.LastIndexByte(rest, ','); at >= 0 {
				rest, hop = rest[:at], rest[at+1:]
			} else {
				hop, more = rest, false
			}
			addr, ok := parseHop(strings.TrimSpace(hop))
			if !ok {
				return remote // nothing left of this can be told
			}
			remote = addr
			if !p.trusts(remote) {
				return remote
			}
		}
	}
	return remote
}

func (p *Proxies) trusts(a netip.Addr) bool {
	if p == nil {
		return false
	}
	for _, network := range p.trusted {
		if network.Contains(a) {
			return true
		}
	}
	return false
}

// parseHop reads an address as proxies write it: some add the port.
func parseHop(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, false
		}
		a = withPort.Addr()
	}
	return peer.Plain(a), true
}
