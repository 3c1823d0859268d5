// Package bench is the load generator of `ws-gateway bench`: an outside client that opens
// many connections to any ws-gateway, pushes, and reports what that costs the server, how
// long messages take, and whether any was lost, duplicated or misordered. [Run] is all of it.
//
// A scenario is one question, in a file of its own. It uses a fleet (the clients; one thread
// reads them all), a crew (the pushers), and a process (the server's CPU and memory, when it
// runs on the same machine). The scenario all starts a gateway of its own on one core, asks
// every question, and compares with a bare loop of write(2) and a bare server in the same run.
package bench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Exit codes of [Run].
const (
	exitClean  = 0
	exitFaulty = 1 // a message was lost, duplicated or misordered, or something failed
	exitUsage  = 2
)

// A scenario is one question to a gateway.
type scenario struct {
	name     string
	doc      string
	doors    bool             // it may be asked of a door
	defaults func(o *options) // nil: none of its own
	run      func(ctx context.Context, r *run) error
}

var scenarios = []scenario{
	idleScenario,
	fanoutScenario,
	latencyScenario,
	ingestScenario,
	privateScenario,
	connectScenario,
	slowScenario,
	commandsScenario,
	churnScenario,
	resumeScenario,
	floorScenario,
}

// options are the flags of all scenarios.
type options struct {
	url         string
	door        string
	app         string
	member      int64
	token       string
	tokens      string
	pushKey     string
	connections int
	pushers     int
	batch       int
	size        int
	rate        float64
	warmup      time.Duration
	duration    time.Duration
	patience    time.Duration
	window      int
	pid         int
	serverCPU   int
	stat        string
	insecure    bool
	polite      bool
	json        bool
}

func defaults() options {
	return options{
		url: "ws://127.0.0.1:5000/", app: "bench", connections: 1000, pushers: 2, batch: 1, size: 128,
		rate: 10, warmup: 2 * time.Second, duration: 10 * time.Second, patience: 5 * time.Second, window: 256,
		serverCPU: -1,
	}
}

func (o *options) flags(name string, stderr io.Writer) *flag.FlagSet {
	f := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.url, "url", o.url, "WebSocket `address` of the gateway; POST /push is on the same host")
	f.BoolVar(&o.insecure, "insecure", o.insecure, "take any certificate, with wss")
	f.StringVar(&o.door, "door", o.door, "`path` of a door whose script is barrage.lua, for the clients to connect to; the app is then video:APP")
	f.StringVar(&o.app, "app", o.app, "`app` to subscribe and push to")
	f.Int64Var(&o.member, "member", o.member, "member `id` to log in as; 0 is anonymous")
	f.StringVar(&o.token, "token", o.token, "`token` of the member")
	f.StringVar(&o.tokens, "tokens", o.tokens, "`file` of members to log in as, a line with id and token each, taken in turns")
	f.StringVar(&o.pushKey, "push-key", o.pushKey, "`key` for POST /push")
	f.IntVar(&o.connections, "connections", o.connections, "number of connections")
	f.IntVar(&o.pushers, "pushers", o.pushers, "connections that push at the same time")
	f.IntVar(&o.batch, "batch", o.batch, "messages in one request")
	f.IntVar(&o.size, "size", o.size, fmt.Sprintf("bytes of a text, at least %d", minText))
	f.Float64Var(&o.rate, "rate", o.rate, "messages per second, in scenarios of a given rate")
	f.DurationVar(&o.warmup, "warmup", o.warmup, "time before measuring")
	f.DurationVar(&o.duration, "duration", o.duration, "time of measuring")
	f.DurationVar(&o.patience, "patience", o.patience, "how long nothing must come before what is missing counts as lost")
	f.IntVar(&o.window, "window", o.window, "handshakes at the same time")
	f.IntVar(&o.pid, "pid", o.pid, "process `id` of the gateway; 0 finds it by its port")
	f.IntVar(&o.serverCPU, "server-cpu", o.serverCPU, "`CPU` to bind the loop of floor to; -1 is any")
	f.StringVar(&o.stat, "stat", o.stat, "`URL` of the gateway's stat server: what it says of itself, and forced GCs with WSGW_PPROF=true")
	f.BoolVar(&o.polite, "polite", o.polite, "say goodbye with a close frame, not only by closing")
	f.BoolVar(&o.json, "json", o.json, "print the report as JSON")
	return f
}

func (o *options) check() error {
	switch {
	case o.size < minText || o.size > 60<<10:
		return fmt.Errorf("--size must be %d to %d", minText, 60<<10)
	case o.connections < 1, o.pushers < 1, o.batch < 1, o.window < 1:
		return errors.New("--connections, --pushers, --batch and --window must be at least 1")
	case o.batch > 1000:
		return errors.New("--batch must be at most 1000")
	case o.pushers >= maxLane:
		return fmt.Errorf("--pushers must be below %d", maxLane)
	case o.rate <= 0:
		return errors.New("--rate must be above 0")
	case o.patience <= 0:
		return errors.New("--patience must be above 0")
	case o.member < 0:
		return errors.New("--member must be positive")
	}
	return nil
}

