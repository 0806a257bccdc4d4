package bench

import (
	"slices"

	"github.com/mqgate/mqgate/frame"
)

// tracker follows the echoes of one connection, which must come in the order of sending.
//
// Invariant: next <= sent; every message below next was received or is in missing or was forgotten.
type tracker struct {
	sent, next uint32   // the next sequence number to send, and to receive
	missing    []uint32 // overtaken by a later one and not seen since; nil while all is well
	forgotten  uint32   // overtaken messages that missing had no room for
}

// inFlight returns the number of messages that may still come in order.
func (t *tracker) inFlight() int { return int(t.sent - t.next) }

// lost returns the number of messages that have not come back.
func (t *tracker) lost() int { return t.inFlight() + len(t.missing) + int(t.forgotten) }

// verdict says what an intact message of the connection itself is.
type verdict uint8

const (
	fresh    verdict = iota // the expected one, or one that has overtaken others
	late                    // overtaken by a later one
	repeated                // received before
	unsent                  // never sent
)

// received notes that message seq came.
func (t *tracker) received(seq uint32) verdict {
	ahead := seq - t.next // modulo 2^32: what is far ahead is behind
	switch {
	case ahead < uint32(t.inFlight()):
		for s := t.next; s != seq; s++ {
			if len(t.missing) < maxMissing {
				t.missing = append(t.missing, s)
			} else {
				t.forgotten++
			}
		}
		t.next = seq + 1
		return fresh
	case int32(ahead) >= 0:
		return unsent
	}
	if i := slices.Index(t.missing, seq); i >= 0 {
		t.missing = slices.Delete(t.missing, i, i+1)
		return late
	}
	return repeated
}

// skip takes the next message as received.
func (t *tracker) skip() {
	if t.inFlight() > 0 {
		t.next++
	}
}

// verifier makes the messages of the connections of one loop and checks what comes back.
type verifier struct {
	sizes        Sizes
	text         bool
	index, loops int // connection i of this loop has the number i*loops + index
	trackers     []tracker

	wrong     uint64 // damaged, out of order, of another connection, never sent, or of another kind
	duplicate uint64
}

// newVerifier returns a verifier for the loop of d; its trackers are the caller's to make.
func newVerifier(o *Options, d *driver) verifier {
	return verifier{sizes: o.sizes(), text: o.Text, index: d.index, loops: d.loops}
}

// next returns the size of the next message of connection i [bytes].
func (v *verifier) next(i uint32) int { return v.sizes.of(v.number(i), v.trackers[i].sent) }

// number returns the number of the connection over all loops.
func (v *verifier) number(i uint32) uint32 { return i*uint32(v.loops) + uint32(v.index) }

// op returns the kind of messages.
func (v *verifier) op() frame.OpCode {
	if v.text {
		return frame.Text
	}
	return frame.Binary
}

// fill writes the next message of connection i into p, which has v.next(i) bytes.
func (v *verifier) fill(i uint32, p []byte) {
	t := &v.trackers[i]
	fill(p, v.text, v.number(i), t.sent)
	t.sent++
}

// received checks a message that came on connection i. ok: it was sent there, is intact, in its order and came for the
// first time; seq is its sequence number. p is borrowed.
func (v *verifier) received(i uint32, op frame.OpCode, p []byte) (seq uint32, ok bool) {
	t := &v.trackers[i]
	number, seq, intact := check(p, v.text)
	switch {
	case !intact || len(p) != v.sizes.of(number, seq) || op != v.op():
		// Which one it was cannot be known. Echoes come in order, so it stands for the next one, which is thereby not
		// counted as lost as well.
		v.wrong++
		t.skip()
		return 0, false
	case number != v.number(i): // another connection's, intact: one too many here
		v.wrong++
		return 0, false
	}
	switch t.received(seq) {
	case fresh:
		return seq, true
	case late, unsent:
		v.wrong++
	case repeated:
		v.duplicate++
	}
	return 0, false
}

// lost returns the number of messages that were sent and have not come back.
func (v *verifier) lost() (n uint64) {
	for i := range v.trackers {
		n += uint64(v.trackers[i].lost())
	}
	return n
}
