package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/mqgate/mqgate/mq/nats/embedded"
)

// startNATSWith starts a server with a configuration file.
func startNATSWith(t *testing.T, config string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), ConfigFile: keep(t, "nats.conf", []byte(config))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown() }) // as in startNATS
	return s
}

// keep writes a file in a folder of its own.
func keep(t *testing.T, name string, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// admitted is a gateway and a worker with these flags that serve a request.
func admitted(t *testing.T, url string, flags ...string) {
	t.Helper()
	flags = append(flags, "--nats="+url, "--nats-connections=2")
	startWorkerRun(t, flags...)
	start(t, nil, flags...).dial(t, "/ws").signIn(t, "alice")
}

// natsRefusal is what a gateway and a worker say before they end, because of the flags.
type natsRefusal struct {
	name   string
	flags  []string
	status int
	want   []string // of the one line that says why
}

func (r natsRefusal) check(t *testing.T, url string) {
	t.Helper()
	for _, args := range [][]string{{"serve", "--listen=127.0.0.1:0"}, {"worker"}} {
		args = append(append(args, "--admin=", "--nats="+url), r.flags...)
		var stdout, stderr bytes.Buffer
		status := run(args, nil, &stdout, &stderr)
		text := stderr.String()
		lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(text), "\n"), func(line string) bool {
			return strings.Contains(line, "level=WARN msg=\"--auth=open") || strings.HasPrefix(line, "mqgate "+args[0]+": 1 fault ")
		})
		if status != r.status || len(lines) != 1 {
			t.Errorf("%s, %s: status %d, expected %d with one line\n%s", r.name, args[0], status, r.status, text)
			continue
		}
		for _, want := range r.want {
			if !strings.Contains(lines[0], want) {
				t.Errorf("%s, %s: expected %q in\n%s", r.name, args[0], want, lines[0])
			}
		}
	}
}

// authority is an operator of NATS with an account, and what makes users of it.
type authority struct {
	t       *testing.T
	account nkeys.KeyPair
	config  string // of a server
}

func newKey(t *testing.T, prefix nkeys.PrefixByte) (nkeys.KeyPair, string) {
	t.Helper()
	pair := must[nkeys.KeyPair](t)(nkeys.CreatePair(prefix))
	return pair, must[string](t)(pair.PublicKey())
}

func newAuthority(t *testing.T) *authority {
	operator, operatorID := newKey(t, nkeys.PrefixByteOperator)
	account, accountID := newKey(t, nkeys.PrefixByteAccount)
	_, systemID := newKey(t, nkeys.PrefixByteAccount)
	o := jwt.NewOperatorClaims(operatorID)
	o.SystemAccount = systemID
	a := jwt.NewAccountClaims(accountID)
	a.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
		MaxAckPending: jwt.NoLimit, MemoryMaxStreamBytes: jwt.NoLimit, DiskMaxStreamBytes: jwt.NoLimit}
	text := must[string](t)
	return &authority{t, account, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }\n",
		text(o.Encode(operator)), systemID, accountID, text(a.Encode(operator)), systemID, text(jwt.NewAccountClaims(systemID).Encode(operator)))}
}

// creds writes the credentials of a new user. change changes the claims; seed, if not nil, is somebody else's.
func (a *authority) creds(name string, change func(*jwt.UserClaims), seed []byte) string {
	user, id := newKey(a.t, nkeys.PrefixByteUser)
	claims := jwt.NewUserClaims(id)
	if change != nil {
		change(claims)
	}
	own := must[[]byte](a.t)(user.Seed())
	file := must[[]byte](a.t)(jwt.FormatUserConfig(must[string](a.t)(claims.Encode(a.account)), own))
	if seed != nil {
		file = bytes.Replace(file, own, seed, 1)
	}
	return keep(a.t, name, file)
}

