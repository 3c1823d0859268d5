package client

import "time"

// SetRetries sets how long after its first attempt a message is tried again.
func (p *Pusher) SetRetries(d time.Duration) { p.retries = d }
