package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

var floorPostScenario = scenario{
	name:     "floor-post",
	doc:      "the pushes of ingest to a bare net/http handler: what no server on net/http can beat",
	defaults: func(o *options) { o.pushers, o.duration = 16, 5*time.Second },
	run: func(ctx context.Context, r *run) (err error) {
		child, err := startChild(ctx, handlerCommand, r.serverCPU)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, child.stop()) }()
		if r.target, err = newTarget(ctx, "http://"+child.addr+"/", r.pushKey); err != nil {
			return err
		}
		r.server, r.report.URL, r.report.Notes = &process{child.cmd.Process.Pid}, "a bare net/http handler", nil
		crew := newCrew(r.target, r.pushers, r.pushers, r.app, r.size)
		return r.pushFlatOut(ctx, crew, "pushing", "", 0, func(i int) []addressee {
			return []addressee{{stream: i, member: -1}}
		})
	},
}

// runHandler is the process of the bare handler: it reads a body and answers with as many
// bytes as a receipt has, under the limits of time that any server in production sets.
func runHandler(stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, l.Addr())
	bodies := sync.Pool{New: func() any { return new([4 << 10]byte) }}
	receipt := []byte(`{"code":202,"app":"bench","epoch":"c8Zk2VbQx4Y","offset":123456,"durability":"memory","subscribers":1}`)
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       75 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body := bodies.Get().(*[4 << 10]byte)
			defer bodies.Put(body)
			for {
				if _, err := r.Body.Read(body[:]); err != nil {
					break
				}
			}
			w.Header()["Content-Type"] = []string{"application/json"}
			w.WriteHeader(http.StatusAccepted)
			w.Write(receipt)
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
