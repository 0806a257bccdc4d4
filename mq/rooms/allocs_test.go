//go:build !race

package rooms_test

import "testing"

// The race detector makes sync.Pool forget at random: only without it this can be counted.

// What only reads, or is refused, allocates nothing. A message that is kept takes its bytes.
func TestAllocs(t *testing.T) {
	for name, f := range workload(t) {
		want := 0.0
		if name == "SendMessage" {
			want = 1
		}
		f()
		if n := testing.AllocsPerRun(200, f); n > want {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
