package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"ws-gateway/session/script/doors"
)

// A plan is one scenario of the suite: how to ask, and whom.
type plan struct {
	name    string
	args    []string // of bench, beginning with the scenario
	env     []string // of a gateway of its own; nil with bare
	free    bool     // server and generator are not bound to a CPU each
	once    bool     // takes long: one run is enough
	members int      // who log in, in turns; 0: the clients stay anonymous
	door    bool     // the clients come by a door
	bare    bool     // asked of a bare server, not of a gateway
	own     bool     // the scenario has a server of its own
}

// plans are in the order in which they run: what is compared follows each other.
var plans = []plan{
	{name: "idle", args: []string{"idle"}, env: []string{"WSGW_PPROF=true"}, once: true, members: 500},
	{name: "idle door", args: []string{"idle", "--duration", "1s"}, env: []string{"WSGW_PPROF=true"}, once: true, door: true},
	{name: "idle goroutine", args: []string{"idle"}, env: []string{"WSGW_PPROF=true", "WSGW_TRANSPORT=goroutine"}, once: true, members: 500},
	{name: "fanout 100", args: fanoutArgs(100, 16, 1)},
	{name: "fanout 1000", args: fanoutArgs(1000, 16, 1)},
	{name: "fanout 5000", args: fanoutArgs(5000, 16, 1)},
	{name: "crowd", args: fanoutArgs(10_000, 4, 10), members: 10_000, once: true},
	{name: "fanout batched", args: fanoutArgs(1000, 4, 10)},
	{name: "fanout free", args: fanoutArgs(1000, 16, 1), free: true},
	{name: "fanout free batched", args: fanoutArgs(1000, 4, 10), free: true},
	{name: "floor 50/s", args: pacedArgs("floor", 50), own: true},
	{name: "latency 50/s", args: pacedArgs("latency", 50)},
	{name: "floor 10/s", args: pacedArgs("floor", 10), own: true},
	{name: "latency 10/s", args: pacedArgs("latency", 10)},
	{name: "bare ingest", args: ingestArgs, bare: true},
	{name: "ingest", args: ingestArgs},
	{name: "bare private", args: privateArgs, members: 500, bare: true},
	{name: "private", args: privateArgs, members: 500},
	{name: "bare connect", args: connectArgs, members: 500, bare: true},
	{name: "connect", args: connectArgs, members: 500},
	{name: "bare commands", args: commandsArgs, bare: true},
	{name: "commands", args: commandsArgs, env: []string{"WSGW_COMMAND_RATE=0"}},
	{name: "commands door", args: commandsArgs, env: []string{"WSGW_COMMAND_RATE=0"}, door: true},
	{name: "resume", args: []string{"resume"}, env: []string{"WSGW_PPROF=true"}},
	{name: "slow", args: []string{"slow", "--warmup", "1s", "--duration", "7s"}},
	{name: "overload", args: []string{"fanout", "--connections", "5000", "--pushers", "16", "--batch", "20", "--warmup", "1s", "--duration", "3s"}},
	{name: "churn", args: []string{"churn", "--duration", "4s"}, env: []string{"WSGW_COMMAND_RATE=0"}, free: true},
}

var (
	ingestArgs   = []string{"ingest", "--warmup", "500ms", "--duration", "3s"}
	privateArgs  = []string{"private", "--warmup", "500ms", "--duration", "3s"}
	connectArgs  = []string{"connect", "--duration", "1s"}
	commandsArgs = []string{"commands", "--warmup", "1s", "--duration", "3s"}
)

func fanoutArgs(subscribers, pushers, batch int) []string {
	return []string{"fanout", "--connections", strconv.Itoa(subscribers), "--pushers", strconv.Itoa(pushers), "--batch", strconv.Itoa(batch),
		"--warmup", "1s", "--duration", "3s"}
}

func pacedArgs(scenario string, rate int) []string {
	return []string{scenario, "--connections", "1000", "--rate", strconv.Itoa(rate), "--warmup", "1s", "--duration", "5s"}
}

