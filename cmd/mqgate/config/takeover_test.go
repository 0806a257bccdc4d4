package config

import (
	"strings"
	"testing"
)

// --takeover takes paths in the file system that leave room for what is put behind them.
func TestTakeoverPath(t *testing.T) {
	for value, problem := range map[string]string{
		"":                         "",
		"relative.sock":            "",
		"/run/mqgate/takeover":     "",
		strings.Repeat("x", 96):    "",
		strings.Repeat("x", 97):    "has 97 bytes",
		"@abstract":                "is an abstract address",
		"/run/mqgate/":             "is a folder",
		"/run/\x00/takeover":       "contains a zero byte",
		strings.Repeat("x", 96*96): "has 9216 bytes",
	} {
		command, err := Parse([]string{"serve", "--takeover=" + value}, nil, testSystem, nil)
		switch {
		case problem == "" && err != nil:
			t.Errorf("%q: %v", value, err)
		case problem == "" && command.Serve.Takeover != value:
			t.Errorf("%q is read as %q", value, command.Serve.Takeover)
		case problem != "" && (err == nil || !strings.Contains(err.Error(), problem) || !strings.Contains(err.Error(), "--takeover")):
			t.Errorf("%q: %v, expected %q", value, err, problem)
		}
	}
}
