package command

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Interrupted returns a context that ends at the first SIGINT or SIGTERM. The second ends the
// process at once.
func Interrupted() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan os.Signal, 1)
	signal.Notify(first, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-first
		signal.Stop(first)
		cancel()
	}()
	return ctx
}

// OnHangup calls f at every SIGHUP until the function that it returns is called.
func OnHangup(f func()) (stop func()) {
	hangup, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		defer close(done)
		for range hangup {
			f()
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
	}
}
