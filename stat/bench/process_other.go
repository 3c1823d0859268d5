//go:build !linux

package bench

import (
	"errors"
	"net/netip"
	"time"
)

// errNoProcess says why a run has no figures of the server's process.
var errNoProcess = errors.New("CPU and memory of the server are only read on Linux")

// A process is a server whose CPU and memory are read while it runs.
type process struct{ pid int }

func findProcess(netip.AddrPort) (*process, error) { return nil, errNoProcess }
func (p *process) cpu() (time.Duration, error)     { return 0, errNoProcess }
func (p *process) rss() (int64, error)             { return 0, errNoProcess }
func ownCPU() time.Duration                        { return 0 }
func sleepUntil(t time.Time)                       { time.Sleep(time.Until(t)) }
