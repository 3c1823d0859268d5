package peer_test

import (
	"net/http"
	"net/netip"
	"testing"

	"ws-gateway/stat/peer"
)

func TestAddr(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.1:5":              "192.0.2.1",
		"[2001:db8::1]:5":          "2001:db8::1",
		"[::ffff:192.0.2.1]:5":     "192.0.2.1",
		"[fe80::1%eth0]:5":         "fe80::1",
		"[::ffff:127.0.0.1%lo]:80": "127.0.0.1",
		"@":                        "invalid IP",
		"":                         "invalid IP",
	} {
		if got := peer.Addr(&http.Request{RemoteAddr: remote}).String(); got != want {
			t.Errorf("Addr of %q: %s, want %s", remote, got, want)
		}
	}
}

func TestForwarded(t *testing.T) {
	for name, proxied := range map[string]bool{
		"Forwarded": true, "via": true, "X-Real-IP": true, "X-Forwarded-For": true, "x-forwarded-proto": true, "X-Forwarded-": true,
		"X-Forwarded": false, "Origin": false, "X-Forward-For": false,
	} {
		h := http.Header{"Accept": {"*/*"}}
		h.Set(name, "x")
		if got := peer.Forwarded(h); (got != "") != proxied {
			t.Errorf("Forwarded with %s: %q", name, got)
		}
	}
}

func TestIsThisMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST:80": true, "localhost.": true, "127.0.0.1": true, "127.8.9.10:1": true,
		"::1": true, "[::1]": true, "[::1]:5000": true, "[::ffff:127.0.0.1]:1": true,
		"": false, ":80": false, "localhost.evil.example": false, "evil-localhost": false, "127.0.0.1.evil.example": false,
		"0.0.0.0": false, "192.0.2.1:80": false, "[2001:db8::1]:80": false, "2130706433": false, "127.1": false, "0x7f.1": false,
	} {
		if got := peer.IsThisMachine(host); got != want {
			t.Errorf("IsThisMachine(%q) = %v, want %v", host, got, want)
		}
	}
}

func TestNetwork(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1/32",
		"::ffff:192.0.2.1":     "192.0.2.1/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0":         "fe80::/64",
	} {
		if got := peer.Network(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("Network(%s) = %s, want %s", addr, got, want)
		}
	}
	if peer.Network(netip.Addr{}).IsValid() {
		t.Error("no address has a network")
	}
}
