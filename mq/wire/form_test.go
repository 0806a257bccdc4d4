package wire

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
)

// Every length up to a few groups, in fresh memory, in place, and behind something else.
func TestText(t *testing.T) {
	src := make([]byte, 100)
	for i := range src {
		src[i] = byte(i*37 + 11)
	}
	for n := range src {
		want := base64.StdEncoding.EncodeToString(src[:n])
		if got := AppendText([]byte("ab"), src[:n]); string(got) != "ab"+want || TextSize(n) != len(want) {
			t.Fatalf("%d bytes: %s, want %s", n, got, want)
		}
		if env := (&Envelope{Type: "t", Payload: src[:n]}); string(env.AppendForm(nil, Text)) != base64.StdEncoding.EncodeToString(env.AppendTo(nil)) {
			t.Fatalf("envelope with %d bytes: %s", n, env.AppendForm(nil, Text))
		}
		for _, text := range []string{want, strings.TrimRight(want, "=")} {
			if got, err := DecodeText([]byte("ab"), []byte(text)); err != nil || string(got) != "ab"+string(src[:n]) {
				t.Fatalf("%s: %x, %v", text, got, err)
			}
			in := []byte(text)
			if got, err := DecodeText(in[:0], in); err != nil || !bytes.Equal(got, src[:n]) {
				t.Fatalf("%s in place: %x, %v", text, got, err)
			}
		}
	}
}

func TestDecodeTextRefuses(t *testing.T) {
	for _, text := range []string{
		"A", "AAAAA", "AAA*", "A-A_", "-_-_", "AA-_", "AA A", "AAA\n", "AA\r\n", "\nAAAA", "AAAA\n", "AAAA\nAAAA", "=", "==", "===", "====",
		"A===", "A=", "AA=", "AAA==", "AA==AAAA", "AA==A", "AAAA====", "AAAA=", "AAAA==", "AB==", "AB", "AAB=", "AAB", "AA=A", "\x00\x00\x00\x00", "éAA",
	} {
		old := []byte("ab")
		if got, err := DecodeText(old, []byte(text)); err != ErrText || string(got) != "ab" {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if got, err := DecodeText(nil, nil); err != nil || len(got) != 0 {
		t.Errorf("empty: %q, %v", got, err)
	}
}

// encoding/base64 in its strict mode is the reference, but for line breaks, which it skips.
func FuzzDecodeText(f *testing.F) {
	for _, g := range golden {
		f.Add([]byte(g.text))
	}
	f.Add([]byte("AAA=\n"))
	f.Add([]byte("AA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		enc := base64.StdEncoding
		if len(text)%4 != 0 {
			enc = base64.RawStdEncoding
		}
		want, wantErr := enc.Strict().DecodeString(string(text))
		bad := wantErr != nil || bytes.ContainsAny(text, "\r\n")
		got, err := DecodeText(nil, text)
		if (err != nil) != bad {
			t.Fatalf("%q: error %v, reference %v", text, err, wantErr)
		}
		if err != nil {
			return
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q: %x, want %x", text, got, want)
		}
		if back := AppendText(nil, got); strings.TrimRight(string(back), "=") != strings.TrimRight(string(text), "=") {
			t.Fatalf("%q encodes to %q", text, back)
		}
		in := bytes.Clone(text)
		if got, err := DecodeText(in[:0], in); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q in place: %x, %v", text, got, err)
		}
	})
}
