package bench

import (
	"bytes"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/mqgate/mqgate/frame"
)

// Every byte of a message follows from its connection and sequence number, and every changed bit is seen.
func TestPattern(t *testing.T) {
	for _, text := range []bool{false, true} {
		for _, size := range []int{24, 25, 31, 32, 33, 100, 1000} {
			p := bytes.Repeat([]byte{0xff}, size)
			fill(p, text, 0x01020304, 0xfffefdfc)
			number, seq, ok := check(p, text)
			if number != 0x01020304 || seq != 0xfffefdfc || !ok {
				t.Fatalf("text %v, %d bytes: read as message %d of %d, intact %v", text, size, seq, number, ok)
			}
			if text && !utf8.Valid(p) {
				t.Errorf("%d bytes: a text message that is not UTF-8", size)
			}
			for i := range p {
				for bit := range 8 {
					p[i] ^= 1 << bit
					if _, _, ok := check(p, text); ok {
						t.Errorf("text %v, %d bytes: bit %d of byte %d changed, not seen", text, size, bit, i)
					}
					p[i] ^= 1 << bit
				}
			}
			other := make([]byte, size)
			for _, of := range [][2]uint32{{0x01020304, 0}, {0, 0xfffefdfc}} {
				if fill(other, text, of[0], of[1]); bytes.Equal(other, p) {
					t.Errorf("text %v, %d bytes: message %v has the same bytes", text, size, of)
				}
			}
		}
		if _, _, ok := check(make([]byte, minMessage-1), text); ok {
			t.Errorf("text %v: a message below the least size was found intact", text)
		}
	}
}

// BenchmarkMessage: what one message costs to make and to check; no allocations.
func BenchmarkMessage(b *testing.B) {
	for _, text := range []bool{false, true} {
		for _, size := range []int{24, 128, 4096} {
			b.Run(fmt.Sprintf("text=%v/%d", text, size), func(b *testing.B) {
				p := make([]byte, size)
				b.ReportAllocs()
				b.SetBytes(int64(size))
				for seq := uint32(0); b.Loop(); seq++ {
					fill(p, text, 7, seq)
					if _, _, ok := check(p, text); !ok {
						b.Fatal("not intact")
					}
				}
			})
		}
	}
}

// The tracker, step by step: what comes in which order, of six messages sent.
func TestTracker(t *testing.T) {
	const f, l, r, u = fresh, late, repeated, unsent
	for _, test := range []struct {
		name     string
		comes    []uint32
		verdicts []verdict
		lost     int
		inFlight int
	}{
		{"in order", []uint32{0, 1, 2, 3, 4, 5}, []verdict{f, f, f, f, f, f}, 0, 0},
		{"nothing", nil, nil, 6, 6},
		{"one is missing", []uint32{0, 2, 3, 4, 5}, []verdict{f, f, f, f, f}, 1, 0},
		{"the first is missing", []uint32{1}, []verdict{f}, 5, 4},
		{"the last is missing", []uint32{0, 1, 2, 3, 4}, []verdict{f, f, f, f, f}, 1, 1},
		{"all but the last", []uint32{5}, []verdict{f}, 5, 0},
		{"twice at once", []uint32{0, 0, 1}, []verdict{f, r, f}, 4, 4},
		{"twice, later", []uint32{0, 1, 2, 0}, []verdict{f, f, f, r}, 3, 3},
		{"two swapped", []uint32{1, 0, 2}, []verdict{f, l, f}, 3, 3},
		{"backwards", []uint32{5, 4, 3, 2, 1, 0}, []verdict{f, l, l, l, l, l}, 0, 0},
		{"late, and again", []uint32{1, 0, 0}, []verdict{f, l, r}, 4, 4},
		{"never sent", []uint32{6, 0, 1 << 31, 0xffffffff}, []verdict{u, f, u, r}, 5, 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := tracker{sent: 6}
			var got []verdict
			for _, seq := range test.comes {
				got = append(got, tr.received(seq))
			}
			if diff := cmp.Diff(test.verdicts, got); diff != "" {
				t.Errorf("verdicts: %s", diff)
			}
			if tr.lost() != test.lost || tr.inFlight() != test.inFlight {
				t.Errorf("lost %d, in flight %d; want %d, %d", tr.lost(), tr.inFlight(), test.lost, test.inFlight)
			}
		})
	}
}

// Sequence numbers go on after 2^32.
func TestTrackerWraps(t *testing.T) {
	tr := tracker{sent: 2, next: 0xfffffffe}
	for _, step := range []struct {
		seq  uint32
		want verdict
	}{{0xfffffffe, fresh}, {0, fresh}, {0xffffffff, late}, {2, unsent}, {1, fresh}, {0xffffffff, repeated}} {
		if got := tr.received(step.seq); got != step.want {
			t.Errorf("message %d: verdict %d, want %d", step.seq, got, step.want)
		}
	}
	if tr.lost() != 0 {
		t.Errorf("%d lost", tr.lost())
	}
}

// What is overtaken is remembered up to a limit; above it is lost for good, and counted all the same.
func TestTrackerForgets(t *testing.T) {
	for _, overtaken := range []uint32{maxMissing - 1, maxMissing, maxMissing + 1} {
		tr := tracker{sent: overtaken + 1}
		if v := tr.received(overtaken); v != fresh {
			t.Fatalf("verdict %d", v)
		}
		if tr.lost() != int(overtaken) || len(tr.missing) != int(min(overtaken, maxMissing)) {
			t.Errorf("%d overtaken: lost %d, remembered %d", overtaken, tr.lost(), len(tr.missing))
		}
	}
}

// A message that is damaged stands for the next one; one of another connection does not.
func TestVerifier(t *testing.T) {
	message := func(number, seq uint32) []byte {
		p := make([]byte, 32)
		fill(p, false, number, seq)
		return p
	}
	v := verifier{sizes: FixedSize(32), index: 1, loops: 2, trackers: make([]tracker, 3)}
	p := make([]byte, 32)
	for range 4 {
		v.fill(2, p)
	}
	if number, seq, ok := check(p, false); number != 5 || seq != 3 || !ok {
		t.Fatalf("the last message is number %d of %d, intact %v; want 3 of 5", seq, number, ok)
	}
	damaged := message(5, 1)
	damaged[20]++
	for _, step := range []struct {
		p                []byte
		op               frame.OpCode
		ok               bool
		wrong, duplicate uint64
		lost             uint64
	}{
		{message(5, 0), frame.Binary, true, 0, 0, 3},
		{message(3, 0), frame.Binary, false, 1, 0, 3}, // of the neighbour on this loop
		{damaged, frame.Binary, false, 2, 0, 2},
		{message(5, 1), frame.Binary, false, 2, 1, 2},
		{message(5, 2), frame.Text, false, 3, 1, 1},
		{message(5, 3)[:31], frame.Binary, false, 4, 1, 0},
		{nil, frame.Binary, false, 5, 1, 0}, // nothing is expected any more
	} {
		seq, ok := v.received(2, step.op, step.p)
		if ok != step.ok || v.wrong != step.wrong || v.duplicate != step.duplicate || v.lost() != step.lost {
			t.Errorf("%x: message %d, ok %v, wrong %d, duplicate %d, lost %d; want %+v", step.p, seq, ok, v.wrong, v.duplicate, v.lost(), step)
		}
	}
}
