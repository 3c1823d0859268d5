// Command ws-gateway holds very many WebSocket clients and lets a backend push to them.
//
// This file is the command line: its subcommands, and in serve the wiring of all packages.
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"ws-gateway/apps"
	"ws-gateway/config"
	"ws-gateway/config/starter"
	"ws-gateway/push"
	"ws-gateway/push/log"
	"ws-gateway/push/presence"
	"ws-gateway/server"
	"ws-gateway/server/transport"
	"ws-gateway/session"
	"ws-gateway/session/auth"
	"ws-gateway/session/client/js"
	"ws-gateway/session/client/terminal"
	"ws-gateway/session/script"
	"ws-gateway/stat"
	"ws-gateway/stat/bench"
	"ws-gateway/stat/dashboard"
	"ws-gateway/stat/logging"
)

// version is set by the linker (make build).
var version string

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan os.Signal, 1)
	signal.Notify(first, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-first
		signal.Stop(first) // the second one ends the process at once
		cancel()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// A program is one run of a subcommand.
type program struct {
	args, env      []string
	stdout, stderr io.Writer
}

// The subcommands. Their errors go to stderr, a line each.
var commands = []struct {
	name, does string
	run        func(*program, context.Context) error
}{
	{"serve", "run the gateway (the default)", (*program).serve},
	{"sub", "subscribe to apps and print their messages", (*program).sub},
	{"push", "push a message to an app", (*program).push},
	{"tail", "show what a gateway sees of a member or an app, as it happens", (*program).tail},
	{"init", "write a production configuration to begin with", (*program).init},
	{"check", "check every setting and the files they name, start nothing", (*program).check},
	{"explain", "say which rule lets a member do something with an app, or not, and why", (*program).explain},
	{"token", "make a token and the entry of its member for WSGW_MEMBERS_FILE", (*program).token},
	{"bench", "load a gateway and measure it", (*program).bench},
	{"version", "print what this is built from", (*program).version},
}

// An exit is the code of a subcommand that has said itself what is wrong.
type exit int

// Error implements error.
func (e exit) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// An invalid error is about what the gateway was given: arguments, settings, files. Nothing
// was started.
type invalid struct{ error }

// Unwrap returns what is invalid.
func (e invalid) Unwrap() error { return e.error }

// run does what args say and returns the exit code: 0, 1 after a failure, 2 for invalid input.
func run(ctx context.Context, args, env []string, stdout, stderr io.Writer) int {
	name := "serve"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	err := error(invalid{fmt.Errorf("unknown command %q; ws-gateway help lists them", name)})
	if name == "help" || name == "-h" || name == "-help" || name == "--help" {
		help(stdout, len(args) > 0 && args[0] == "settings")
		return 0
	}
	for _, c := range commands {
		if c.name == name {
			err = c.run(&program{args, env, stdout, stderr}, ctx)
		}
	}
	var code exit
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "ws-gateway: %s\n", line)
	}
	if errors.As(err, new(invalid)) {
		return 2
	}
	return 1
}

// help prints what there is to call, or all settings.
func help(w io.Writer, settings bool) {
	if settings {
		fmt.Fprintf(w, "Environment variables that ws-gateway reads, with their defaults:\n\n%s", config.Text())
		return
	}
	fmt.Fprint(w, "ws-gateway holds WebSocket clients and lets a backend push to them.\n\nUsage: ws-gateway [command] [flags]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-9s %s\n", c.name, c.does)
	}
	fmt.Fprint(w, "\nws-gateway COMMAND -h lists a command's flags, ws-gateway help settings the environment variables.\n")
}

// flags parses the arguments of a subcommand with the flags that define adds.
func (p *program) flags(name string, define func(*flag.FlagSet)) error {
	fs := flag.NewFlagSet("ws-gateway "+name, flag.ContinueOnError)
	fs.SetOutput(p.stderr)
	define(fs)
	switch err := fs.Parse(p.args); {
	case errors.Is(err, flag.ErrHelp):
		return err
	case err != nil:
		return exit(2) // the flag package has said why
	case fs.NArg() > 0:
		return invalid{fmt.Errorf("%s: unexpected argument %q", name, fs.Arg(0))}
	}
	return nil
}

// parts are what the settings name, loaded: all that can be wrong before anything listens.
type parts struct {
	apps    *apps.Registry
	auth    session.Authenticator
	proxies *server.Proxies
	keys    *push.Keys
}

