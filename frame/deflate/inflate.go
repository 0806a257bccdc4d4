package deflate

import (
	"encoding/binary"
	"sync"
)

// Status says why Inflate returned.
type Status uint8

const (
	// NeedInput: all of src was taken, and everything that it says is in the output.
	NeedInput Status = iota
	// NeedRoom: the output has no room, and there is at least one byte more for it.
	NeedRoom
	// Corrupt: this is not DEFLATE (RFC 1951), or refers to what is not in the window.
	Corrupt
)

// Inflater inflates the messages of one connection, one after the other. It gives out what its input says without
// waiting for more, keeps less than eight bytes of the input, and of the output nothing: see Inflate.
//
// The zero value is ready. Not safe for use from several goroutines.
type Inflater struct {
	// Borrowed while Inflate runs, nil between two calls.
	src, out, dict []byte

	in  uint64 // bits taken from src and not used yet, the next one lowest
	n   uint   // how many
	pos int    // of the output

	t        *tables // of the block that is being read; own unless it is fixed
	left     int     // bytes of a stored block, or of a match, that are still to come
	distance int     // of that match
	state    step
	final    bool // this block ends a DEFLATE stream, but not the message
}

// step is what comes next.
type step uint8

const (
	stepBlock   step = iota // the header of a block
	stepStored              // the length of a stored block: where a message ends
	stepBytes               // its bytes
	stepCodes               // the numbers of codes of a block that has its own
	stepLengths             // the code in which their lengths are written
	stepRuns                // their lengths
	stepSymbols             // literals and matches
	stepMatch               // what there was no room for of a match
)

var (
	inflaters = sync.Pool{New: func() any { return new(Inflater) }}
	codes     = sync.Pool{New: func() any { return new(tables) }}
)

// NewInflater returns an Inflater from a pool.
func NewInflater() *Inflater { return inflaters.Get().(*Inflater) }

// Free gives z back to the pool, whatever it is in the middle of. z must not be used again.
func (z *Inflater) Free() {
	z.Reset()
	inflaters.Put(z)
}

// Reset makes z as new.
func (z *Inflater) Reset() {
	z.endTables()
	*z = Inflater{}
}

func (z *Inflater) endTables() {
	if z.t != nil && z.t != fixed {
		codes.Put(z.t)
	}
	z.t = nil
}

// Inflate appends to dst what src, the next bytes of a message, inflate to. dst is the whole output of this message so
// far, which matches refer to; w is what came before it with context takeover, or nil. All three are borrowed for the
// call. Nothing is written beyond dst's capacity, and dst is never moved: with NeedRoom the caller gives it more, or finds
// that the message is too long, and calls again with src[n:]. A dst without capacity is the way to start.
//
// After Corrupt z is good for Reset and Free only. Output before the fault has been appended.
func (z *Inflater) Inflate(dst, src []byte, w *Window) (out []byte, n int, status Status) {
	z.src, z.out, z.pos = src, dst[:cap(dst)], len(dst)
	reach := 1 << MaxWindowBits
	if w != nil {
		z.dict, reach = w.b, 1<<w.bits
	}
	status = z.run(reach)
	out, n = z.out[:z.pos], len(src)-len(z.src)
	z.src, z.out, z.dict = nil, nil, nil
	return out, n, status
}

// End ends the message, all of whose bytes Inflate has taken, and reports whether it may end here; z is ready for the next one
// then.
//
// The sender ends a message with an empty stored block and takes off the four bytes of its length, 00 00 ff ff; the receiver
// puts them back (RFC 7692 sections 7.2.1 and 7.2.2). They would come to nothing: so it is enough that a stored block has
// begun. A message that ends anywhere else might swallow them as data.
func (z *Inflater) End() (ok bool) {
	ok = z.state == stepStored && z.n == 0
	z.state, z.final = stepBlock, false
	return ok
}

// run goes from step to step until one of them cannot go on.
func (z *Inflater) run(reach int) Status {
	for {
		status := NeedInput
		more := false // the step is done
		switch z.state {
		case stepBlock:
			more, status = z.block()
		case stepStored:
			more, status = z.storedLength()
		case stepBytes:
			more, status = z.stored()
		case stepCodes:
			more = z.numbers()
		case stepLengths:
			more, status = z.lengthCode()
		case stepRuns:
			more, status = z.lengths()
		case stepSymbols:
			more, status = z.symbols(reach)
		case stepMatch:
			if z.match(); z.left > 0 {
				return NeedRoom
			}
			z.state, more = stepSymbols, true
		}
		if !more {
			return status
		}
	}
}

// need reports whether at least k (up to 57) bits are there, having taken from src for it.
func (z *Inflater) need(k uint) bool {
	for z.n < k && len(z.src) > 0 {
		z.in |= uint64(z.src[0]) << z.n
		z.src = z.src[1:]
		z.n += 8
	}
	return z.n >= k
}

