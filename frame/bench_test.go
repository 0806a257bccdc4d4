package frame

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"github.com/lxzan/gws"
)

// `make microbench` runs these and prints what each way takes as a multiple of the first; docs/frames.md has the figures.

var benchSizes = []int{16, 128, 1 << 10, 64 << 10}

// benchRead is how much a read of the benchmarks brings, in bytes: as many whole frames as fit, at least one. Small enough
// for source and destination to stay in the first cache, where the floor, a copy, is hardest to come near to.
const benchRead = 8 << 10

// benchKey keeps ASCII in ASCII: so a text that is masked in place again and again stays valid, masked or not.
var benchKey = [4]byte{1, 2, 3, 4}

// benchFrames returns a read of frames with payloads of size bytes, and how many they are.
func benchFrames(op OpCode, size int) (in []byte, frames int) {
	one := AppendMaskedFrame(nil, op, true, []byte(strings.Repeat("b", size)), benchKey)
	frames = max(1, benchRead/len(one))
	return bytes.Repeat(one, frames), frames
}

// A reading is one way to get the payloads out of in, over and over as long as more, called before each round, says so.
// It returns the bytes of payload that it delivered, and may change in.
type reading struct {
	name string
	run  func(in []byte, frames int, more func() bool) (delivered int)
}

// readings are the Reader and what it is measured against. The ways that end in "+read" or stand for another library begin
// with a copy of the bytes, as from a socket; the others find them in place.
var readings = []reading{
	{"copy", func(in []byte, frames int, more func() bool) (delivered int) {
		size := len(in) / frames
		head := size - benchPayload(size)
		dst := make([]byte, size-head)
		for more() {
			for p := in; len(p) > 0; p = p[size:] {
				delivered += copy(dst, p[head:size])
			}
		}
		return delivered
	}},
	{"naive", func(in []byte, _ int, more func() bool) (delivered int) {
		for more() {
			for p := in; len(p) > 0; {
				h, size, err := parseHeader(&server, p, false, server.MaxMessage)
				if err != nil {
					panic(err)
				}
				payload := p[size : size+h.length]
				for i := range payload {
					payload[i] ^= h.key[i%4]
				}
				if h.op == Text && !utf8.Valid(payload) {
					panic("invalid UTF-8")
				}
				delivered += len(payload)
				p = p[size+h.length:]
			}
		}
		return delivered
	}},
	{"frame", func(in []byte, _ int, more func() bool) (delivered int) {
		var r Reader
		for more() {
			delivered += benchNext(&r, in)
		}
		return delivered
	}},
	{"frame+read", func(in []byte, _ int, more func() bool) (delivered int) {
		var r Reader
		buf := make([]byte, len(in))
		for more() {
			copy(buf, in)
			delivered += benchNext(&r, buf)
		}
		return delivered
	}},
	{"frame+two-reads", func(in []byte, frames int, more func() bool) (delivered int) {
		var r Reader
		buf := make([]byte, len(in))
		cut := len(in) - len(in)/frames/2 // in the middle of a payload
		for more() {
			copy(buf, in)
			delivered += benchNext(&r, buf[:cut])
			delivered += benchNext(&r, buf[cut:])
		}
		return delivered
	}},
	// What one writes with gobwas/ws, with the header checked and one buffer for all payloads.
	{"gobwas", func(in []byte, frames int, more func() bool) (delivered int) {
		var src bytes.Reader
		buf := make([]byte, len(in))
		for more() {
			src.Reset(in)
			for range frames {
				h, err := ws.ReadHeader(&src)
				if err == nil {
					err = ws.CheckHeader(h, ws.StateServerSide)
				}
				if err != nil {
					panic(err)
				}
				payload := buf[:h.Length]
				if _, err := io.ReadFull(&src, payload); err != nil {
					panic(err)
				}
				ws.Cipher(payload, h.Mask, 0)
				if h.OpCode == ws.OpText && !utf8.Valid(payload) {
					panic("invalid UTF-8")
				}
				delivered += len(payload)
			}
		}
		return delivered
	}},
	{"gws", func(in []byte, _ int, more func() bool) (delivered int) {
		conn := gwsConn(&memoryConn{in: in, more: more}, &delivered)
		conn.ReadLoop()
		return delivered
	}},
}

// benchPayload is the length of the payload in a masked frame of size bytes.
func benchPayload(size int) int {
	for _, payload := range benchSizes {
		if HeaderSize(payload, true)+payload == size {
			return payload
		}
	}
	panic("no size of the benchmarks")
}

