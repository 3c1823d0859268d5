package session

// A CloseCode is the status of a WebSocket close frame (RFC 6455, section 7.4), and the
// reason a session ended in logs and metrics.
//
// This is the one catalogue of close codes. The private range tells a client what to do:
// 4000-4499 means reconnect (and resume), 4500-4999 means do not.
type CloseCode uint16

// The close codes that the gateway sends or reports.
const (
	CloseNormal         CloseCode = 1000 // the peer is done
	CloseGoingAway      CloseCode = 1001 // peer or server goes away
	CloseProtocolError  CloseCode = 1002 // peer broke RFC 6455
	CloseUnsupported    CloseCode = 1003 // binary frame where the protocol is text
	CloseNoStatus       CloseCode = 1005 // never sent: the peer's close frame had no code
	CloseAbnormal       CloseCode = 1006 // never sent: connection lost without a close frame
	CloseInvalidUTF8    CloseCode = 1007 // text is not UTF-8
	CloseTooLarge       CloseCode = 1009 // message over the limit
	CloseInternal       CloseCode = 1011 // the server's fault
	CloseServiceRestart CloseCode = 1012 // drain: come back, spread out
	CloseTryLater       CloseCode = 1013 // auth backend unavailable or over capacity

	CloseSlow              CloseCode = 4008 // slow consumer
	CloseInsufficientState CloseCode = 4010 // the gateway lost track of this session's messages
	CloseNoPong            CloseCode = 4012 // no answer to a ping
	CloseRateLimit         CloseCode = 4013 // too many commands
	CloseTokenExpired      CloseCode = 4015 // token expired while connected

	CloseMissingAuth        CloseCode = 4500 // no valid auth message in time
	CloseTooManyBad         CloseCode = 4501 // too many bad messages in a row
	CloseUnauthorized       CloseCode = 4502 // anonymous is not allowed here
	CloseRevoked            CloseCode = 4503 // an operator or backend ended the session
	CloseTooManyConnections CloseCode = 4504 // the member opened more connections than allowed
)

// closeInfo says of each code what a human and a client need to know.
var closeInfo = map[CloseCode]struct {
	reason    string
	reconnect bool
}{
	CloseNormal:         {"normal closure", false},
	CloseGoingAway:      {"going away", true},
	CloseProtocolError:  {"protocol error", false},
	CloseUnsupported:    {"unsupported data", false},
	CloseNoStatus:       {"no status", true},
	CloseAbnormal:       {"connection lost", true},
	CloseInvalidUTF8:    {"invalid UTF-8", false},
	CloseTooLarge:       {"message too large", false},
	CloseInternal:       {"internal error", true},
	CloseServiceRestart: {"service restart", true},
	CloseTryLater:       {"try again later", true},

	CloseSlow:              {"slow consumer", true},
	CloseInsufficientState: {"insufficient state", true},
	CloseNoPong:            {"no pong", true},
	CloseRateLimit:         {"rate limit", true},
	CloseTokenExpired:      {"token expired", true},

	CloseMissingAuth:        {"missing auth", false},
	CloseTooManyBad:         {"too many bad messages", false},
	CloseUnauthorized:       {"unauthorized", false},
	CloseRevoked:            {"revoked", false},
	CloseTooManyConnections: {"too many connections", false},
}

// Reason returns the short text that goes with c, "" for codes that are not the gateway's.
func (c CloseCode) Reason() string { return closeInfo[c].reason }

// Reconnect reports whether a client that was closed with c should come back.
func (c CloseCode) Reconnect() bool { return closeInfo[c].reconnect }
