package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"ws-gateway/server/servertest"
	"ws-gateway/session/client"
)

// A member subscribes to an app, and a backend pushes to it.
func Example() {
	gateway, stop := startGateway()
	defer stop()

	ctx := context.Background()
	c, err := client.Dial(ctx, "ws://"+gateway+"/", client.Options{
		Member: 123456,
		Token:  func(context.Context) (string, error) { return "654321", nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	match, err := c.Subscribe(ctx, "match", client.SubscribeOptions{})
	if err != nil {
		log.Fatal(err)
	}

	for _, text := range []string{"one nil", "full time"} {
		body := strings.NewReader(`{"app":"match","text":"` + text + `"}`)
		resp, err := http.Post("http://"+gateway+"/push", "application/json", body)
		if err != nil {
			log.Fatal(err)
		}
		resp.Body.Close()
	}

	for m := range match.Messages(ctx) {
		fmt.Println(m.Text)
		if m.Text == "full time" {
			break
		}
	}
	// Output:
	// one nil
	// full time
}

// A program that keeps its position resumes where its last run stopped, and learns when the
// gateway's log no longer reaches back that far.
func ExampleSubscribeOptions() {
	gateway, stop := startGateway()
	defer stop()

	ctx := context.Background()
	c, err := client.Dial(ctx, "ws://"+gateway+"/", client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	saved := client.Position{Epoch: "of a gateway that is gone", Offset: 41}
	match, err := c.Subscribe(ctx, "match", client.SubscribeOptions{
		Position: &saved,
		Missed:   func() { fmt.Println("load the score anew") },
	})
	if err != nil {
		log.Fatal(err)
	}
	resp, err := http.Post("http://"+gateway+"/push", "application/json", strings.NewReader(`{"app":"match","text":"two nil"}`))
	if err != nil {
		log.Fatal(err)
	}
	resp.Body.Close()

	for m := range match.Messages(ctx) {
		fmt.Println(m.Text)
		break
	}
	saved = match.Position()
	// Output:
	// load the score anew
	// two nil
}

// A backend pushes many messages at once over one WebSocket.
func ExamplePusher() {
	gateway, stop := startGateway()
	defer stop()

	ctx := context.Background()
	p, err := client.DialPush(ctx, "ws://"+gateway+"/push", client.PushOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	var pushing sync.WaitGroup
	for _, member := range []int64{123456, 123457, 123458} {
		pushing.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			_, err := p.Push(ctx, client.Message{App: "im", Member: member, Text: "you have mail"})
			switch {
			case errors.Is(err, client.ErrUnknown):
				log.Printf("member %d may have been told, or not: %v", member, err)
			case err != nil:
				log.Printf("member %d was not told: %v", member, err)
			}
		})
	}
	pushing.Wait()

	r, err := p.Push(ctx, client.Message{App: "match", Member: client.Everybody, Text: "full time"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("offset", r.Offset, "to", r.Subscribers, "subscribers")

	_, err = p.Push(ctx, client.Message{App: "im", Member: client.Everybody, Text: "hello"})
	fmt.Println(err)
	// Output:
	// offset 1 to 0 subscribers
	// client: 400 app is private: member_id must be positive
}

// startGateway starts a gateway for an example, which has no testing.TB of its own.
func startGateway() (address string, stop func()) {
	tb := new(exampleTB)
	g := servertest.Start(tb)
	return strings.TrimPrefix(g.URL, "http://"), func() {
		for i := len(tb.cleanups) - 1; i >= 0; i-- {
			tb.cleanups[i]()
		}
	}
}

type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (tb *exampleTB) Helper()                   {}
func (tb *exampleTB) Log(...any)                {}
func (tb *exampleTB) Context() context.Context  { return context.Background() }
func (tb *exampleTB) Cleanup(f func())          { tb.cleanups = append(tb.cleanups, f) }
func (tb *exampleTB) Errorf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (tb *exampleTB) Error(a ...any)            { fmt.Fprintln(os.Stderr, a...) }
func (tb *exampleTB) Fatal(a ...any)            { log.Fatal(a...) }
