package config

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden compares got with a file that `go test ./cmd/mqgate/config -update` writes.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is out of date (-update writes it):\n%s", path, diff)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "40") // which must change nothing
	for name, args := range map[string][]string{
		"help.txt":         {"--help"},
		"help-serve.txt":   {"serve", "--help"},
		"help-worker.txt":  {"worker", "--help"},
		"help-doctor.txt":  {"doctor", "--help"},
		"help-version.txt": {"version", "--help"},
	} {
		var help bytes.Buffer
		if _, err := Parse(args, nil, testSystem, &help); err != nil {
			t.Fatal(err)
		}
		golden(t, "testdata/"+name, help.Bytes())
		for _, line := range strings.Split(help.String(), "\n") {
			if len(line) > HelpWidth || line != strings.TrimRight(line, " ") {
				t.Errorf("%s: a line of %d columns: %q", name, len(line), line)
			}
		}
	}
}

// Each setting is in the help with its default, its range and its variable.
func TestHelpIsComplete(t *testing.T) {
	var help bytes.Buffer
	if _, err := Parse([]string{"serve", "--help"}, nil, testSystem, &help); err != nil {
		t.Fatal(err)
	}
	words := strings.Join(strings.Fields(help.String()), " ")
	for i := range settings {
		s := &settings[i]
		for _, part := range []string{"--" + s.name, strings.Join(strings.Fields(s.doc), " "), s.group + ":"} {
			if !strings.Contains(words, part) {
				t.Errorf("--%s: the help lacks %q", s.name, part)
			}
		}
		if !s.flagOnly && !strings.Contains(words, flagFoot(s, true)) {
			t.Errorf("--%s: the help lacks %q", s.name, flagFoot(s, true))
		}
	}
}

// The table of docs/configuration.md, between its two marks, is made from the settings.
func TestDocumentation(t *testing.T) {
	const (
		path  = "../../../docs/configuration.md"
		begin = "<!-- The following is made by: go test ./cmd/mqgate/config -update -->\n"
		end   = "<!-- The end of what is made. -->\n"
	)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, foundEnd := strings.Cut(rest, end)
	if !found || !foundEnd {
		t.Fatalf("%s lacks the lines\n%s%s", path, begin, end)
	}
	golden(t, path, []byte(before+begin+settingsAsMarkdown()+end+after))
}

func settingsAsMarkdown() string {
	var b strings.Builder
	group := ""
	for i := range settings {
		s := &settings[i]
		if s.group != group {
			group = s.group
			fmt.Fprintf(&b, "\n## %s\n\n| flag | environment | default | range | meaning |\n| --- | --- | --- | --- | --- |\n", group)
		}
		repeat, env, def, rang := "", "`"+s.env()+"`", "`"+s.def+"`", s.rangeDoc
		if s.list {
			repeat = ", repeatable"
		}
		if s.def == "" {
			def = "empty"
		}
		if rang == "" {
			rang = s.expected
		}
		if s.flagOnly {
			env, def, rang = "none", "off", ""
		}
		cells := []string{"`--" + s.name + "`" + repeat, env, def, rang, s.doc}
		for i, cell := range cells {
			cells[i] = strings.ReplaceAll(cell, "|", `\|`)
		}
		b.WriteString(strings.TrimRight("| "+strings.Join(cells, " | "), " ") + " |\n")
	}
	b.WriteByte('\n')
	return b.String()
}
