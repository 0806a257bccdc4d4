//go:build invariants

package frame

import (
	"bytes"
	"testing"
)

// Whoever keeps an assembled payload beyond its time reads 0xDB.
func TestInvariantsMangle(t *testing.T) {
	ends := map[string]func(*Reader){
		"Release": (*Reader).Release,
		"Reset":   (*Reader).Reset,
		"Next":    func(r *Reader) { r.Next(&server, nil) },
		"error":   func(r *Reader) { r.Next(&server, []byte{0xff}) },
	}
	for name, end := range ends {
		for what, in := range map[string][]byte{
			"message":            masked(Text, true, "a message"),
			"ping":               masked(Ping, true, "a ping ok"),
			"fragmented message": join(masked(Text, false, "a mess"), masked(Continuation, true, "age")),
		} {
			var r Reader
			r.Next(&server, in[:10])
			m, _, ok, err := r.Next(&server, in[10:])
			if !ok || err != nil || len(m.Payload) != 9 {
				t.Fatal(name, what, m, ok, err)
			}
			end(&r)
			if want := bytes.Repeat([]byte{0xdb}, 9); !bytes.Equal(m.Payload, want) {
				t.Errorf("%s: the %s is still there: %q", name, what, m.Payload)
			}
		}
		// A ping between fragments is mangled while the message goes on.
		var r Reader
		r.Next(&server, join(masked(Text, false, "ab"), masked(Ping, true, "ping")[:8]))
		m, _, ok, err := r.Next(&server, masked(Ping, true, "ping")[8:])
		if !ok || err != nil || string(m.Payload) != "ping" {
			t.Fatal(name, m, ok, err)
		}
		end(&r)
		if want := bytes.Repeat([]byte{0xdb}, 4); !bytes.Equal(m.Payload, want) {
			t.Errorf("%s: the ping is still there: %q", name, m.Payload)
		}
		r.Reset()
	}
}

// A Reader that is copied while it holds something is caught when both copies give it back.
func TestInvariantsCopiedReader(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	var r Reader
	r.Next(&server, []byte{0x81})
	kept := r
	r.Reset()
	kept.Reset()
}
