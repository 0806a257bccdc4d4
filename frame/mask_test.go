package frame

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gobwas/ws"
)

// maskNaive is RFC 6455 section 5.3 as it is written there.
func maskNaive(p []byte, key [4]byte, pos int) {
	for i := range p {
		p[i] ^= key[(pos+i)%4]
	}
}

// checkMask masks data[from:to] within data, and looks at the bytes around it too.
func checkMask(t testing.TB, data []byte, from, to int, key [4]byte, pos int) {
	t.Helper()
	got, want := bytes.Clone(data), bytes.Clone(data)
	Mask(got[from:to], key, pos)
	maskNaive(want[from:to], key, pos)
	if !bytes.Equal(got, want) {
		t.Fatalf("bytes %d to %d of %d, key %x, pos %d: differs from the naive loop", from, to, len(data), key, pos)
	}
	theirs := bytes.Clone(data)
	ws.Cipher(theirs[from:to], key, pos)
	if !bytes.Equal(theirs, want) {
		t.Fatalf("bytes %d to %d of %d, key %x, pos %d: ws.Cipher differs from the naive loop", from, to, len(data), key, pos)
	}
}

// Every length around the steps of the code, at every alignment, at every position in the key.
func TestMask(t *testing.T) {
	rng := rand.New(rand.NewPCG(6455, 53))
	data := make([]byte, 2000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	var lengths []int
	for n := range 150 {
		lengths = append(lengths, n)
	}
	for n := cipherFrom - 70; n < cipherFrom+140; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range append(lengths, 1023, 1024, 1025, 1900) {
		for from := range 9 {
			for pos := range 5 {
				checkMask(t, data[:from+n+5], from, from+n, key, pos)
			}
		}
	}
	checkMask(t, data, 1, 1990, key, 1<<62+3) // far into a long payload
}

// A payload masked in pieces is the payload masked at once.
func TestMaskPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(6455, 54))
	for range 200 {
		p := make([]byte, rng.IntN(3000))
		key := [4]byte{byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32())}
		whole := bytes.Clone(p)
		Mask(whole, key, 0)
		for pos := 0; pos < len(p); {
			n := 1 + rng.IntN(min(700, len(p)-pos))
			Mask(p[pos:pos+n], key, pos)
			pos += n
		}
		if !bytes.Equal(p, whole) {
			t.Fatalf("%d bytes, key %x", len(p), key)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add([]byte("Hello"), uint32(0x37fa213d), uint16(0), uint16(0))
	f.Add(make([]byte, 600), uint32(0x01020304), uint16(3), uint16(7))
	f.Add(make([]byte, 64), uint32(0xff000000), uint16(1), uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, k uint32, pos, from uint16) {
		checkMask(t, data, min(int(from), len(data)), len(data), [4]byte{byte(k), byte(k >> 8), byte(k >> 16), byte(k >> 24)}, int(pos))
	})
}
