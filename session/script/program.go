package script

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	lua "github.com/yuin/gopher-lua"
	"github.com/yuin/gopher-lua/parse"
)

// A program is one version of a door's script and of the modules beside it. States share
// its compiled code, which nobody changes.
type program struct {
	file   string // the script
	entry  *lua.FunctionProto
	closes bool // it defines on_close

	mu      sync.Mutex
	modules map[string]*lua.FunctionProto // by name; guarded by mu
}

// compile reads and compiles the script file.
func compile(file string) (*program, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read script: %w", err)
	}
	entry, err := compileText(text, filepath.Base(file))
	if err != nil {
		return nil, err
	}
	return &program{file: file, entry: entry, modules: make(map[string]*lua.FunctionProto)}, nil
}

// compileText compiles Lua text under the name that errors show.
func compileText(text []byte, name string) (*lua.FunctionProto, error) {
	chunk, err := parse.Parse(bytes.NewReader(text), name)
	if err != nil {
		return nil, fmt.Errorf("%s", strings.TrimSpace(err.Error()))
	}
	proto, err := lua.Compile(rewrite(chunk), name)
	if err != nil {
		return nil, fmt.Errorf("%s", strings.TrimSpace(err.Error()))
	}
	return proto, nil
}

// errNoModule is returned by module for a name that no file has.
var errNoModule = errors.New("no such module")

// module returns the module that require names: name.lua or name/init.lua in the script's
// directory, with dots as separators. There is no way out of that directory, by symbolic
// links neither.
func (p *program) module(name string) (*lua.FunctionProto, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if proto, ok := p.modules[name]; ok {
		return proto, nil
	}
	root, err := os.OpenRoot(filepath.Dir(p.file))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	path := filepath.FromSlash(strings.ReplaceAll(strings.TrimSuffix(name, ".lua"), ".", "/"))
	for _, file := range []string{path + ".lua", filepath.Join(path, "init.lua")} {
		if !filepath.IsLocal(file) {
			break
		}
		text, err := root.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		proto, err := compileText(text, file)
		if err != nil {
			return nil, err
		}
		p.modules[name] = proto
		return proto, nil
	}
	return nil, errNoModule
}