// A goal is a row of the result: a figure, and what it should be.
type goal struct {
	what     string
	plan     string
	figure   string
	unit     string
	over     [2]string // plan and figure of the same run that it is divided by; none: ""
	above    [2]string // plan and figure of the same run that is taken off it; none: ""
	bar, aim float64   // zero: none
	atLeast  bool      // the figure should be as large as them, not as small
}

// goals are the rows. The bars and aims are those of the project; DESIGN.md, section 10.
var goals = []goal{
	{what: "RSS per idle connection, 10 s after 10 000 have come", plan: "idle", figure: "rss_per_connection", unit: "KB", bar: 3, aim: 2},
	{what: "the same after a forced GC", plan: "idle", figure: "rss_per_connection_after_gc", unit: "KB", bar: 2, aim: 1.2},
	{what: "CPU of 10 000 idle connections with pings", plan: "idle", figure: "cpu", unit: "ms/s", bar: 5, aim: 4},
	{what: "RSS per idle connection to a door, 10 s after 10 000 have come", plan: "idle door", figure: "rss_per_connection", unit: "KB"},
	{what: "above one of the native protocol", plan: "idle door", figure: "rss_per_connection", above: [2]string{"idle", "rss_per_connection"}, unit: "KB", bar: 1},
	{what: "RSS per idle connection to a door after a forced GC", plan: "idle door", figure: "rss_per_connection_after_gc", unit: "KB"},
	{what: "above one of the native protocol", plan: "idle door", figure: "rss_per_connection_after_gc", above: [2]string{"idle", "rss_per_connection_after_gc"}, unit: "KB", bar: 1},
	{what: "RSS per idle connection of the goroutine transport after a forced GC", plan: "idle goroutine", figure: "rss_per_connection_after_gc", unit: "KB", bar: 7.5, aim: 5.5},
	{what: "fan-out to 100, CPU per delivery", plan: "fanout 100", figure: "cpu_per_delivery", unit: "us", bar: 0.60, aim: 0.40},
	{what: "fan-out to 1 000, CPU per delivery", plan: "fanout 1000", figure: "cpu_per_delivery", unit: "us", bar: 0.65, aim: 0.45},
	{what: "fan-out to 5 000, CPU per delivery", plan: "fanout 5000", figure: "cpu_per_delivery", unit: "us", bar: 1.0, aim: 0.70},
	{what: "fan-out to 10 000 members in batches of 10, CPU per delivery", plan: "crowd", figure: "cpu_per_delivery", unit: "us"},
	{what: "fan-out to 1 000 in batches of 10, CPU per delivery", plan: "fanout batched", figure: "cpu_per_delivery", unit: "us"},
	{what: "loop of write(2), 4 frames a write", plan: "floor 50/s", figure: "frames_4_cpu_per_delivery", unit: "us"},
	{what: "loop of write(2), 16 frames a write", plan: "floor 50/s", figure: "frames_16_cpu_per_delivery", unit: "us"},
	{what: "deliveries to 1 000, nothing bound to a CPU", plan: "fanout free", figure: "deliveries", unit: "/s", bar: 1.6e6, aim: 2e6, atLeast: true},
	{what: "the same in batches of 10", plan: "fanout free batched", figure: "deliveries", unit: "/s"},
	{what: "1 000 subscribers, 50/s, CPU per delivery", plan: "latency 50/s", figure: "cpu_per_delivery", unit: "us"},
	{what: "loop of write(2), the same", plan: "floor 50/s", figure: "at_rate_cpu_per_delivery", unit: "us"},
	{what: "ratio", plan: "latency 50/s", figure: "cpu_per_delivery", over: [2]string{"floor 50/s", "at_rate_cpu_per_delivery"}, unit: "x", bar: 1.14, aim: 1.05},
	{what: "1 000 subscribers, 10/s, latency p50", plan: "latency 10/s", figure: "p50", unit: "ms"},
	{what: "loop of write(2), the same", plan: "floor 10/s", figure: "at_rate_p50", unit: "ms"},
	{what: "ratio", plan: "latency 10/s", figure: "p50", over: [2]string{"floor 10/s", "at_rate_p50"}, unit: "x", bar: 1.1, aim: 1},
	{what: "1 000 subscribers, 10/s, latency p99", plan: "latency 10/s", figure: "p99", unit: "ms"},
	{what: "loop of write(2), the same", plan: "floor 10/s", figure: "at_rate_p99", unit: "ms"},
	{what: "ratio", plan: "latency 10/s", figure: "p99", over: [2]string{"floor 10/s", "at_rate_p99"}, unit: "x", bar: 1.1, aim: 1},
	{what: "POST /push with one subscriber, CPU", plan: "ingest", figure: "cpu_per_push", unit: "us", bar: 17.5, aim: 14},
	{what: "a bare server, the same", plan: "bare ingest", figure: "cpu_per_push", unit: "us"},
	{what: "ratio", plan: "ingest", figure: "cpu_per_push", over: [2]string{"bare ingest", "cpu_per_push"}, unit: "x"},
	{what: "pushes in batches of 100, CPU per push", plan: "ingest", figure: "batched_cpu_per_push", unit: "us", bar: 1.5, aim: 0.8},
	{what: "private push to a member with 2 connections, CPU", plan: "private", figure: "cpu_per_push", unit: "us", bar: 25, aim: 21},
	{what: "a bare server, the same", plan: "bare private", figure: "cpu_per_push", unit: "us"},
	{what: "ratio", plan: "private", figure: "cpu_per_push", over: [2]string{"bare private", "cpu_per_push"}, unit: "x"},
	{what: "connect, authenticate, subscribe, CPU", plan: "connect", figure: "cpu_per_connect", unit: "us", bar: 65, aim: 58},
	{what: "a bare server, the same", plan: "bare connect", figure: "cpu_per_connect", unit: "us"},
	{what: "ratio", plan: "connect", figure: "cpu_per_connect", over: [2]string{"bare connect", "cpu_per_connect"}, unit: "x"},
	{what: "close, CPU", plan: "connect", figure: "cpu_per_close", unit: "us", bar: 12, aim: 8},
	{what: "a bare server, the same", plan: "bare connect", figure: "cpu_per_close", unit: "us"},
	{what: "ratio", plan: "connect", figure: "cpu_per_close", over: [2]string{"bare connect", "cpu_per_close"}, unit: "x"},
	{what: "a client's command, answered, CPU", plan: "commands", figure: "cpu_per_command", unit: "us"},
	{what: "the same to a door, CPU", plan: "commands door", figure: "cpu_per_command", unit: "us", bar: 10},
	{what: "a bare server, the same", plan: "bare commands", figure: "cpu_per_command", unit: "us"},
	{what: "commands to a door", plan: "commands door", figure: "commands", unit: "/s", bar: 100_000, atLeast: true},
	{what: "a missed message to a client that is back, CPU", plan: "resume", figure: "cpu_per_resumed_message", unit: "us"},
	{what: "a logged message, live heap beside its text", plan: "resume", figure: "heap_per_logged_message_beside_text", unit: "B", bar: 100},
	{what: "a logged private message, each for another member", plan: "resume", figure: "heap_per_logged_private_message_beside_text", unit: "B", bar: 100},
	{what: "a client that never reads is evicted after", plan: "slow", figure: "evicted_after", unit: "s", bar: 5},
	{what: "a client that never reads costs memory", plan: "slow", figure: "rss_growth", unit: "KB", bar: 1024},
	{what: "p99 of the others, beside it against before", plan: "slow", figure: "with_slow_p99", over: [2]string{"slow", "p99"}, unit: "x"},
	{what: "pushed beyond capacity, time in queue p99", plan: "overload", figure: "queue_p99", unit: "ms", bar: 250},
	{what: "the same until received by a generator that is as busy", plan: "overload", figure: "p99", unit: "ms"},
	{what: "pushes answered 429 meanwhile", plan: "overload", figure: "refused", unit: ""},
	{what: "deliveries while clients subscribe and unsubscribe", plan: "churn", figure: "deliveries", unit: "/s"},
}

