package frame

import (
	"bytes"
	"encoding/binary"
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

// A kernel is one way of maskTurned, for payloads of at least from bytes.
type kernel struct {
	name string
	from int
	f    func(p []byte, k32 uint32)
}

// kernels are all ways that can run on this machine: Mask takes only some of them here.
var kernels = []kernel{
	{"mask", 0, maskTurned},
	{"words", 0, maskWords},
	{"cipher", 0, maskCipher},
}

// checkMask masks data[from:to] within data, by Mask and by each kernel, and looks at the bytes around it too.
func checkMask(t testing.TB, data []byte, from, to int, key [4]byte, pos int) {
	t.Helper()
	want := bytes.Clone(data)
	maskNaive(want[from:to], key, pos)
	got := make([]byte, len(data))
	check := func(name string, mask func(p []byte)) {
		t.Helper()
		copy(got, data)
		mask(got[from:to])
		if !bytes.Equal(got, want) {
			t.Fatalf("bytes %d to %d of %d, key %x, pos %d: %s differs from the naive loop", from, to, len(data), key, pos, name)
		}
	}
	check("Mask", func(p []byte) { Mask(p, key, pos) })
	check("ws.Cipher", func(p []byte) { ws.Cipher(p, key, pos) })
	turned := binary.LittleEndian.Uint32([]byte{key[pos%4], key[(pos+1)%4], key[(pos+2)%4], key[(pos+3)%4]})
	for _, k := range kernels {
		if to-from >= k.from {
			check(k.name, func(p []byte) { k.f(p, turned) })
		}
	}
}

// Every length around the steps of the kernels, at every alignment of a vector, at every position in the key.
func TestMask(t *testing.T) {
	const guard = 64 // bytes around the payload that no vector may touch
	rng := rand.New(rand.NewPCG(6455, 53))
	data := make([]byte, 3000)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	var lengths []int
	for n := range 330 { // past two rounds of four vectors, with every rest
		lengths = append(lengths, n)
	}
	for n := cipherFrom - 70; n < cipherFrom+140; n++ {
		lengths = append(lengths, n)
	}
	for _, n := range append(lengths, 1023, 1024, 1025, 1900) {
		for align := range 32 {
			from := guard + align
			checkMask(t, data[:from+n+guard], from, from+n, key, align%5)
		}
		for pos := range 5 {
			checkMask(t, data[:guard+n+guard], guard, guard+n, key, pos)
		}
	}
	checkMask(t, data, 1, 2990, key, 1<<62+3) // far into a long payload
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