// Credentials files, --nats-creds, with a server that demands a JWT.
func TestNATSCredentials(t *testing.T) {
	a := newAuthority(t)
	url := startNATSWith(t, a.config).URL()
	admitted(t, url, "--nats-creds="+a.creds("good.creds", func(c *jwt.UserClaims) { c.Expires = time.Now().Add(time.Hour).Unix() }, nil))
	other := must[[]byte](t)(must[nkeys.KeyPair](t)(nkeys.CreateUser()).Seed())
	folder := t.TempDir()
	for _, r := range []natsRefusal{
		{"none", nil, exitFailed, []string{url, "Authorization Violation", "neither credentials nor certificate", "expected credentials that the server accepts"}},
		{"of another operator", []string{"--nats-creds=" + newAuthority(t).creds("alien.creds", nil, nil)}, exitFailed,
			[]string{url, "Authorization Violation", "credentials file /", "alien.creds", "expected credentials that the server accepts"}},
		{"not valid yet", []string{"--nats-creds=" + a.creds("early.creds", func(c *jwt.UserClaims) { c.NotBefore = time.Now().Add(time.Hour).Unix() }, nil)},
			exitFailed, []string{url, "Authorization Violation", "early.creds"}},
		{"expired", []string{"--nats-creds=" + a.creds("old.creds", func(c *jwt.UserClaims) { c.Expires = 1_700_000_000 }, nil)}, exitUsage,
			[]string{"flag --nats-creds", "old.creds", "the JWT has expired at 2023-11-14T22:13:20Z, expected one that is valid"}},
		{"seed of somebody else", []string{"--nats-creds=" + a.creds("mixed.creds", nil, other)}, exitUsage,
			[]string{"flag --nats-creds", "mixed.creds", "the seed is not that of the JWT"}},
		{"no seed", []string{"--nats-creds=" + keep(t, "junk.creds", []byte("junk"))}, exitUsage,
			[]string{"flag --nats-creds", "junk.creds", "expected a user's JWT and its seed"}},
		{"no JWT", []string{"--nats-creds=" + keep(t, "seed.creds", other)}, exitUsage,
			[]string{"flag --nats-creds", "seed.creds", "expected a user's JWT"}},
		{"missing", []string{"--nats-creds=/nowhere/x.creds"}, exitUsage, []string{"flag --nats-creds", "open /nowhere/x.creds: no such file"}},
		{"unreadable", []string{"--nats-creds=" + folder}, exitUsage, []string{"flag --nats-creds", folder + ": is a directory"}},
	} {
		r.check(t, url)
	}
}

// NKeys, --nats-nkey, with a server that knows one.
func TestNATSNKey(t *testing.T) {
	user, id := newKey(t, nkeys.PrefixByteUser)
	url := startNATSWith(t, fmt.Sprintf("authorization { users [ { nkey: %s } ] }", id)).URL()
	seed := func(pair nkeys.KeyPair) []byte { return must[[]byte](t)(pair.Seed()) }
	admitted(t, url, "--nats-nkey="+keep(t, "good.nk", seed(user)))
	stranger, _ := newKey(t, nkeys.PrefixByteUser)
	account, _ := newKey(t, nkeys.PrefixByteAccount)
	folder := t.TempDir()
	for _, r := range []natsRefusal{
		{"none", nil, exitFailed, []string{url, "Authorization Violation", "neither credentials nor certificate"}},
		{"of somebody else", []string{"--nats-nkey=" + keep(t, "stranger.nk", seed(stranger))}, exitFailed,
			[]string{url, "Authorization Violation", "NKey seed file /", "stranger.nk", "expected credentials that the server accepts"}},
		{"of an account", []string{"--nats-nkey=" + keep(t, "account.nk", seed(account))}, exitUsage, []string{"flag --nats-nkey", "account.nk", "user seed"}},
		{"junk", []string{"--nats-nkey=" + keep(t, "junk.nk", []byte("junk"))}, exitUsage, []string{"flag --nats-nkey", "junk.nk", "no nkey seed found"}},
		{"missing", []string{"--nats-nkey=/nowhere/x.nk"}, exitUsage, []string{"flag --nats-nkey", "open /nowhere/x.nk: no such file"}},
		{"unreadable", []string{"--nats-nkey=" + folder}, exitUsage, []string{"flag --nats-nkey", folder + ": is a directory"}},
	} {
		r.check(t, url)
	}
	// A server that knows nothing of NKeys lets nobody in with one.
	plain := startNATS(t, "127.0.0.1:0", "").URL()
	natsRefusal{"without NKeys", []string{"--nats-nkey=" + keep(t, "good.nk", seed(user))}, exitFailed,
		[]string{plain, "nkeys not supported by the server", "expected credentials that the server accepts"}}.check(t, plain)
}

// certifier is a CA.
type certifier struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newCertifier(t *testing.T, name string) *certifier {
	c := &certifier{t: t}
	c.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	c.file, _, c.key = c.sign(name, c.cert)
	return c
}

