package apps_test

import (
	"fmt"

	"ws-gateway/apps"
)

func Example() {
	registry, err := apps.Parse("apps.yaml", []byte(`
default: deny
apps:
  match: {}
  "user:{member_id}": {visibility: private, subscribe: [owner]}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	app, err := registry.Authorize(apps.Member{ID: 42}, apps.Subscribe, "user:42")
	fmt.Println(app.Rule, app.Private, err)

	_, err = registry.Authorize(apps.Member{ID: 42}, apps.Subscribe, "user:7")
	fmt.Println(err)

	fmt.Println(registry.Explain(apps.Member{ID: 42}, apps.Subscribe, "user:7"))
	// Output:
	// user:{member_id} true <nil>
	// apps: subscribe user:7 denied by user:{member_id}: subscribe lets in owner
	// denied: member 42 may not subscribe to user:7
	// rule: user:{member_id} (apps.yaml:5:3), the only pattern that matches
	// reason: subscribe lets in owner; member 42 is none of them (the owner is 7)
}