// A suite is a run of all plans.
type suite struct {
	server  string // the program of the gateway
	self    string
	runs    int
	only    []string
	quick   bool
	stderr  io.Writer
	dir     string
	results map[string][]*Report // by plan
}

// suiteReport is the suite's result as JSON.
type suiteReport struct {
	Rows    []suiteRow           `json:"rows"`
	Reports map[string][]*Report `json:"reports"`
}

type suiteRow struct {
	What   string  `json:"what"`
	Unit   string  `json:"unit"`
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Bar    float64 `json:"bar,omitempty"`
	Aim    float64 `json:"aim,omitempty"`
	Meets  string  `json:"meets,omitempty"` // aim, bar or nothing
}

// The door of plans that have one.
const (
	doorPath   = "/barrage"
	doorScript = "barrage.lua"
)

// suiteName is the scenario that is all others.
const suiteName = "all"

// runSuite is `bench all`.
func runSuite(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	s := &suite{stderr: stderr, results: make(map[string][]*Report)}
	f := flag.NewFlagSet("bench all", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&s.server, "server", "", "`program` of the gateway; this one if empty")
	f.IntVar(&s.runs, "runs", 5, "how often each scenario is run")
	f.BoolVar(&s.quick, "quick", false, "few connections and little time: to see that everything works, not for the figures")
	only := f.String("only", "", "comma separated `plans` to run, or the beginnings of their names: "+planNames())
	asJSON := f.Bool("json", false, "print rows and reports as JSON")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitClean
	case err != nil:
		return exitUsage
	case f.NArg() > 0 || s.runs < 1:
		fmt.Fprintf(stderr, "bench all: bad arguments\n")
		return exitUsage
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	err := s.run(ctx)
	rows := s.rows()
	clean := true
	for _, reports := range s.results {
		for _, r := range reports {
			clean = clean && r.Clean()
		}
	}
	if *asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = errors.Join(err, e.Encode(suiteReport{rows, s.results}))
	} else {
		printRows(stdout, rows)
		for name, reports := range s.results {
			for _, r := range reports {
				if !r.Clean() {
					fmt.Fprintf(stdout, "%s: %+v\n", name, r.Verdict)
				}
			}
		}
	}
	if err != nil {
		fmt.Fprintf(stderr, "bench all: %v\n", err)
	}
	if err != nil || !clean {
		return exitFaulty
	}
	return exitClean
}

