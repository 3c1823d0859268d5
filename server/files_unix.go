//go:build unix

package server

import (
	"math"
	"syscall"
)

// maxFiles returns how many files the process may have open, 0 for any number. The Go runtime
// has raised the limit to the highest allowed at start.
func maxFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return 0
	}
	return int(limit.Cur)
}
