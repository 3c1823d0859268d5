package transport

import (
	"log/slog"
	"testing"
)

// A poller that cannot go on would leave its connections to nobody.
func TestPollerFailsLoudly(t *testing.T) {
	for name, fail := range map[string]func(*poller){
		"poll": func(p *poller) { p.epoll = -1 },
		"wait": func(p *poller) { p.file.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newPoller(&Transport{log: slog.New(slog.DiscardHandler)}, new(table))
			if err != nil {
				t.Fatal(err)
			}
			fail(p)
			defer func() {
				if recover() == nil {
					t.Error("it ended without a panic")
				}
			}()
			p.stopping.Store(name == "poll") // or it would go on for ever if it did not panic
			p.run()
		})
	}
}
