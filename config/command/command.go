// Package command is the command line: [Run] finds the subcommand, says what went wrong and
// chooses the exit code. The subcommands that work on a configuration and need no gateway are
// here too, a file each.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"

	"ws-gateway/config"
)

// A Command is a subcommand. The first of several is what runs when none is named.
type Command struct {
	Name, Does string
	Run        func(context.Context, *Call) error
}

// A Call is one run of a subcommand.
type Call struct {
	Args           []string // without its name
	Env            []string // as of [os.Environ]
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	does string // as its Command has it
}

// An Exit is the code of a subcommand that has said itself what is wrong.
type Exit int

// Error implements error.
func (e Exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// invalid marks an error as [Invalid] does.
type invalid struct{ error }

// Unwrap returns what is invalid.
func (e invalid) Unwrap() error { return e.error }

// Invalid marks err as one about what the gateway was given: arguments, settings, files.
// Nothing was started.
func Invalid(err error) error { return invalid{err} }

// Run runs the subcommand that c.Args begin with, and returns the exit code: 0, 1 after a
// failure, 2 for invalid input. Errors go to c.Stderr, a line each.
func Run(ctx context.Context, commands []Command, c Call) int {
	name := commands[0].Name
	if len(c.Args) > 0 {
		name, c.Args = c.Args[0], c.Args[1:]
	}
	err := Invalid(fmt.Errorf("unknown command %q; ws-gateway help lists them", name))
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		help(c.Stdout, commands, len(c.Args) > 0 && c.Args[0] == "settings")
		return 0
	}
	for _, known := range commands {
		if known.Name == name {
			c.does = known.Does
			err = known.Run(ctx, &c)
		}
	}
	var code Exit
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(c.Stderr, "ws-gateway: %s\n", line)
	}
	if errors.As(err, new(invalid)) {
		return 2
	}
	return 1
}

// help prints what there is to call, or all settings.
func help(w io.Writer, commands []Command, settings bool) {
	if settings {
		fmt.Fprintf(w, "Environment variables that ws-gateway reads, with their defaults:\n\n%s", config.Text())
		return
	}
	fmt.Fprint(w, "ws-gateway holds WebSocket clients and lets a backend push to them.\n\nUsage: ws-gateway [command] [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-9s %s\n", c.Name, c.Does)
	}
	fmt.Fprint(w, "\nws-gateway COMMAND -h lists a command's flags, ws-gateway help settings the environment variables.\n")
}

// Flags parses the arguments with the flags that define adds; name is the subcommand's.
func (c *Call) Flags(name string, define func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet("ws-gateway "+name, flag.ContinueOnError)
	fs.SetOutput(c.Stderr)
	fs.Usage = func() {
		fmt.Fprintf(c.Stderr, "Usage: %s [flags]\n\n  %s\n\n", fs.Name(), c.does)
		fs.PrintDefaults()
	}
	define(fs)
	switch err := fs.Parse(c.Args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return Exit(2) // the flag package has said why
	case fs.NArg() > 0:
		return Invalid(fmt.Errorf("%s: unexpected argument %q", name, fs.Arg(0)))
	}
	return nil
}

// NoFlags refuses every argument of a subcommand that takes none.
func (c *Call) NoFlags(name string) error { return c.Flags(name, func(*flag.FlagSet) {}) }

// Config reads the settings from the environment.
func (c *Call) Config() (*config.Config, error) {
	settings, err := config.Load(c.Env)
	if err != nil {
		return nil, Invalid(err)
	}
	return settings, nil
}

// add returns the value of a flag that may be repeated.
func add(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}
