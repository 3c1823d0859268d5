package command

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"ws-gateway/session"
	"ws-gateway/session/auth"
)

// Token prints an entry for the members file, and the token if it made one.
func Token(_ context.Context, c *Call) error {
	var (
		member int64
		token  string
		roles  []string
	)
	if err := c.Flags("token", func(fs *flag.FlagSet) {
		fs.Int64Var(&member, "member", 0, "the member's `id`")
		fs.StringVar(&token, "token", "", "the member's `token`; made at random if not given, which is the better way")
		fs.Func("role", "a `role` of the member; may be repeated", add(&roles))
	}); err != nil {
		return err
	}
	if member == 0 {
		return Invalid(errors.New("token: --member is needed"))
	}
	e, err := auth.NewEntry(member, session.Token(token), roles...)
	if err != nil {
		return Invalid(fmt.Errorf("token: %w", err))
	}
	fmt.Fprintf(c.Stdout, "  %s\n", e)
	if token == "" {
		fmt.Fprintf(c.Stderr, "token of member %d, kept nowhere: %s\n", member, string(e.Token))
	}
	return nil
}
