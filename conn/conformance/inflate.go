package conformance

import (
	"errors"
	"fmt"
)

// inflate decompresses the messages of one direction of a connection (RFC 7692 section 7.2.2, RFC 1951), a bit at a time.
// Unlike compress/flate it knows the window that was agreed on, and fails when a message points farther back.
type inflate struct {
	window     int // [bytes]
	noTakeover bool
	out        []byte // the window of earlier messages, and behind it the message

	in  []byte
	pos int  // the next byte of in
	bit uint // the next bit of it
}

var errDeflateEnd = errors.New("compressed data that ends too early")

func newInflate(bits int, noTakeover bool) *inflate {
	return &inflate{window: 1 << bits, noTakeover: noTakeover}
}

// message decompresses one message.
func (d *inflate) message(p []byte) ([]byte, error) {
	if d.noTakeover {
		d.out = nil
	}
	d.out = lastOf(d.out, d.window)
	begin := len(d.out)
	d.in, d.pos, d.bit = append(append([]byte(nil), p...), 0, 0, 0xff, 0xff), 0, 0
	for d.pos < len(d.in) {
		if err := d.block(); err != nil {
			return nil, err
		}
	}
	return append([]byte(nil), d.out[begin:]...), nil
}

// lastOf is the last n bytes of p, or all of it.
func lastOf(p []byte, n int) []byte {
	if len(p) <= n {
		return p
	}
	return append([]byte(nil), p[len(p)-n:]...)
}

func (d *inflate) align() {
	if d.bit > 0 {
		d.pos, d.bit = d.pos+1, 0
	}
}

// bits returns the next n bits, the first the least significant: RFC 1951 section 3.1.1.
func (d *inflate) bits(n int) (v int, err error) {
	for i := range n {
		if d.pos >= len(d.in) {
			return 0, errDeflateEnd
		}
		v |= int(d.in[d.pos]>>d.bit&1) << i
		if d.bit++; d.bit == 8 {
			d.pos, d.bit = d.pos+1, 0
		}
	}
	return v, nil
}

// block is RFC 1951 section 3.2.3.
func (d *inflate) block() error {
	final, err := d.bits(1)
	if err != nil {
		return err
	}
	kind, err := d.bits(2)
	if err != nil {
		return err
	}
	switch kind {
	case 0:
		err = d.stored()
	case 1:
		err = d.codes(fixedLengths, fixedDistances)
	case 2:
		err = d.dynamic()
	case 3:
		err = errors.New("a deflate block of type 3")
	}
	if final == 1 { // RFC 7692 section 7.2.3.4: what follows begins with a byte of its own
		d.align()
	}
	return err
}

func (d *inflate) stored() error {
	d.align()
	n, err := d.bits(16)
	if err != nil {
		return err
	}
	inverse, err := d.bits(16)
	if err != nil {
		return err
	}
	if n != ^inverse&0xffff {
		return errors.New("a stored deflate block with a wrong length")
	}
	if n > len(d.in)-d.pos {
		return errDeflateEnd
	}
	d.out, d.pos = append(d.out, d.in[d.pos:d.pos+n]...), d.pos+n
	return nil
}

// huffman is a canonical code: the number of codes of each length, and the symbols in order (RFC 1951 section 3.2.2).
type huffman struct{ count, symbols []int }

func newHuffman(lengths []int) huffman {
	h := huffman{count: make([]int, 16)}
	for n := 1; n < 16; n++ {
		for symbol, length := range lengths {
			if length == n {
				h.count[n]++
				h.symbols = append(h.symbols, symbol)
			}
		}
	}
	return h
}

func (d *inflate) symbol(h huffman) (int, error) {
	code, firstCode, index := 0, 0, 0
	for n := 1; n < 16; n++ {
		bit, err := d.bits(1)
		if err != nil {
			return 0, err
		}
		code |= bit
		if code-firstCode < h.count[n] {
			return h.symbols[index+code-firstCode], nil
		}
		index += h.count[n]
		firstCode = (firstCode + h.count[n]) << 1
		code <<= 1
	}
	return 0, errors.New("a deflate code that does not exist")
}

// The tables of RFC 1951 section 3.2.5.
var (
	lengthBase    = []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra   = []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distanceBase  = []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distanceExtra = []int{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
	lengthOrder   = []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
)

// The fixed codes of RFC 1951 section 3.2.6.
var fixedLengths, fixedDistances = func() (huffman, huffman) {
	lengths := make([]int, 288)
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	distances := make([]int, 30)
	for i := range distances {
		distances[i] = 5
	}
	return newHuffman(lengths), newHuffman(distances)
}()

func (d *inflate) codes(lengths, distances huffman) error {
	for {
		symbol, err := d.symbol(lengths)
		if err != nil {
			return err
		}
		if symbol < 256 {
			d.out = append(d.out, byte(symbol))
			continue
		}
		if symbol == 256 {
			return nil
		}
		if symbol -= 257; symbol >= len(lengthBase) {
			return errors.New("a deflate length that does not exist")
		}
		extra, err := d.bits(lengthExtra[symbol])
		if err != nil {
			return err
		}
		length := lengthBase[symbol] + extra
		if symbol, err = d.symbol(distances); err != nil {
			return err
		}
		if symbol >= len(distanceBase) {
			return errors.New("a deflate distance that does not exist")
		}
		if extra, err = d.bits(distanceExtra[symbol]); err != nil {
			return err
		}
		distance := distanceBase[symbol] + extra
		if distance > len(d.out) || distance > d.window {
			return fmt.Errorf("a deflate distance of %d, with %d bytes before it and a window of %d", distance, len(d.out), d.window)
		}
		for range length {
			d.out = append(d.out, d.out[len(d.out)-distance])
		}
	}
}

// dynamic is RFC 1951 section 3.2.7.
func (d *inflate) dynamic() error {
	var n [3]int
	for i, bits := range []int{5, 5, 4} {
		v, err := d.bits(bits)
		if err != nil {
			return err
		}
		n[i] = v + []int{257, 1, 4}[i]
	}
	lengths := make([]int, 19)
	for i := range n[2] {
		v, err := d.bits(3)
		if err != nil {
			return err
		}
		lengths[lengthOrder[i]] = v
	}
	code := newHuffman(lengths)
	var all []int
	for len(all) < n[0]+n[1] {
		symbol, err := d.symbol(code)
		if err != nil {
			return err
		}
		if symbol < 16 {
			all = append(all, symbol)
			continue
		}
		again, err := d.bits([]int{2, 3, 7}[symbol-16])
		if err != nil {
			return err
		}
		again += []int{3, 3, 11}[symbol-16]
		value := 0
		if symbol == 16 {
			if len(all) == 0 {
				return errors.New("a deflate length that repeats nothing")
			}
			value = all[len(all)-1]
		}
		for range again {
			all = append(all, value)
		}
	}
	if len(all) > n[0]+n[1] {
		return errors.New("too many deflate lengths")
	}
	return d.codes(newHuffman(all[:n[0]]), newHuffman(all[n[0]:]))
}
