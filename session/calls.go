package session

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"ws-gateway/apps"
	"ws-gateway/push"
)

// maxRevoked is the longest time in seconds for which a member can be revoked: 10 years.
const maxRevoked = 10 * 366 * 24 * 3600

// AnswerDisconnect answers POST /disconnect: it closes every session of a member, which may
// come back. As all answers of a Gateway it is for [push.Keys.Call].
func (g *Gateway) AnswerDisconnect(r *http.Request) ([]byte, error) {
	c, err := readCall(r, "member_id")
	if err != nil {
		return nil, err
	}
	member, err := c.member()
	if err != nil {
		return nil, err
	}
	return count("sessions", g.Disconnect(member, CloseRevoked)), nil
}

// AnswerUnsubscribe answers POST /unsubscribe: it ends a member's subscriptions to an app.
func (g *Gateway) AnswerUnsubscribe(r *http.Request) ([]byte, error) {
	c, err := readCall(r, "member_id", "app")
	if err != nil {
		return nil, err
	}
	member, err := c.member()
	if err != nil {
		return nil, err
	}
	var app string
	if v := c["app"]; v.Kind() != '"' || json.Unmarshal(v, &app) != nil || !apps.ValidName(app) {
		return nil, push.BadRequest("bad app name")
	}
	return count("subscriptions", g.Unsubscribe(member, app)), nil
}

// AnswerRevoke answers POST /revoke: it closes every session of a member, and refuses the
// member for some time.
func (g *Gateway) AnswerRevoke(r *http.Request) ([]byte, error) {
	c, err := readCall(r, "member_id", "seconds")
	if err != nil {
		return nil, err
	}
	member, err := c.member()
	if err != nil {
		return nil, err
	}
	seconds, ok := c.integer("seconds", 0, maxRevoked)
	if !ok {
		return nil, push.BadRequest("seconds must be an integer from 0 to %d", maxRevoked)
	}
	return count("sessions", g.Revoke(member, time.Duration(seconds)*time.Second)), nil
}

func count(what string, n int) []byte {
	return append(strconv.AppendInt([]byte(`{"code":200,"`+what+`":`), int64(n), 10), '}')
}

// A call is the members of the object that a backend has sent.
type call map[string]jsontext.Value

// readCall reads r's body as strictly as a push: it must have the given keys, each once and
// spelled right, and what else it has is ignored.
func readCall(r *http.Request, keys ...string) (call, error) {
	body, err := push.Body(r)
	if err != nil {
		return nil, err
	}
	var c call
	if err := json.Unmarshal(body, &c); err != nil || c == nil {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return nil, push.BadRequest("bad JSON: duplicate key in an object")
		}
		return nil, push.BadRequest("the body must be a JSON object")
	}
	for name := range c {
		for _, key := range keys {
			if name != key && strings.EqualFold(name, key) {
				return nil, push.BadRequest("key %q must be written %q", name, key)
			}
		}
	}
	if i := slices.IndexFunc(keys, func(key string) bool { return c[key] == nil }); i >= 0 {
		return nil, push.BadRequest("%s is missing", keys[i])
	}
	return c, nil
}

func (c call) member() (int64, error) {
	n, ok := c.integer("member_id", 1, maxMember)
	if !ok {
		return 0, push.BadRequest("member_id must be an integer from 1 to 2^53-1")
	}
	return n, nil
}

// integer returns the value of key if it is an integer from low to high.
func (c call) integer(key string, low, high int64) (int64, bool) {
	v := c[key]
	if v.Kind() != '0' {
		return 0, false
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil && n >= low && n <= high
}
