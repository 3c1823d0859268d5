package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Push pushes the text that args give, or standard input's if that is "-", to an app, and
// prints the gateway's answer. The error is the gateway's when it does not accept the message.
func Push(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	fs := flag.NewFlagSet("ws-gateway push", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, "Usage: ws-gateway push APP TEXT [flags]\n\nPushes TEXT, or standard input if it is -, to everybody subscribed to APP.\n\n")
		fs.PrintDefaults()
	}
	var (
		url    = fs.String("url", "http://127.0.0.1:5000/push", "where the gateway takes pushes")
		member = memberFlag(fs, "push to this member `id` only; -1, the default, is everybody")
		key    = fs.String("key", "", "push key")
		once   = fs.String("idempotency-key", "", "a retry with the same one delivers nothing")
	)
	rest, err := parse(fs, args)
	switch {
	case err != nil:
		return err
	case len(rest) != 2:
		fs.Usage()
		return ErrUsage
	}
	text := rest[1]
	if text == "-" {
		b, err := io.ReadAll(stdin)
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		text = string(b)
	}
	body, _ := json.Marshal(map[string]any{"app": rest[0], "member_id": *member, "text": text})
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, *url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	if *key != "" {
		r.Header.Set("Authorization", "Bearer "+*key)
	}
	if *once != "" {
		r.Header.Set("Idempotency-Key", *once)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("%s: %s", resp.Status, printable(string(answer)))
	}
	fmt.Fprintf(stdout, "%s\n", answer)
	return nil
}
