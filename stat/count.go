package stat

import "time"

// SessionOpened counts a connection that became a session. transport is "event" or
// "goroutine".
func (m *Metrics) SessionOpened(transport string) {
	if m != nil {
		m.opened.of(transport).Inc()
	}
}

// SessionClosed counts a session that ended with a close code; codes that are not the
// gateway's own count as [Other].
func (m *Metrics) SessionClosed(code int) {
	if m != nil {
		m.closed.of(code).Inc()
	}
}

// Authenticated counts an auth message with its result (AuthAccepted and so on) and the
// time that its answer took, waiting included; 0 when nothing had to be asked, which
// then is not among the times.
func (m *Metrics) Authenticated(result string, d time.Duration) {
	if m == nil {
		return
	}
	m.auth.of(result).Inc()
	if d > 0 {
		m.authDuration.Observe(d.Seconds())
	}
}

// AuthBackend records one question to an auth backend ("callback", "jwt"), what came of it
// ("accepted", "refused", "timeout"), and how long it took. Both words are the backend's own
// and never come from a client.
func (m *Metrics) AuthBackend(backend, outcome string, d time.Duration) {
	if m != nil {
		m.authBackend.of(backend, outcome).Observe(d.Seconds())
	}
}

// Command counts a client's command by its op ("auth" for the auth message, "invalid" for
// what is no command) and the code of its reply.
func (m *Metrics) Command(op string, code int) {
	if m != nil {
		m.commands.of(command{op, code}).Inc()
	}
}

// Refused counts something that a limit refused. reason is one of the Reason constants.
func (m *Metrics) Refused(reason string) {
	if m != nil {
		m.refused.of(reason).Inc()
	}
}

// Pushed counts n messages pushed with the same result, PushAccepted and so on.
func (m *Metrics) Pushed(result string, n int) {
	if m != nil {
		m.pushed.of(result).Add(float64(n))
	}
}

// PushUnknownKeys counts n keys of pushes that mean nothing to the gateway and were ignored,
// often a misspelt option.
func (m *Metrics) PushUnknownKeys(n int) {
	if m != nil && n > 0 {
		m.unknownKeys.Add(float64(n))
	}
}

// PushDuration records the time from reading a push request to its answer; a batch is one.
func (m *Metrics) PushDuration(d time.Duration) {
	if m != nil {
		m.pushDuration.Observe(d.Seconds())
	}
}

// QueueTime records how long a message waited between being accepted and its fan-out.
func (m *Metrics) QueueTime(d time.Duration) {
	if m != nil {
		m.queueTime.Observe(d.Seconds())
	}
}

// SlowDropped counts n messages that a session did not get because it did not keep up, by
// the policy of their app: "close", "drop_oldest" or "latest".
func (m *Metrics) SlowDropped(policy string, n int) {
	if m != nil {
		m.slowDropped.of(policy).Add(float64(n))
	}
}

// Resumed counts a subscription that asked for what it missed: whether the log could prove
// that it has all of it, and how many messages were sent again.
func (m *Metrics) Resumed(recovered bool, messages int) {
	if m != nil {
		m.resumed.of(recovered).Inc()
		m.resumedMsgs.Add(float64(messages))
	}
}

// HandshakeDuration records the time that a connection took to become a session, waiting for
// its turn included.
func (m *Metrics) HandshakeDuration(d time.Duration) {
	if m != nil {
		m.handshakes.Observe(d.Seconds())
	}
}

// Script records one call into the script of a door: the door's path, how it ended ("ok",
// "error", "timeout") and the time it ran.
func (m *Metrics) Script(door, outcome string, d time.Duration) {
	if m != nil {
		m.script.of(door, outcome).Observe(d.Seconds())
	}
}

// BytesWritten counts n bytes written to clients. A transport that writes to many at once
// adds up and calls it once.
func (m *Metrics) BytesWritten(n int) {
	if m != nil {
		m.written.Add(float64(n))
	}
}

// Panic counts a panic that was contained. where names the place in the code, such as
// "session" or "push".
func (m *Metrics) Panic(where string) {
	if m != nil {
		m.panics.WithLabelValues(m.panicked.fold(where)).Inc()
	}
}

// Reload counts a reload of one part of the configuration ("apps", "members", "keys") and
// whether it was taken over.
func (m *Metrics) Reload(what string, ok bool) {
	if m == nil {
		return
	}
	what = m.reloaded.fold(what)
	result, failed := "ok", 0.0
	if !ok {
		result, failed = "failed", 1
	}
	m.reloads.WithLabelValues(what, result).Inc()
	m.reloadFailed.WithLabelValues(what).Set(failed)
}
