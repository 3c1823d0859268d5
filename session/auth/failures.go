package auth

import (
	"net/netip"
	"sync"
	"time"

	"ws-gateway/stat/peer"
)

const (
	failureWindow = time.Minute
	// maxAddresses bounds what a [Failures] remembers: two windows of so many, some 10 MB.
	maxAddresses = 1 << 16
)

// Failures counts the refused logins of each address, so that tokens cannot be tried at
// will. An IPv6 address counts with its whole /64, which one host commonly has to itself.
// Loopback, and a client without an address, are never limited. All methods may be called
// at once; a nil *Failures limits nothing.
type Failures struct {
	limit int

	mu      sync.Mutex
	start   time.Time          // of the current window; guarded by mu
	current map[netip.Addr]int // failures in it; guarded by mu
	last    map[netip.Addr]int // failures in the window before; guarded by mu
}

// NewFailures allows each address limit failures a minute (WSGW_AUTH_FAILURES). 0 or less is
// no limit: the result is nil.
func NewFailures(limit int) *Failures {
	if limit <= 0 {
		return nil
	}
	return &Failures{limit: limit, start: time.Now(), current: make(map[netip.Addr]int)}
}

// Allowed reports whether addr may try to log in.
func (f *Failures) Allowed(addr netip.Addr) bool {
	key := failureKey(addr)
	if f == nil || !key.IsValid() {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// A sliding window: the failures of the one before count by the part of it that is less
	// than a minute ago, rounded up.
	left := failureWindow - f.turn()
	old := (time.Duration(f.last[key])*left + failureWindow - 1) / failureWindow
	return f.current[key]+int(old) < f.limit
}

// Failed counts a refused login of addr.
func (f *Failures) Failed(addr netip.Addr) {
	key := failureKey(addr)
	if f == nil || !key.IsValid() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	if _, ok := f.current[key]; !ok && len(f.current) == maxAddresses {
		// Full: whoever was counted so far still is, the window before is forgotten.
		f.last, f.current, f.start = f.current, make(map[netip.Addr]int), time.Now()
	}
	f.current[key]++
}

// turn begins a new window when the current one is over, and returns its age. f.mu is held.
func (f *Failures) turn() time.Duration {
	age := time.Since(f.start)
	switch {
	case age >= 2*failureWindow:
		f.last, f.current = nil, make(map[netip.Addr]int)
		f.start = f.start.Add(age)
	case age >= failureWindow:
		f.last, f.current = f.current, make(map[netip.Addr]int)
		f.start = f.start.Add(failureWindow)
	}
	return time.Since(f.start)
}

// failureKey returns what addr is counted under, or the zero Addr when it is not.
func failureKey(addr netip.Addr) netip.Addr {
	if addr.Unmap().IsLoopback() {
		return netip.Addr{}
	}
	return peer.Network(addr).Addr()
}
