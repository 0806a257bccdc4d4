package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	natsio "github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// checkCredentials returns what is wrong with a credentials file, as far as can be seen from here: a server says of all of
// it only that it refuses. The file is read again for each connection, so that it may be replaced by a newer one.
func checkCredentials(file string, now time.Time) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("credentials file: %w", err)
	}
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("credentials file %s: "+format, append([]any{file}, args...)...)
	}
	pair, err := nkeys.ParseDecoratedUserNKey(content)
	if err != nil {
		return wrong("expected a user's JWT and its seed: %w", err)
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return wrong("%w", err)
	}
	text, err := nkeys.ParseDecoratedJWT(content)
	if err != nil {
		return wrong("expected a user's JWT and its seed: %w", err)
	}
	claims, err := jwt.DecodeUserClaims(text)
	if err != nil {
		return wrong("expected a user's JWT: %w", err)
	}
	if claims.Subject != public {
		return wrong("the seed is not that of the JWT, expected both of one user")
	}
	if claims.Expires != 0 && claims.Expires <= now.Unix() {
		return wrong("the JWT has expired at %s, expected one that is valid", time.Unix(claims.Expires, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// identity says as whom and with whose trust a connection is made, for errors.
func (o *Options) identity() string {
	var parts []string
	add := func(what, file string) {
		if file != "" {
			parts = append(parts, what+" "+file)
		}
	}
	add("credentials file", o.Credentials)
	add("NKey seed file", o.NKeySeed)
	add("certificate", o.TLSCert)
	if len(parts) == 0 {
		parts = append(parts, "neither credentials nor certificate")
	}
	add("CA file", o.TLSCA)
	return " with " + strings.Join(parts, ", ")
}

// refusal returns what was expected when err says that a server will have nothing to do with us, or we with it, however
// often it is tried; "" for all other errors.
func refusal(err error) string {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "expected a server certificate of a CA that is trusted here"
	}
	for _, refused := range []error{natsio.ErrAuthorization, natsio.ErrAuthExpired, natsio.ErrAuthRevoked, natsio.ErrAccountAuthExpired,
		natsio.ErrNkeysNotSupported} {
		if errors.Is(err, refused) {
			return "expected credentials that the server accepts"
		}
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" || errors.Is(err, natsio.ErrTLS) {
		return "expected TLS as the server wants it, with a certificate that it accepts if it asks for one"
	}
	if errors.Is(err, natsio.ErrSecureConnWanted) {
		return "expected a server with TLS"
	}
	return ""
}