// load loads the parts. Whoever is no longer vouched for is given to withdrawn.
func load(c *config.Config, l *slog.Logger, m *stat.Metrics, withdrawn func(member int64)) (*parts, error) {
	p := &parts{proxies: server.NewProxies(c.TrustedProxies, l)}
	var err error
	if p.apps, err = apps.Load(c.AppsFile); err != nil {
		return nil, invalid{err}
	}
	if p.auth, err = authenticator(c, l, m, withdrawn); err != nil {
		return nil, invalid{err}
	}
	p.keys, err = push.NewKeys(push.KeysOptions{
		Keys: plainList(c.PushKeys), File: c.PushKeysFile, Rate: c.PushRate,
		Remote: p.proxies.Remote, Logger: l, Metrics: m,
	})
	if err != nil {
		return nil, invalid{err}
	}
	return p, nil
}

// authenticator returns the one that WSGW_AUTH names.
func authenticator(c *config.Config, l *slog.Logger, m *stat.Metrics, withdrawn func(member int64)) (session.Authenticator, error) {
	switch c.Auth {
	case "static":
		return auth.NewStatic(auth.StaticOptions{File: c.MembersFile, Withdrawn: withdrawn})
	case "callback":
		return auth.NewCallback(auth.CallbackOptions{
			URL: c.AuthURL, Timeout: c.AuthTimeout, Concurrency: c.AuthConcurrency, Logger: l, Metrics: m,
		})
	case "jwt":
		return auth.NewJWT(auth.JWTOptions{
			Secret: string(c.JWTSecret), KeyFile: c.JWTKeyFile, JWKSURL: c.JWTJWKSURL,
			Algorithms: c.JWTAlgorithms, Audience: c.JWTAudience, Issuer: c.JWTIssuer,
			MemberClaim: c.JWTMemberClaim, Leeway: c.JWTLeeway, Logger: l, Metrics: m,
		})
	case "none":
		return auth.None{}, nil
	case "demo":
		return auth.Demo{}, nil
	}
	return nil, fmt.Errorf("WSGW_AUTH: no authenticator is called %s", c.Auth)
}

func plainList(secrets []config.Secret) []string {
	keys := make([]string, len(secrets))
	for i, s := range secrets {
		keys[i] = string(s)
	}
	return keys
}

func plainMap(secrets map[string]config.Secret) map[string]string {
	urls := make(map[string]string, len(secrets))
	for name, s := range secrets {
		urls[name] = string(s)
	}
	return urls
}

// check loads everything that serve would, and says that it is fine.
func (p *program) check(context.Context) error {
	if err := p.flags("check", func(*flag.FlagSet) {}); err != nil {
		return err
	}
	c, err := config.Load(p.env)
	if err != nil {
		return invalid{err}
	}
	parts, err := load(c, slog.New(slog.DiscardHandler), nil, nil)
	if err != nil {
		return err
	}
	defer parts.close()
	if c.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey); err != nil {
			return invalid{fmt.Errorf("WSGW_TLS_CERT: %w", err)}
		}
	}
	for path, file := range c.Doors {
		if err := script.Check(file); err != nil {
			return invalid{fmt.Errorf("door %s: %w", path, err)}
		}
	}
	fmt.Fprintln(p.stdout, "everything is fine")
	return nil
}

// explain prints what the rules say about one member, app and action.
func (p *program) explain(context.Context) error {
	m := apps.Member{ID: apps.Anonymous}
	var app, action string
	if err := p.flags("explain", func(fs *flag.FlagSet) {
		fs.Int64Var(&m.ID, "member", m.ID, "the member's `id`; negative is an anonymous client")
		fs.Func("role", "a `role` of the member; may be repeated", add(&m.Roles))
		fs.StringVar(&app, "app", "", "the `name` of the app")
		fs.StringVar(&action, "action", "subscribe", "what the member wants: subscribe, push or presence")
	}); err != nil {
		return err
	}
	if app == "" {
		return invalid{errors.New("explain: --app is needed")}
	}
	wish, err := apps.ParseAction(action)
	if err != nil {
		return invalid{fmt.Errorf("explain: %w", err)}
	}
	c, err := config.Load(p.env)
	if err != nil {
		return invalid{err}
	}
	registry, err := apps.Load(c.AppsFile)
	if err != nil {
		return invalid{err}
	}
	fmt.Fprintln(p.stdout, registry.Explain(m, wish, app))
	return nil
}

