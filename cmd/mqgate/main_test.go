package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

// What the process prints and its exit status, but for a running server.
func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte("loops: 300\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args           string
		env            []string
		status         int
		stdout, stderr string // a part of it; "" means nothing at all
	}{
		{args: "--help", stdout: "Usage: mqgate <command> [flags]\n"},
		{args: "serve --help", stdout: "\nLimits:\n"},
		{args: "version", stdout: "mqgate "},
		{args: "serve --check", stdout: "# The configuration is valid.\n"},
		{args: "serve --check --ping-interval=1s", stdout: "1s                       # flag --ping-interval\n"},
		{args: "doctor --connections 1", stdout: "\nThis machine holds "},
		{args: "doctor --connections 8000000", status: 1, stdout: "\nopen files: short, stops connections"},
		{args: "doctor --connections 8000000 --json", status: 1, stdout: `"stopped_by": "`},
		{args: "doctor --connections=many", status: 2, stderr: `flag --connections: "many"`},
		{args: "", status: 2, stderr: "command line: no command"},
		{args: "serve --bogus", status: 2, stderr: "flag --bogus: unknown flag"},
		{args: "serve --check --bogus", status: 2, stderr: "flag --bogus: unknown flag"},
		{args: "serve", env: []string{"MQGATE_LOOPS=300"}, status: 2, stderr: `environment MQGATE_LOOPS: "300" is out of range`},
		{args: "serve --config=" + file, status: 2, stderr: `gateway.yaml:1 key loops: "300" is out of range`},
		{args: "version --check", status: 2, stderr: "flag --check: unknown flag of mqgate version"},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(strings.Fields(test.args), test.env, &stdout, &stderr)
			if status != test.status {
				t.Errorf("status %d, want %d", status, test.status)
			}
			for _, stream := range []struct{ name, got, want string }{
				{"stdout", stdout.String(), test.stdout}, {"stderr", stderr.String(), test.stderr},
			} {
				if !strings.Contains(stream.got, stream.want) || (stream.want == "") != (stream.got == "") {
					t.Errorf("%s: %q, want %q", stream.name, stream.got, stream.want)
				}
			}
		})
	}
}

func TestVersionLine(t *testing.T) {
	platform := " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
	info := &debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{
			{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
		},
	}
	for _, test := range []struct {
		linked string
		info   *debug.BuildInfo
		want   string
	}{
		{"", nil, "mqgate unknown (commit unknown)"},
		{"v9", nil, "mqgate v9 (commit unknown)"},
		{"", info, "mqgate v1.2.3 (commit abc, modified)"},
		{"v9", info, "mqgate v9 (commit abc, modified)"},
		{"", &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "false"}}},
			"mqgate unknown (commit abc)"},
	} {
		if got := versionLine(test.linked, test.info); got != test.want+platform {
			t.Errorf("%q, want %q", got, test.want+platform)
		}
	}
}
