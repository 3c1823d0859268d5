package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Check says why [OpenMemory] could not use dir, or would not take over the log that is there
// because of its form. It changes nothing, and does not mind a gateway that uses dir now. ""
// is no directory.
func Check(dir string) error {
	if dir == "" {
		return nil
	}
	if err := check(dir); err != nil {
		return fmt.Errorf("WSGW_STATE_DIR: %w", err)
	}
	return nil
}

func check(dir string) error {
	if err := checkDir(dir); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err == nil {
		lock.Close()
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return checkFile(filepath.Join(dir, stateFile))
}

// checkDir says why dir cannot be written to, or not be made.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if parent := filepath.Dir(dir); errors.Is(err, os.ErrNotExist) && parent != dir {
		return checkDir(parent)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	trial, err := os.CreateTemp(dir, ".check-*") // permissions alone do not tell of a read-only file system
	if err != nil {
		return fmt.Errorf("nothing can be written to %s: %w", dir, errors.Unwrap(err))
	}
	trial.Close()
	return os.Remove(trial.Name())
}

// checkFile says what is wrong with the file at path, but for its age.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	if _, err := f.ReadAt(head, 0); err == nil && string(head) != magic {
		return fmt.Errorf("%s: of another format; a start would begin a new epoch", path)
	}
	if _, err := verify(f); err != nil {
		return fmt.Errorf("%s: %w; a start would begin a new epoch", path, err)
	}
	return nil
}
