package rooms

import (
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Authenticator decides who may have a session.
type Authenticator interface {
	// Authenticate checks the authenticationToken of a pcast.Authenticate. subject names the user; a session can only
	// be taken over with a token of the same subject. Any error refuses the client with status "unauthorized"; it is
	// not sent. Called on loops: it must not block. token is borrowed until Authenticate returns.
	Authenticate(token string) (subject string, err error)
}

// Open lets everyone in, with any token or none. All clients have the same, empty subject: what keeps them from each
// other's sessions is that session ids cannot be guessed.
type Open struct{}

// Authenticate implements Authenticator.
func (Open) Authenticate(string) (string, error) { return "", nil }

// MinSecretBytes is the shortest secret for JWT: a key for HS256 must be at least as long as the hash (RFC 7518 section
// 3.2). A shorter one could be found by trying, from a single token.
const MinSecretBytes = 32

// JWT accepts JSON Web Tokens (RFC 7519) signed with HS256 and a shared secret. Other algorithms, "none" among them, are
// refused whatever the token's header says. exp and nbf are enforced where the token has them, to the second; the sub
// claim is the subject. A token is checked when it is presented: a session does not end because its token does.
type JWT struct {
	secret []byte
	parser *jwt.Parser
}

// NewJWT returns a JWT with the given secret, which is copied.
func NewJWT(secret []byte) (*JWT, error) {
	if len(secret) < MinSecretBytes {
		return nil, fmt.Errorf("rooms: the JWT secret has %d bytes, must have at least %d", len(secret), MinSecretBytes)
	}
	return &JWT{
		secret: append([]byte(nil), secret...),
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithTimeFunc(time.Now)),
	}, nil
}

// errToken is what a refused token amounts to. The library's error quotes parts of the token; it is not kept.
var errToken = errors.New("rooms: authentication token refused")

// Authenticate implements Authenticator.
func (j *JWT) Authenticate(token string) (string, error) {
	var claims jwt.RegisteredClaims
	t, err := j.parser.ParseWithClaims(token, &claims, func(*jwt.Token) (any, error) { return j.secret, nil })
	if err != nil || !t.Valid {
		return "", errToken
	}
	return claims.Subject, nil
}