func benchNext(r *Reader, p []byte) (delivered int) {
	for len(p) > 0 {
		m, n, _, err := r.Next(&server, p)
		if err != nil {
			panic(err)
		}
		delivered += len(m.Payload)
		p = p[n:]
		r.Release()
	}
	return delivered
}

// A memoryConn delivers in as long as more says so, as much at a time as is asked for, then the end. What is written is
// dropped.
type memoryConn struct {
	in   []byte
	rest []byte
	more func() bool
}

func (c *memoryConn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if !c.more() {
			return 0, io.EOF
		}
		c.rest = c.in
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *memoryConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c *memoryConn) Close() error                     { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// gwsConn is a server's connection of gws that adds the bytes of its messages to delivered.
func gwsConn(conn net.Conn, delivered *int) *gws.Conn {
	upgrader := gws.NewUpgrader(&gwsHandler{delivered: delivered}, &gws.ServerOption{CheckUtf8Enabled: true})
	request, err := http.NewRequest(http.MethodGet, "/", nil)
	if err != nil {
		panic(err)
	}
	request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	c, err := upgrader.UpgradeFromConn(conn, bufio.NewReader(conn), request) // 4096 bytes, gws's own default
	if err != nil {
		panic(err)
	}
	return c
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	delivered *int
}

func (h *gwsHandler) OnMessage(_ *gws.Conn, m *gws.Message) {
	*h.delivered += m.Data.Len()
	if err := m.Close(); err != nil { // its buffer goes back to its pool
		panic(err)
	}
}

// perFrame reports the time of one of the frames of an operation.
func perFrame(b *testing.B, frames int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(frames), "ns/frame")
}

func BenchmarkReader(b *testing.B) {
	for _, op := range []OpCode{Binary, Text} {
		for _, size := range benchSizes {
			for _, way := range readings {
				b.Run(fmt.Sprintf("%v/%d/%s", op, size, way.name), func(b *testing.B) {
					in, frames := benchFrames(op, size)
					b.ReportAllocs()
					way.run(in, frames, b.Loop)
					perFrame(b, frames)
				})
			}
		}
	}
}

// masks are ways to mask p in place; kernels of other machines too, where they can run here.
var masks = []struct {
	name string
	f    func(p, src []byte)
}{
	{"copy", func(p, src []byte) { copy(p, src) }},
	{"naive", func(p, _ []byte) { maskNaive(p, benchKey, 0) }},
	{"frame", func(p, _ []byte) { Mask(p, benchKey, 0) }},
	{"frame-words", func(p, _ []byte) { maskWords(p, benchWord) }},
	{"frame-cipher", func(p, _ []byte) { maskCipher(p, benchWord) }},
	{"gobwas", func(p, _ []byte) { ws.Cipher(p, benchKey, 0) }},
}

const benchWord = 0x04030201 // benchKey as a little-endian word

// Payloads lie where they do behind a header of 8 bytes, and one behind the other, as in a read.
func BenchmarkMask(b *testing.B) {
	for _, size := range []int{5, 16, 63, wideFrom, 128, 256, cipherFrom - 1, cipherFrom, 1 << 10, 64 << 10} {
		pieces := max(1, benchRead/(size+8))
		p, src := make([]byte, pieces*(size+8)), make([]byte, size)
		for _, way := range masks {
			b.Run(fmt.Sprintf("%d/%s", size, way.name), func(b *testing.B) {
				for b.Loop() {
					for rest := p; len(rest) > 0; rest = rest[size+8:] {
						way.f(rest[8:size+8], src)
					}
				}
				perFrame(b, pieces)
			})
		}
	}
}

// A building is one way to make a frame of payload, over and over as long as more says so; it returns the bytes that it made.
type building struct {
	name string
	run  func(payload []byte, more func() bool) (made int)
}

