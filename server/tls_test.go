package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ws-gateway/server"
	"ws-gateway/server/servertest"
)

// writePair writes a certificate for 127.0.0.1 with this serial number, and its key, into dir.
func writePair(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// mount makes dir look like a secret that Kubernetes mounted: tls.crt -> ..data/tls.crt,
// ..data -> version, and swaps ..data for a new version at once.
func mount(t *testing.T, dir, version string) {
	t.Helper()
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(version, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name))
		if err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
}

// served returns the serial number of the certificate that the gateway shows, and what was
// agreed on.
func served(t *testing.T, g *servertest.Gateway, config *tls.Config) (serial int64, state tls.ConnectionState, err error) {
	t.Helper()
	config.InsecureSkipVerify = true
	conn, err := tls.Dial("tcp", g.Server.Addr().String(), config)
	if err != nil {
		return 0, tls.ConnectionState{}, err
	}
	defer conn.Close()
	state = conn.ConnectionState()
	return state.PeerCertificates[0].SerialNumber.Int64(), state, nil
}

func waitForSerial(t *testing.T, g *servertest.Gateway, want int64) {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.Tick(50 * time.Millisecond); ; {
		got, _, err := served(t, g, &tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if got == want {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("still the certificate %d, want %d", got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name string, serial int64) string {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		writePair(t, filepath.Join(dir, name), serial)
		return name
	}
	mount(t, dir, version("..one", 1))
	g := servertest.Start(t, func(o *servertest.Options) {
		o.Server.TLSCert, o.Server.TLSKey = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
		o.TLS = &tls.Config{InsecureSkipVerify: true}
	})

	if _, state, err := served(t, g, &tls.Config{NextProtos: []string{"h2", "http/1.1"}}); err != nil || state.NegotiatedProtocol != "http/1.1" || state.Version < tls.VersionTLS12 {
		t.Errorf("negotiated %q, version %x, error %v; want http/1.1", state.NegotiatedProtocol, state.Version, err)
	}
	if _, _, err := served(t, g, &tls.Config{MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	resp, err := http.Get(strings.Replace(g.URL, "https", "http", 1))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 400 {
		t.Errorf("plain HTTP to the TLS port: %s, want 400", resp.Status)
	}
	http.DefaultClient.CloseIdleConnections()

	client := g.Subscriber("match")
	check := func(text string) {
		t.Helper()
		if status, answer := g.Push(`{"app":"match","text":"` + text + `"}`); status != 202 {
			t.Errorf("push over TLS answered %d %s", status, answer)
		}
		client.Want(`{"app":"match","member_id":-1,"text":"` + text + `"}`)
	}
	check("first certificate")

	mount(t, dir, version("..two", 2))
	waitForSerial(t, g, 2)
	check("second certificate")

	// A pair that is not one, as while files are copied one after the other, changes nothing.
	version("..three", 3)
	key, err := os.ReadFile(filepath.Join(dir, "..three", "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..two", "tls.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	waitForReload(t, g, "failed")
	if got, _, err := served(t, g, &tls.Config{}); got != 2 || err != nil {
		t.Errorf("with a bad pair: certificate %d, error %v; want the old one, 2", got, err)
	}
	cert, err := os.ReadFile(filepath.Join(dir, "..three", "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "..two", "tls.crt"), cert, 0o600); err != nil {
		t.Fatal(err)
	}
	waitForSerial(t, g, 3)
	check("third certificate")
}

// waitForReload waits until a reload of the certificate has had this result.
func waitForReload(t *testing.T, g *servertest.Gateway, result string) {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.Tick(50 * time.Millisecond); ; {
		if strings.Contains(g.Get(g.StatURL+"/metrics"), `wsgateway_reloads_total{result="`+result+`",what="certificate"}`) {
			return
		}
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("no reload with result %s", result)
		}
	}
}

// C04: a bad pair is said at start.
func TestC04BadCertificate(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	writePair(t, dir, 1)
	writePair(t, other, 2)
	for _, c := range []struct{ cert, key, want string }{
		{filepath.Join(dir, "tls.crt"), filepath.Join(other, "tls.key"), "private key does not match public key"},
		{filepath.Join(dir, "none"), filepath.Join(dir, "tls.key"), "none: no such file"},
		{filepath.Join(dir, "tls.key"), filepath.Join(dir, "tls.key"), "failed to find certificate PEM data"},
		{filepath.Join(dir, "tls.crt"), "", "no such file"},
	} {
		_, err := server.New(server.Options{Addr: "127.0.0.1:0", TLSCert: c.cert, TLSKey: c.key})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("certificate %s, key %s: error %v, want %s", c.cert, c.key, err, c.want)
		}
	}
}
