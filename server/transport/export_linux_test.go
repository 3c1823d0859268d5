package transport

import "ws-gateway/session"

// Descriptor returns the socket of a connection of the event transport.
func Descriptor(c session.Conn) uintptr { return uintptr(c.(*conn).link.(*eventConn).fd) }