var buildings = []building{
	{"copy", func(payload []byte, more func() bool) (made int) {
		dst := make([]byte, 0, len(payload)+MaxHeader)
		for more() {
			for range benchRounds {
				dst = append(dst[:0], payload...)
				made += len(dst)
			}
		}
		return made
	}},
	{"frame", func(payload []byte, more func() bool) (made int) {
		dst := make([]byte, 0, len(payload)+MaxHeader)
		for more() {
			for range benchRounds {
				dst = AppendFrame(dst[:0], Binary, true, payload)
				made += len(dst)
			}
		}
		return made
	}},
	{"frame-masked", func(payload []byte, more func() bool) (made int) {
		dst := make([]byte, 0, len(payload)+MaxHeader)
		for more() {
			for range benchRounds {
				dst = AppendMaskedFrame(dst[:0], Binary, true, payload, benchKey)
				made += len(dst)
			}
		}
		return made
	}},
	{"gobwas", func(payload []byte, more func() bool) (made int) {
		var dst bytes.Buffer
		for more() {
			for range benchRounds {
				dst.Reset()
				if err := ws.WriteFrame(&dst, ws.NewBinaryFrame(payload)); err != nil {
					panic(err)
				}
				made += dst.Len()
			}
		}
		return made
	}},
	// The only way that gws has: it locks the connection, checks its state, and gives the frame to a Write.
	{"gws", func(payload []byte, more func() bool) (made int) {
		var read int
		conn := gwsConn(&memoryConn{more: func() bool { return false }}, &read)
		for more() {
			for range benchRounds {
				if err := conn.WriteMessage(gws.OpcodeBinary, payload); err != nil {
					panic(err)
				}
				made += HeaderSize(len(payload), false) + len(payload)
			}
		}
		return made
	}},
}

// benchRounds is how many frames one operation builds or checks, so that the loop around them does not count.
const benchRounds = 16

func BenchmarkBuild(b *testing.B) {
	for _, size := range benchSizes {
		for _, way := range buildings {
			b.Run(fmt.Sprintf("%d/%s", size, way.name), func(b *testing.B) {
				b.ReportAllocs()
				way.run(make([]byte, size), b.Loop)
				perFrame(b, benchRounds)
			})
		}
	}
}

var checks = []struct {
	name string
	f    func(text []byte) bool
}{
	{"utf8.Valid", utf8.Valid},
	{"frame", func(text []byte) bool {
		var u UTF8
		return u.Write(text) && u.Complete()
	}},
	{"frame-two-pieces", func(text []byte) bool {
		var u UTF8
		return u.Write(text[:len(text)/2]) && u.Write(text[len(text)/2:]) && u.Complete()
	}},
}

var benchTexts = []struct {
	name string
	unit string // 16 bytes
}{
	{"ascii", "sixteen bytes it"},
	{"mixed", "déjà vu, naïf"}, // 3 letters of two bytes in 16
	{"cjk", "漢字仮名交x"},
}

func BenchmarkUTF8(b *testing.B) {
	for _, text := range benchTexts {
		for _, size := range benchSizes {
			p := []byte(strings.Repeat(text.unit, size/16))
			for _, way := range checks {
				b.Run(fmt.Sprintf("%s/%d/%s", text.name, size, way.name), func(b *testing.B) {
					for b.Loop() {
						for range benchRounds {
							if !way.f(p) {
								b.Fatal("not valid")
							}
						}
					}
					perFrame(b, benchRounds)
				})
			}
		}
	}
}

// The benchmarks do what they say: each way reads, masks, builds or checks everything.
func TestBenchmarks(t *testing.T) {
	rounds := func() func() bool {
		left := 3
		return func() bool { left--; return left >= 0 }
	}
	for _, size := range benchSizes {
		for _, op := range []OpCode{Binary, Text} {
			for _, way := range readings {
				in, frames := benchFrames(op, size)
				if n := way.run(in, frames, rounds()); n != 3*frames*size {
					t.Errorf("%s: %d bytes delivered of 3 times %d payloads of %d bytes", way.name, n, frames, size)
				}
			}
		}
		for _, way := range masks[1:] {
			p := make([]byte, size)
			way.f(p, nil)
			if p[0] != 1 || p[size-1] != byte((size-1)%4+1) {
				t.Errorf("%s: %d bytes are not masked", way.name, size)
			}
		}
		for _, way := range buildings {
			want := HeaderSize(size, way.name == "frame-masked") + size
			if way.name == "copy" {
				want = size
			}
			if n := way.run(make([]byte, size), rounds()); n != 3*benchRounds*want {
				t.Errorf("%s: made %d bytes, expected 3 times %d frames of %d", way.name, n, benchRounds, want)
			}
		}
		for _, text := range benchTexts {
			p := []byte(strings.Repeat(text.unit, size/16))
			if len(p) != size {
				t.Errorf("%s has %d bytes, expected 16", text.name, len(text.unit))
			}
			for _, way := range checks {
				if !way.f(p) || way.f(append(p, 0xff)) {
					t.Errorf("%s: wrong about %d bytes of %s", way.name, size, text.name)
				}
			}
		}
	}
}