// take takes k bits, which are there.
func (z *Inflater) take(k uint) int {
	v := z.in & (1<<k - 1)
	z.in >>= k
	z.n -= k
	return int(v)
}

// block reads the header of a block (RFC 1951 section 3.2.3).
func (z *Inflater) block() (done bool, status Status) {
	if !z.need(3) {
		return false, NeedInput
	}
	z.final = z.take(1) == 1
	switch z.take(2) {
	case 0:
		z.take(z.n & 7) // up to the next byte of the input (3.2.4)
		z.state = stepStored
	case 1:
		z.t, z.state = fixed, stepSymbols
	case 2:
		z.state = stepCodes
	case 3:
		return false, Corrupt
	}
	return true, NeedInput
}

// endBlock is where the next one begins. After the last block of a DEFLATE stream that is the next byte: a message may be
// several streams, with one window (RFC 7692 section 7.2.3.4).
func (z *Inflater) endBlock() {
	z.endTables()
	if z.final {
		z.take(z.n & 7)
	}
	z.state = stepBlock
}

func (z *Inflater) storedLength() (done bool, status Status) {
	if !z.need(32) {
		return false, NeedInput
	}
	length, complement := z.take(16), z.take(16)
	if length != complement^0xffff {
		return false, Corrupt
	}
	z.left, z.state = length, stepBytes
	return true, NeedInput
}

func (z *Inflater) stored() (done bool, status Status) {
	for z.left > 0 {
		if z.pos == len(z.out) {
			if z.n == 0 && len(z.src) == 0 {
				return false, NeedInput
			}
			return false, NeedRoom
		}
		if z.n > 0 {
			z.out[z.pos] = byte(z.take(8))
			z.pos++
			z.left--
			continue
		}
		k := copy(z.out[z.pos:], z.src[:min(z.left, len(z.src))])
		if k == 0 {
			return false, NeedInput
		}
		z.src = z.src[k:]
		z.pos += k
		z.left -= k
	}
	z.endBlock()
	return true, NeedInput
}

// numbers reads how many codes a block has (RFC 1951 section 3.2.7). Too many are found out by lengthCode.
func (z *Inflater) numbers() (done bool) {
	if !z.need(14) {
		return false
	}
	z.t = codes.Get().(*tables)
	z.t.nlit, z.t.ndist, z.t.nclen = uint16(257+z.take(5)), uint16(1+z.take(5)), uint16(4+z.take(4))
	z.t.next = 0
	clear(z.t.lengths[:numLengths])
	z.state = stepLengths
	return true
}

// order is that in which the lengths of the code of lengths come.
var order = [numLengths]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func (z *Inflater) lengthCode() (done bool, status Status) {
	t := z.t
	if t.nlit > maxLit || t.ndist > maxDist {
		return false, Corrupt
	}
	for t.next < t.nclen {
		if !z.need(3) {
			return false, NeedInput
		}
		t.lengths[order[t.next]] = uint8(z.take(3))
		t.next++
	}
	if !build(&t.distCanon, t.dist[:], t.distSorted[:], t.lengths[:numLengths]) {
		return false, Corrupt
	}
	t.next = 0
	z.state = stepRuns
	return true, NeedInput
}

func (z *Inflater) lengths() (done bool, status Status) {
	t := z.t
	total := t.nlit + t.ndist
	for t.next < total {
		z.need(14) // of the longest word and what follows it; fewer may do
		e := t.dist[z.in&(1<<distBits-1)]
		symbol, k := e>>4, uint(e&15)
		if k == 0 { // with words of at most seven bits: no word begins like that, or not yet
			if symbol, k = t.distCanon.decode(t.distSorted[:], z.in, z.n); k > maxCodeBits {
				return false, Corrupt
			}
		}
		var extra uint
		repeat := uint16(1)
		switch symbol {
		case 16:
			repeat, extra = 3, 2
		case 17:
			repeat, extra = 3, 3
		case 18:
			repeat, extra = 11, 7
		}
		if k == 0 || k+extra > z.n {
			return false, NeedInput
		}
		z.take(k)
		repeat += uint16(z.take(extra))
		length := uint8(0)
		switch {
		case symbol < 16:
			length = uint8(symbol)
		case symbol == 16:
			if t.next == 0 {
				return false, Corrupt
			}
			length = t.lengths[t.next-1]
		}
		if repeat > total-t.next {
			return false, Corrupt
		}
		for range repeat {
			t.lengths[t.next] = length
			t.next++
		}
	}
	if !build(&t.litCanon, t.lit[:], t.litSorted[:], t.lengths[:t.nlit]) ||
		!build(&t.distCanon, t.dist[:], t.distSorted[:], t.lengths[t.nlit:total]) {
		return false, Corrupt
	}
	z.state = stepSymbols
	return true, NeedInput
}