var barrageID = regexp.MustCompile(`^[0-9A-Za-z]+$`)

// checkDoor checks what goes with --door.
func (o *options) checkDoor(s scenario) error {
	switch {
	case o.door == "":
		return nil
	case !s.doors:
		return errors.New("--door is not for this scenario")
	case !strings.HasPrefix(o.door, "/"):
		return errors.New("--door must be a path, such as /barrage")
	case o.member != 0, o.tokens != "":
		return errors.New("--door goes without --member and --tokens: nobody logs in there")
	case !barrageID.MatchString(o.app):
		return errors.New("--app must be letters and digits with --door")
	}
	return nil
}

// Run carries out `ws-gateway bench args...` and returns its exit code: 0 for a clean run, 1
// when a message was lost, duplicated or misordered or anything failed, 2 for bad arguments.
// Reports go to stdout, progress and errors to stderr. When ctx ends, so does the run, with 1.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		usage(stderr)
		return exitUsage
	}
	name := args[0]
	if child := children[name]; child != nil {
		if err := child(os.Stdin, stdout); err != nil {
			fmt.Fprintf(stderr, "bench %s: %v\n", name, err)
			return exitFaulty
		}
		return exitClean
	}
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		usage(stdout)
		return exitClean
	}
	if name == suiteName {
		return runSuite(ctx, args[1:], stdout, stderr)
	}
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
	if i < 0 {
		fmt.Fprintf(stderr, "bench: no scenario %q\n", name)
		usage(stderr)
		return exitUsage
	}
	s, o := scenarios[i], defaults()
	if s.defaults != nil {
		s.defaults(&o)
	}
	flags := o.flags(name, stderr)
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitClean
		}
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "bench %s: unexpected %q\n", name, flags.Arg(0))
		return exitUsage
	}
	if err := errors.Join(o.check(), o.checkDoor(s)); err != nil {
		fmt.Fprintf(stderr, "bench %s: %v\n", name, err)
		return exitUsage
	}
	report, err := s.start(ctx, o, stderr)
	if report != nil {
		if o.json {
			if e := report.printJSON(stdout); e != nil && err == nil {
				err = e
			}
		} else {
			report.print(stdout)
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench %s: %v\n", name, err)
		return exitFaulty
	}
	if !report.Clean() {
		return exitFaulty
	}
	return exitClean
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "usage: ws-gateway bench SCENARIO [flags]\n\n")
	for _, s := range scenarios {
		fmt.Fprintf(w, "  %-10s  %s\n", s.name, s.doc)
	}
	fmt.Fprintf(w, "  %-10s  %s\n", suiteName, "start a gateway, ask every question, and compare with the goals")
	fmt.Fprintf(w, "\n`ws-gateway bench SCENARIO -h` lists the flags.\n")
}

// start runs s. The report may be there together with an error.
func (s scenario) start(ctx context.Context, o options, stderr io.Writer) (*Report, error) {
	t, err := newTarget(ctx, o.url, o.pushKey)
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		t.tls.InsecureSkipVerify = o.insecure
	}
	if o.door != "" {
		t.enterBy(o.door)
		o.app = barrageApps + o.app
	}
	r := &run{options: o, target: t, progress: newProgress(stderr, s.name), report: &Report{Scenario: s.name, URL: o.url}}
	if r.logins, err = o.logins(); err != nil {
		return nil, err
	}
	if o.pid != 0 {
		r.server = &process{o.pid}
	} else if r.server, err = findProcess(t.addr); err != nil {
		r.report.Notes = append(r.report.Notes, err.Error())
	}
	r.fleet = newFleet(t)
	defer r.fleet.close()
	err = s.run(ctx, r)
	r.progress.end()
	return r.report, err
}

// A login is who a connection says it is.
type login struct {
	member int64
	token  string
}

// logins returns who the connections are, in turns.
func (o *options) logins() ([]login, error) {
	if o.tokens == "" {
		if o.member == 0 {
			return []login{{member: -1}}, nil
		}
		return []login{{o.member, o.token}}, nil
	}
	data, err := os.ReadFile(o.tokens)
	if err != nil {
		return nil, err
	}
	var out []login
	for line := range strings.Lines(string(data)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var l login
		if _, err := fmt.Sscan(line, &l.member, &l.token); err != nil || l.member < 1 {
			return nil, fmt.Errorf("%s: line %d: not a member id and a token", o.tokens, len(out)+1)
		}
		out = append(out, l)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no members", o.tokens)
	}
	return out, nil
}
