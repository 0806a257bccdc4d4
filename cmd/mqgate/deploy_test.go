package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"gopkg.in/yaml.v3"
)

// The command lines in deploy are right, one by one.
func TestDeployments(t *testing.T) {
	var lines [][]string
	var collect func(v any)
	collect = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				list, ok := value.([]any)
				if (key == "args" || key == "command") && ok && (list[0] == "serve" || list[0] == "worker") {
					var line []string
					for _, arg := range list {
						line = append(line, arg.(string))
					}
					lines = append(lines, line)
				}
				collect(value)
			}
		case []any:
			for _, e := range v {
				collect(e)
			}
		}
	}
	for _, file := range []string{"compose/compose.yaml", "kubernetes/mqgate.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		d := yaml.NewDecoder(bytes.NewReader(text))
		for {
			var document any
			if err := d.Decode(&document); err != nil {
				break
			}
			collect(document)
		}
	}
	if len(lines) != 4 {
		t.Fatalf("%d command lines: %q", len(lines), lines)
	}
	secrets := t.TempDir()
	some := []byte(strings.Repeat("s", 32))
	creds, err := os.ReadFile(newAuthority(t).creds("nats.creds", nil, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"jwt-secret": some, "nats.creds": creds, "admin-token": some} {
		if err := os.WriteFile(filepath.Join(secrets, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, line := range lines {
		for i := range line {
			line[i] = strings.Replace(line[i], "/secrets", secrets, 1)
		}
		if _, err := config.Parse(line, nil, config.System{OpenFiles: 65536, Memory: 1 << 30, CPUs: 2}, new(bytes.Buffer)); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
}
