package command

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version returns the subcommand that prints what this program was built from; linked is as of
// [Built].
func Version(linked string) func(context.Context, *Call) error {
	return func(_ context.Context, c *Call) error {
		if err := c.NoFlags("version"); err != nil {
			return err
		}
		v, commit := Built(linked)
		fmt.Fprintf(c.Stdout, "ws-gateway %s, commit %s, %s %s/%s\n", v, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return nil
	}
}

// Built returns the version of this program, which is linked unless the linker was told none,
// and the commit that it was built from.
func Built(linked string) (version, commit string) {
	version, commit = linked, "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(version, "unknown"), commit
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " with changes"
		}
	}
	return cmp.Or(version, info.Main.Version, "unknown"), commit + modified
}
