package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// drive goes through a phase of 20 s in steps of 100 ms, in which it counts 150 000 things.
func drive(p *progress) {
	p.begin("pushing", "deliveries", 1000)
	for i := range 200 {
		time.Sleep(100 * time.Millisecond)
		p.tell(float64(i+1)/200, 1000+uint64(i+1)*750)
	}
	p.end()
}

func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		drive(newProgress(&out, "fanout"))
		want := `fanout: pushing
fanout: pushing  25 %  7 500 deliveries/s, 15s left
fanout: pushing  50 %  7 500 deliveries/s, 10s left
fanout: pushing  75 %  7 500 deliveries/s, 5s left
fanout: pushing 100 %  7 500 deliveries/s, 0s left
`
		if got := out.String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// On a terminal there is one bar that grows, within the width, and nothing is left of it.
func TestProgressBar(t *testing.T) {
	screen, tty := terminal(t, 72)
	shown := make(chan string)
	go func() {
		var out strings.Builder
		for buf := make([]byte, 1<<10); !strings.Contains(out.String(), "END"); {
			n, err := screen.Read(buf)
			if err != nil {
				t.Error(err)
				break
			}
			out.Write(buf[:n])
		}
		shown <- out.String()
	}()
	synctest.Test(t, func(t *testing.T) { drive(newProgress(tty, "fanout")) })
	fmt.Fprintln(tty, "END")
	bars := strings.Split(<-shown, "\r\x1b[K") // what clears the line
	if len(bars) != 202 || bars[0] != "" || strings.TrimSpace(bars[201]) != "END" {
		t.Fatalf("%d parts, the first %q, the last %q; want 200 bars and END on a clear line", len(bars), bars[0], bars[len(bars)-1])
	}
	if got, want := bars[100], "fanout: pushing [========         ]  50 %  7 500 deliveries/s  10s left"; got != want {
		t.Errorf("in the middle: %q, want %q", got, want)
	}
	for i, bar := range bars[1:201] {
		if len(bar) >= 72 {
			t.Errorf("bar %d has %d columns, the terminal 72: %q", i, len(bar), bar)
		}
	}
}

// terminal returns both ends of a pseudoterminal with so many columns.
func terminal(t *testing.T, columns uint16) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return screen, tty
}