// token prints an entry for the members file, and the token if it made one.
func (p *program) token(context.Context) error {
	var (
		member int64
		token  string
		roles  []string
	)
	if err := p.flags("token", func(fs *flag.FlagSet) {
		fs.Int64Var(&member, "member", 0, "the member's `id`")
		fs.StringVar(&token, "token", "", "the member's `token`; made at random if not given, which is the better way")
		fs.Func("role", "a `role` of the member; may be repeated", add(&roles))
	}); err != nil {
		return err
	}
	e, err := auth.NewEntry(member, session.Token(token), roles...)
	if err != nil {
		return invalid{fmt.Errorf("token: %w", err)}
	}
	fmt.Fprintf(p.stdout, "  %s\n", e)
	if token == "" {
		fmt.Fprintf(p.stderr, "token of member %d, kept nowhere: %s\n", member, string(e.Token))
	}
	return nil
}

// add returns the value of a flag that may be repeated.
func add(list *[]string) func(string) error {
	return func(s string) error {
		*list = append(*list, s)
		return nil
	}
}

// sub prints the messages of apps as they come.
func (p *program) sub(ctx context.Context) error {
	return usage(terminal.Sub(ctx, p.args, p.stdout, p.stderr))
}

// push pushes one message.
func (p *program) push(ctx context.Context) error {
	return usage(terminal.Push(ctx, p.args, os.Stdin, p.stdout, p.stderr))
}

// tail shows what a gateway sees.
func (p *program) tail(ctx context.Context) error {
	return usage(terminal.Tail(ctx, p.args, p.stdout, p.stderr))
}

// usage makes the error for wrong arguments, which have been complained of, an exit code.
func usage(err error) error {
	if errors.Is(err, terminal.ErrUsage) {
		return exit(2)
	}
	return err
}

