package push_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/apps"
	"ws-gateway/push"
)

// FuzzPush sends what strangers might. What is accepted must mean the same to encoding/json,
// which is more lenient in everything, and be kept as that; what is refused changes nothing.
func FuzzPush(f *testing.F) {
	for _, seed := range []string{
		`{"app":"match","member_id":-1,"text":"{\"hello\":\"world\"}"}`,
		`[{"app":"a","text":"x"},{"text":"\ud83d\ude00","app":"im","member_id":9007199254740991}]`,
		`{"app":"a","text":"","x":{"y":[1.5e3,null,true,{"z":"\u0000"}]}}`,
		`{"\u0061pp":"a","text":"x","App":"b"}`,
		`{"app":"a","text":"x","text":"y"}`,
		`{"app":"a","text":"\ud800"} `,
		"{\"app\":\"a\",\"text\":\"\u00fc \u2028 \U0001f600 \ufffd <\x7f>&/\"}", "{\"app\":\"a\",\"text\":\"\t\"}", `{"app":"a","text":"\u2028\/\t\u007f"}`,
		`[]`, `[[]]`, `{`, "\ufeff{}", "\x00", "{\"app\":\"a\",\"text\":\"\xff\"}",
		`{"x":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `,"app":"a","text":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	var seen []push.Message
	hub := push.NewHub(push.Options{Log: &recordingLog{seen: &seen}})
	f.Cleanup(hub.Close)
	handler := push.Handler(push.HandlerOptions{Hub: hub})
	f.Fuzz(func(t *testing.T, body []byte) {
		seen = nil
		req := httptest.NewRequest(http.MethodPost, "http://localhost/push", strings.NewReader(string(body)))
		req.Header.Set("Content-Type", "application/json")
		req.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)

		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("the answer is not JSON: %q", w.Body)
		}
		switch w.Code {
		case http.StatusAccepted:
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
			if len(seen) > 0 {
				t.Fatalf("refused with %s, but %+v was accepted", w.Body, seen)
			}
			return
		default:
			t.Fatalf("answered %d %s", w.Code, w.Body)
		}
		type object struct {
			App    string `json:"app"`
			Member *int64 `json:"member_id"`
			Text   string `json:"text"`
		}
		var want []object
		if err := json.Unmarshal(body, &want); err != nil {
			want = make([]object, 1)
			if err := json.Unmarshal(body, &want[0]); err != nil {
				t.Fatalf("accepted what encoding/json does not: %v", err)
			}
		}
		same := slices.EqualFunc(seen, want, func(got push.Message, want object) bool {
			member := push.Everybody
			if want.Member != nil {
				member = *want.Member
			}
			return got.App == want.App && got.Text == want.Text && got.Member == member
		})
		if !same {
			t.Fatalf("accepted %+v, encoding/json reads %+v", seen, want)
		}
		for _, m := range seen {
			if quoted, err := jsontext.AppendQuote(nil, m.Text); err != nil || string(m.AppendText(nil)) != string(quoted) {
				t.Errorf("as JSON the text is %s, want %s, %v", m.AppendText(nil), quoted, err)
			}
			if escaped := bytes.Contains(body, []byte(`\`)); !escaped && !m.Plain {
				t.Errorf("%q is not taken for plain", m.Text)
			}
		}
	})
}

// recordingLog notes what is appended.
type recordingLog struct {
	push.Log
	seen *[]push.Message
}

func (l *recordingLog) Append(_ context.Context, _ *apps.App, ms []push.Message) (string, int, error) {
	for i := range ms {
		ms[i].Offset = uint64(len(*l.seen) + 1)
		*l.seen = append(*l.seen, push.Message{App: ms[i].App, Member: ms[i].Member, Text: ms[i].Text, Plain: ms[i].Plain})
	}
	return "e", len(ms), nil
}

func (l *recordingLog) Top(string) push.Position { return push.Position{Epoch: "e"} }

func (l *recordingLog) Durability() string { return "memory" }

// FuzzLink sends any frame over a link: the answer is one JSON object, and begins with the id
// of a frame that has one.
func FuzzLink(f *testing.F) {
	for _, s := range []string{`{"id":1,"app":"a","text":"x"}`, `{"id":"\u00e9","app":"a","text":"x","key":"k"}`, `[`, `{"id":1e3}`, `{"key":""}`, "\xff"} {
		f.Add([]byte(s))
	}
	h := push.NewHub(push.Options{})
	f.Cleanup(h.Close)
	keys, err := push.NewKeys(push.KeysOptions{})
	if err != nil {
		f.Fatal(err)
	}
	req := httptest.NewRequest(http.MethodGet, "http://localhost/push", nil)
	req.RemoteAddr = "127.0.0.1:1"
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := push.NewLink(h, keys, req)
		if err != nil {
			t.Fatal(err)
		}
		answer := l.Receive(t.Context(), data)
		var got struct {
			ID   json.RawMessage `json:"id"`
			Code int             `json:"code"`
		}
		if err := json.Unmarshal(answer, &got); err != nil {
			t.Fatalf("answer %q to %q: %v", answer, data, err)
		}
		if got.Code == 202 && !bytes.HasPrefix(answer, append([]byte(`{"id":`), got.ID...)) {
			t.Errorf("answer %s does not begin with the id", answer)
		}
	})
}
