package command

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	"path/filepath"

	"ws-gateway/config/starter"
	"ws-gateway/session/auth"
)

// Init writes the files of a production configuration.
func Init(_ context.Context, c *Call) error {
	dir := "."
	if err := c.Flags("init", func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "dir", dir, "the `folder` to write to")
	}); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	member, err := auth.NewEntry(1, "")
	if err != nil {
		return err
	}
	written, err := starter.Starter{Dir: dir, PushKey: rand.Text(), Entry: "  " + member.String()}.Write()
	if err != nil {
		return err
	}
	for _, name := range written {
		fmt.Fprintln(c.Stdout, name)
	}
	fmt.Fprintf(c.Stderr, "token of member 1, kept nowhere: %s\n", string(member.Token))
	return nil
}
