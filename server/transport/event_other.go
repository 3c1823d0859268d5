//go:build !linux

package transport

import (
	"errors"
	"net"
	"net/netip"

	"ws-gateway/session"
)

// pollers stands for the event transport on systems that have none.
type pollers struct{}

func (*pollers) start(*Transport) error { return errors.ErrUnsupported }
func (*pollers) running() bool          { return false }
func (*pollers) stop()                  {}

// openEvent gives tcp to the only transport there is.
func (t *Transport) openEvent(tcp *net.TCPConn, remote netip.Addr, open func(session.Conn) session.Handler) error {
	return t.openGoroutine(tcp, remote, open)
}
