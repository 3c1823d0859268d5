package log_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ws-gateway/push/log"
)

func TestCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	fine := func(when string) {
		t.Helper()
		if err := log.Check(dir); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	if fine("not there yet"); exists(dir) {
		t.Error("it was made by looking at it")
	}
	file, top := fill(t, dir)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(why string, data []byte) {
		t.Helper()
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("WSGW_STATE_DIR: %s: %s; a start would begin a new epoch", file, why)
		if err := log.Check(dir); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	bad("damaged", flipped)
	bad("damaged", whole[:len(whole)-1])
	bad("damaged", nil)
	bad("of another format", bytes.Replace(whole, []byte("format "), []byte("format 1"), 1))
	if err := os.WriteFile(file, whole, 0o600); err != nil {
		t.Fatal(err)
	}

	fine("after a stop")
	l, said := reopen(t, dir, log.Options{})
	if l.Top(kept.Name) != top {
		t.Errorf("after Check it is not taken over: %s", said)
	}
	fine("in use")
	save(t, l)
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range left {
		if strings.HasPrefix(f.Name(), ".") {
			t.Errorf("Check has left %s", f.Name())
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
