package config

import (
	"fmt"
	"io"
	"strings"

	"gopkg.in/yaml.v3"
)

// WriteReport writes the whole configuration with the origin of each value and, before it, the warnings. The output is
// a valid file for --config that gives the same configuration. Secrets are not in it, only the names of their files.
func (s *Serve) WriteReport(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# The configuration is valid.\n")
	for _, warning := range s.Warnings {
		fmt.Fprintf(&b, "# warning: %s\n", warning)
	}
	widest := 0
	for _, setting := range s.table {
		widest = max(widest, len(setting.name))
	}
	group := ""
	for _, setting := range s.table {
		if setting.flagOnly {
			continue
		}
		if setting.group != group {
			group = setting.group
			fmt.Fprintf(&b, "\n# %s\n", group)
		}
		e := s.effective[setting.name]
		value, err := yamlValue(&setting, e.texts)
		if err != nil {
			return err
		}
		comment := oneLine(e.origin.String())
		if e.note != "" {
			comment += ": " + e.note
		}
		line := fmt.Sprintf("%-*s %-24s # %s", widest+1, setting.name+":", value, comment)
		if setting.notInFile {
			line = "# " + line
		}
		b.WriteString(line + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// yamlValue returns the value of a setting in YAML, on one line.
func yamlValue(s *setting, texts []string) (string, error) {
	if s.numeric != nil {
		return texts[0], nil // digits and a unit, never in need of quotes
	}
	list := yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, text := range texts {
		scalar := &yaml.Node{}
		if err := scalar.Encode(text); err != nil {
			return "", err
		}
		if oneLine(text) != text {
			scalar.Style = yaml.DoubleQuotedStyle // with escapes, instead of a block of lines
		}
		list.Content = append(list.Content, scalar)
	}
	node := &list
	if !s.list {
		node = list.Content[0]
	}
	text, err := yaml.Marshal(node)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}
