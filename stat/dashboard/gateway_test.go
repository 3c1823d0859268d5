package dashboard_test

import (
	"net/http"
	"strings"
	"testing"

	"ws-gateway/apps"
	"ws-gateway/push"
	"ws-gateway/server/servertest"
	"ws-gateway/session/auth"
	"ws-gateway/session/client/js"
	"ws-gateway/stat/dashboard"
)

// rules are the apps file of the gateways here.
const rules = `
apps:
  match: {}
  im: {visibility: private}
  "room:*": {subscribe: [members], push: [members], presence: true}
  "vip:*": {subscribe: ["role:gold"]}
`

// start starts a gateway with its dashboard, wired as main does.
func start(t *testing.T, change ...func(*servertest.Options)) *servertest.Gateway {
	t.Helper()
	var g *servertest.Gateway
	page := dashboard.Handler(dashboard.Options{
		Gateway: func() string { return strings.Replace(g.URL, "http", "ws", 1) + "/" },
		SDK:     js.Script(),
		Member:  auth.DemoMember,
		Token:   string(auth.DemoToken),
		Push: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			push.Handler(push.HandlerOptions{Hub: g.Hub, Keys: g.Keys, Metrics: g.Metrics}).ServeHTTP(w, r)
		}),
		Explain: func(member int64, action, app string) (dashboard.Explanation, error) {
			a, err := apps.ParseAction(action)
			if err != nil {
				return dashboard.Explanation{}, err
			}
			e := g.Sessions.Explain(member, a, app)
			return dashboard.Explanation{Allowed: e.Allowed, Rule: e.Rule, Where: e.Where, Choice: e.Choice, Reason: e.Reason}, nil
		},
	})
	g = servertest.Start(t, append([]func(*servertest.Options){func(o *servertest.Options) {
		o.Apps = rules
		o.Stat.Dashboard = page
	}}, change...)...)
	return g
}
