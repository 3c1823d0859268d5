//go:build unix

package log

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lockDir opens the file at path and holds its lock until it is closed, or the process ends. The
// file says which process that is.
func lockDir(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			holder, _ := os.ReadFile(path)
			return nil, fmt.Errorf("%s: another gateway uses this directory, process %s", path, cmp.Or(string(holder), "unknown"))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	f.Truncate(0)
	fmt.Fprint(f, os.Getpid()) // not on a full disk: the lock holds all the same
	return f, nil
}
