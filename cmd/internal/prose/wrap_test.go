package prose

import (
	"slices"
	"testing"
)

func TestWrap(t *testing.T) {
	for _, test := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"one two", 7, []string{"one two"}},
		{"one two", 6, []string{"one", "two"}},
		{"  one \n two  three ", 8, []string{"one two", "three"}},
		{"a longest b", 4, []string{"a", "longest", "b"}},
	} {
		if got := Wrap(test.text, test.width); !slices.Equal(got, test.want) {
			t.Errorf("Wrap(%q, %d): %q, expected %q", test.text, test.width, got, test.want)
		}
	}
}
