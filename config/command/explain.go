package command

import (
	"context"
	"errors"
	"flag"
	"fmt"

	"ws-gateway/apps"
)

// Explain prints what the rules say about one member, app and action.
func Explain(_ context.Context, c *Call) error {
	m := apps.Member{ID: apps.Anonymous}
	var app, action string
	if err := c.Flags("explain", func(fs *flag.FlagSet) {
		fs.Func("member", "the member's `id`; -1, the default, is an anonymous client", func(s string) (err error) {
			m.ID, err = apps.ParseMember(s)
			return err
		})
		fs.Func("role", "a `role` of the member; may be repeated", add(&m.Roles))
		fs.StringVar(&app, "app", "", "the `name` of the app")
		fs.StringVar(&action, "action", "subscribe", "what the member wants: subscribe, push or presence")
	}); err != nil {
		return err
	}
	if app == "" {
		return Invalid(errors.New("explain: --app is needed"))
	}
	wish, err := apps.ParseAction(action)
	if err != nil {
		return Invalid(fmt.Errorf("explain: %w", err))
	}
	settings, err := c.Config()
	if err != nil {
		return err
	}
	registry, err := apps.Load(settings.AppsFile)
	if err != nil {
		return Invalid(err)
	}
	fmt.Fprintln(c.Stdout, registry.Explain(m, wish, app))
	return nil
}
