// Package js serves the JavaScript client to web pages: one script tag, and no build step.
// It is an npm package in this directory; README.md says how to use it.
package js

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

//go:embed dist/client.js
var script string

// Script returns the script, for who serves it as one of the files of a page.
func Script() string { return script }

// Handler answers GET and HEAD with the script. Any page may load it: it is public code, and
// what it may do is decided when it connects (the origins, RFC 6455, section 10.2).
func Handler() http.Handler {
	plain := newVariant([]byte(script), "")
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression) // a buffer has no errors
	io.WriteString(w, script)
	w.Close()
	zipped := newVariant(packed.Bytes(), "gzip")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if acceptsGzip(r.Header.Values("Accept-Encoding")) {
			zipped.serve(w, r)
		} else {
			plain.serve(w, r)
		}
	})
}

// A variant is the script in one encoding.
type variant struct {
	data     []byte
	etag     string
	encoding string // "": none
}

func newVariant(data []byte, encoding string) variant {
	sum := sha256.Sum256(data)
	return variant{data, `"` + hex.EncodeToString(sum[:12]) + `"`, encoding}
}

func (v variant) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=3600") // an older one speaks the same protocol
	h.Set("Vary", "Accept-Encoding")
	h.Set("Content-Type", "text/javascript; charset=utf-8") // RFC 9239
	h.Set("Etag", v.etag)
	if v.encoding != "" {
		h.Set("Content-Encoding", v.encoding)
		h.Set("Content-Length", strconv.Itoa(len(v.data))) // which ServeContent sets only for what is not encoded
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(v.data))
}

// acceptsGzip reports whether a client takes gzip (RFC 9110, section 12.5.3).
func acceptsGzip(values []string) bool {
	for part := range strings.SplitSeq(strings.Join(values, ","), ",") {
		coding, params, err := mime.ParseMediaType(part)
		if err == nil && coding == "gzip" {
			q, err := strconv.ParseFloat(params["q"], 64)
			return err != nil || q > 0
		}
	}
	return false
}
