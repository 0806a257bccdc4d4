package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// readFile reads the settings of a command's table from the YAML file at path, which where named. The file is one mapping from names of
// settings to values: a scalar, or for lists also a sequence of scalars. ok is false when no mapping was found, so that
// nothing is known of what the file was to say.
func readFile(path string, where origin, table []setting) (values []given, faults []Fault, ok bool) {
	text, err := readLimited(path, maxConfigFileBytes)
	if err != nil {
		return nil, []Fault{{Where: where.where, Problem: fmt.Sprintf("%s %v, expected a YAML file", quote(path), err)}}, false
	}
	root, fault := parseYAML(path, text)
	if fault != nil {
		return nil, []Fault{*fault}, false
	}
	if root == nil {
		return nil, nil, true // nothing but comments
	}
	if root.Kind != yaml.MappingNode {
		return nil, []Fault{{Where: at(path, root), Problem: "not a mapping, expected lines of the form \"name: value\""}}, false
	}
	var names []string
	for _, s := range table {
		if !s.notInFile {
			names = append(names, s.name)
		}
	}
	firstLine := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		name := key.Value
		o := origin{layerFile, at(path, key) + " key " + name, key.Line}
		report := func(problem string) { faults = append(faults, Fault{o.where, problem, o.line}) }
		if key.Kind != yaml.ScalarNode {
			o.where = at(path, key)
			report("the key is not a word, expected the name of a flag without its dashes")
			continue
		}
		if line := firstLine[name]; line != 0 {
			report(fmt.Sprintf("given again, expected once (first in line %d)", line))
			continue
		}
		firstLine[name] = key.Line
		s := findIn(table, name)
		if s == nil || s.notInFile {
			problem := "unknown key"
			if s != nil {
				problem = "expected as the flag --" + name + ", not in a file"
			} else if findSetting(name) != nil {
				problem = "expected for mqgate serve only"
			} else if near := nearest(name, names); near != "" {
				problem += ", did you mean " + near + "?"
			} else {
				problem += ", expected the name of a flag without its dashes"
			}
			report(problem)
			continue
		}
		texts, problem := yamlTexts(s, value)
		if problem != "" {
			report(problem + ", expected " + s.expected)
			continue
		}
		values = append(values, given{s, o, texts})
	}
	return values, faults, true
}

func at(path string, n *yaml.Node) string { return fmt.Sprintf("%s:%d", path, n.Line) }

// yamlLine finds the line number in the text of an error of package yaml.
var yamlLine = regexp.MustCompile(`^yaml: line ([0-9]+): `)

// parseYAML returns the root of the one document in text, or nil when there is none.
func parseYAML(path string, text []byte) (*yaml.Node, *Fault) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err == nil {
		err = decoder.Decode(&second)
		if err == nil {
			return nil, &Fault{Where: at(path, &second), Problem: "a second document, expected one"}
		}
	}
	if !errors.Is(err, io.EOF) {
		where, problem := path, err.Error()
		if m := yamlLine.FindStringSubmatch(problem); m != nil {
			// The line of yaml.v3 is where the broken construct begins, and for some errors the one before.
			where += ":" + m[1]
			problem = "here or below: " + problem[len(m[0]):]
		}
		return nil, &Fault{Where: where, Problem: "not YAML, " + strings.TrimPrefix(problem, "yaml: ")}
	}
	root := resolve(document.Content[0])
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	return root, nil
}

// resolve follows an alias (*name) to what its anchor (&name) stands at.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// yamlTexts returns the value of a key as the texts that the setting's store takes, or says why it has none. The text
// of a scalar is taken as it stands in the file: whether "4096" or "20s" is right is for the setting to say, not for
// YAML's rules, under which 010 is 8.
func yamlTexts(s *setting, value *yaml.Node) (texts []string, problem string) {
	value = resolve(value)
	if value.Kind == yaml.SequenceNode && s.list {
		texts = []string{}
		for _, element := range value.Content {
			text, problem := yamlText(resolve(element))
			if problem != "" {
				return nil, problem
			}
			texts = append(texts, text)
		}
		return texts, ""
	}
	text, problem := yamlText(value)
	if problem != "" {
		return nil, problem
	}
	return s.split(text), ""
}

func yamlText(n *yaml.Node) (text, problem string) {
	switch n.Kind {
	case yaml.SequenceNode:
		return "", "is a list"
	case yaml.MappingNode:
		return "", "is a mapping"
	case yaml.ScalarNode:
		switch n.Tag {
		case "!!null":
			return "", `has no value (write "" for an empty one)`
		case "!!str", "!!int", "!!float", "!!timestamp":
			return n.Value, ""
		}
		return "", fmt.Sprintf("%s is of the type %s", quote(n.Value), strings.TrimLeft(n.Tag, "!"))
	case yaml.DocumentNode, yaml.AliasNode: // not inside a document, and resolved
	}
	return "", "is not a value"
}

// readLimited reads a file of at most limit bytes. Its errors continue a sentence that begins with the path.
func readLimited(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cannotRead(err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, cannotRead(err)
	}
	if len(content) > limit {
		return nil, fmt.Errorf("is larger than %v", Size(limit))
	}
	return content, nil
}

func cannotRead(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		err = pathError.Err
	}
	return fmt.Errorf("cannot be read: %w", err)
}
