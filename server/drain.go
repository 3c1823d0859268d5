package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// drainRest is how long a stop may take beyond the delay and the window.
const drainRest = 10 * time.Second

// Serve answers until ctx ends, then stops in this order, each step seen by whom it concerns
// before the next:
//
//  1. not ready: a load balancer sends nobody new, for DrainDelay
//  2. listens no more: what is being answered is finished
//  3. backends' links are closed with 1012, behind the answers to what was begun: only members
//     and doors still push
//  4. sessions are closed with 1012, spread over DrainWindow, each behind every push that was
//     answered before
//  5. the transport ends, and last the stat server, which showed all this
//
// It returns nil after an orderly stop, within 10 s of the end of the window, and the error
// of a listener that failed. It is called once; nothing is left open when it returns.
func (s *Server) Serve(ctx context.Context) error {
	running, stop := context.WithCancel(context.Background())
	failed := make(chan error, 1+len(s.stat))
	var wg sync.WaitGroup
	serve := func(l listener) {
		wg.Go(func() {
			if err := l.http.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
		})
	}
	s.ready("") // who connects now is served at once
	for _, l := range s.stat {
		serve(l)
	}
	serve(s.clients)
	if s.cert != nil {
		wg.Go(func() { s.cert.watch(running) })
	}

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		s.log.Error("listener failed", "err", err)
	}
	s.drain()
	stop()
	wg.Wait()
	return err
}

func (s *Server) ready(reason string) {
	if s.opts.Ready != nil {
		s.opts.Ready.Set(reason)
	}
}

// drain takes the steps that Serve promises.
func (s *Server) drain() {
	start := time.Now()
	s.ready("draining")
	s.log.Info("draining", "delay", s.opts.DrainDelay, "window", s.opts.DrainWindow)
	limit := s.opts.DrainDelay + s.opts.DrainWindow + drainRest
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if s.opts.Interrupt != nil {
		defer time.AfterFunc(limit, s.opts.Interrupt).Stop()
	}

	if s.opts.DrainDelay > 0 {
		time.Sleep(s.opts.DrainDelay)
	}
	s.draining.Store(true)
	shutdown(ctx, s.clients, drainRest/2)
	s.opts.Sessions.Drain(ctx, s.opts.DrainWindow)
	s.opts.Transport.Close()
	for _, l := range s.stat {
		shutdown(ctx, l, time.Second)
	}
	s.log.Info("drained", "took", time.Since(start))
}

// shutdown ends l: it accepts nobody, and what is being answered has until limit.
func shutdown(ctx context.Context, l listener, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := l.http.Shutdown(ctx); err != nil {
		l.http.Close()
	}
}
