package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

var floorScenario = scenario{
	name: "floor",
	doc:  "the same as latency and fanout, of a bare loop of write(2): what no server can beat",
	run: func(ctx context.Context, r *run) (err error) {
		child, err := startChild(ctx, writerCommand, r.serverCPU)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, child.stop()) }()
		if r.target, err = newTarget(ctx, "ws://"+child.addr+"/", ""); err != nil {
			return err
		}
		r.fleet.target, r.server, r.report.URL, r.report.Notes = r.target, &process{child.cmd.Process.Pid}, "a loop of write(2)", nil
		if err := r.connect(ctx, r.seats(r.connections, 1)); err != nil {
			return err
		}
		sent := uint64(0)
		for _, part := range []struct {
			name string
			job  writerJob
		}{
			{"at_rate", writerJob{Rate: r.rate, Frames: 1, App: r.app, Size: r.size}},
			{"frames_1", writerJob{Frames: 1, App: r.app, Size: r.size}},
			{"frames_4", writerJob{Frames: 4, App: r.app, Size: r.size}},
			{"frames_16", writerJob{Frames: 16, App: r.app, Size: r.size}},
		} {
			part.job.Connections = r.connections
			if part.job.Rate > 0 {
				part.job.Messages = uint64(r.rate * (r.warmup + r.duration).Seconds())
			} else {
				part.job.For = r.duration / 4
			}
			n, err := r.writeFloor(ctx, child, part.name, part.job)
			if err != nil {
				return err
			}
			sent += n
		}
		return r.finish(ctx, []uint64{sent}, sent*uint64(r.connections))
	},
}

// A writerJob is what the writer is asked to write to each of its connections.
type writerJob struct {
	Connections int
	Rate        float64       // messages per second; 0: as fast as possible
	Messages    uint64        // with a Rate
	For         time.Duration // without
	Frames      int           // in one write
	App         string
	Size        int // of a text
}

// A writerResult is what it answers.
type writerResult struct {
	Messages uint64
	CPU      time.Duration // of writing
}

// writeFloor lets the writer do one job and reports it.
func (r *run) writeFloor(ctx context.Context, w *child, name string, job writerJob) (uint64, error) {
	r.fleet.swapLatency()
	from := r.sample()
	result := make(chan error, 1)
	var done writerResult
	go func() { result <- w.do(job, &done) }()
	r.progress.begin("writing "+name, "deliveries", r.fleet.count())
	length := job.For
	if job.Rate > 0 {
		length = time.Duration(float64(job.Messages) / job.Rate * float64(time.Second))
	}
	for running := true; running; {
		select {
		case err := <-result:
			if err != nil {
				return 0, err
			}
			running = false
		case <-time.After(100 * time.Millisecond):
			r.progress.tell(float64(time.Since(from.at))/float64(length), r.fleet.count())
		}
	}
	if err := r.fleet.settle(ctx, from.deliveries+done.Messages*uint64(r.connections), r.patience); err != nil {
		return 0, err
	}
	to := r.sample()
	n := float64(to.deliveries - from.deliveries)
	r.report.add(name+"_cpu_per_delivery", float64(done.CPU.Nanoseconds())/1e3/n, "us")
	if job.Rate > 0 {
		r.addLatency(name+"_", r.fleet.swapLatency())
	} else {
		r.report.add(name+"_deliveries", n/to.at.Sub(from.at).Seconds(), "/s")
	}
	return done.Messages, nil
}

// A child is the process of a bare loop or server, as its parent sees it. It says first where it
// listens, and ends with its stdin.
type child struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	addr string
}

// What the processes are started as; usage does not list them.
const (
	writerCommand = "floor-writer"
	bareCommand   = "bare-server"
)

// children are what runs in them.
var children = map[string]func(stdin io.Reader, stdout io.Writer) error{
	writerCommand: runWriter,
	bareCommand:   runBare,
}

func startChild(ctx context.Context, command string, cpu int) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &child{cmd: exec.CommandContext(ctx, self, "bench", command)}
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := startOn(w.cmd, cpu); err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	line, err := w.out.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s did not start: %w", command, err), w.stop())
	}
	w.addr = line[:len(line)-1]
	return w, nil
}

// do gives the writer a job: a line of JSON, as is its result.
func (w *child) do(job writerJob, result *writerResult) error {
	if err := json.NewEncoder(w.in).Encode(job); err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("writer: %w", err)
	}
	return json.Unmarshal(line, result)
}

func (w *child) stop() error {
	w.in.Close()
	return w.cmd.Wait()
}
