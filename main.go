// Command ws-gateway holds very many WebSocket clients and lets a backend push to them.
//
// This file has the subcommands (package command runs them), and in serve the wiring of all
// packages: settings, what they name, server.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"ws-gateway/apps"
	"ws-gateway/config"
	"ws-gateway/config/command"
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
	os.Exit(command.Run(command.Interrupted(), commands, command.Call{
		Args: os.Args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}

// The subcommands.
var commands = []command.Command{
	{Name: "serve", Does: "run the gateway (the default)", Run: serve},
	{Name: "sub", Does: "subscribe to apps and print their messages", Run: func(ctx context.Context, c *command.Call) error {
		return usage(terminal.Sub(ctx, c.Args, c.Stdout, c.Stderr))
	}},
	{Name: "push", Does: "push a message to an app", Run: func(ctx context.Context, c *command.Call) error {
		return usage(terminal.Push(ctx, c.Args, c.Stdin, c.Stdout, c.Stderr))
	}},
	{Name: "tail", Does: "show what a gateway sees of a member or an app, as it happens", Run: func(ctx context.Context, c *command.Call) error {
		return usage(terminal.Tail(ctx, c.Args, c.Stdout, c.Stderr))
	}},
	{Name: "init", Does: "write a production configuration to begin with", Run: command.Init},
	{Name: "check", Does: "check every setting and the files they name, start nothing", Run: check},
	{Name: "explain", Does: "say which rule lets a member do something with an app, or not, and why", Run: command.Explain},
	{Name: "token", Does: "make a token and the entry of its member for WSGW_MEMBERS_FILE", Run: command.Token},
	{Name: "bench", Does: "load a gateway and measure it", Run: func(ctx context.Context, c *command.Call) error {
		if code := bench.Run(ctx, c.Args, c.Stdout, c.Stderr); code != 0 {
			return command.Exit(code)
		}
		return nil
	}},
	{Name: "version", Does: "print what this is built from", Run: command.Version(version)},
}

// usage makes the error for wrong arguments, which have been complained of, an exit code.
func usage(err error) error {
	if errors.Is(err, terminal.ErrUsage) {
		return command.Exit(2)
	}
	return err
}

// serve runs the gateway until ctx ends and everything has stopped in order.
func serve(ctx context.Context, call *command.Call) (err error) {
	if err := call.NoFlags("serve"); err != nil {
		return err
	}
	eachHangup := command.CatchHangups() // whoever sends one cannot know whether the gateway is up
	c, err := call.Config()
	if err != nil {
		return err
	}
	l := logging.New(call.Stderr, logging.Options{Level: c.LogLevel, Format: c.LogFormat})
	slog.SetDefault(l) // for libraries that log by themselves
	memory := server.LimitMemory(l)
	server.CollectLess()
	v, _ := command.Built(version)
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
		if failed := history.Save(); failed != nil {
			l.Error("the next start begins a new epoch", "err", failed)
			err = cmp.Or[error](err, command.Exit(1))
		}
		history.Close()
	}()
	hub := push.NewHub(push.Options{
		Apps: parts.apps, Log: history, Presence: presence.NewMemory(), Logger: l, Metrics: metrics, Tail: tail, FlushWindow: c.FlushWindow, MaxText: int(c.MaxText),
		MaxIdempotencyKeys: c.MaxIdempotencyKeys, MaxQueueTime: c.MaxQueueTime,
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
		Gateway: gateway, Hub: hub, Timeout: c.DoorsTimeout, Wait: c.DoorsWait, HTTPAllow: c.DoorsHTTPAllow, Redis: config.PlainMap(c.Redis),
		Option: config.PlainMap(c.DoorsOptions), States: c.DoorsStates,
		HTTPBytes: int(c.DoorsHTTPBytes), ContextKeys: c.DoorsContextKeys, ContextBytes: int(c.DoorsContextBytes),
		QueueTopics: c.DoorsQueueTopics, QueueItems: c.DoorsQueueItems, QueueBytes: int(c.DoorsQueueBytes),
		Logger: l, Metrics: metrics,
	})
	if err != nil {
		return command.Invalid(err)
	}
	defer scripts.Close()
	doors, err := open(scripts, c.Doors)
	if err != nil {
		return command.Invalid(err)
	}
	connections, err := transport.New(transport.Options{
		Mode: c.Transport, QueueBytes: int(c.QueueBytes), QueueFrames: c.QueueFrames, WriteTimeout: c.WriteTimeout, WriteMinimum: int(c.WriteMinimum),
		MaxMessage: int(c.MaxMessage), PartialBytes: int64(c.PartialBytes), PartialTimeout: c.PartialTimeout,
		PingInterval: c.PingInterval, PongTimeout: c.PongTimeout, Logger: l, Metrics: metrics,
	})
	if err != nil {
		return err
	}

	reload := parts.reloader(gateway, l, metrics)
	var srv *server.Server
	srv, err = server.New(server.Options{
		Hub: hub, Sessions: gateway, Transport: connections, Doors: doors, Mesh: script.NewMesh(scripts, parts.keys), Keys: parts.keys, Failures: failures,
		Addr: c.Addr, TLSCert: c.TLSCert, TLSKey: c.TLSKey, MaxBody: int64(c.MaxBody), BodyTimeout: c.BodyTimeout,
		Origins: c.Origins, Proxies: parts.proxies,
		Limits: server.Limits{
			Connections: connectionLimit(c), PerAddress: c.MaxConnectionsPerAddress,
			Handshakes: c.MaxHandshakes, HandshakeRate: c.HandshakeRate, Memory: memory,
		},
		StatAddrs: c.StatAddr, Ready: ready, Stat: stat.Handler(ctx, stat.HandlerOptions{
			Metrics: metrics, Tail: tail, Ready: ready, Key: string(c.StatKey), Reload: reload, Pprof: c.PProf, Viewers: c.MaxViewers,
			Dashboard: parts.dashboard(c, hub, gateway, l, metrics, func() string { return srv.URL("ws") + "/" }),
		}),
		DrainDelay: c.DrainDelay, DrainWindow: c.DrainWindow, Interrupt: scripts.Interrupt, Logger: l, Metrics: metrics,
	})
	if err != nil {
		connections.Close()
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%w; WSGW_ADDR and WSGW_STAT_ADDR choose others", err)
		}
		return err
	}
	defer eachHangup(func() { reload() })()
	greet(l, c, v, srv, parts.keys.Generated())
	return srv.Serve(ctx)
}

