package conn

import (
	"strings"
	"testing"
)

// L2.2: 32 characters, unique over loops, slots and generations, telling where the connection lives.
func TestIDs(t *testing.T) {
	is := NewIssuer()
	seen := make(map[string]bool)
	for _, loop := range []int{0, 1, 7, 255} {
		for _, slot := range []uint32{0, 1, 255, 256, 65535, 65536, 1<<24 - 1} {
			for _, gen := range []uint32{0, 1, 255, 1 << 31, 1<<32 - 1} {
				id := is.Make(loop, slot, gen)
				s := id.String()
				if len(s) != IDLen || seen[s] || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
					t.Fatalf("id %q, seen before: %v", s, seen[s])
				}
				seen[s] = true
				if id.Node() != is.Node() || id.Loop() != loop || id.Slot() != slot || id.Generation() != gen {
					t.Errorf("%v: node %d loop %d slot %d generation %d", s, id.Node(), id.Loop(), id.Slot(), id.Generation())
				}
				if !is.Verify(id) {
					t.Errorf("%v is not genuine", s)
				}
				if back, err := ParseID(s); err != nil || back != id || back.IsZero() {
					t.Errorf("%q is read as %v, %v", s, back, err)
				}
			}
		}
	}
	if (ID{}) != *new(ID) || !(ID{}).IsZero() || is.Verify(ID{}) {
		t.Error("the zero ID")
	}
}

// L2.2: an id cannot be guessed or altered: every flipped bit, another node, another process's key.
func TestIDVerify(t *testing.T) {
	key := [16]byte{1, 2, 3}
	is := newIssuer(77, key)
	id := is.Make(3, 70000, 9)
	for bit := range len(id) * 8 {
		altered := id
		altered[bit/8] ^= 1 << (bit % 8)
		if is.Verify(altered) {
			t.Errorf("bit %d may be flipped", bit)
		}
	}
	if newIssuer(78, key).Verify(id) {
		t.Error("another node's id is taken")
	}
	if newIssuer(77, [16]byte{1, 2, 4}).Verify(id) {
		t.Error("an id made with another key is taken")
	}
	if a, b := NewIssuer(), NewIssuer(); a.Verify(b.Make(0, 0, 0)) || a.Make(0, 0, 0) == b.Make(0, 0, 0) {
		t.Error("two processes make the same ids")
	}
}

func TestParseID(t *testing.T) {
	good := NewIssuer().Make(1, 2, 3).String()
	for _, test := range []struct {
		s  string
		ok bool
	}{
		{good, true},
		{strings.Repeat("A", 32), true}, // the form of the zero ID
		{strings.Repeat("-_", 16), true},
		{"", false},
		{good[:31], false},
		{good + "A", false},
		{good[:31] + "=", false},
		{good[:30] + "==", false},
		{good[:31] + "+", false},
		{good[:31] + "/", false},
		{good[:31] + " ", false},
		{good[:15] + "\n" + good[16:], false}, // encoding/base64 skips newlines
		{good[:15] + "\r" + good[16:], false},
		{good[:30] + "é", false},
		{strings.Repeat("\x00", 32), false},
	} {
		id, err := ParseID(test.s)
		if (err == nil) != test.ok {
			t.Errorf("%q: %v", test.s, err)
		}
		if err != nil && !id.IsZero() {
			t.Errorf("%q: an error and an id", test.s)
		}
		if err == nil && id.String() != test.s {
			t.Errorf("%q is %q", test.s, id.String())
		}
	}
}
