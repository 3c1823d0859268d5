package script

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	lua "github.com/yuin/gopher-lua"

	"ws-gateway/push"
	"ws-gateway/stat"
)

// A meshError is a failure as backends are told of it: its codes are CONNMIX's.
type meshError struct {
	code    int
	message string
}

func (e *meshError) Error() string { return e.message }

// The codes of meshError.
const (
	codeInvalid    = 101 // the request
	codePop        = 201 // queue.pop failed
	codePopAgain   = 202 // queue.pop of a topic that this link pops already
	codeUnpop      = 203 // queue.unpop failed
	codeCall       = 301 // conn.call failed
	codeSend       = 401 // mesh.send failed
	maxLinkID      = 64  // bytes of a request's id
	maxMeshRequest = 1 << 20
)

func invalid(message string) error { return &meshError{codeInvalid, message} }

// A Mesh serves backends that speak CONNMIX's API, behind the push key: POST /v1/mesh/publish
// ([Mesh.Publish]), POST /v1/mesh/send ([Mesh.Send]) and GET /ws/v1, a WebSocket
// ([Mesh.Guard], [Mesh.Link]).
type Mesh struct {
	host *Host
	keys *push.Keys
}

// NewMesh returns the API to the doors of h. With nil keys it serves loopback peers only.
func NewMesh(h *Host, keys *push.Keys) *Mesh {
	if keys == nil {
		keys, _ = push.NewKeys(push.KeysOptions{Metrics: h.opts.Metrics}) // without a file nothing can fail
	}
	return &Mesh{h, keys}
}

// Publish serves POST /v1/mesh/publish.
func (m *Mesh) Publish(w http.ResponseWriter, r *http.Request) { m.serve(w, r, m.publish) }

// Send serves POST /v1/mesh/send.
func (m *Mesh) Send(w http.ResponseWriter, r *http.Request) { m.serve(w, r, m.send) }

// Guard lets only those with a push key pass to next, which upgrades to a WebSocket.
func (m *Mesh) Guard(next http.Handler) http.Handler { return m.keys.Guard(next) }

// take spends messages of a key's budget.
type take func(n int) (wait time.Duration)

func (m *Mesh) serve(w http.ResponseWriter, r *http.Request, do func(p params, t take) ([]byte, error)) {
	t, _, err := m.keys.Authorize(r)
	if err != nil {
		push.WriteError(w, err)
		return
	}
	result, err := m.read(r, t, do)
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(appendMesh(nil, result, err), '}'))
}

func (m *Mesh) read(r *http.Request, t take, do func(p params, t take) ([]byte, error)) ([]byte, error) {
	// A page of another origin could send anything else without asking first.
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return nil, invalid("Content-Type must be application/json")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxMeshRequest+1))
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			m.host.opts.Metrics.Refused(stat.ReasonPushBodyTime)
			return nil, invalid("the request did not arrive in time")
		}
		return nil, invalid("the request did not arrive complete")
	}
	if len(body) > maxMeshRequest {
		m.host.opts.Metrics.Refused(stat.ReasonPushBody)
		return nil, invalid("request is too large")
	}
	var p params
	if err := json.Unmarshal(body, &p); err != nil {
		return nil, invalid("not a valid request")
	}
	return do(p, t)
}

// appendMesh appends an answer, but for the brace that closes it.
func appendMesh(dst, result []byte, err error) []byte {
	if err == nil {
		return append(append(dst, `{"E":null,"r":`...), result...)
	}
	e := &meshError{codeInvalid, err.Error()}
	errors.As(err, &e)
	dst = strconv.AppendInt(append(dst, `{"E":{"c":`...), int64(e.code), 10)
	return append(appendJSONString(append(dst, `,"m":`...), e.message), '}')
}

// params are what a request may carry, whatever it asks for.
type params struct {
	C    jsontext.Value   `json:"c"` // channel, or client_id: a string or a number
	D    *string          `json:"d"` // data
	Type string           `json:"t"` // of data: "text", "binary" (data is in base64) or ""
	F    string           `json:"f"` // function
	A    []jsontext.Value `json:"a"` // its arguments
}

// data returns what is to be sent.
func (p params) data() (string, error) {
	if p.D == nil {
		return "", invalid("d must be a string")
	}
	switch p.Type {
	case "", "text":
		return *p.D, nil
	case "binary":
		b, err := base64.StdEncoding.DecodeString(*p.D)
		if err != nil {
			return "", invalid("binary data must be in base64")
		}
		return string(b), nil
	}
	return "", invalid("t must be text or binary")
}

