package sim

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/mqgate/mqgate/conn/handshake"
	"github.com/mqgate/mqgate/frame/deflate"
)

// Compression (RFC 7692) as clients do it: by compress/flate of the standard library, of which package frame/deflate uses
// nothing.

// buildCompression chooses what the gateway agrees to.
func (w *world) buildCompression() {
	if w.chance(0.5) {
		return
	}
	cfg := w.cfg
	cfg.Compression = w.anyCompression()
	cfg.CompressMin = oneOf(w, 0, 1, 30, 100, 256)
	if w.chance(0.5) {
		w.takeovers = oneOf(w, int64(0), 3_000, 40_000, 200_000)
		cfg.Takeovers = deflate.NewBudget(w.takeovers)
	}
}

func (w *world) anyCompression() handshake.Compression {
	return handshake.Compression{Mode: oneOf(w, deflate.Shared, deflate.Shared, deflate.Takeover, deflate.Takeover, deflate.Takeover),
		WindowBits: uint8(oneOf(w, 15, 15, 8+w.rng.IntN(8)))}
}

// offer is one element of Sec-WebSocket-Extensions.
type offer struct {
	serverFresh, clientFresh bool // no context takeover
	serverBits               int  // 0: not asked for
	clientBits               int  // 0: not there; -1: without a value
	broken                   string
}

func (o offer) String() string {
	s := deflate.Name
	if o.clientFresh {
		s += "; client_no_context_takeover"
	}
	if o.serverBits > 0 {
		s += fmt.Sprintf("; server_max_window_bits=%d", o.serverBits)
	}
	if o.serverFresh {
		s += "; server_no_context_takeover"
	}
	switch {
	case o.clientBits > 0:
		s += fmt.Sprintf("; client_max_window_bits=%d", o.clientBits)
	case o.clientBits < 0:
		s += "; client_max_window_bits"
	}
	return s + o.broken
}

// packing is what a client has offered, what was agreed on, and the windows that follow from it.
type packing struct {
	offers                   []offer
	agreed                   bool
	serverFresh, clientFresh bool
	serverBits, clientBits   int

	off      bool   // something was sent after which the gateway's window may be another
	sent     []byte // what the next message may refer to,
	received []byte // and the gateway's next one
}

// offering appends the header lines that offer compression.
func (c *client) offering(lines []string) []string {
	w, k := c.w, &c.packing
	for len(k.offers) < 3 && w.chance(0.6) {
		o := offer{serverFresh: w.chance(0.25), clientFresh: w.chance(0.25)}
		if w.chance(0.5) {
			o.serverBits = 8 + w.rng.IntN(8)
		}
		if w.chance(0.6) {
			o.clientBits = oneOf(w, -1, 8+w.rng.IntN(8))
		}
		if w.chance(0.15) {
			o.broken = oneOf(w, "; unknown", "; server_max_window_bits=7", "; server_no_context_takeover=1", "; client_max_window_bits=16", "; x=1")
		}
		k.offers = append(k.offers, o)
	}
	const name = "Sec-WebSocket-Extensions: "
	oneLine := w.chance(0.5)
	for i, o := range k.offers {
		if i > 0 && oneLine {
			lines[len(lines)-1] += ", " + o.String()
		} else {
			lines = append(lines, name+o.String())
		}
	}
	return lines
}

// offersOf returns what package conn offers in the client role.
func offersOf(c handshake.Compression) []offer {
	switch c.Mode {
	case deflate.Shared:
		return []offer{{serverFresh: true, clientFresh: true, clientBits: -1}}
	case deflate.Takeover:
		if c.WindowBits < 15 {
			return []offer{{serverBits: int(c.WindowBits), clientBits: -1}}
		}
		return []offer{{clientBits: -1}}
	case deflate.Off:
	}
	return nil
}

// agree reads what the gateway has agreed to: the first offer that is well-formed, to the letter.
func (c *client) agree() {
	w, k := c.w, &c.packing
	_, value, answered := strings.Cut(c.head, "Sec-WebSocket-Extensions: ")
	value, _, _ = strings.Cut(value, "\r\n")
	mode := w.cfg.Compression.Mode
	i := slices.IndexFunc(k.offers, func(o offer) bool { return o.broken == "" })
	if answered != (i >= 0 && mode != deflate.Off) {
		w.fail(c, "RFC 7692 section 5.1: the first good offer is accepted", "mode %v, offered %v, answered %q", mode, k.offers, value)
	}
	if !answered {
		return
	}
	o := k.offers[i]
	k.agreed, k.serverBits, k.clientBits = true, 15, 15
	names := strings.Split(value, "; ")
	good := names[0] == deflate.Name
	for _, name := range names[1:] {
		name, value, _ := strings.Cut(name, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "server_no_context_takeover":
			good = good && !k.serverFresh && value == ""
			k.serverFresh = true
		case "client_no_context_takeover":
			good = good && !k.clientFresh && value == ""
			k.clientFresh = true
		case "server_max_window_bits":
			k.serverBits = n
		case "client_max_window_bits":
			good = good && o.clientBits != 0 && n >= 8 && n < 16 && (o.clientBits < 0 || n <= o.clientBits)
			k.clientBits = n
		default:
			good = false
		}
	}
	switch {
	case o.serverFresh && !k.serverFresh, o.clientFresh && !k.clientFresh, o.serverBits != 0 && k.serverBits != o.serverBits,
		o.serverBits == 0 && k.serverBits != 15, mode == deflate.Shared && !(k.serverFresh && k.clientFresh),
		k.serverFresh && !o.serverFresh && mode == deflate.Takeover && w.cfg.Takeovers == nil,
		!k.clientFresh && k.clientBits > int(w.cfg.Compression.WindowBits):
		good = false
	}
	if !good {
		w.fail(c, "RFC 7692 section 7.1: the answer fits the offer", "mode %v, offered %q, answered %q", mode, o, value)
	}
	if mode == deflate.Takeover && k.serverFresh && !o.serverFresh {
		w.tally.packed[packedNoRoom]++
	}
}

