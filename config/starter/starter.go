// Package starter writes a production configuration to begin with.
package starter

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/template"
)

//go:embed *.tmpl
var files embed.FS

var templates = template.Must(template.ParseFS(files, "*.tmpl"))

// A Starter is what the written files have in common.
type Starter struct {
	Dir     string // absolute: the files name each other
	PushKey string // the only one, in the file of keys
	Entry   string // of the first member, for the members file
}

// outputs are the files, in the order in which a reader meets them.
var outputs = []struct {
	name string
	mode fs.FileMode
}{
	{"ws-gateway.env", 0o600},
	{"apps.yaml", 0o644},
	{"members.yaml", 0o600},
	{"push.keys", 0o600},
}

// Write writes the files and the folder of state into s.Dir, which it makes if need be, and
// returns their names. It overwrites nothing: if any of them is there, it writes none.
func (s Starter) Write() (written []string, err error) {
	if err := os.MkdirAll(filepath.Join(s.Dir, "state"), 0o700); err != nil {
		return nil, err
	}
	for _, o := range outputs {
		path := filepath.Join(s.Dir, o.name)
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is already there; nothing was written", path)
		}
	}
	for _, o := range outputs {
		path := filepath.Join(s.Dir, o.name)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, o.mode)
		if err != nil {
			return written, err
		}
		err = errors.Join(templates.ExecuteTemplate(f, o.name+".tmpl", s), f.Close())
		if err != nil {
			return written, fmt.Errorf("write %s: %w", path, err)
		}
		written = append(written, path)
	}
	return written, nil
}
