//go:build !unix

package log

import "os"

// lockDir opens the file at path. Without locks on files it keeps nobody else out.
func lockDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
