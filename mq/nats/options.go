package nats

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// Options say how to connect to NATS.
type Options struct {
	// URLs are the servers: nats://, tls://, ws:// or wss:// host:port. One is enough, it tells the others of its cluster.
	// Not needed with InProcess.
	URLs []string

	// InProcess connects to a server in this process instead (embedded.Server.InProcess).
	InProcess natsio.Option

	Name   string // what the NATS server shows for the connections, e.g. "mqgate gateway 5f3a0b11"
	Prefix string // of all subjects; empty: subjects.DefaultPrefix

	Credentials string // file with a JWT and its seed (.creds); empty: none
	NKeySeed    string // file with the seed of an NKey; empty: none. Not both.
	TLSCA       string // file with certificates to trust [PEM]; empty: the system's
	TLSCert     string // file with our certificate [PEM], with TLSKey; empty: none
	TLSKey      string

	Connections int // number of links, 1 to MaxLinks; 0: 1

	// Buffer is how much may be published while a link is away, to be sent when it is back [bytes per link]. 0: nothing,
	// publishing fails at once. That is right for gateways and for what is repeated until it is acknowledged. Answers and
	// commands of workers are not: there nats.go's own 8 MiB is right.
	Buffer int

	// Wait is how long Connect tries when no server answers. 0: once.
	Wait time.Duration

	// OnState is told when a link is lost or back, in order per link; it must not block. nil: nobody.
	OnState func(State)

	Log *slog.Logger // one line per change of state; nil: none
}

// State is a change of a link's state.
type State struct {
	Link int
	Up   bool
	URL  string        // of the server, without password; the one lost or the one found
	Err  error         // why it was lost, if known
	Away time.Duration // when it is back: how long it was not there
}

// Validate returns everything that is wrong with the options, files included, and connects to nothing.
func (o *Options) Validate() error {
	_, err := o.nats()
	return err
}

// nats returns the options for nats.go and all faults.
func (o *Options) nats() ([]natsio.Option, error) {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("NATS "+format, args...)) }
	if len(o.URLs) == 0 && o.InProcess == nil {
		fault("URLs: none given, expected at least one such as nats://127.0.0.1:4222")
	}
	for _, u := range o.URLs {
		if err := checkURL(u); err != nil {
			errs = append(errs, err)
		}
	}
	if _, err := subjects.New(o.prefix()); err != nil {
		errs = append(errs, err)
	}
	if o.Connections < 0 || o.Connections > MaxLinks {
		fault("connections: %d, expected 1 to %d", o.Connections, MaxLinks)
	}
	if o.Buffer < 0 {
		fault("buffer: %d bytes, expected 0 or more", o.Buffer)
	}
	if o.Wait < 0 {
		fault("wait: %v, expected 0 or more", o.Wait)
	}
	buffer := o.Buffer
	if buffer == 0 {
		buffer = -1 // nats.go's word for none
	}
	opts := []natsio.Option{
		natsio.Name(o.Name), natsio.Timeout(dialTimeout), natsio.FlusherTimeout(writeTimeout), natsio.ReconnectOnFlusherError(),
		natsio.PingInterval(pingInterval), natsio.MaxPingsOutstanding(maxPings), natsio.MaxReconnects(-1),
		natsio.ReconnectWait(reconnectWait), natsio.ReconnectJitter(reconnectWait/2, reconnectWait/2),
		natsio.ReconnectBufSize(buffer), natsio.IgnoreAuthErrorAbort(),
	}
	if o.Credentials != "" && o.NKeySeed != "" {
		fault("credentials file and NKey seed file: expected only one of them")
	}
	if o.Credentials != "" {
		if err := checkCredentials(o.Credentials, time.Now()); err != nil {
			fault("%w", err)
		}
		opts = append(opts, natsio.UserCredentials(o.Credentials))
	}
	if o.NKeySeed != "" {
		nkey, err := natsio.NkeyOptionFromSeed(o.NKeySeed)
		if err != nil {
			fault("NKey seed file %s: %w", o.NKeySeed, err)
		} else {
			opts = append(opts, nkey)
		}
	}
	if config, err := o.tls(); err != nil {
		errs = append(errs, err)
	} else if config != nil {
		opts = append(opts, natsio.Secure(config))
	}
	return opts, errors.Join(errs...)
}

func (o *Options) prefix() string {
	if o.Prefix == "" {
		return subjects.DefaultPrefix
	}
	return o.Prefix
}

// tls returns the configuration of TLS, or nil when none of the files is set: then the URL or the server decides.
func (o *Options) tls() (*tls.Config, error) {
	if o.TLSCA == "" && o.TLSCert == "" && o.TLSKey == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if o.TLSCA != "" {
		pem, err := os.ReadFile(o.TLSCA)
		config.RootCAs = x509.NewCertPool()
		if err != nil {
			errs = append(errs, fmt.Errorf("NATS TLS CA file: %w", err))
		} else if !config.RootCAs.AppendCertsFromPEM(pem) {
			errs = append(errs, fmt.Errorf("NATS TLS CA file %s: no certificate in it, expected PEM", o.TLSCA))
		}
	}
	switch {
	case (o.TLSCert == "") != (o.TLSKey == ""):
		errs = append(errs, errors.New("NATS TLS certificate and key: expected both files or none"))
	case o.TLSCert != "":
		pair, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
		if err != nil {
			errs = append(errs, fmt.Errorf("NATS TLS certificate %s with key %s: %w", o.TLSCert, o.TLSKey, err))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, errors.Join(errs...)
}

// checkURL checks the form of a server's URL. Errors do not repeat it whole: it may contain a password.
func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("NATS URL: not a URL, expected e.g. nats://127.0.0.1:4222") // err quotes the URL
	}
	switch u.Scheme {
	case "nats", "tls", "ws", "wss":
	default:
		return fmt.Errorf("NATS URL %s: expected it to begin with nats://, tls://, ws:// or wss://", u.Redacted())
	}
	if u.Hostname() == "" {
		return fmt.Errorf("NATS URL %s: expected a host", u.Redacted())
	}
	if strings.Contains(s, ",") {
		return fmt.Errorf("NATS URL %s: expected one server", u.Redacted())
	}
	return nil
}
