package apps_test

import (
	"fmt"
	"strings"
	"testing"

	"ws-gateway/apps"
)

func TestExplain(t *testing.T) {
	r := parse(t, `default: deny
apps:
  public: {}
  vip: {subscribe: ["role:gold", 42], presence: true}
  "user:{member_id}": {visibility: private, subscribe: [owner]}
  "room:*": {subscribe: [members], push: [members]}
  "*:lobby": {subscribe: []}
  "r*": {}
`)
	for _, tt := range []struct {
		m      apps.Member
		action apps.Action
		name   string
		want   string
	}{
		{stranger, apps.Subscribe, "public", `
			allowed: an anonymous client may subscribe to public
			rule: public (apps.yaml:3:3), which names the app
			reason: subscribe lets in anyone`},
		{ann, apps.Push, "public", `
			denied: member 42 may not push to public
			rule: public (apps.yaml:3:3), which names the app
			reason: push lets in nobody`},
		{ann, apps.Subscribe, "vip", `
			allowed: member 42 may subscribe to vip
			rule: vip (apps.yaml:4:3), which names the app
			reason: subscribe lets in role:gold, 42; member 42 is listed`},
		{bob, apps.Presence, "vip", `
			allowed: member 7 (silver, gold) may see who is in vip
			rule: vip (apps.yaml:4:3), which names the app
			reason: subscribe lets in role:gold, 42; member 7 has the role gold`},
		{apps.Member{ID: 8}, apps.Subscribe, "vip", `
			denied: member 8 may not subscribe to vip
			rule: vip (apps.yaml:4:3), which names the app
			reason: subscribe lets in role:gold, 42; member 8 is none of them`},
		{apps.Member{ID: 8, Roles: []string{"silver"}}, apps.Subscribe, "vip", `
			denied: member 8 (silver) may not subscribe to vip
			rule: vip (apps.yaml:4:3), which names the app
			reason: subscribe lets in role:gold, 42; member 8 (silver) is none of them`},
		{stranger, apps.Subscribe, "vip", `
			denied: an anonymous client may not subscribe to vip
			rule: vip (apps.yaml:4:3), which names the app
			reason: subscribe lets in role:gold, 42; an anonymous client is none of them`},
		{ann, apps.Subscribe, "user:42", `
			allowed: member 42 may subscribe to user:42
			rule: user:{member_id} (apps.yaml:5:3), the only pattern that matches
			reason: subscribe lets in owner; member 42 is the owner`},
		{ann, apps.Subscribe, "user:7", `
			denied: member 42 may not subscribe to user:7
			rule: user:{member_id} (apps.yaml:5:3), the only pattern that matches
			reason: subscribe lets in owner; member 42 is none of them (the owner is 7)`},
		{ann, apps.Push, "room:1", `
			allowed: member 42 may push to room:1
			rule: room:* (apps.yaml:6:3), with a longer literal part than r*, which would match too
			reason: push lets in members; 42 is one`},
		{ann, apps.Presence, "room:1", `
			denied: member 42 may not see who is in room:1
			rule: room:* (apps.yaml:6:3), with a longer literal part than r*, which would match too
			reason: presence is off`},
		{ann, apps.Subscribe, "room:1:lobby", `
			denied: member 42 may not subscribe to room:1:lobby
			rule: *:lobby (apps.yaml:7:3), with a longer literal part than room:*, r*, which would match too
			reason: subscribe lets in nobody`},
		{ann, apps.Subscribe, "absent", `
			denied: member 42 may not subscribe to absent
			rule: default (apps.yaml:1:10), no entry matches
			reason: default is deny, so the app does not exist`},
		{ann, apps.Subscribe, "user:042", `
			denied: "user:042" is not an app name
			rule: user:{member_id} (apps.yaml:5:3), but for the number
			reason: its number is no member's id, 1 to 9007199254740991 without leading zeros`},
		{ann, apps.Subscribe, "gateway", `
			denied: "gateway" is not an app name
			reason: reserved for the gateway's own replies`},
	} {
		t.Run(fmt.Sprintf("%v %s", tt.action, tt.name), func(t *testing.T) {
			want := strings.ReplaceAll(strings.TrimSpace(tt.want), "\t", "")
			if got := r.Explain(tt.m, tt.action, tt.name).String(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
	if got := new(apps.Registry).Explain(stranger, apps.Subscribe, "im").String(); !strings.Contains(got, "rule: im (built in), ") {
		t.Errorf("without a file:\n%s", got)
	}
}
