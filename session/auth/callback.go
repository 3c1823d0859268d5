package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/semaphore"

	"ws-gateway/session"
	"ws-gateway/stat"
)

// CallbackOptions are the settings of [Callback].
type CallbackOptions struct {
	URL         string        // WSGW_AUTH_URL: http or https
	Timeout     time.Duration // WSGW_AUTH_TIMEOUT: of one question in all; 0: 3 s
	Concurrency int           // WSGW_AUTH_CONCURRENCY: questions at once; 0: 128

	Dial    DialFunc // nil: the system's
	Logger  *slog.Logger
	Metrics *stat.Metrics
}

// Callback asks the operator's own HTTP endpoint about every member; AUTH.md has the
// contract. No answer is kept.
//
// Questions beyond the allowed concurrency wait, until their clients' deadline. After 5
// troubles in a row the endpoint is left alone, but for one question a second; all others
// fail at once then.
type Callback struct {
	opts      CallbackOptions
	client    *http.Client
	slots     *semaphore.Weighted
	breaker   *gobreaker.CircuitBreaker[session.Identity]
	complaint *complaint
}

var _ session.Authenticator = (*Callback)(nil)

const (
	maxAnswer        = 64 << 10 // bytes
	breakerThreshold = 5        // troubles in a row
	breakerPause     = time.Second
)

// NewCallback checks the settings; it does not ask the endpoint anything. Close must be
// called in the end.
func NewCallback(o CallbackOptions) (*Callback, error) {
	u, err := parseURL("WSGW_AUTH_URL", o.URL)
	if err != nil {
		return nil, err
	}
	if o.Timeout < 0 {
		return nil, fmt.Errorf("WSGW_AUTH_TIMEOUT: %v is negative", o.Timeout)
	}
	if o.Concurrency < 0 {
		return nil, fmt.Errorf("WSGW_AUTH_CONCURRENCY: %d is negative", o.Concurrency)
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Concurrency == 0 {
		o.Concurrency = 128
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("backend", "callback", "host", u.Host)
	b := &Callback{
		opts:      o,
		client:    newClient(o.Timeout, o.Concurrency, o.Dial),
		slots:     semaphore.NewWeighted(int64(o.Concurrency)),
		complaint: newComplaint(o.Logger, "auth backend is in trouble, clients are told to come back"),
	}
	b.breaker = gobreaker.NewCircuitBreaker[session.Identity](gobreaker.Settings{
		Timeout:     breakerPause,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerThreshold },
		IsSuccessful: func(err error) bool {
			return err == nil || errors.Is(err, session.ErrUnauthorized)
		},
		// A client that left says nothing about the endpoint.
		IsExcluded: func(err error) bool {
			return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
		},
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if to == gobreaker.StateClosed {
				o.Logger.Info("auth backend answers again")
			}
		},
	})
	return b, nil
}

// Close closes the connections that are kept alive. Questions under way are not affected.
func (b *Callback) Close() { b.client.CloseIdleConnections() }

// Authenticate implements [session.Authenticator].
func (b *Callback) Authenticate(ctx context.Context, c session.Credentials) (session.Identity, error) {
	if len(c.Token) > maxToken {
		return session.Identity{}, errTooLong
	}
	question, err := json.Marshal(struct {
		Member int64  `json:"member_id"`
		Token  string `json:"token"`
	}{c.Member, string(c.Token)})
	if err != nil { // the token is not UTF-8
		return session.Identity{}, errToken
	}
	if err := b.slots.Acquire(ctx, 1); err != nil {
		b.opts.Metrics.Refused(stat.ReasonAuthQueue)
		return session.Identity{}, fmt.Errorf("wait for the auth backend: %w", err)
	}
	defer b.slots.Release(1)
	id, err := b.breaker.Execute(func() (session.Identity, error) {
		return b.ask(ctx, c.Member, question)
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		b.complaint.log(errOpen)
		return session.Identity{}, errOpen
	}
	return id, err
}

var errOpen = &trouble{causeOpen, "not asked, after several troubles in a row"}

// ask puts one question to the endpoint.
func (b *Callback) ask(ctx context.Context, member int64, question []byte) (session.Identity, error) {
	began := time.Now()
	id, err := b.post(ctx, member, question)
	outcome := stat.AuthAccepted
	var t *trouble
	switch {
	case errors.As(err, &t):
		outcome = t.cause
		b.complaint.log(t)
	case errors.Is(err, session.ErrUnauthorized):
		outcome = stat.AuthUnauthorized
	case err != nil:
		outcome = "abandoned" // the client left, or its time was over
	}
	b.opts.Metrics.AuthBackend("callback", outcome, time.Since(began))
	return id, err
}

func (b *Callback) post(ctx context.Context, member int64, question []byte) (session.Identity, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.opts.URL, bytes.NewReader(question))
	if err != nil {
		return session.Identity{}, &trouble{causeConnect, "the request cannot be made"}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "ws-gateway")
	status, body, err := fetch(ctx, b.client, req, b.opts.Timeout, maxAnswer)
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound:
		return session.Identity{}, errDenied // whatever its body is
	case err != nil:
		return session.Identity{}, err
	case status/100 == 3:
		return session.Identity{}, &trouble{causeStatus, fmt.Sprintf("answered %d, and redirects are not followed", status)}
	case status != http.StatusOK:
		return session.Identity{}, &trouble{causeStatus, fmt.Sprintf("answered %d", status)}
	}
	return parseAnswer(body, member, time.Now())
}

const (
	errDenied      refusal = "refused by the auth backend"
	errOtherMember refusal = "the auth backend answered for another member"
	errExpired     refusal = "token is expired"
)

// maxUnix is the last second of the year 9999: what is later was not meant as seconds.
const maxUnix = 253402300799

// parseAnswer reads the body of a 200: {"member_id":1,"expires_at":1700000000,"roles":["a"]}.
func parseAnswer(body []byte, member int64, now time.Time) (session.Identity, error) {
	var a struct {
		Member    *int64   `json:"member_id"`
		UID       *int64   `json:"uid"`
		ExpiresAt *int64   `json:"expires_at"`
		Roles     []string `json:"roles"`
	}
	if len(body) == 0 {
		return session.Identity{}, &trouble{causeAnswer, "answered 200 with an empty body"}
	}
	// The error would quote names and values out of the body.
	if json.Unmarshal(body, &a) != nil {
		return session.Identity{}, &trouble{causeAnswer, `answer is not JSON like {"member_id":123456}`}
	}
	switch {
	case a.Member == nil && a.UID == nil:
		return session.Identity{}, &trouble{causeAnswer, "answer has neither member_id nor uid"}
	case a.Member != nil && *a.Member != member, a.UID != nil && *a.UID != member:
		return session.Identity{}, errOtherMember
	case !validRoles(a.Roles):
		return session.Identity{}, &trouble{causeAnswer,
			fmt.Sprintf("answer has invalid roles: want at most %d, each 1 to %d bytes without spaces", maxRoles, maxRole)}
	}
	id := session.Identity{Roles: a.Roles}
	if a.ExpiresAt != nil {
		if *a.ExpiresAt > maxUnix {
			return session.Identity{}, &trouble{causeAnswer, "answer's expires_at is not in seconds since 1970"}
		}
		id.Expires = time.Unix(*a.ExpiresAt, 0)
		if !now.Before(id.Expires) {
			return session.Identity{}, errExpired
		}
	}
	return id, nil
}
