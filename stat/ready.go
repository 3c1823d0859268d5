package stat

import "sync/atomic"

// Ready says whether a node takes clients. The zero value is not ready: it is starting. Its
// methods may be called from any goroutine.
type Ready struct {
	reason atomic.Pointer[string]
}

// Set makes the node ready when reason is "", else not ready for this reason, such as
// "draining".
func (r *Ready) Set(reason string) { r.reason.Store(&reason) }

// Reason returns why the node is not ready, or "" when it is. A nil *Ready always is.
func (r *Ready) Reason() string {
	if r == nil {
		return ""
	}
	if reason := r.reason.Load(); reason != nil {
		return *reason
	}
	return "starting"
}
