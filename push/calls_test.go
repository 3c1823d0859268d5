package push_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
)

// An answer has at most 1 MiB of text, from the end that was asked for; what it leaves out can
// be asked for next.
func TestHistoryIsCut(t *testing.T) {
	h := with(t, "apps: {}", nil)
	for range 20 {
		publish(t, h, "match", -1, strings.Repeat("x", 60<<10)) // of which 17 are less than 1 MiB
	}
	for _, c := range []struct {
		query       string
		first, last uint64
	}{{"", 4, 20}, {"&after=0", 1, 17}, {"&after=17", 18, 20}, {"&limit=3", 18, 20}, {"&after=4&limit=2", 5, 6}} {
		answer, err := h.AnswerHistory(httptest.NewRequest("GET", "/history?app=match"+c.query, nil))
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Messages []struct{ Offset uint64 } }
		if err := json.Unmarshal(answer, &got); err != nil {
			t.Fatal(err)
		}
		var want []struct{ Offset uint64 }
		for o := c.first; o <= c.last; o++ {
			want = append(want, struct{ Offset uint64 }{o})
		}
		if fmt.Sprint(got.Messages) != fmt.Sprint(want) {
			t.Errorf("%q: offsets %v, want %v", c.query, got.Messages, want)
		}
	}
}