// check loads everything that serve would, and says that it is fine.
func check(ctx context.Context, call *command.Call) error {
	if err := call.NoFlags("check"); err != nil {
		return err
	}
	c, err := call.Config()
	if err != nil {
		return err
	}
	parts, err := load(c, slog.New(slog.DiscardHandler), nil, nil)
	if err == nil {
		if a, ok := parts.auth.(interface{ Check(context.Context) error }); ok {
			err = a.Check(ctx)
		}
		parts.close()
	}
	if err := errors.Join(err, server.CheckCertificate(c.TLSCert, c.TLSKey), log.Check(c.StateDir), script.Check(c.Doors, config.PlainMap(c.Redis))); err != nil {
		return command.Invalid(err)
	}
	set := func(variable string) bool {
		name, value, _ := strings.Cut(variable, "=")
		return strings.HasPrefix(name, config.Prefix) && value != ""
	}
	if !slices.ContainsFunc(call.Env, set) { // of init's files, say, that were not loaded
		fmt.Fprintln(call.Stdout, "everything is fine: no "+config.Prefix+" variable is set, so all are defaults")
		return nil
	}
	fmt.Fprintln(call.Stdout, "everything is fine")
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
	var appsErr, authErr, keysErr error
	p.apps, appsErr = apps.Load(c.AppsFile)
	p.keys, keysErr = push.NewKeys(push.KeysOptions{
		Keys: config.PlainList(c.PushKeys), File: c.PushKeysFile, Rate: c.PushRate,
		Remote: p.proxies.Remote, Logger: l, Metrics: m,
	})
	if p.auth, authErr = authenticator(c, l, m, withdrawn); authErr == nil && (appsErr != nil || keysErr != nil) {
		p.close()
	}
	if err := errors.Join(appsErr, authErr, keysErr); err != nil {
		return nil, command.Invalid(err)
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
			URL: string(c.AuthURL), Timeout: c.AuthTimeout, Concurrency: c.AuthConcurrency, Logger: l, Metrics: m,
		})
	case "jwt":
		return auth.NewJWT(auth.JWTOptions{
			Secret: string(c.JWTSecret), KeyFile: c.JWTKeyFile, JWKSURL: string(c.JWTJWKSURL),
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

// dashboard returns the page of the stat server. Its push form is for whoever may push to
// the gateway itself.
func (p *parts) dashboard(c *config.Config, hub *push.Hub, sessions *session.Gateway, l *slog.Logger, m *stat.Metrics, gateway func() string) http.Handler {
	o := dashboard.Options{
		Gateway: gateway,
		SDK:     js.Script(),
		Push:    push.Handler(push.HandlerOptions{Hub: hub, Keys: p.keys, MaxBody: int64(c.MaxBody), Logger: l, Metrics: m}),
		Explain: func(member int64, action, app string) (dashboard.Explanation, error) {
			wish, err := apps.ParseAction(action)
			if err != nil {
				return dashboard.Explanation{}, err
			}
			e := sessions.Explain(member, wish, app)
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

// connectionLimit returns WSGW_MAX_CONNECTIONS, by default what the open files allow for.
func connectionLimit(c *config.Config) int {
	if c.MaxConnections != nil {
		return *c.MaxConnections
	}
	return server.DefaultConnections()
}

// greet says what listens where, what is open to whom, and how to try it.
func greet(l *slog.Logger, c *config.Config, version string, s *server.Server, pushKey string) {
	ws, http, stats := s.LocalURL("ws"), s.LocalURL("http"), s.LocalStatURL()
	l.Info("ws-gateway is up", "version", version, "node", c.Node, "durability", c.Durability, "clients", ws+"/", "push", http+"/push", "stat", stats+"/stat")
	if c.Auth == "demo" {
		l.Warn("demo: only member 123456 with token 654321 can log in, from this machine; WSGW_AUTH chooses real members")
	}
	if c.AppsFile == "" {
		l.Info("every app is open to everybody, but im is private; WSGW_APPS_FILE sets rules")
	}
	if pushKey != "" {
		l.Warn("push is open to this machine; others need the key made for this run; WSGW_PUSH_KEYS sets your own", "key", pushKey)
	}
	if page := s.LocalPageURL(); page != "" {
		l.Info("look at it, and try it, in a browser: " + page + "/")
	} else {
		l.Info("there is a page to look at it, and try it, but browsers refuse its port; add another address to WSGW_STAT_ADDR to see it")
	}
	if c.Auth == "demo" {
		l.Info(`or in a terminal: npx wscat -c ` + ws + `, then send {"member_id":123456,"token":"654321"} and {"app":"match"}`)
		key := "" // this machine needs none, unless there are some
		if pushKey == "" {
			key = "-H 'X-Push-Key: ONE_OF_YOURS' "
		}
		l.Info(`and in another terminal: curl ` + key + `-H 'Content-Type: application/json' -d '{"app":"match","text":"hello"}' ` + http + `/push`)
	}
}