// share is what a connection with that agreement has taken of the budget of takeovers [bytes].
func (k *packing) share() int64 {
	if !k.agreed {
		return 0
	}
	return int64(deflate.Params{ServerNoContextTakeover: k.serverFresh, ClientNoContextTakeover: k.clientFresh,
		ServerMaxWindowBits: uint8(k.serverBits), ClientMaxWindowBits: uint8(k.clientBits)}.Memory(true))
}

// checkTakeovers checks that just the open connections have something of the budget of takeovers.
func (w *world) checkTakeovers() {
	b := w.cfg.Takeovers
	if b == nil {
		return
	}
	taken, exact := w.takeovers-b.Left(), true
	for _, c := range w.alive {
		if !c.open {
			continue
		}
		taken -= c.packing.share()
		exact = exact && c.status == 101 // else it does not know yet what was agreed on
	}
	if taken < 0 || exact && taken != 0 {
		w.fail(nil, "the budget of takeovers is taken by those that are open", "%d of %d bytes too many, exactly %v", taken, w.takeovers, exact)
	}
}

// pack compresses a message that is to be sent next, if compression was agreed on and the client feels like it.
func (c *client) pack(p []byte) []byte {
	if k := &c.packing; c.dialer != nil || !k.agreed || k.off || c.w.chance(0.3) {
		return p
	}
	c.rsv1 = true
	return c.deflate(p)
}

// deflate compresses a message, in one of the ways that a sender may choose.
func (c *client) deflate(p []byte) []byte {
	w, k := c.w, &c.packing
	level, size := oneOf(w, 2, 4, 6, 6, 6, 1, flate.HuffmanOnly, flate.NoCompression), 1<<k.clientBits
	var dict []byte
	switch {
	case len(p) > size:
		level = flate.HuffmanOnly // it refers to nothing: whatever did could refer too far
	case !k.clientFresh:
		dict = k.sent[max(0, len(k.sent)-(size-len(p))):]
	}
	out := squeeze(level, dict, p, w.rng.IntN(2*len(p)+1), w.chance(0.1))
	if !k.clientFresh {
		k.sent = slide(k.sent, p)
	}
	return out
}

// slide moves a window of 32 KiB over p.
func slide(window, p []byte) []byte {
	window = append(window, p...)
	return window[max(0, len(window)-1<<15):]
}

// squeezers are writers of the standard library by level, which are large.
var squeezers [12]sync.Pool