// sign writes a certificate, the CA's own when it has no key yet, and its key.
func (c *certifier) sign(name string, cert *x509.Certificate) (certFile, keyFile string, key *ecdsa.PrivateKey) {
	key = must[*ecdsa.PrivateKey](c.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	signer := c.key
	if signer == nil {
		signer = key
	}
	der := must[[]byte](c.t)(x509.CreateCertificate(rand.Reader, cert, c.cert, &key.PublicKey, signer))
	certFile = keep(c.t, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	keyFile = keep(c.t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must[[]byte](c.t)(x509.MarshalECPrivateKey(key))}))
	return certFile, keyFile, key
}

// issue writes a certificate for 127.0.0.1 and its key.
func (c *certifier) issue(name string, change func(*x509.Certificate)) (certFile, keyFile string) {
	cert := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(cert)
	}
	certFile, keyFile, _ = c.sign(name, cert)
	return certFile, keyFile
}

// server starts a server with a certificate, which asks its clients for theirs.
func (c *certifier) server(certFile, keyFile string) string {
	return startNATSWith(c.t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", certFile, keyFile, c.file)).URL()
}

// TLS, --nats-ca, --nats-cert and --nats-key, with a server that demands a client certificate.
func TestNATSTLS(t *testing.T) {
	ca, alien := newCertifier(t, "ca"), newCertifier(t, "alien")
	url := ca.server(ca.issue("server", nil))
	cert, key := ca.issue("client", nil)
	own := func(cert, key string) []string {
		return []string{"--nats-ca=" + ca.file, "--nats-cert=" + cert, "--nats-key=" + key}
	}
	admitted(t, url, own(cert, key)...)
	old := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	elsewhere := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)} }
	alienCert, alienKey := alien.issue("alien", nil)
	oldCert, oldKey := ca.issue("old", old)
	const trust, accepted = "expected a server certificate of a CA that is trusted here", "expected TLS as the server wants it, with a certificate that it accepts"
	folder := t.TempDir()
	for _, r := range []natsRefusal{
		{"nothing", nil, exitFailed, []string{url, "certificate signed by unknown authority", "neither credentials nor certificate", trust}},
		{"no certificate", []string{"--nats-ca=" + ca.file}, exitFailed, []string{url, "neither credentials nor certificate, CA file " + ca.file, accepted}},
		{"certificate of another CA", own(alienCert, alienKey), exitFailed, []string{url, "with certificate " + alienCert, accepted}},
		{"certificate expired", own(oldCert, oldKey), exitFailed, []string{url, "with certificate " + oldCert, accepted}},
		{"another CA", []string{"--nats-ca=" + alien.file, "--nats-cert=" + cert, "--nats-key=" + key}, exitFailed,
			[]string{url, "certificate signed by unknown authority", "CA file " + alien.file, trust}},
		{"key of another", own(cert, alienKey), exitUsage, []string{"flag --nats-cert", "private key does not match public key"}},
		{"no key", []string{"--nats-cert=" + cert}, exitUsage, []string{"flag --nats-cert", "expected also --nats-key"}},
		{"key missing", own(cert, "/nowhere/x.key"), exitUsage, []string{"flag --nats-cert", "open /nowhere/x.key: no such file"}},
		{"certificate unreadable", own(folder, key), exitUsage, []string{"flag --nats-cert", folder + ": is a directory"}},
		{"CA is none", []string{"--nats-ca=" + key}, exitUsage, []string{"flag --nats-ca", "no certificate in it, expected PEM"}},
		{"CA missing", []string{"--nats-ca=/nowhere/ca"}, exitUsage, []string{"flag --nats-ca", "open /nowhere/ca: no such file"}},
	} {
		r.check(t, url)
	}
	expired, moved := ca.server(ca.issue("expired", old)), ca.server(ca.issue("moved", elsewhere))
	natsRefusal{"server's expired", own(cert, key), exitFailed, []string{expired, "certificate has expired", trust}}.check(t, expired)
	natsRefusal{"server's of elsewhere", own(cert, key), exitFailed, []string{moved, "certificate is valid for 192.0.2.1, not 127.0.0.1", trust}}.check(t, moved)
	plain := startNATS(t, "127.0.0.1:0", "").URL()
	natsRefusal{"server without TLS", own(cert, key), exitFailed, []string{plain, "secure connection not available", "expected a server with TLS"}}.check(t, plain)
}
