package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
)

// WriteJSON writes r as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// WriteTable writes r for people: a table, the sum of it, and what to change.
func (r Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	tables := "one descriptor table"
	if r.FDTables == "per-loop" {
		tables = "a descriptor table per loop"
	}
	fmt.Fprintf(&b, "Needed for %s connections, %d loops, %s:\n\n", grouped(r.Connections), r.Loops, tables)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) {
		cells[0] += strings.Repeat(" ", 30-len(cells[0])) // aligned left, unlike the numbers
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
	}
	row("limit", "present", "needed", "unit", "holds", "verdict")
	for _, c := range r.Checks {
		present, needed, holds := grouped(c.Present), grouped(c.Needed), "-"
		if c.Verdict == Unknown {
			present = "?"
		}
		if c.Needed == 0 {
			present, needed = "-", "-"
		}
		if c.Holds != nil {
			holds = grouped(*c.Holds)
		}
		row(c.Name, present, needed, c.Unit, holds, string(c.Verdict))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if r.StoppedBy == "" {
		b.WriteString("\nNothing that stops connections could be read.\n")
	} else {
		fmt.Fprintf(&b, "\nThis machine holds %s connections. The next limit: %s.\n", grouped(r.Holds), r.StoppedBy)
	}
	for _, c := range r.Checks {
		if c.Verdict == OK {
			continue
		}
		effect := "stops connections"
		if c.Holds == nil {
			effect = "stops none, costs retries or speed"
		}
		if c.Verdict == Unknown {
			effect = "cannot be read here"
		}
		fmt.Fprintf(&b, "\n%s: %s, %s (%s)\n", c.Name, c.Verdict, effect, c.Note)
		for _, command := range c.Commands {
			fmt.Fprintf(&b, "    %s\n", command)
		}
	}
	b.WriteString("\nOf those that are enough:\n")
	for _, c := range r.Checks {
		if c.Verdict == OK && c.Note != "" {
			fmt.Fprintf(&b, "  %s: %s\n", c.Name, c.Note)
		}
	}
	// The table's lines end in the spaces of the last cell's padding.
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	_, err := io.WriteString(w, strings.Join(lines, "\n"))
	return err
}

// grouped writes n with a comma between thousands.
func grouped(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}
