package deflate

import "math/bits"

const (
	maxCodeBits = 15 // longest code word, RFC 1951 section 3.2.7
	maxLit      = 286
	maxDist     = 30
	numLengths  = 19 // symbols of the code that the code lengths are written in

	litBits  = 10 // index of the table of literals and lengths
	distBits = 8  // index of the tables of distances, and of code lengths
)

// An entry of a table has a symbol in its upper twelve bits and the length of its code word in the lower four. The table
// is indexed by the next bits of the input; a code word shorter than the index has all entries that begin with it.
// Zero: the code word is longer than the index, or there is none, and canon has to say.
type entry = uint16

// canon is a prefix code in canonical form (RFC 1951 section 3.2.2), for the few code words that no table has.
type canon struct {
	count [maxCodeBits + 1]uint16 // code words of each length
	max   uint8                   // the longest; 0: the code is empty
}

// tables are the codes of one block. A block with codes of its own needs one while it is read.
type tables struct {
	lit  [1 << litBits]entry
	dist [1 << distBits]entry

	litCanon, distCanon canon
	litSorted           [maxLit + 2]uint16 // symbols in the order of their code words; the fixed code has 288
	distSorted          [maxDist]uint16

	// While the codes are read (RFC 1951 section 3.2.7); dist and distCanon have the code of the lengths then.
	lengths            [maxLit + maxDist]uint8
	nlit, ndist, nclen uint16
	next               uint16 // lengths known so far
}

// fixed has the code for literals of section 3.2.6. Its distances are five bits each, a code of 30 words of which no
// table can be made by build, which would find it incomplete.
var fixed = func() *tables {
	t := new(tables)
	var lengths [maxLit + 2]uint8
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
	build(&t.litCanon, t.lit[:], t.litSorted[:], lengths[:])
	for i := range t.dist {
		if symbol := bits.Reverse8(uint8(i&31)) >> 3; symbol < maxDist {
			t.dist[i] = entry(symbol)<<4 | 5
		}
	}
	t.distCanon.max = 5 // so that the two words that mean nothing are known to be wrong after five bits
	return t
}()

// build makes the code of the given lengths: c, and as much of it as fits into table, whose length is a power of two. Not
// ok: the lengths are of no prefix code, or of one that leaves code words unused. (One that has no symbol, or one symbol
// of one bit, is allowed, and fails when what it does not have is used.)
func build(c *canon, table []entry, sorted []uint16, lengths []uint8) (ok bool) {
	*c = canon{}
	for _, n := range lengths {
		c.count[n&15]++
	}
	used := len(lengths) - int(c.count[0])
	c.count[0] = 0
	var index [maxCodeBits + 2]uint16 // of the next symbol of each length
	space := 0                        // code words of the longest length that are taken
	for n := 1; n <= maxCodeBits; n++ {
		index[n+1] = index[n] + c.count[n]
		space += int(c.count[n]) << (maxCodeBits - n)
		if c.count[n] > 0 {
			c.max = uint8(n)
		}
	}
	if space != 1<<maxCodeBits && used > 0 && !(used == 1 && c.max == 1) {
		return false
	}
	for symbol, n := range lengths {
		if n > 0 {
			sorted[index[n&15]] = uint16(symbol)
			index[n&15]++
		}
	}
	// The table for words of up to n bits is twice the one for n-1 bits, with the words of n bits put in.
	table[0] = 0
	word, next := uint16(0), 0
	for n := 1; 1<<n <= len(table); n++ {
		half := 1 << (n - 1)
		copy(table[half:2*half], table[:half])
		word <<= 1
		for range c.count[n] {
			first := bits.Reverse16(word) >> (16 - n) // the input has a word's first bit lowest
			table[first] = sorted[next]<<4 | entry(n)
			word++
			next++
		}
	}
	return true
}

// decode finds the symbol that in begins with, of whose bits n are real. length is that of its code word; 0 when the
// n bits do not decide it yet, and above n (maxCodeBits+1) when no code word begins like that.
func (c *canon) decode(sorted []uint16, in uint64, n uint) (symbol uint16, length uint) {
	var word, first, index int
	for length = 1; length <= uint(c.max); length++ {
		if length > n {
			return 0, 0
		}
		word |= int(in & 1)
		in >>= 1
		count := int(c.count[length])
		if word-count < first {
			return sorted[index+word-first], length
		}
		index += count
		first = (first + count) << 1
		word <<= 1
	}
	return 0, maxCodeBits + 1
}
