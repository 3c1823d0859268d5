package terminal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"ws-gateway/apps"
	"ws-gateway/stat"
	"ws-gateway/stat/logging"
)

// errEnded is returned when a stream ends that nobody here has ended.
var errEnded = errors.New("the gateway has ended the stream")

// Tail prints to stdout what a gateway sees of the member, app or session that args name, until
// ctx ends. It returns nil when ctx ended it, and otherwise why nothing more can come.
func Tail(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("ws-gateway tail", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, "Usage: ws-gateway tail [flags]\n\nShows what a gateway sees, as it happens: connects, logins, commands, refusals with the\nrule that decided, pushes, closes. Flags narrow it down together.\n\n")
		fs.PrintDefaults()
	}
	query := url.Values{}
	fs.Func("member", "only of this member `id` and who claims to be it; -1 is anonymous clients, and pushes to everybody", func(s string) error {
		_, err := apps.ParseMember(s)
		query.Set("member", s)
		return err
	})
	fs.String("app", "", "only of this app")
	fs.Uint64("session", 0, "only of the session with this `number`")
	fs.Bool("payload", false, "show the texts of pushes too")
	var (
		server = fs.String("stat", "http://127.0.0.1:6000", "the gateway's stat server")
		key    = fs.String("key", "", "key of the stat server, WSGW_STAT_KEY")
		asJSON = fs.Bool("json", false, "print events as JSON, a line each")
		limit  = fs.Int("n", 0, "end after this many events; 0 goes on")
	)
	switch rest, err := parse(fs, args); {
	case err != nil:
		return err
	case len(rest) > 0:
		fmt.Fprintf(stderr, "unexpected argument %q\n", rest[0])
		fs.Usage()
		return ErrUsage
	}
	fs.Visit(func(f *flag.Flag) { // the gateway checks them
		switch f.Name {
		case "app", "session", "payload":
			query.Set(f.Name, f.Value.String())
		}
	})
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(*server, "/")+"/stat/tail?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("--stat: %w", err)
	}
	if *key != "" {
		r.Header.Set("Authorization", "Bearer "+*key)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return fmt.Errorf("%s: %s", resp.Status, logging.Escape(strings.TrimSpace(string(answer))))
	}
	show := line
	if *asJSON {
		show = func(data string) (string, error) { return logging.Escape(data), nil }
	}
	body := bufio.NewReader(resp.Body)
	for n := 0; *limit == 0 || n < *limit; {
		field, err := body.ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = errEnded
		}
		if err != nil {
			return ignoreEnd(ctx, err)
		}
		if strings.HasPrefix(field, ": ") {
			fmt.Fprintln(stderr, "watching "+*server)
		}
		data, ok := strings.CutPrefix(strings.TrimRight(field, "\r\n"), "data: ")
		if !ok {
			continue
		}
		text, err := show(data)
		if err != nil {
			return err
		}
		fmt.Fprintln(stdout, text)
		n++
	}
	return nil
}

// line returns an event as a line for people.
func line(data string) (string, error) {
	var e stat.Event
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return "", fmt.Errorf("what came is no event: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-8s", e.Time.Local().Format("15:04:05.000"), e.Kind)
	switch e.Kind {
	case stat.EventPush, stat.EventRefused:
		describePush(&b, &e)
	case stat.EventDropped:
		fmt.Fprintf(&b, " %d events are missing here: they came faster than they were read", e.Dropped)
	default:
		describeSession(&b, &e)
	}
	return logging.Escape(b.String()), nil
}

// describeSession adds what a session did.
func describeSession(b *strings.Builder, e *stat.Event) {
	fmt.Fprintf(b, " session %d", e.Session)
	switch {
	case e.Member > 0:
		fmt.Fprintf(b, " member %d", e.Member)
	case e.Kind != stat.EventConnect:
		b.WriteString(" anonymous")
	}
	if e.Remote.IsValid() {
		fmt.Fprintf(b, " from %s", e.Remote)
	}
	if e.Op != "" {
		b.WriteString(strings.TrimRight(": "+e.Op+" "+e.App, " "))
	}
	if e.Code != 0 {
		fmt.Fprintf(b, ": %s", strings.TrimRight(strconv.Itoa(e.Code)+" "+e.Message, " "))
	}
	if e.Rule != "" {
		fmt.Fprintf(b, "; rule %s", e.Rule)
	}
	if e.Reason != "" {
		fmt.Fprintf(b, "; %s", e.Reason)
	}
	if !e.Connected.IsZero() {
		fmt.Fprintf(b, "; connected %s", e.Connected.Local().Format("2006-01-02 15:04:05.000"))
	}
	if len(e.Apps) > 0 {
		fmt.Fprintf(b, "; was subscribed to %s", strings.Join(e.Apps, ", "))
	}
}

// describePush adds what became of a push.
func describePush(b *strings.Builder, e *stat.Event) {
	fmt.Fprintf(b, " %s", e.App)
	if e.Offset > 0 {
		fmt.Fprintf(b, " %d", e.Offset)
	}
	if e.From > 0 {
		fmt.Fprintf(b, " from member %d", e.From)
	}
	if e.Member > 0 {
		fmt.Fprintf(b, " to member %d", e.Member)
	} else {
		b.WriteString(" to everybody")
	}
	fmt.Fprintf(b, ", %d bytes: ", e.Bytes)
	switch {
	case e.Kind == stat.EventRefused:
		fmt.Fprintf(b, "%d %s", e.Code, e.Message)
	case e.Duplicate:
		b.WriteString("a duplicate, delivered before")
	default:
		fmt.Fprintf(b, "%d subscribers", e.Subscribers)
	}
	if e.Reason != "" {
		fmt.Fprintf(b, " (%s)", e.Reason)
	}
	if e.Text != "" {
		fmt.Fprintf(b, ": %s", e.Text)
	}
}