// init writes the files of a production configuration.
func (p *program) init(context.Context) error {
	dir := "."
	if err := p.flags("init", func(fs *flag.FlagSet) {
		fs.StringVar(&dir, "dir", dir, "the `folder` to write to")
	}); err != nil {
		return err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	member, err := auth.NewEntry(1, "")
	if err != nil {
		return err
	}
	written, err := starter.Starter{Dir: dir, PushKey: rand.Text(), Entry: "  " + member.String()}.Write()
	if err != nil {
		return err
	}
	for _, name := range written {
		fmt.Fprintln(p.stdout, name)
	}
	fmt.Fprintf(p.stderr, "token of member 1, kept nowhere: %s\n", string(member.Token))
	return nil
}

// bench runs one of the scenarios of package bench.
func (p *program) bench(ctx context.Context) error {
	if code := bench.Run(ctx, p.args, p.stdout, p.stderr); code != 0 {
		return exit(code)
	}
	return nil
}

// version prints what this program was built from.
func (p *program) version(context.Context) error {
	if err := p.flags("version", func(*flag.FlagSet) {}); err != nil {
		return err
	}
	v, commit := built()
	fmt.Fprintf(p.stdout, "ws-gateway %s, commit %s, %s %s/%s\n", v, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// built returns the version of this program and the commit that it was built from.
func built() (v, commit string) {
	v, commit = version, "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return cmp.Or(v, "unknown"), commit
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " with changes"
		}
	}
	return cmp.Or(v, info.Main.Version, "unknown"), commit + modified
}

// serve runs the gateway until ctx ends and everything has stopped in order.
func (p *program) serve(ctx context.Context) error {
	if err := p.flags("serve", func(*flag.FlagSet) {}); err != nil {
		return err
	}
	c, err := config.Load(p.env)
	if err != nil {
		return invalid{err}
	}
	l := logging.New(p.stderr, logging.Options{Level: c.LogLevel, Format: c.LogFormat})
	slog.SetDefault(l) // for libraries that log by themselves
	memory := limitMemory(l)
	v, _ := built()
	metrics, ready, tail := stat.New(stat.Options{Node: c.Node, Version: v}), new(stat.Ready), new(stat.Tail)

	var gateway *session.Gateway
	parts, err := load(c, l, metrics, func(member int64) {
		gateway.Disconnect(member, session.CloseTokenExpired) // it may come back with what is good now
	})
	if err != nil {
		return err
	}
	defer parts.close()
	failures := auth.NewFailures(c.AuthFailures)

	history, err := log.OpenMemory(c.StateDir, log.Options{MaxBytes: int64(c.HistoryMemory), Logger: l, Metrics: metrics})
	if err != nil {
		return err
	}
	defer func() { // behind everything that pushes
		if err := history.Save(); err != nil {
			l.Error("the next start begins a new epoch", "err", err)
		}
		history.Close()
	}()
	hub := push.NewHub(push.Options{
		Apps: parts.apps, Log: history, Presence: presence.NewMemory(), Logger: l, Metrics: metrics, Tail: tail, FlushWindow: c.FlushWindow, MaxText: int(c.MaxText),
		MaxIdempotencyKeys: c.MaxIdempotencyKeys,
	})
	defer hub.Close()
	gateway = session.NewGateway(session.Options{
		Hub: hub, Apps: parts.apps, Auth: parts.auth, Failures: failures, Logger: l, Metrics: metrics, Tail: tail,
		AuthDeadline: c.AuthDeadline, DenyAnonymous: c.Anonymous == "deny", ForbiddenCode: c.ForbiddenCode,
		MaxSubscriptions: c.MaxSubscriptions, MaxPerMember: c.MaxConnectionsPerMember,
		CommandRate: c.CommandRate, CommandBurst: c.CommandBurst,
	})
	metrics.AddSource(hub.Fill)
	metrics.AddSource(gateway.Fill)
	scripts, err := script.NewHost(script.Options{
		Gateway: gateway, Hub: hub, Timeout: c.DoorsTimeout, HTTPAllow: c.DoorsHTTPAllow, Redis: plainMap(c.Redis),
		Option: c.DoorsOptions,
		Logger: l, Metrics: metrics,
	})
	if err != nil {
		return invalid{err}
	}
	defer scripts.Close()
	doors, err := open(scripts, c.Doors)
	if err != nil {
		return invalid{err}
	}
	connections, err := transport.New(transport.Options{
		Mode: c.Transport, QueueBytes: int(c.QueueBytes), MaxMessage: int(c.MaxMessage), WriteTimeout: c.WriteTimeout,
		PingInterval: c.PingInterval, PongTimeout: c.PongTimeout, Logger: l, Metrics: metrics,
	})
	if err != nil {
		return err
	}

	reload := parts.reloader(gateway, l, metrics)
	var srv *server.Server
	srv, err = server.New(server.Options{
		Hub: hub, Sessions: gateway, Transport: connections, Doors: doors, Mesh: script.NewMesh(scripts, parts.keys), Keys: parts.keys, Failures: failures,
		Addr: c.Addr, TLSCert: c.TLSCert, TLSKey: c.TLSKey, MaxBody: int64(c.MaxBody),
		Origins: c.Origins, Proxies: parts.proxies,
		Limits: server.Limits{
			Connections: connectionLimit(c), PerAddress: c.MaxConnectionsPerAddress,
			Handshakes: c.MaxHandshakes, HandshakeRate: c.HandshakeRate, Memory: memory,
		},
		StatAddr: c.StatAddr, Ready: ready, Stat: stat.Handler(ctx, stat.HandlerOptions{
			Metrics: metrics, Tail: tail, Ready: ready, Key: string(c.StatKey), Reload: reload, Pprof: c.PProf,
			Dashboard: parts.dashboard(c, hub, l, metrics, func() string {
				return "ws" + secure(c) + "://" + srv.Addr().String() + "/"
			}),
		}),
		DrainDelay: c.DrainDelay, DrainWindow: c.DrainWindow, Logger: l, Metrics: metrics,
	})
	if err != nil {
		connections.Close()
		return err
	}
	defer onHangup(func() { reload() })()
	greet(l, c, v, srv, parts.keys.Generated())
	return srv.Serve(ctx)
}

// dashboard returns the page of the stat server. Its push form is for whoever may push to
// the gateway itself.
func (p *parts) dashboard(c *config.Config, hub *push.Hub, l *slog.Logger, m *stat.Metrics, gateway func() string) http.Handler {
	o := dashboard.Options{
		Gateway: gateway,
		SDK:     js.Handler(),
		Push:    push.Handler(push.HandlerOptions{Hub: hub, Keys: p.keys, MaxBody: int64(c.MaxBody), Logger: l, Metrics: m}),
		Explain: func(member int64, action, app string) (dashboard.Explanation, error) {
			wish, err := apps.ParseAction(action)
			if err != nil {
				return dashboard.Explanation{}, err
			}
			e := p.apps.Explain(apps.Member{ID: member}, wish, app)
			return dashboard.Explanation{Allowed: e.Allowed, Rule: e.Rule, Where: e.Where, Choice: e.Choice, Reason: e.Reason}, nil
		},
	}
	if c.Auth == "demo" {
		o.Member, o.Token = auth.DemoMember, string(auth.DemoToken)
	}
	return dashboard.Handler(o)
}

// open opens a door for each script.
func open(scripts *script.Host, files map[string]string) (map[string]server.Door, error) {
	doors := make(map[string]server.Door, len(files))
	for path, file := range files {
		d, err := scripts.Door(path, file)
		if err != nil {
			return nil, err
		}
		doors[path] = d.Open
	}
	return doors, nil
}

// close frees what the parts hold.
func (p *parts) close() {
	if c, ok := p.auth.(interface{ Close() }); ok {
		c.Close()
	}
}

// reloader returns what reads apps, members and keys again, and has live sessions follow. A
// bad file changes nothing of what it has.
func (p *parts) reloader(g *session.Gateway, l *slog.Logger, m *stat.Metrics) func() ([]string, error) {
	var mu sync.Mutex
	return func() ([]string, error) {
		mu.Lock()
		defer mu.Unlock()
		changes, appsErr := p.apps.Reload()
		m.Reload("apps", appsErr == nil)
		g.Reauthorize()
		var membersErr error
		if members, ok := p.auth.(interface{ Reload() error }); ok {
			membersErr = members.Reload()
			m.Reload("members", membersErr == nil)
		}
		err := errors.Join(appsErr, membersErr, p.keys.Reload())
		if err != nil {
			l.Error("not all was reloaded: what is wrong stays as it was", "err", err)
		} else {
			l.Info("reloaded", "changes", len(changes))
		}
		for _, change := range changes {
			l.Info("apps changed", "change", change)
		}
		return changes, err
	}
}

// onHangup calls f at every SIGHUP until the function that it returns is called.
func onHangup(f func()) (stop func()) {
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

// limitMemory has the garbage collector keep to 90 % of the memory that the cgroup or the
// machine has, unless GOMEMLIMIT says otherwise, and returns how many bytes there are; 0 if
// that can't be told.
func limitMemory(l *slog.Logger) int64 {
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)))
	if err != nil {
		l.Warn("memory limit unknown: set GOMEMLIMIT", "err", err)
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit / 9 * 10
}

