package deflate

import (
	"github.com/klauspost/compress/flate"
)

// level is that of klauspost/compress: of those that are measured in bench_test.go it takes the least time and gives about
// as much as any.
const level = 1

// tail is how Flush ends, and what is taken off the end of a message (RFC 7692 section 7.2.1).
const tail = "\x00\x00\xff\xff"

// Compressor deflates messages. It has the working memory for that, 0.8 MB after its first message and 1.1 MB more for each
// number of window bits below 15 that a message longer than such a window has met, and nothing of any connection:
// there is one per loop. The zero value is ready. Not safe for use from several goroutines.
type Compressor struct {
	full   *flate.Writer
	narrow [MaxWindowBits - MinWindowBits]*flate.Writer // by bits, for messages that are longer than the window
	out    sink
}

// sink is a slice to write to.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// Append appends p, compressed as one message (RFC 7692 section 7.2.1), to dst and returns the extended slice. It refers to
// nothing more than 1<<bits bytes back; bits is Params.SendBits. w is the window of what was sent before, or nil without
// context takeover: what is appended is as good then for any other connection with at least as many bits.
//
// ok is false when p did not become shorter: dst is returned without it, though maybe moved to where there is more room, and
// the message is to be sent uncompressed, RSV1 unset (section 6), which does not belong to the window. Append does not change w: w.Add(p) is for the caller, when the
// message is sent.
//
// p and w are borrowed for the call (the writer keeps a pointer to w's bytes until the next one, and does not read them). dst
// must not overlap p. It does not allocate while dst has room.
func (c *Compressor) Append(dst, p []byte, bits uint8, w *Window) (out []byte, ok bool) {
	var dict []byte
	size := 1 << bits
	if w != nil && (len(p) < size || bits == MaxWindowBits) {
		dict = w.b
		if bits < MaxWindowBits { // so that nothing in p and dict is too far from anything else
			dict = dict[max(0, len(dict)-(size-len(p))):]
		}
	}
	c.out.b = dst
	z := c.writer(bits, len(p))
	z.ResetDict(&c.out, dict)
	_, err := z.Write(p)
	if err == nil {
		err = z.Flush()
	}
	out, c.out.b = c.out.b, nil
	if err != nil {
		panic("deflate: " + err.Error()) // it only ever is the error of a sink
	}
	out = out[:len(out)-len(tail)]
	if len(out)-len(dst) >= len(p) && len(p) > 0 {
		return out[:len(dst)], false
	}
	return out, true
}

// Kind tells which connections may be sent the same bytes for a message of n bytes that is compressed once for many: those
// whose window bits have the same Kind, which is also the bits to compress it with (and with no window). It is MaxWindowBits
// for all that have a window as long as the message. With context takeover w.Add is due on each of them nevertheless.
func Kind(bits uint8, n int) uint8 {
	if n <= 1<<bits {
		return MaxWindowBits
	}
	return bits
}

// writer returns the writer for a message of n bytes. Only one longer than the window needs one that knows the window.
func (c *Compressor) writer(bits uint8, n int) *flate.Writer {
	at := &c.full
	if bits = Kind(bits, n); bits < MaxWindowBits {
		at = &c.narrow[bits-MinWindowBits]
	}
	if *at == nil {
		var err error
		if at == &c.full {
			*at, err = flate.NewWriter(&c.out, level)
		} else {
			*at, err = flate.NewWriterWindow(&c.out, 1<<bits)
		}
		if err != nil {
			panic("deflate: " + err.Error())
		}
	}
	return *at
}
