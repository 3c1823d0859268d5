package apps_test

import (
	"os"
	"regexp"
	"testing"

	"ws-gateway/apps"
)

func TestReferenceLoads(t *testing.T) {
	text, err := os.ReadFile("APPS.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("APPS.md has no yaml in it")
	}
	for _, b := range blocks {
		if _, err := apps.Parse("APPS.md", b[1]); err != nil {
			t.Errorf("%v in\n%s", err, b[1])
		}
	}
}