// connectionLimit returns WSGW_MAX_CONNECTIONS, by default what the open files allow for.
func connectionLimit(c *config.Config) int {
	if c.MaxConnections != nil {
		return *c.MaxConnections
	}
	return server.DefaultConnections()
}

// greet says what listens where, what is open to whom, and how to try it.
func greet(l *slog.Logger, c *config.Config, version string, s *server.Server, pushKey string) {
	scheme := secure(c)
	clients, stats := reachable(s.Addr()), reachable(s.StatAddr())
	l.Info("ws-gateway is up", "version", version, "node", c.Node,
		"clients", "ws"+scheme+"://"+clients+"/", "push", "http"+scheme+"://"+clients+"/push", "stat", "http://"+stats+"/stat")
	if c.Auth == "demo" {
		l.Warn("demo: only member 123456 with token 654321 can log in, from this machine; WSGW_AUTH chooses real members")
	}
	if c.AppsFile == "" {
		l.Info("every app is open to everybody, but im is private; WSGW_APPS_FILE sets rules")
	}
	if pushKey != "" {
		l.Warn("push is open to this machine; others need the key made for this run; WSGW_PUSH_KEYS sets your own", "key", pushKey)
	}
	l.Info("look at it, and try it, in a browser: http://" + stats + "/")
	if c.Auth == "demo" {
		l.Info(`or in a terminal: npx wscat -c ws` + scheme + `://` + clients + `, then send {"member_id":123456,"token":"654321"} and {"app":"match"}`)
		l.Info(`and in another terminal: curl -H 'Content-Type: application/json' -d '{"app":"match","text":"hello"}' http` + scheme + `://` + clients + `/push`)
	}
}

// secure returns what the scheme of a URL of the gateway has more with TLS.
func secure(c *config.Config) string {
	if c.TLSCert != "" {
		return "s"
	}
	return ""
}

// reachable returns an address at which one reaches a listener from its own machine, as in a URL.
func reachable(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return a.String()
	}
	if ap.Addr().IsUnspecified() {
		ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port())
	}
	return strings.Replace(ap.String(), "%", "%25", 1) // RFC 6874: the zone of a link-local address
}
