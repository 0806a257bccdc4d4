package cmd_test

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/conn"
)

// The tables of docs/lifecycle.md say what the code does; these tests keep the two in step.

func lifecyclePage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../docs/lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// section returns the part of a page under a heading.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(page, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

// cells returns the cells of the table in a text, without its head, and without the quotes around code.
func cells(text string) (rows [][]string) {
	for _, line := range strings.Split(text, "\n") {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| ---") {
			continue
		}
		row := strings.Split(strings.Trim(line, "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		rows = rows[1:]
	}
	return rows
}

func unquote(cell string) string { return strings.Trim(cell, "`") }

// TestPageOfStates: L1.1.
func TestPageOfStates(t *testing.T) {
	var states []string
	for s := conn.New; s <= conn.Closed; s++ {
		states = append(states, s.String())
	}
	if want := strings.Join(states, " → "); !strings.Contains(section(t, lifecyclePage(t), "L1 States"), "\n    "+want+"\n") {
		t.Errorf("the line of states is not %q", want)
	}
}

// TestPageOfCloseCodes: L5.1, every cause has one row with its code, its text and its advice, and there are no others.
func TestPageOfCloseCodes(t *testing.T) {
	advice := map[conn.Advice]string{conn.ComeBack: "yes", conn.StayAway: "no", conn.ComeBackIf: "yes, without"}
	seen := map[string]bool{}
	for _, row := range cells(section(t, lifecyclePage(t), "Close codes")) {
		if len(row) != 5 {
			t.Fatalf("row %q", row)
		}
		for _, label := range strings.Split(row[2], ", ") {
			label = unquote(label)
			if seen[label] {
				t.Errorf("%s has two rows", label)
			}
			seen[label] = true
			i := slices.IndexFunc(allCauses(), func(c conn.Cause) bool { return c.Label() == label })
			if i < 0 {
				t.Errorf("%s is no cause", label)
				continue
			}
			c := conn.Cause(i)
			code, text := c.Close()
			if n, err := strconv.Atoi(row[0]); (err == nil) != (code != 0) || err == nil && n != int(code) {
				t.Errorf("%s: code %s, the code says %d", label, row[0], code)
			}
			if text != "" && unquote(row[1]) != text {
				t.Errorf("%s: text %s, the code says %q", label, row[1], text)
			}
			if c != conn.CauseClient && c != conn.CauseLocal && !strings.HasPrefix(row[4], advice[c.Advice()]) {
				t.Errorf("%s: %q, the code says %q", label, row[4], advice[c.Advice()])
			}
		}
	}
	for _, c := range allCauses() {
		if !seen[c.Label()] {
			t.Errorf("%s has no row", c.Label())
		}
	}
}

func allCauses() (causes []conn.Cause) {
	for i := range conn.NumCauses {
		causes = append(causes, conn.Cause(i))
	}
	return causes
}

// TestPageOfEvents: the events are the methods of conn.Handler, and the counters are metrics.
func TestPageOfEvents(t *testing.T) {
	var events, want []string
	rows := cells(section(t, lifecyclePage(t), "Events and counters"))
	for _, row := range rows {
		events = append(events, unquote(row[0]))
		if !strings.Contains(row[2], "`mqgate_") {
			t.Errorf("%s counts nothing", row[0])
		}
	}
	handler := reflect.TypeFor[conn.Handler]()
	for i := range handler.NumMethod() {
		want = append(want, handler.Method(i).Name)
	}
	slices.Sort(events)
	if !slices.Equal(events, want) {
		t.Errorf("events %v, the handler has %v", events, want)
	}
	metrics, err := os.ReadFile("../docs/metrics.md") // which a test keeps in step with the metrics
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile("`(mqgate_[a-z_]+)`").FindAllStringSubmatch(lifecyclePage(t), -1) {
		if !strings.Contains(string(metrics), "| `"+name[1]+"` |") {
			t.Errorf("%s is no metric", name[1])
		}
	}
}

// TestPageOfFlags: every flag that the page names exists; every flag about connections is in its table, beside
// rows that the page has.
func TestPageOfFlags(t *testing.T) {
	configuration, err := os.ReadFile("../docs/configuration.md") // which is made from the settings
	if err != nil {
		t.Fatal(err)
	}
	exists := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(--[a-z-]+)`").FindAllStringSubmatch(string(configuration), -1) {
		exists[m[1]] = true
	}
	flag := regexp.MustCompile("`(--[a-z-]+)")
	page := lifecyclePage(t)
	for _, m := range flag.FindAllStringSubmatch(page, -1) {
		if !exists[m[1]] {
			t.Errorf("%s is no flag", m[1])
		}
	}
	table := section(t, page, "Flags")
	for _, heading := range []string{"Where clients come from", "Limits", "Timeouts", "Heartbeat", "Drain"} {
		for _, m := range regexp.MustCompile("(?m)^\\| `(--[a-z-]+)`").FindAllStringSubmatch(section(t, string(configuration), heading), -1) {
			if !strings.Contains(table, "`"+m[1]+"`") {
				t.Errorf("%s is not in the table of flags", m[1])
			}
		}
	}
	rows := cells(table)
	if len(rows) < 10 {
		t.Fatalf("the table of flags has %d rows", len(rows))
	}
	for _, row := range rows {
		for _, number := range regexp.MustCompile(`L\d+\.\d+`).FindAllString(row[0], -1) {
			if !strings.Contains(page, "\n| "+number+" |") {
				t.Errorf("there is no row %s", number)
			}
		}
	}
}
