package auth_test

import (
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ws-gateway/session/auth"
)

func fail(f *auth.Failures, addr string, times int) {
	for range times {
		f.Failed(netip.MustParseAddr(addr))
	}
}

func allowed(f *auth.Failures, addr string) bool { return f.Allowed(netip.MustParseAddr(addr)) }

func TestA11FailuresPerAddressAndMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := auth.NewFailures(60)
		fail(f, "192.0.2.1", 59)
		if !allowed(f, "192.0.2.1") {
			t.Error("refused after 59 failures")
		}
		fail(f, "192.0.2.1", 1)
		if allowed(f, "192.0.2.1") {
			t.Error("allowed after 60 failures")
		}
		if !allowed(f, "192.0.2.2") {
			t.Error("another address is refused")
		}
		time.Sleep(60 * time.Second)
		if allowed(f, "192.0.2.1") {
			t.Error("allowed 60 s later, when the failures are just a minute old")
		}
		time.Sleep(2 * time.Second)
		if !allowed(f, "192.0.2.1") {
			t.Error("refused 62 s later")
		}
		fail(f, "192.0.2.1", 2)
		if allowed(f, "192.0.2.1") {
			t.Error("allowed after two more failures at once")
		}
		time.Sleep(3 * time.Minute)
		fail(f, "192.0.2.1", 59)
		if !allowed(f, "192.0.2.1") {
			t.Error("old failures are not forgotten")
		}
		fail(f, "192.0.2.1", 1)
		if allowed(f, "192.0.2.1") {
			t.Error("allowed after 60 failures, long after the first ones")
		}
	})
}

// Somebody who never stops gets a limit's worth of guesses a minute, not more.
func TestA11FailuresOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := auth.NewFailures(60)
		tries := 0
		for start := time.Now(); time.Since(start) < 30*time.Minute; time.Sleep(100 * time.Millisecond) {
			if allowed(f, "192.0.2.1") {
				tries++
				fail(f, "192.0.2.1", 1)
			}
		}
		if tries < 20*60 || tries > 31*60 {
			t.Errorf("%d tries in 30 minutes, want about %d", tries, 30*60)
		}
	})
}

func TestA11FailureKeys(t *testing.T) {
	for _, c := range []struct {
		name, failing, asking string
		allowed               bool
	}{
		{"same /64", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2:ffff::1", false},
		{"another /64", "2001:db8:1:2::1", "2001:db8:1:3::1", true},
		{"mapped IPv4", "::ffff:192.0.2.1", "192.0.2.1", false},
		{"zone", "fe80::1%eth0", "fe80::2%eth1", false},
		{"loopback", "127.0.0.1", "127.0.0.1", true},
		{"loopback 6", "::1", "::1", true},
		{"mapped loopback", "::ffff:127.0.0.1", "::ffff:127.0.0.1", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := auth.NewFailures(3)
			fail(f, c.failing, 3)
			if got := allowed(f, c.asking); got != c.allowed {
				t.Errorf("%s allowed %t after failures of %s, want %t", c.asking, got, c.failing, c.allowed)
			}
		})
	}
	f := auth.NewFailures(1)
	f.Failed(netip.Addr{})
	if !f.Allowed(netip.Addr{}) {
		t.Error("clients without an address are counted together")
	}
}

func TestA11FailuresOff(t *testing.T) {
	f := auth.NewFailures(0)
	fail(f, "192.0.2.1", 1000)
	if !allowed(f, "192.0.2.1") {
		t.Error("limited although 0 is no limit")
	}
}

// A host with many addresses cannot make the limiter forget one that fails now, nor grow it.
func TestA11FailuresAreBounded(t *testing.T) {
	f := auth.NewFailures(2)
	fail(f, "192.0.2.1", 2)
	addr := netip.MustParseAddr("10.0.0.0")
	for range 70_000 {
		addr = addr.Next()
		f.Failed(addr)
	}
	if allowed(f, "192.0.2.1") {
		t.Error("forgotten after 70 000 others")
	}
	for range 140_000 {
		addr = addr.Next()
		f.Failed(addr)
	}
	if !allowed(f, "192.0.2.1") {
		t.Error("kept after 210 000 others: memory has no bound")
	}
}

func TestA11FailuresConcurrently(t *testing.T) {
	f := auth.NewFailures(1000)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 100 {
				allowed(f, "192.0.2.1")
				fail(f, "192.0.2.1", 1)
			}
		})
	}
	wg.Wait()
	if allowed(f, "192.0.2.1") {
		t.Error("allowed after 1000 failures: some were not counted")
	}
}
