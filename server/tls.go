package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"ws-gateway/stat"
)

// certInterval is how often certificate files are looked at. Changes are found by looking,
// not by notification: secrets mounted into containers change by swapping symbolic links
// several directories up, and network file systems do not notify at all.
const certInterval = time.Second

// A certificate is a pair of PEM files, read again when they change. New handshakes get the
// new one; connections that are there stay.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	metrics           *stat.Metrics

	seen    [2]os.FileInfo // what current was read from, or what was tried last; of watch
	current atomic.Pointer[tls.Certificate]
}

// loadCertificate returns the certificate in the two files.
func loadCertificate(certFile, keyFile string, log *slog.Logger, metrics *stat.Metrics) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log, metrics: metrics}
	if _, err := c.refresh(); err != nil {
		return nil, err
	}
	return c, nil
}

// CheckCertificate says why the two files, both or neither of which is "", could not be served
// with.
func CheckCertificate(certFile, keyFile string) error {
	if certFile == "" {
		return nil
	}
	_, err := loadCertificate(certFile, keyFile, nil, nil)
	return err
}

// config returns what a listener needs. HTTP/2 is left out: WebSocket over it (RFC 8441) is
// another protocol, and a client that negotiated it could not upgrade.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// watch looks for changes until ctx ends. A pair that is not good, perhaps because only one
// of its files has arrived yet, changes nothing.
func (c *certificate) watch(ctx context.Context) {
	tick := time.NewTicker(certInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := c.refresh()
		switch {
		case err != nil && changed:
			c.metrics.Reload("certificate", false)
			c.log.Error("certificate not reloaded: the old one stays", "err", err)
		case changed:
			c.metrics.Reload("certificate", true)
			c.log.Info("certificate reloaded", "expires", c.current.Load().Leaf.NotAfter)
		}
	}
}

// refresh reads the files if they are not those it saw the last time.
func (c *certificate) refresh() (changed bool, err error) {
	// Looked at before they are read: what is swapped in between is found the next time.
	var now [2]os.FileInfo
	for i, name := range []string{c.certFile, c.keyFile} {
		if now[i], err = os.Stat(name); err != nil {
			changed = c.seen[i] != nil
			c.seen[i] = nil
			return changed, fmt.Errorf("%s: %w", [...]string{"WSGW_TLS_CERT", "WSGW_TLS_KEY"}[i], err)
		}
	}
	if same(now[0], c.seen[0]) && same(now[1], c.seen[1]) {
		return false, nil
	}
	c.seen = now
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return true, fmt.Errorf("WSGW_TLS_CERT: %s, with WSGW_TLS_KEY=%s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&pair)
	return true, nil
}

func same(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
