package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runWriter is the process of the bare loop: it listens, takes every connection for a
// client that does the native protocol, and then writes encoded frames to all of them, one
// write(2) after the other on blocking sockets: no queues, no scheduler, no locks.
func runWriter(stdin io.Reader, stdout io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintln(stdout, l.Addr())
	var mu sync.Mutex
	var fds []int // guarded by mu
	entered := sync.NewCond(&mu)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if fd, err := welcome(c.(*net.TCPConn)); err == nil {
					mu.Lock()
					fds = append(fds, fd)
					entered.Broadcast()
					mu.Unlock()
				}
			}()
		}
	}()
	debug.SetGCPercent(-1) // once it writes, it allocates nothing
	runtime.LockOSThread()
	jobs := json.NewDecoder(stdin)
	var seq uint64
	for {
		var job writerJob
		if err := jobs.Decode(&job); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		mu.Lock()
		for len(fds) < job.Connections {
			entered.Wait()
		}
		all := fds
		mu.Unlock()
		result, err := job.write(all, &seq)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(stdout).Encode(result); err != nil {
			return err
		}
	}
}

// welcome answers a client's handshake, login and subscription, and takes its socket out of
// the Go runtime.
func welcome(c *net.TCPConn) (fd int, err error) {
	defer c.Close()
	in := bufio.NewReader(c)
	if _, err := http.ReadRequest(in); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, upgradeAnswer); err != nil {
		return 0, err
	}
	for _, message := range []string{"hello stranger", "subscribe success"} {
		head := make([]byte, 6) // a short frame: two bytes and the mask
		if _, err := io.ReadFull(in, head); err != nil {
			return 0, err
		}
		if _, err := in.Discard(int(head[1] & 0x7F)); err != nil {
			return 0, err
		}
		reply := fmt.Appendf(nil, `%s{\"code\":200,\"message\":\"%s\"}"}`, gatewayReply, message)
		if _, err := c.Write(appendServerFrame(nil, reply)); err != nil {
			return 0, err
		}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return fd, nil
}

// write does the job on all of fds. Nonblocking sockets stay so when they are duplicated, so
// that each of fds is made blocking first.
func (j writerJob) write(fds []int, seq *uint64) (writerResult, error) {
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, false); err != nil {
			return writerResult{}, err
		}
	}
	own := &process{os.Getpid()}
	before, err := own.cpu()
	if err != nil {
		return writerResult{}, err
	}
	began := time.Now()
	first := *seq
	frame := make([]byte, 0, j.Frames*(j.Size+256))
	payload := make([]byte, 0, j.Size+256)
	for {
		due := time.Now()
		if n := *seq - first; j.Rate > 0 {
			if n >= j.Messages {
				break
			}
			due = began.Add(time.Duration(float64(n) / j.Rate * float64(time.Second)))
			sleepUntil(due)
		} else if due.Sub(began) >= j.For {
			break
		}
		frame = frame[:0]
		for range j.Frames {
			payload = append(payload[:0], envelope(j.App, -1)...)
			payload = appendText(payload, message{seq: *seq, due: due.UnixNano()}, j.Size)
			frame = appendServerFrame(frame, append(payload, `"}`...))
			*seq++
		}
		for _, fd := range fds {
			if err := writeAll(fd, frame); err != nil {
				return writerResult{}, err
			}
		}
	}
	after, err := own.cpu()
	return writerResult{*seq - first, after - before}, err
}

// writeAll writes b to fd, which is blocking; the scheduler is told nothing.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := rawWrite(fd, b)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return fmt.Errorf("write: %w", err)
		default:
			b = b[n:]
		}
	}
	return nil
}
