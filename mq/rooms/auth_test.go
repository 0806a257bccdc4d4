package rooms_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	. "github.com/mqgate/mqgate/mq/rooms"
	"github.com/mqgate/mqgate/mq/wire"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	s, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOpen(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		g := im.gateway(t, DefaultConfig())
		for _, token := range []string{"", "anything", strings.Repeat("x", 10_000)} {
			g.must(token, g.dial().auth("", token), wire.StatusOK)
		}
	})
}

func TestJWT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, err := NewJWT(secret)
		if err != nil {
			t.Fatal(err)
		}
		private, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		at := func(d time.Duration) int64 { return now.Add(d).Unix() }
		hs := func(claims jwt.MapClaims) string { return sign(t, jwt.SigningMethodHS256, secret, claims) }
		good := hs(jwt.MapClaims{"sub": "ann", "exp": at(time.Minute), "nbf": at(0)})
		dot := strings.LastIndexByte(good, '.')
		for _, c := range []struct {
			name, token string
			ok          bool
		}{
			{"good", good, true},
			{"no times", hs(jwt.MapClaims{"sub": "ann"}), true},
			{"expires in a second", hs(jwt.MapClaims{"sub": "ann", "exp": at(time.Second)}), true},
			{"expires now", hs(jwt.MapClaims{"sub": "ann", "exp": at(0)}), false},
			{"expired", hs(jwt.MapClaims{"sub": "ann", "exp": at(-time.Second)}), false},
			{"valid from now", hs(jwt.MapClaims{"sub": "ann", "nbf": at(0)}), true},
			{"valid in a second", hs(jwt.MapClaims{"sub": "ann", "nbf": at(time.Second)}), false},
			{"exp is no number", hs(jwt.MapClaims{"sub": "ann", "exp": "never"}), false},
			{"empty", "", false},
			{"no token", "x", false},
			{"no signature", good[:dot], false},
			{"empty signature", good[:dot+1], false},
			{"other signature", good[:dot+1] + "AAAA", false},
			{"other secret", sign(t, jwt.SigningMethodHS256, bytes.Repeat([]byte("x"), 32), jwt.MapClaims{"sub": "ann"}), false},
			{"HS384", sign(t, jwt.SigningMethodHS384, secret, jwt.MapClaims{"sub": "ann"}), false},
			{"HS512", sign(t, jwt.SigningMethodHS512, secret, jwt.MapClaims{"sub": "ann"}), false},
			{"RS256", sign(t, jwt.SigningMethodRS256, private, jwt.MapClaims{"sub": "ann"}), false},
			{"none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, jwt.MapClaims{"sub": "ann"}), false},
		} {
			subject, err := j.Authenticate(c.token)
			if (err == nil) != c.ok || c.ok && subject != "ann" || !c.ok && subject != "" {
				t.Errorf("%s: %q, %v", c.name, subject, err)
			}
		}
	})
}

func TestJWTSecretLength(t *testing.T) {
	for n, ok := range map[int]bool{0: false, MinSecretBytes - 1: false, MinSecretBytes: true, MinSecretBytes + 1: true} {
		if _, err := NewJWT(make([]byte, n)); (err == nil) != ok {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// Only a token of the same subject takes a session over, even when the session id is known.
func TestTakeoverNeedsSubject(t *testing.T) {
	each(t, func(t *testing.T, im implementation) {
		cfg := DefaultConfig()
		j, err := NewJWT(secret)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Authenticator = j
		g := im.gateway(t, cfg)
		defer g.w.Close()
		token := func(sub string) string { return sign(t, jwt.SigningMethodHS256, secret, jwt.MapClaims{"sub": sub}) }
		ann := g.dial()
		g.must("ann", ann.auth("", token("ann")), wire.StatusOK)
		room := ann.room()
		ann.join(room)
		bob := g.dial()
		g.must("bad token", bob.auth(ann.session, "x"), wire.StatusUnauthorized)
		g.must("not authenticated by that", bob.leave(room), wire.StatusUnauthorized)
		g.must("bob", bob.auth(ann.session, token("bob")), wire.StatusOK)
		if bob.session == ann.session {
			t.Fatal("stolen")
		}
		g.must("ann is still there", ann.say(room, "x"), wire.StatusOK)
		g.must("a bad token does not end a session", ann.auth(ann.session, "x"), wire.StatusUnauthorized)
		g.must("ann is still there", ann.say(room, "x"), wire.StatusOK)
		again := g.dial()
		g.must("ann again", again.auth(ann.session, token("ann")), wire.StatusOK)
		if again.session != ann.session {
			t.Error("not taken over")
		}
		// The same connection, another user: another session, and the first one ends.
		old := again.session
		g.must("as carol", again.auth(old, token("carol")), wire.StatusOK)
		if again.session == old || len(again.members(room)) != 0 {
			t.Error("carol has ann's session")
		}
	})
}
