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

// CatchHangups keeps SIGHUP from ending the process. What it returns is called once, and calls f
// at every SIGHUP from then on, and at one that came before, until stop.
func CatchHangups() (each func(f func()) (stop func())) {
	hangup, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(hangup, syscall.SIGHUP)
	return func(f func()) (stop func()) {
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
}
