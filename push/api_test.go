package push_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"ws-gateway/server/servertest"
)

// TestAPI runs the examples of API.md in their order against a gateway with its apps file.
func TestAPI(t *testing.T) {
	doc, err := os.ReadFile("API.md")
	if err != nil {
		t.Fatal(err)
	}
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Fatal("curl is not installed; make test does it")
	}
	apps := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(doc)
	if apps == nil {
		t.Fatal("API.md has no apps file")
	}
	g := servertest.Start(t, func(o *servertest.Options) { o.Apps = string(apps[1]) })
	client := g.Subscriber("match")
	for range 2 {
		member := g.Dial("/")
		member.Login(`{"member_id":123456,"token":"654321"}`, "123456")
		member.Subscribe("room:7")
	}
	differs := regexp.MustCompile(`"(epoch|time)":"[^"]+"`)
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```(console|frames)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		if block[1] == "frames" {
			link := g.Dial("/push")
			for line := range strings.Lines(block[2]) {
				dir, frame, _ := strings.Cut(strings.TrimSpace(line), " ")
				if dir == ">" {
					link.Send(frame)
				} else if got := link.Next(); differs.ReplaceAllString(got, "$1") != differs.ReplaceAllString(frame, "$1") {
					t.Errorf("the link answers %s\nwant             %s", got, frame)
				}
				ran++
			}
			link.Close()
			continue
		}
		for _, example := range strings.Split(block[2], "$ curl ")[1:] {
			args, want, _ := strings.Cut(example, "\n")
			args = strings.ReplaceAll(args, "http://127.0.0.1:5000", g.URL)
			cmd := exec.CommandContext(t.Context(), "sh", "-c", curl+" -s "+args)
			cmd.Env = []string{"KEY=" + g.Keys.Generated()}
			got, err := cmd.Output()
			if err != nil {
				t.Fatalf("curl %s: %v", args, err)
			}
			if differs.ReplaceAllString(string(got), "$1") != differs.ReplaceAllString(strings.TrimSpace(want), "$1") {
				t.Errorf("curl %s\nanswers %s\nwant    %s", args, got, want)
			}
			ran++
		}
	}
	if ran < 30 {
		t.Errorf("only %d examples ran", ran)
	}
	received := regexp.MustCompile("A subscriber receives `(.*?)`").FindSubmatch(doc)
	if received == nil {
		t.Fatal("API.md does not say what a subscriber receives")
	}
	client.Want(string(received[1]))
}
