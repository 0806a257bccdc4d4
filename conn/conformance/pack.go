package conformance

// packer compresses the messages of one direction (RFC 7692 section 7.2.1, RFC 1951), slowly and not well, but in a window
// of any size, which compress/flate has not: it repeats what lies as far back as may be, up to the very end of the window.
type packer struct {
	window int    // [bytes]
	before []byte // what the window has of earlier messages

	out  []byte
	bits int // in the last byte of out
}

// message compresses one message.
func (k *packer) message(p []byte) []byte {
	all := append(k.before[:len(k.before):len(k.before)], p...)
	k.out, k.bits = nil, 0
	k.number(2, 3) // not final, fixed codes: RFC 1951 section 3.2.3
	// The positions of each hash of three bytes, the oldest first.
	const none = -1
	var oldest, newest [1 << 12]int
	for i := range oldest {
		oldest[i] = none
	}
	next := make([]int, len(all))
	hash := func(i int) int {
		return (int(all[i]) ^ int(all[i+1])<<3 ^ int(all[i+2])<<6) % len(oldest)
	}
	seen := 0 // positions below are in the lists
	see := func(until int) {
		for ; seen < until && seen+3 <= len(all); seen++ {
			h := hash(seen)
			next[seen] = none
			if oldest[h] == none {
				oldest[h] = seen
			} else {
				next[newest[h]] = seen
			}
			newest[h] = seen
		}
	}
	for i := len(k.before); i < len(all); {
		see(i)
		length, from := 0, 0
		if i+3 <= len(all) {
			h := hash(i)
			for oldest[h] != none && oldest[h] < i-k.window {
				oldest[h] = next[oldest[h]]
			}
			if from = oldest[h]; from != none {
				for length < 258 && i+length < len(all) && all[from+length] == all[i+length] {
					length++
				}
			}
		}
		if length < 3 {
			k.symbol(int(all[i]))
			i++
			continue
		}
		n := largest(lengthBase, length)
		k.symbol(257 + n)
		k.number(length-lengthBase[n], lengthExtra[n])
		d := largest(distanceBase, i-from)
		k.code(d, 5)
		k.number(i-from-distanceBase[d], distanceExtra[d])
		i += length
	}
	k.symbol(256)
	k.number(0, 3) // the empty block whose last four bytes are taken off
	k.before = lastOf(all, k.window)
	return k.out
}

// largest is the index of the largest base that is not above n.
func largest(base []int, n int) int {
	i := len(base) - 1
	for base[i] > n {
		i--
	}
	return i
}

// symbol writes the fixed code of a literal or length: RFC 1951 section 3.2.6.
func (k *packer) symbol(v int) {
	switch {
	case v < 144:
		k.code(0x30+v, 8)
	case v < 256:
		k.code(0x190+v-144, 9)
	case v < 280:
		k.code(v-256, 7)
	default:
		k.code(0xc0+v-280, 8)
	}
}

// code writes n bits, the most significant first, as codes are written; number, the least significant first.
func (k *packer) code(v, n int) {
	for n--; n >= 0; n-- {
		k.number(v>>n&1, 1)
	}
}

func (k *packer) number(v, n int) {
	for i := range n {
		if k.bits%8 == 0 {
			k.out, k.bits = append(k.out, 0), 0
		}
		k.out[len(k.out)-1] |= byte(v>>i&1) << k.bits
		k.bits++
	}
}
