// Package dashboard is the page of the stat server: it shows what a gateway does, second by
// second, and lets somebody who has just started one connect to it and push. DASHBOARD.md
// says what is on it; grafana.json and alerts.yml are for those who run Prometheus.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
)

// Options configure [Handler]. The zero value serves a page that shows numbers, and lets
// nobody try anything.
type Options struct {
	// Gateway returns the ws:// or wss:// URL that clients connect to. An unspecified host
	// in it, such as 0.0.0.0, stands for the one that the page was loaded from. It is called
	// at each visit. Nil turns connecting off.
	Gateway func() string
	// SDK is the one-file script of the JavaScript client, which makes the global WSGateway.
	// "" turns connecting off.
	SDK string
	// Member and Token are filled in where a visitor can log in. They are for demonstrations:
	// every visitor sees them. 0 and "" fill in nothing.
	Member int64
	Token  string
	// Push serves what the push form sends, and decides whether its sender may push: the
	// same as POST /push of the gateway. It does not see the Authorization header, which has
	// been the stat server's. Nil turns the form off.
	Push http.Handler
	// Explain says what the rules make of somebody's wish, for members by their id and for
	// anonymous clients by -1, with the roles that a member who is connected has. The action
	// is subscribe, push or presence. An error means that the question is wrong. Nil turns
	// explanations off.
	Explain func(member int64, action, app string) (Explanation, error)
}

// An Explanation says which rule decides about a wish, and why.
type Explanation struct {
	Allowed bool   `json:"allowed"`
	Rule    string `json:"rule"`   // the entry of the apps file; "" where none was asked
	Where   string `json:"where"`  // that entry's place
	Choice  string `json:"choice"` // why that entry and no other
	Reason  string `json:"reason"` // what it says about this member
}

//go:embed page
var page embed.FS

// policy is the page's Content-Security-Policy. It runs no script but its own, and loads
// nothing from elsewhere; the gateway may be at any address.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
	"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns what serves / and everything below /dashboard/, on the stat server, whose
// guard stands before it: it decides who may see the page, and refuses what a page of
// another origin sends.
func Handler(o Options) http.Handler {
	files := make(map[string]file)
	names, err := fs.ReadDir(page, "page")
	if err != nil {
		panic(err) // it is part of the program
	}
	for _, entry := range names {
		data, err := page.ReadFile(path.Join("page", entry.Name()))
		if err != nil {
			panic(err)
		}
		files[entry.Name()] = newFile(entry.Name(), data)
	}

	routes := http.NewServeMux()
	routes.Handle("GET /{$}", files["index.html"])
	delete(files, "index.html")
	for name, f := range files {
		routes.Handle("GET /dashboard/"+name, f)
	}
	routes.HandleFunc("GET /dashboard/settings", o.serveSettings)
	if o.SDK != "" {
		routes.Handle("GET /dashboard/client.js", newFile("client.js", []byte(o.SDK)))
	}
	if o.Push != nil {
		routes.HandleFunc("POST /dashboard/push", func(w http.ResponseWriter, r *http.Request) {
			r = r.Clone(r.Context())
			r.Header.Del("Authorization")
			o.Push.ServeHTTP(w, r)
		})
	}
	if o.Explain != nil {
		routes.HandleFunc("GET /dashboard/explain", o.serveExplain)
	}
	return routes
}

// A file is one of the page's, as it is sent.
type file struct {
	data []byte
	kind string
	etag string
}

func newFile(name string, data []byte) file {
	kind := mime.TypeByExtension(path.Ext(name))
	if kind == "" {
		kind = "text/plain; charset=utf-8"
	}
	sum := sha256.Sum256(data)
	return file{data, kind, fmt.Sprintf(`"%x"`, sum[:8])}
}

// ServeHTTP implements http.Handler.
func (f file) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Cache-Control", "no-cache") // ask each time: a new version is one page with new scripts
	h.Set("ETag", f.etag)
	h.Set("Content-Type", f.kind)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", strconv.Itoa(len(f.data)))
	w.Write(f.data) //nolint:errcheck // the client has gone
}

// serveSettings tells the page what it can do here.
func (o *Options) serveSettings(w http.ResponseWriter, _ *http.Request) {
	s := struct {
		Gateway string `json:"gateway"` // "": no connecting
		Member  int64  `json:"member"`
		Token   string `json:"token"`
		Push    bool   `json:"push"`
		Explain bool   `json:"explain"`
	}{Member: o.Member, Token: o.Token, Push: o.Push != nil, Explain: o.Explain != nil}
	if o.Gateway != nil && o.SDK != "" {
		s.Gateway = o.Gateway()
	}
	answer(w, http.StatusOK, s)
}

// serveExplain answers ?member=42&action=subscribe&app=vip with an [Explanation].
func (o *Options) serveExplain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	member, err := strconv.ParseInt(q.Get("member"), 10, 64)
	if err != nil {
		refuse(w, "member must be a number")
		return
	}
	e, err := o.Explain(member, q.Get("action"), q.Get("app"))
	if err != nil {
		refuse(w, err.Error())
		return
	}
	answer(w, http.StatusOK, e)
}

// refuse answers that a request is wrong.
func refuse(w http.ResponseWriter, message string) {
	answer(w, http.StatusBadRequest, struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}{http.StatusBadRequest, message})
}

func answer(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // v is one of our own plain structs
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	w.Write(append(body, '\n')) //nolint:errcheck // the client has gone
}