// squeeze compresses p as one message with that window before it. A block ends at p[cut], if there is such. final: the last
// block is marked as such (RFC 7692 section 7.2.3.4).
func squeeze(level int, dict, p []byte, cut int, final bool) []byte {
	var b bytes.Buffer
	pool := &squeezers[level+2]
	z, _ := pool.Get().(*flate.Writer)
	if z == nil {
		z = must(flate.NewWriter(&b, level))
	}
	defer pool.Put(z)
	z.Reset(&b)
	part := func(p []byte) {
		must(z.Write(p))
		must(0, z.Flush())
	}
	if len(dict) > 0 {
		part(dict)
		b.Reset()
	}
	if cut < len(p) {
		part(p[:cut])
		p = p[cut:]
	}
	if final {
		must(z.Write(p))
		must(0, z.Close())
		return append(b.Bytes(), 0)
	}
	part(p)
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// inflaters are readers of the standard library.
var inflaters = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

// inflate returns what a compressed message of the gateway is, and checks that it is one, refers to nothing outside of the
// window, and was worth it.
func (c *client) inflate(p []byte) []byte {
	w, k := c.w, &c.packing
	whole := append(slices.Clone(p), "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
	window := k.received[max(0, len(k.received)-1<<k.serverBits):]
	r := inflaters.Get().(io.Reader)
	defer inflaters.Put(r)
	must(0, r.(flate.Resetter).Reset(bytes.NewReader(whole), window))
	plain, err := io.ReadAll(r)
	if err != nil {
		w.fail(c, "compressed messages can be inflated", "%d bytes behind %d of the window: %v", len(p), len(window), err)
	}
	if k.serverBits < 15 {
		if n := farthest(whole); n > 1<<k.serverBits {
			w.fail(c, "RFC 7692 section 7.1.2.1: the window that was asked for is kept to", "%d bytes back, with %d bits", n, k.serverBits)
		}
		w.tally.packed[packedNarrow]++
	}
	if len(plain) < w.cfg.CompressMin || len(p) >= len(plain) && len(plain) > 0 {
		w.fail(c, "only what is worth it is compressed", "%d bytes to %d", len(plain), len(p))
	}
	if !k.serverFresh {
		k.received = slide(k.received, plain)
	}
	return plain
}

// farthest returns how far back a compressed message refers at most [bytes]. That it is well-formed is known. It is as slow
// as it is plain (RFC 1951).
func farthest(p []byte) (most int) {
	b := &bitReader{p: p}
	for final := false; !final; {
		final = b.take(1) == 1
		var lengths, distances huffman
		switch b.take(2) {
		case 0:
			b.at = (b.at + 7) / 8 * 8
			b.at += 16 + 8*b.take(16) // what is its complement, and the bytes
			continue
		case 1:
			lengths, distances = fixedLengths, fixedDistances
		case 2:
			lengths, distances = b.tables()
		}
		for {
			s := b.symbol(&lengths)
			if s == 256 {
				break
			}
			if s < 256 {
				continue
			}
			if s -= 257; s >= 8 && s < 28 {
				b.take(s/4 - 1)
			}
			d := b.symbol(&distances)
			if far := d + 1; d < 4 {
				most = max(most, far)
			} else {
				extra := d/2 - 1
				most = max(most, 1+(2+d%2)<<extra+b.take(extra))
			}
		}
	}
	return most
}

type bitReader struct {
	p  []byte
	at int // [bits]
}

func (b *bitReader) take(n int) (v int) {
	for i := range n {
		v |= int(b.p[b.at/8]>>(b.at%8)&1) << i
		b.at++
	}
	return v
}

// huffman is a canonical code: how many codes there are of each length, and the symbols in their order.
type huffman struct {
	count   [16]int
	symbols []int
}

func newHuffman(lengths []int) (h huffman) {
	for n := 1; n < 16; n++ {
		for s, have := range lengths {
			if have == n {
				h.count[n]++
				h.symbols = append(h.symbols, s)
			}
		}
	}
	return h
}

func (b *bitReader) symbol(h *huffman) int {
	code, first, index := 0, 0, 0
	for _, n := range h.count[1:] {
		code |= b.take(1)
		if code-first < n {
			return h.symbols[index+code-first]
		}
		index += n
		first, code = (first+n)<<1, code<<1
	}
	panic("no such code")
}

var fixedLengths, fixedDistances = func() (huffman, huffman) {
	lengths := slices.Concat(slices.Repeat([]int{8}, 144), slices.Repeat([]int{9}, 112), slices.Repeat([]int{7}, 24), slices.Repeat([]int{8}, 8))
	return newHuffman(lengths), newHuffman(slices.Repeat([]int{5}, 30))
}()

// tables reads the codes of a block that has its own.
func (b *bitReader) tables() (lengths, distances huffman) {
	nl, nd, nc := b.take(5)+257, b.take(5)+1, b.take(4)+4
	var code [19]int
	for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:nc] {
		code[s] = b.take(3)
	}
	h := newHuffman(code[:])
	var all []int
	for len(all) < nl+nd {
		switch s := b.symbol(&h); s {
		case 16:
			all = append(all, slices.Repeat(all[len(all)-1:], 3+b.take(2))...)
		case 17:
			all = append(all, make([]int, 3+b.take(3))...)
		case 18:
			all = append(all, make([]int, 11+b.take(7))...)
		default:
			all = append(all, s)
		}
	}
	return newHuffman(all[:nl]), newHuffman(all[nl:])
}

// The oracle against what is known of its input: how far apart the same bytes are.
func TestFarthest(t *testing.T) {
	same := pattern(0, 200)
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		for _, between := range []int{1, 7, 200, 255, 256, 5000, 32_000} {
			far := len(same) + between
			if level == flate.HuffmanOnly || level == flate.NoCompression {
				far = 0
			}
			noise := make([]byte, between) // nothing in it twice within 256 bytes, and nothing of the pattern
			for i := range noise {
				noise[i] = byte(i * i >> 3)
			}
			p := squeeze(level, nil, same, len(same), false)
			if got := farthest(append(p, "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)); got != 0 {
				t.Errorf("level %d: %d bytes back in what has nothing twice", level, got)
			}
			p = squeeze(level, slices.Concat(same, noise), same, len(same), false)
			if got := farthest(append(p, "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)); got != far {
				t.Errorf("level %d: %d bytes back, expected %d", level, got, far)
			}
		}
	}
}
