package bench

import "testing"

// A loop that is behind its time closes fewer, but never so few that all of a run take longer than run.close gives them.
func TestCloseBudget(t *testing.T) {
	const ms = int64(1e6)
	for _, test := range []struct {
		late        int64
		most, loops int
		want        int
	}{
		{0, 512, 1, 512}, {100 * ms, 512, 1, 512}, {100*ms + 1, 512, 1, 111}, {490 * ms, 512, 1, 500}, {490 * ms, 499, 1, 499},
		{100*ms + 1, 8, 60, 2}, {990 * ms, 8, 60, 8}, {101 * ms, 2, 255, 1}, {3600_000 * ms, 8, 60, 8},
	} {
		if got := closeBudget(test.late, test.most, test.loops); got != test.want {
			t.Errorf("%d ns late, at most %d, %d loops: %d, want %d", test.late, test.most, test.loops, got, test.want)
		}
	}
}
