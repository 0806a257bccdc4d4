package bench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxSizes bounds the sizes of a distribution.
const MaxSizes = 16

// Sizes is a distribution of message sizes. Which one a message has follows from the seed, its connection and its number.
type Sizes struct {
	text  string
	bytes []int
	below []uint32 // the cumulated shares, of 2^32 - 1
	seed  uint64
}

// FixedSize is the distribution of one size [bytes].
func FixedSize(n int) Sizes {
	return Sizes{text: strconv.Itoa(n), bytes: []int{n}, below: []uint32{math.MaxUint32}}
}

// ParseSizes reads SIZE:SHARE%,SIZE:SHARE%..., as in 64:50%,1KiB:40%,16KiB:10%. The shares add up to 100. size reads one
// size [bytes]. The error says what is wrong, without repeating all of it.
func ParseSizes(text string, size func(string) (int, error)) (Sizes, error) {
	s := Sizes{text: text}
	parts := strings.Split(text, ",")
	if len(parts) > MaxSizes {
		return Sizes{}, fmt.Errorf("has %d sizes, expected at most %d", len(parts), MaxSizes)
	}
	total := 0.0
	for _, part := range parts {
		bytes, percent, found := strings.Cut(strings.TrimSpace(part), ":")
		percent, isPercent := strings.CutSuffix(percent, "%")
		share, err := strconv.ParseFloat(percent, 64)
		if !found || !isPercent || err != nil || !(share > 0 && share <= 100) {
			return Sizes{}, fmt.Errorf("has %q, which is not like 1KiB:40%%", part)
		}
		n, err := size(bytes)
		if err != nil {
			return Sizes{}, fmt.Errorf("has the size %q, which %w", bytes, err)
		}
		if slices.Contains(s.bytes, n) {
			return Sizes{}, fmt.Errorf("has the size %s twice", bytes)
		}
		total += share
		s.bytes = append(s.bytes, n)
		s.below = append(s.below, uint32(min(total/100, 1)*math.MaxUint32))
	}
	if math.Abs(total-100) > 1e-6 {
		return Sizes{}, fmt.Errorf("has shares that add up to %v%%, expected 100%%", total)
	}
	s.below[len(s.below)-1] = math.MaxUint32
	return s, nil
}

// Largest returns the largest size [bytes].
func (s *Sizes) Largest() int { return slices.Max(s.bytes) }

// String returns the distribution as it was given.
func (s *Sizes) String() string { return s.text }

// kind returns which of the sizes message seq of connection number has.
func (s *Sizes) kind(number, seq uint32) int {
	if len(s.bytes) == 1 {
		return 0
	}
	state := s.seed ^ (uint64(number)<<32 | uint64(seq))
	draw := uint32(pattern(&state, false) >> 32)
	k := 0
	for draw > s.below[k] {
		k++
	}
	return k
}

// of returns the size of message seq of connection number [bytes].
func (s *Sizes) of(number, seq uint32) int { return s.bytes[s.kind(number, seq)] }
