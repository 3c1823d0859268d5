package apps_test

import (
	"errors"
	"strings"
	"testing"

	"ws-gateway/apps"
)

func TestP15Names(t *testing.T) {
	long := strings.Repeat("n", 128)
	for _, name := range []string{
		"match", "im", "video:100001", "a", "0", "A-Z_a.z@0/9", "gateway:1", "Gateway", "gateway_", "../..", long,
	} {
		if !apps.ValidName(name) {
			t.Errorf("%q is refused", name)
		}
		if app, err := new(apps.Registry).Lookup(name); err != nil || app.Name != name {
			t.Errorf("Lookup(%q) = %v, %v", name, app, err)
		}
	}
	for what, name := range map[string]string{
		"empty": "", "129 bytes": long + "n", "newline": "a\nb", "trailing newline": "match\n", "NUL": "a\x00", "space": "a b",
		"star": "*", "pattern": "video:*", "NATS wildcard": ">", "not ASCII": "спорт", "full-width digit": "a１", "reserved": "gateway",
		"placeholder": "user:{member_id}", "comma": "a,b", "quote": `a"b`, "invalid UTF-8": "a\xff", "DEL": "a\x7f", "backslash": `a\b`,
	} {
		t.Run(what, func(t *testing.T) {
			if apps.ValidName(name) {
				t.Errorf("ValidName(%q)", name)
			}
			r, err := apps.Parse("apps.yaml", []byte(`apps: {"*": {}}`))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range []*apps.Registry{r, nil} {
				if _, err := r.Lookup(name); !errors.Is(err, apps.ErrBadName) {
					t.Errorf("Lookup(%q) = %v, want ErrBadName", name, err)
				}
				if _, err := r.Authorize(apps.Member{ID: 1}, apps.Subscribe, name); !errors.Is(err, apps.ErrBadName) {
					t.Errorf("Authorize(%q) = %v, want ErrBadName", name, err)
				}
			}
			if e := r.Explain(apps.Member{ID: 1}, apps.Subscribe, name); e.Allowed || e.Reason == "" || strings.Contains(e.Reason, "\n") {
				t.Errorf("Explain(%q) = %+v", name, e)
			}
		})
	}
}

func TestParseMember(t *testing.T) {
	for s, want := range map[string]int64{"-1": apps.Anonymous, "1": 1, "42": 42, "9007199254740991": apps.MaxMember} {
		if id, err := apps.ParseMember(s); err != nil || id != want {
			t.Errorf("ParseMember(%q) = %d, %v, want %d", s, id, err, want)
		}
	}
	for _, s := range []string{"", "0", "-0", "-2", "01", "+1", " 1", "1.5", "x", "9007199254740992", "99999999999999999999"} {
		if id, err := apps.ParseMember(s); err == nil {
			t.Errorf("ParseMember(%q) = %d", s, id)
		}
	}
}
