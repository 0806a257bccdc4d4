package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Fault is one thing wrong with the configuration.
type Fault struct {
	// Where names the place: "flag --loops", "environment MQGATE_LOOPS", "gateway.yaml:3 key loops".
	Where string
	// Problem says what stands there and what was expected, in one line.
	Problem string

	line int // in the file, to list its faults from top to bottom
}

// String returns the fault as one line.
func (f Fault) String() string { return f.Where + ": " + f.Problem }

// Faults is the error of Parse: everything that is wrong, in the order command line, environment, file, and last what
// contradicts each other. It is never empty.
type Faults struct {
	List    []Fault
	command CommandName // "" when none was recognised
}

// Error returns a headline and one indented line per fault. A line break inside a value is shown escaped, so that the
// number of lines is always one more than that of the faults.
func (f *Faults) Error() string {
	var b strings.Builder
	noun := "faults"
	if len(f.List) == 1 {
		noun = "fault"
	}
	program := "mqgate"
	if f.command != "" {
		program += " " + string(f.command)
	}
	fmt.Fprintf(&b, "%s: %d %s (%s --help explains):", program, len(f.List), noun, program)
	for _, fault := range f.List {
		b.WriteString("\n  ")
		b.WriteString(oneLine(fault.String()))
	}
	return b.String()
}

func (f *Faults) add(faults ...Fault) { f.List = append(f.List, faults...) }
func (f *Faults) any() bool           { return len(f.List) > 0 }

// oneLine escapes line breaks and everything else that is not printed: names of files and keys may contain it.
func oneLine(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return b.String()
}

// layer is one of the places where a value can stand, strongest last.
type layer uint8

const (
	layerDefault layer = iota
	layerFile
	layerEnv
	layerFlag
)

// origin is the place where a value stands.
type origin struct {
	layer layer
	where string // "flag --x", "environment MQGATE_X", "file:3 key x"; empty for a default
	line  int    // of layerFile
}

func (o origin) String() string {
	if o.layer == layerDefault {
		return "default"
	}
	return o.where
}

// valueError says why the text of a value cannot be used.
type valueError struct {
	got     string // the text, or the element of the list, that is wrong
	problem string // "is out of range", "has no unit"
}

func (e *valueError) Error() string { return quote(e.got) + " " + e.problem }

// maxQuoted [bytes]: of a longer value a fault shows the beginning.
const maxQuoted = 200

// quote returns a value as a Go string literal, so that whatever is in it stays on one line and visible.
func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.Quote(s[:maxQuoted]) + "..."
	}
	return strconv.Quote(s)
}

// nearest returns the one of names that got was probably meant to be, or "" when none is near.
func nearest(got string, names []string) string {
	best, bestDistance := "", 4
	for _, name := range names {
		// One slip, and another for every six letters: else short names would be near to anything.
		if d := editDistance(got, name); d < bestDistance && d <= 1+len(name)/6 {
			best, bestDistance = name, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and replacements of bytes that turn a into b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j]+1, row[j+1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