// channel returns C as a channel's name.
func (p params) channel() (string, error) {
	if p.C.Kind() == '"' {
		if v, err := decodeJSON(string(p.C)); err == nil && v != lua.LString("") {
			return lua.LVAsString(v), nil
		}
	}
	return "", invalid("c must be a channel")
}

// clientID returns C as a client_id.
func (p params) clientID() (int64, error) {
	if k := p.C.Kind(); k == '"' || k == '0' {
		if id, err := strconv.ParseInt(string(bytes.Trim(p.C, `"`)), 10, 64); err == nil {
			return id, nil
		}
	}
	return 0, invalid("c must be a client_id")
}

// publish sends to everybody subscribed to a channel.
func (m *Mesh) publish(p params, t take) ([]byte, error) {
	channel, err := p.channel()
	if err != nil {
		return nil, err
	}
	data, err := p.data()
	if err != nil {
		return nil, err
	}
	if err := m.spend(t); err != nil {
		return nil, err
	}
	n, err := m.host.publish(channel, data, p.Type)
	if err != nil {
		code, message := push.Answer(err)
		if code == http.StatusTooManyRequests || code >= 500 {
			return nil, &meshError{codeSend, message}
		}
		return nil, invalid(message)
	}
	return append(strconv.AppendInt([]byte(`{"s":`), int64(n), 10), `,"f":0}`...), nil
}

// spend takes one message from a key's budget.
func (m *Mesh) spend(t take) error {
	if wait := t(1); wait > 0 {
		m.host.opts.Metrics.Refused(stat.ReasonPushRate)
		return &meshError{codeSend, "too many messages for this push key"}
	}
	return nil
}

var success = []byte(`{"s":true}`)

// send sends to one connection of a door.
func (m *Mesh) send(p params, t take) ([]byte, error) {
	id, err := p.clientID()
	if err != nil {
		return nil, err
	}
	data, err := p.data()
	if err != nil {
		return nil, err
	}
	if err := m.spend(t); err != nil {
		return nil, err
	}
	c, ok := m.host.client(id)
	if !ok {
		return nil, &meshError{codeSend, errUnknownClient.Error()}
	}
	if err := c.send(data, p.Type); err != nil {
		code := codeSend
		if errors.As(err, new(*push.RefusedError)) {
			code = codeInvalid // it is too long
		}
		return nil, &meshError{code, told(err)}
	}
	return success, nil
}

// call does to a connection what its script could: conn.call.
func (m *Mesh) call(p params) ([]byte, error) {
	id, err := p.clientID()
	if err != nil {
		return nil, err
	}
	args := make([]lua.LValue, len(p.A))
	for i, a := range p.A {
		if args[i], err = decodeJSON(string(a)); err != nil {
			return nil, invalid(err.Error())
		}
	}
	do, err := callFunction(p.F, args)
	if err != nil {
		return nil, err
	}
	c, ok := m.host.client(id)
	if !ok {
		return nil, &meshError{codeCall, errUnknownClient.Error()}
	}
	if err := do(c); err != nil {
		return nil, &meshError{codeCall, told(err)}
	}
	return success, nil
}

// callFunction returns what conn.call is to do.
func callFunction(name string, args []lua.LValue) (func(*client) error, error) {
	switch name {
	case "set_context_value":
		if len(args) == 2 {
			if key, ok := args[0].(lua.LString); ok {
				return func(c *client) error { return c.set(string(key), args[1]) }, nil
			}
		}
		return nil, invalid("a must be a key and a value")
	case "set_context":
		if len(args) == 1 {
			if t, ok := args[0].(*lua.LTable); ok {
				return func(c *client) error { return c.setAll(t) }, nil
			}
		}
		return nil, invalid("a must be an object")
	case "subscribe", "unsubscribe":
		names := make([]string, len(args))
		for i, a := range args {
			name, ok := a.(lua.LString)
			if !ok {
				return nil, invalid("a must be channels")
			}
			names[i] = string(name)
		}
		if len(names) == 0 {
			return nil, invalid("a must be channels")
		}
		if name == "subscribe" {
			return func(c *client) error { return c.subscribe(names, func(start func()) { start() }) }, nil
		}
		return func(c *client) error { c.unsubscribe(names); return nil }, nil
	}
	return nil, invalid("f must be set_context, set_context_value, subscribe or unsubscribe")
}
