package bench

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errNoProcess says why a run has no figures of the server's process.
var errNoProcess = errors.New("no process of this machine listens there, or it is another user's: no CPU and memory figures (give --pid)")

// A process is a server whose CPU and memory are read while it runs.
type process struct{ pid int }

// findProcess returns the process that listens on addr.
func findProcess(addr netip.AddrPort) (*process, error) {
	inodes := make(map[string]bool)
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if err := listeners(name, addr, inodes); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // what is not ours to see is left out
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil || !strings.HasPrefix(link, "socket:[") || !inodes[strings.Trim(link, "socket:[]")] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(fd, "/")[2])
		if err == nil {
			return &process{pid}, nil
		}
	}
	return nil, errNoProcess
}

// listeners adds the inodes of the listening sockets that addr reaches.
func listeners(name string, addr netip.AddrPort, inodes map[string]bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		// sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode
		fields := strings.Fields(s.Text())
		if len(fields) < 10 || fields[3] != "0A" {
			continue
		}
		local, err := parseProcAddr(fields[1])
		if err == nil && local.Port() == addr.Port() && (local.Addr().IsUnspecified() || local.Addr().Unmap() == addr.Addr()) {
			inodes[fields[9]] = true
		}
	}
	return s.Err()
}

// parseProcAddr reads an address as /proc/net/tcp has it: words of host order.
func parseProcAddr(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var b []byte
	for len(host) >= 8 {
		w, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, err
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(w))
		host = host[8:]
	}
	ip, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("bad address %q", s)
	}
	return netip.AddrPortFrom(ip, uint16(p)), nil
}

// cpu returns the user and system time that p has used, to the nanosecond: its CPU clock,
// whose id is made from the pid (clock_getcpuclockid).
func (p *process) cpu() (time.Duration, error) {
	const perProcess = 2 // CPUCLOCK_SCHED: the whole process, as accounted by the scheduler
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|perProcess), &ts); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", p.pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// rss returns the resident memory of p in bytes.
func (p *process) rss() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", p.pid)
}

// ownCPU returns the CPU time of the generator itself.
func ownCPU() time.Duration {
	d, _ := (&process{os.Getpid()}).cpu()
	return d
}

// sleepUntil waits for the moment t, more exactly than a timer of the Go runtime.
func sleepUntil(t time.Time) {
	for {
		d := time.Until(t)
		if d <= 0 {
			return
		}
		ts := unix.NsecToTimespec(int64(d))
		unix.Nanosleep(&ts, nil)
	}
}
