package nats

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Every fault is named, all at once, and passwords are not.
func TestOptionsValidate(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		o    Options
		want []string
	}{
		{Options{URLs: []string{"nats://a:4222", "tls://b", "ws://c:1", "wss://[::1]:1"}, Connections: MaxLinks}, nil},
		{Options{URLs: []string{"nats://a"}, Prefix: "a.b-c_D9", Connections: 1}, nil},
		{Options{}, []string{"URLs: none"}},
		{Options{URLs: []string{"http://me:secret@a", "nats://", "nats://a:4222,nats://b", "%zz:secret"}},
			[]string{"NATS URL http://me:xxxxx@a", "expected a host", "expected one server", "not a URL"}},
		{Options{URLs: []string{"nats://a"}, Connections: -1}, []string{"connections: -1"}},
		{Options{URLs: []string{"nats://a"}, Connections: MaxLinks + 1}, []string{"connections: 17"}},
		{Options{URLs: []string{"nats://a"}, Buffer: -1, Wait: -1}, []string{"buffer: -1", "wait: -1ns"}},
		{Options{URLs: []string{"nats://a"}, Prefix: "a."}, []string{`prefix "a."`}},
		{Options{URLs: []string{"nats://a"}, Prefix: "a.*"}, []string{`prefix "a.*"`}},
		{Options{URLs: []string{"nats://a"}, Prefix: strings.Repeat("a", subjects.MaxPrefix+1)}, []string{"prefix"}},
		{Options{URLs: []string{"nats://a"}, Credentials: none, NKeySeed: none}, []string{"expected only one", "credentials file", "NKey seed file"}},
		{Options{URLs: []string{"nats://a"}, NKeySeed: junk}, []string{"NKey seed file"}},
		{Options{URLs: []string{"nats://a"}, TLSCA: none, TLSCert: none}, []string{"CA file", "both files or none"}},
		{Options{URLs: []string{"nats://a"}, TLSCA: junk, TLSCert: junk, TLSKey: junk}, []string{"no certificate in it", "TLS certificate " + junk}},
	} {
		err := test.o.Validate()
		if (err != nil) != (len(test.want) > 0) {
			t.Errorf("%+v: %v", test.o, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, expected it to say %s", test.o, err, want)
			}
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v: says the password", err)
		}
	}
}

// with starts a server with a configuration file.
func with(t *testing.T, config string) *embedded.Server {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := embedded.Start(embedded.Options{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), ConfigFile: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func try(o Options) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c, err := Connect(ctx, o)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.NATS().FlushWithContext(ctx)
}

// A server that knows an NKey lets its seed in and nobody else.
func TestNKey(t *testing.T) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	s := with(t, fmt.Sprintf("authorization { users [ { nkey: %s } ] }", public))
	if err := try(Options{URLs: []string{s.URL()}, NKeySeed: write(t, "user.nk", seed)}); err != nil {
		t.Error(err)
	}
	begun := time.Now()
	if err := try(Options{URLs: []string{s.URL()}, Wait: deadline}); !errors.Is(err, natsio.ErrAuthorization) || time.Since(begun) > deadline/2 {
		t.Errorf("without: %v after %v, expected %v at once", err, time.Since(begun), natsio.ErrAuthorization)
	}
}

// A credentials file: a JWT with its seed, under an operator.
func TestCredentials(t *testing.T) {
	key := func(prefix nkeys.PrefixByte) (nkeys.KeyPair, string) {
		pair, err := nkeys.CreatePair(prefix)
		if err != nil {
			t.Fatal(err)
		}
		public, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return pair, public
	}
	encoded := func(text string, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	operator, operatorID := key(nkeys.PrefixByteOperator)
	account, accountID := key(nkeys.PrefixByteAccount)
	system, systemID := key(nkeys.PrefixByteAccount)
	_ = system
	user, userID := key(nkeys.PrefixByteUser)
	seed, err := user.Seed()
	if err != nil {
		t.Fatal(err)
	}
	operatorClaims := jwt.NewOperatorClaims(operatorID)
	operatorClaims.SystemAccount = systemID
	creds, err := jwt.FormatUserConfig(encoded(jwt.NewUserClaims(userID).Encode(account)), seed)
	if err != nil {
		t.Fatal(err)
	}
	s := with(t, fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: { %s: %s, %s: %s }\n",
		encoded(operatorClaims.Encode(operator)), systemID, accountID, encoded(jwt.NewAccountClaims(accountID).Encode(operator)),
		systemID, encoded(jwt.NewAccountClaims(systemID).Encode(operator))))
	if err := try(Options{URLs: []string{s.URL()}, Credentials: write(t, "user.creds", creds)}); err != nil {
		t.Error(err)
	}
	if err := try(Options{URLs: []string{s.URL()}}); !errors.Is(err, natsio.ErrAuthorization) {
		t.Errorf("without: %v", err)
	}
}

