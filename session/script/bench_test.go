package script_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"ws-gateway/push"
	"ws-gateway/session"
	"ws-gateway/session/script"
)

// sink is a connection that takes everything.
type sink struct{}

func (sink) Send(*push.Frame) error          { return nil }
func (sink) Queue(*push.Frame) error         { return nil }
func (sink) Flush()                          {}
func (sink) Close(session.CloseCode, string) {}
func (sink) Abort(session.CloseCode)         {}
func (sink) Remote() netip.Addr              { return netip.IPv6Loopback() }

// door opens a door with the script in file.
func door(tb testing.TB, file string) (*push.Hub, *session.Gateway, *script.Door) {
	tb.Helper()
	hub := push.NewHub(push.Options{})
	g := session.NewGateway(session.Options{Hub: hub})
	host, err := script.NewHost(script.Options{Hub: hub, Gateway: g})
	if err != nil {
		tb.Fatal(err)
	}
	d, err := host.Door("/door", file)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { host.Close(); hub.Close() })
	return hub, g, d
}

// BenchmarkMessage is what one message costs between the transport and the hub: subscribe
// and unsubscribe in turn, each answered.
func BenchmarkMessage(b *testing.B) {
	for name, messages := range map[string][2]string{
		"door=native":  {`{"app":"video:100001"}`, `{"op":"unsubscribe","app":"video:100001"}`},
		"door=barrage": {`{"op":"subscribe","channel":"100001@video"}`, `{"op":"unsubscribe","channel":"100001@video"}`},
		"door=echo":    {`x`, `y`},
	} {
		b.Run(name, func(b *testing.B) {
			file := "doors/barrage.lua"
			if name == "door=echo" {
				file = filepath.Join(b.TempDir(), "echo.lua")
				if err := os.WriteFile(file, []byte(`function on_message(msg) mix.websocket():send(msg.data) end`), 0o644); err != nil {
					b.Fatal(err)
				}
			}
			_, g, d := door(b, file)
			var h session.Handler = g.Open(sink{})
			if name == "door=native" {
				h.Receive(push.OpText, []byte(`{"member_id":-1,"token":""}`))
			} else {
				h.Closed(session.CloseNormal)
				h = d.Open(sink{}, httptest.NewRequest(http.MethodGet, "/door", nil))
			}
			defer h.Closed(session.CloseNormal)
			data := [2][]byte{[]byte(messages[0]), []byte(messages[1])}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if wait := h.Receive(push.OpText, data[i&1]); wait != nil {
					wait()
				}
			}
		})
	}
}

// BenchmarkIdle reports the memory of an idle connection, without its transport.
func BenchmarkIdle(b *testing.B) {
	for _, kind := range []string{"native", "barrage"} {
		b.Run("door="+kind, func(b *testing.B) {
			_, g, d := door(b, "doors/barrage.lua")
			const n = 10000
			handlers := make([]session.Handler, n)
			for b.Loop() {
				clear(handlers)
				before := heap()
				for i := range handlers {
					if kind == "native" {
						handlers[i] = g.Open(sink{})
						handlers[i].Receive(push.OpText, []byte(`{"member_id":-1,"token":""}`))
					} else {
						handlers[i] = d.Open(sink{}, httptest.NewRequest(http.MethodGet, "/door", nil))
					}
				}
				b.ReportMetric(float64(heap()-before)/n, "B/connection")
				for _, h := range handlers {
					h.Closed(session.CloseNormal)
				}
			}
		})
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