func planNames() string {
	var names []string
	for _, p := range plans {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// chosen reports whether p is to run.
func (s *suite) chosen(p plan) bool {
	return s.only == nil || slices.ContainsFunc(s.only, func(o string) bool { return strings.HasPrefix(p.name, o) })
}

func (s *suite) run(ctx context.Context) (err error) {
	if s.self, err = os.Executable(); err != nil {
		return err
	}
	if s.server == "" {
		s.server = s.self
	}
	if s.dir, err = os.MkdirTemp("", "ws-gateway-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	if err := os.WriteFile(s.file(doorScript), doors.Barrage, 0o600); err != nil {
		return err
	}
	for i := range s.runs {
		for _, p := range plans {
			if !s.chosen(p) || p.once && i > 0 {
				continue
			}
			fmt.Fprintf(s.stderr, "run %d of %d: %s\n", i+1, s.runs, p.name)
			r, err := s.measure(ctx, p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			s.results[p.name] = append(s.results[p.name], r)
		}
	}
	return nil
}

// measure carries out p once.
func (s *suite) measure(ctx context.Context, p plan) (_ *Report, err error) {
	serverCPU, ownCPU := 0, 1
	if p.free || runtime.NumCPU() < 2 {
		serverCPU, ownCPU = -1, -1
	}
	args := append([]string{"bench"}, p.args...)
	args = append(args, "--json")
	if s.quick {
		args = append(args, "--connections", "40", "--warmup", "50ms", "--duration", "300ms")
	}
	if p.own {
		args = append(args, "--server-cpu", strconv.Itoa(serverCPU))
	} else {
		more, stop, err := s.serve(ctx, p, serverCPU)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		args = append(args, more...)
	}
	cmd := exec.CommandContext(ctx, s.self, args...)
	cmd.Env = append(cleanEnv(), "GOMAXPROCS=2")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, s.stderr
	if err := startOn(cmd, ownCPU); err != nil {
		return nil, err
	}
	failed := cmd.Wait()
	r := new(Report)
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, errors.Join(failed, fmt.Errorf("read its report: %w", err))
	}
	if failed != nil && r.Clean() {
		return r, failed
	}
	return r, nil // what is not clean is counted in the end
}

// serve starts the server that p asks on the given CPU, and returns the generator's flags for it.
func (s *suite) serve(ctx context.Context, p plan, cpu int) (args []string, stop func() error, err error) {
	env := slices.Clone(p.env)
	if p.members > 0 {
		if err := s.writeMembers(p.members); err != nil {
			return nil, nil, err
		}
		env = append(env, "WSGW_AUTH=static", "WSGW_MEMBERS_FILE="+s.file("members"))
		args = append(args, "--tokens", s.file("tokens"))
	}
	if p.bare {
		c, err := startChild(ctx, bareCommand, cpu)
		if err != nil {
			return nil, nil, err
		}
		return append(args, "--url", "ws://"+c.addr+"/", "--pid", strconv.Itoa(c.cmd.Process.Pid)), c.stop, nil
	}
	if p.door {
		env = append(env, "WSGW_DOORS="+doorPath+"="+s.file(doorScript))
		args = append(args, "--door", doorPath)
	}
	g, err := s.startGateway(ctx, cpu, env)
	if err != nil {
		return nil, nil, err
	}
	return append(args, "--url", g.clients, "--pid", strconv.Itoa(g.cmd.Process.Pid), "--push-key", pushKey, "--stat", g.stat), g.stop, nil
}

// rows makes the result of all runs.
func (s *suite) rows() (rows []suiteRow) {
	for _, g := range goals {
		values := g.values(s.results)
		if len(values) == 0 {
			continue
		}
		slices.Sort(values)
		row := suiteRow{What: g.what, Unit: g.unit, Median: values[len(values)/2], Min: values[0], Max: values[len(values)-1]}
		if g.bar != 0 && !s.quick {
			row.Bar, row.Aim, row.Meets = g.bar, g.aim, g.meets(row.Median)
		}
		rows = append(rows, row)
	}
	return rows
}

// values returns g's figure in each run.
func (g *goal) values(results map[string][]*Report) (values []float64) {
	of := func(name [2]string, run int) (float64, bool) {
		if run >= len(results[name[0]]) {
			return 0, false
		}
		return results[name[0]][run].Value(name[1])
	}
	for i := range results[g.plan] {
		v, ok := of([2]string{g.plan, g.figure}, i)
		if g.over[0] != "" {
			w, has := of(g.over, i)
			v, ok = v/w, ok && has && w > 0
		}
		if g.above[0] != "" {
			w, has := of(g.above, i)
			v, ok = v-w, ok && has
		}
		if ok {
			values = append(values, v)
		}
	}
	return values
}

// meets says what v reaches.
func (g *goal) meets(v float64) string {
	reaches := func(mark float64) bool { return mark != 0 && (g.atLeast && v >= mark || !g.atLeast && v <= mark) }
	switch {
	case reaches(g.aim):
		return "aim"
	case reaches(g.bar):
		return "bar"
	}
	return "nothing"
}

// writeMembers writes the n who log in, for the gateway and for the generator.
func (s *suite) writeMembers(n int) error {
	var members, tokens bytes.Buffer
	members.WriteString("members:\n")
	for i := 1; i <= n; i++ {
		hash, token := memberToken(i)
		fmt.Fprintf(&members, "  %d: {tokens: [%q]}\n", i, hash)
		fmt.Fprintf(&tokens, "%d %s\n", i, token)
	}
	if err := os.WriteFile(s.file("members"), members.Bytes(), 0o600); err != nil {
		return err
	}
	return os.WriteFile(s.file("tokens"), tokens.Bytes(), 0o600)
}
