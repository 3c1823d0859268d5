//go:build !linux

package bench

import (
	"errors"
	"io"
	"os/exec"
)

// runWriter is the process of the bare loop.
func runWriter(io.Reader, io.Writer) error {
	return errors.New("the bare loop of write(2) is only there on Linux")
}

// startOn starts cmd; the system has no affinity to set.
func startOn(cmd *exec.Cmd, _ int) error { return cmd.Start() }
