// Package terminal speaks to a gateway from a terminal: ws-gateway sub, push and tail.
package terminal

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"

	"ws-gateway/apps"
	"ws-gateway/session/client"
)

// ErrUsage is returned when arguments are wrong and standard error says why.
var ErrUsage = errors.New("usage")

// Sub subscribes to the apps that args name and prints their messages to stdout as they
// come, until ctx ends. What happens to the connection goes to stderr. It returns nil when ctx
// ended it, and otherwise why nothing more can come.
func Sub(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("ws-gateway sub", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, "Usage: ws-gateway sub APP... [flags]\n\nPrints the messages of apps as they come, one a line.\n\n")
		fs.PrintDefaults()
	}
	var (
		url      = fs.String("url", "ws://127.0.0.1:5000/", "the gateway")
		member   = memberFlag(fs, "member `id` to log in as; -1, the default, is anonymous")
		token    = fs.String("token", "", "the member's token")
		position = fs.String("position", "", "go on after `EPOCH:OFFSET`, which --json prints")
		asJSON   = fs.Bool("json", false, "print all of a message as JSON, not only app and text")
		limit    = fs.Int("n", 0, "end after this many messages; 0 goes on")
	)
	names, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(names) == 0:
		fs.Usage()
		return ErrUsage
	}
	from, err := parsePosition(*position)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := client.Dial(ctx, *url, client.Options{
		Member: max(*member, 0), // 0 is the client's word for nobody
		Token:  func(context.Context) (string, error) { return *token, nil },
		Events: func(e client.Event) {
			if e.State == client.Disconnected && !e.Final {
				fmt.Fprintf(stderr, "disconnected: %v; coming back\n", e.Err)
			}
		},
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer c.Close()

	p := &printer{w: stdout, json: *asJSON, limit: *limit, full: cancel}
	var (
		readers sync.WaitGroup
		mu      sync.Mutex
		failed  error
	)
	for _, app := range names {
		sub, err := c.Subscribe(ctx, app, client.SubscribeOptions{
			Position: from,
			Missed:   func() { fmt.Fprintf(stderr, "%s: messages before the next one may be missing\n", app) },
		})
		if err != nil {
			err = ignoreEnd(ctx, err)
			cancel()
			readers.Wait()
			return err
		}
		readers.Go(func() {
			for m := range sub.Messages(ctx) {
				p.print(m)
			}
			mu.Lock()
			failed = errors.Join(failed, sub.Err())
			mu.Unlock()
		})
	}
	fmt.Fprintf(stderr, "subscribed to %s\n", strings.Join(names, ", "))
	readers.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return failed
}

// ignoreEnd returns nil in place of an error that the end of ctx has caused.
func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// parse reads flags that may stand before, between and behind the other arguments.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, ErrUsage
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
}

// memberFlag defines --member, which is -1 if not given.
func memberFlag(fs *flag.FlagSet, usage string) *int64 {
	member := apps.Anonymous
	fs.Func("member", usage, func(s string) (err error) {
		member, err = apps.ParseMember(s)
		return err
	})
	return &member
}

func parsePosition(s string) (*client.Position, error) {
	if s == "" {
		return nil, nil
	}
	epoch, offset, ok := strings.Cut(s, ":")
	n, err := strconv.ParseUint(offset, 10, 64)
	if !ok || err != nil {
		return nil, fmt.Errorf("--position: %q is not EPOCH:OFFSET", s)
	}
	return &client.Position{Epoch: epoch, Offset: n}, nil
}

// A printer writes messages, whole lines at a time.
type printer struct {
	w     io.Writer
	json  bool
	limit int    // 0: none
	full  func() // called when limit messages were printed

	mu sync.Mutex
	n  int // guarded by mu
}

func (p *printer) print(m client.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && p.n == p.limit {
		return
	}
	if p.json {
		line, _ := json.Marshal(struct {
			App    string `json:"app"`
			Member int64  `json:"member_id"`
			Text   string `json:"text"`
			From   int64  `json:"from,omitempty"`
			client.Position
		}{m.App, m.Member, m.Text, m.From, m.Position})
		fmt.Fprintf(p.w, "%s\n", line)
	} else {
		fmt.Fprintf(p.w, "%s %s\n", m.App, printable(m.Text))
	}
	if p.n++; p.n == p.limit {
		p.full()
	}
}

// printable returns s with the characters escaped that would do something to a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}
