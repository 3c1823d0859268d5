package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// A bare server does what the generator asks with nothing but net/http, gorilla's upgrade, a
// goroutine for each connection, and one write(2) for each delivery. What makes a gateway is not
// there: no log, no rules, no queues, and nobody is checked.
type bare struct {
	upgrader websocket.Upgrader
	calls    sync.Pool // of *bareCall

	mu      sync.Mutex           // held while a push is written: all must see one order
	members map[int64][]net.Conn // who is subscribed, by whose messages they get; guarded by mu
}

// A bareCall is what one push needs, reused.
type bareCall struct{ body, frames, answer []byte }

// runBare is the process of the bare server. It sets the limits of time that any server in
// production sets.
func runBare(stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, l.Addr())
	b := &bare{members: make(map[int64][]net.Conn)}
	b.calls.New = func() any { return new(bareCall) }
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       75 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				b.push(w, r)
			} else {
				b.connect(w, r)
			}
		}),
	}
	go func() {
		io.Copy(io.Discard, stdin)
		server.Close()
	}()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bareReceipt is as long as the gateway's.
const bareReceipt = `{"code":202,"app":"bench","epoch":"c8Zk2VbQx4Y","offset":123456,"durability":"memory","subscribers":1}`

var bareHeader = []string{"application/json"}

// push sends what r pushes as it is: the generator takes an object that it pushed for a message.
// A batch is for one member.
func (b *bare) push(w http.ResponseWriter, r *http.Request) {
	c := b.calls.Get().(*bareCall)
	defer b.calls.Put(c)
	c.body, c.frames, c.answer = slices.Grow(c.body[:0], int(r.ContentLength)), c.frames[:0], c.answer[:0]
	c.body = c.body[:r.ContentLength]
	if _, err := io.ReadFull(r.Body, c.body); err != nil {
		return
	}
	for message := range bytes.SplitAfterSeq(bytes.Trim(c.body, "[]"), []byte("},")) {
		c.frames = appendServerFrame(c.frames, bytes.TrimSuffix(message, []byte(",")))
		c.answer = append(c.answer, bareReceipt...)
	}
	b.mu.Lock()
	for _, to := range b.members[memberOf(c.body)] {
		to.Write(c.frames)
	}
	b.mu.Unlock()
	w.Header()["Content-Type"] = bareHeader
	w.WriteHeader(http.StatusAccepted)
	w.Write(c.answer)
}

// connect lets a client in, and answers its commands.
func (b *bare) connect(w http.ResponseWriter, r *http.Request) {
	c, err := b.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	_, login, err := c.ReadMessage()
	if err != nil {
		return
	}
	member := memberOf(login)
	if c.WriteMessage(websocket.TextMessage, nativeAnswer("hello", "stranger")) != nil {
		return
	}
	for joined := false; ; joined = true {
		_, command, err := c.ReadMessage()
		if err != nil {
			break
		}
		if !joined {
			b.join(member, c.NetConn())
			defer b.leave(member, c.NetConn())
		}
		if c.WriteMessage(websocket.TextMessage, bareAnswer(command)) != nil {
			break
		}
	}
}

func (b *bare) join(member int64, c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.members[member] = append(b.members[member], c)
}

func (b *bare) leave(member int64, c net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := slices.DeleteFunc(b.members[member], func(other net.Conn) bool { return other == c })
	if b.members[member] = left; len(left) == 0 {
		delete(b.members, member)
	}
}

// bareAnswer is what the generator expects for a command.
func bareAnswer(command []byte) []byte {
	op := "subscribe"
	switch {
	case bytes.Contains(command, []byte(`"ping"`)):
		_, answer := native{}.ping()
		return answer
	case bytes.Contains(command, []byte(`"unsubscribe"`)):
		op = "unsubscribe"
	}
	_, app, _ := bytes.Cut(command, []byte(`"app":"`))
	app, _, _ = bytes.Cut(app, []byte(`"`))
	return nativeAnswer(op, string(app))
}

// memberOf returns the member_id of a login or push.
func memberOf(message []byte) int64 {
	_, id, _ := bytes.Cut(message, []byte(`"member_id":`))
	id, _, _ = bytes.Cut(id, []byte(","))
	n, _ := strconv.ParseInt(string(id), 10, 64)
	return n
}