// TLS to the server, with a certificate that it asks for.
func TestTLS(t *testing.T) {
	certify := func(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		if parent == nil {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
			parent, parentKey = c, k
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, parentKey)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return c, k, write(t, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
			write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	}
	ca, caKey, caFile, _ := certify("ca", nil, nil)
	_, _, serverCert, serverKey := certify("server", ca, caKey)
	_, _, clientCert, clientKey := certify("client", ca, caKey)
	s := with(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", serverCert, serverKey, caFile))
	if err := try(Options{URLs: []string{s.URL()}, TLSCA: caFile, TLSCert: clientCert, TLSKey: clientKey}); err != nil {
		t.Error(err)
	}
	if err := try(Options{URLs: []string{s.URL()}, TLSCA: caFile}); err == nil {
		t.Error("without a certificate: no error")
	}
	if err := try(Options{URLs: []string{s.URL()}, TLSCert: clientCert, TLSKey: clientKey}); err == nil {
		t.Error("with a CA of the system: no error")
	}
}

// A server in this process needs no socket; and one that comes later is waited for, as long as is said.
func TestConnect(t *testing.T) {
	s, err := embedded.Start(embedded.Options{StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	}()
	if err := try(Options{InProcess: s.InProcess(), Connections: 2}); err != nil {
		t.Error(err)
	}
	r := newRestartable(t)
	r.stop()
	if err := try(Options{URLs: []string{r.url()}}); err == nil || !strings.Contains(err.Error(), r.url()) {
		t.Errorf("no server: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error)
	go func() {
		_, err := Connect(ctx, Options{URLs: []string{r.url()}, Wait: time.Hour})
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	connected := make(chan error)
	go func() { connected <- try(Options{URLs: []string{r.url()}, Wait: deadline}) }()
	r.start()
	if err := <-connected; err != nil {
		t.Error(err)
	}
}

// Two installations share a NATS system under their prefixes.
func TestPrefix(t *testing.T) {
	s := natstest.Single(t)
	for _, prefix := range []string{"one", "two.sub"} {
		under := func(o *Options) { o.Prefix = prefix }
		serve(t, connect(t, s.URL(), under), newTaker(), takesEnds)
	}
	for _, prefix := range []string{"one", "two.sub", "three"} {
		g := newGate(t, connect(t, s.URL(), unbuffered, func(o *Options) { o.Prefix = prefix }), nil)
		a := g.send(g.conn(1), "x.Y", "").wait()
		if (prefix == "three") != (a.err != nil) {
			t.Errorf("%s: %v", prefix, a.err)
		}
	}
}

func TestRelayConfig(t *testing.T) {
	s := natstest.Single(t)
	c := connect(t, s.URL())
	_, err := NewRelay(RelayConfig{Idempotent: []string{"a."}, Ordered: []string{"*", "a..", "."}, MaxInFlight: -1, Lease: time.Second, Replicas: 6})
	for _, want := range []string{"a Conn is needed", "request timeout: 0s", `idempotent type "a."`, `ordered type "*"`, `ordered type "a.."`, `ordered type "."`,
		"in flight: -1", "lease: 1s", "replicas: 6"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: expected it to say %s", err, want)
		}
	}
	for lease, ok := range map[time.Duration]bool{minLease: true, minLease - 1: false, maxLease: true, maxLease + time.Second: false, 3500 * time.Millisecond: false} {
		_, err := NewRelay(RelayConfig{Conn: c, RequestTimeout: 1, Lease: lease, Replicas: 5, Ordered: []string{"a.", "b"}, Idempotent: []string{}})
		if (err == nil) != ok {
			t.Errorf("lease %v: %v", lease, err)
		}
	}
}