// A span is what a symbol of a length or of a distance stands for: the smallest value, and how many bits follow that are
// added to it (RFC 1951 section 3.2.5).
type span struct {
	base  uint16
	extra uint8
}

var (
	lengthSpans = [32]span{
		{3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 0}, {11, 1}, {13, 1}, {15, 1}, {17, 1}, {19, 2}, {23, 2}, {27, 2},
		{31, 2}, {35, 3}, {43, 3}, {51, 3}, {59, 3}, {67, 4}, {83, 4}, {99, 4}, {115, 4}, {131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0},
	}
	distSpans = [32]span{
		{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 1}, {7, 1}, {9, 2}, {13, 2}, {17, 3}, {25, 3}, {33, 4}, {49, 4}, {65, 5}, {97, 5}, {129, 6},
		{193, 6}, {257, 7}, {385, 7}, {513, 8}, {769, 8}, {1025, 9}, {1537, 9}, {2049, 10}, {3073, 10}, {4097, 11}, {6145, 11},
		{8193, 12}, {12289, 12}, {16385, 13}, {24577, 13},
	}
)

const (
	endOfBlock = 256
	// mostBits is what a match may take: 15 + 5 for the length, 15 + 13 for the distance. So one refill is enough for a
	// match, and what is left when the input ends in the middle of one fits into the word of bits: it is read again from
	// there when more has come.
	mostBits = 48
)

// symbols reads literals and matches until the end of the block. reach is the longest distance that was agreed.
func (z *Inflater) symbols(reach int) (done bool, status Status) {
	in, n, src, out, pos := z.in, z.n, z.src, z.out, z.pos
	t := z.t
	for {
		if n < mostBits {
			if len(src) >= 8 {
				// The bits above n are set as well, to what they will be: to set them again changes nothing.
				in |= binary.LittleEndian.Uint64(src) << (n & 63)
				src = src[(63-n)>>3:]
				n |= 56
			} else {
				in &= 1<<(n&63) - 1
				for n < 56 && len(src) > 0 {
					in |= uint64(src[0]) << (n & 63)
					src = src[1:]
					n += 8
				}
			}
		}
		e := t.lit[in&(1<<litBits-1)]
		symbol, used := e>>4, uint(e&15)
		if used == 0 {
			if symbol, used = t.litCanon.decode(t.litSorted[:], in, n); used > maxCodeBits {
				status = Corrupt
				break
			}
		}
		if used == 0 || used > n {
			break // NeedInput
		}
		if symbol < endOfBlock {
			if pos == len(out) {
				status = NeedRoom
				break
			}
			out[pos] = byte(symbol)
			pos++
			in >>= used & 63
			n -= used
			continue
		}
		if symbol == endOfBlock {
			in >>= used & 63
			n -= used
			done = true
			break
		}
		if symbol >= maxLit {
			status = Corrupt
			break
		}
		s := lengthSpans[(symbol-endOfBlock-1)&31]
		run := int(s.base) + int(in>>(used&63)&(1<<(s.extra&15)-1))
		if used += uint(s.extra); used > n {
			break
		}
		rest := in >> (used & 63)
		e = t.dist[rest&(1<<distBits-1)]
		symbol, k := e>>4, uint(e&15)
		if k == 0 {
			if symbol, k = t.distCanon.decode(t.distSorted[:], rest, n-used); k > maxCodeBits {
				status = Corrupt
				break
			}
		}
		s = distSpans[symbol&31]
		distance := int(s.base) + int(rest>>(k&63)&(1<<(s.extra&15)-1))
		if used += k + uint(s.extra); k == 0 || used > n {
			break
		}
		if distance > reach || distance > pos+len(z.dict) {
			status = Corrupt
			break
		}
		in >>= used & 63
		n -= used
		if start := pos - distance; start >= 0 && run <= distance && run <= len(out)-pos {
			pos += copy(out[pos:pos+run], out[start:start+run])
			continue
		}
		z.pos, z.left, z.distance = pos, run, distance
		z.match()
		pos = z.pos
		if z.left > 0 {
			z.state, status = stepMatch, NeedRoom
			break
		}
	}
	z.in, z.n, z.src, z.pos = in&(1<<(n&63)-1), n, src, pos
	if done {
		z.endBlock()
	}
	return done, status
}

// match copies z.left bytes from z.distance back, or as many of them as there is room for.
func (z *Inflater) match() {
	end := min(z.pos+z.left, len(z.out))
	z.left -= end - z.pos
	if before := z.distance - z.pos; before > 0 { // it begins in what came before this message
		z.pos += copy(z.out[z.pos:end], z.dict[len(z.dict)-before:])
	}
	for start := z.pos - z.distance; z.pos < end; { // the source grows with what is copied where they overlap
		z.pos += copy(z.out[z.pos:end], z.out[start:z.pos])
	}
}
