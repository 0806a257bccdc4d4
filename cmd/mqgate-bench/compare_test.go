package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/bench"
)

// Each wrong comparison is answered with all that is wrong with it.
func TestCompareFaults(t *testing.T) {
	const two = " --server a=ws://127.0.0.1:1/ --server b=ws://127.0.0.1:2/"
	for _, test := range []struct {
		args string
		want []string
	}{
		{"compare churn" + two, []string{"scenario churn: it cannot be compared, connect and echo can"}},
		{"compare echo", []string{"flags --server and --peer: 0 given, a comparison needs two or more"}},
		{"compare echo --peer x --server a=http://x --server =ws://127.0.0.1/", []string{
			`flag --peer: "x" does not begin with NAME=`,
			`flag --server: "a=http://x" does not begin with ws://`,
			`flag --server: "=ws://127.0.0.1/" does not begin with NAME=`,
			"flags --server and --peer: 0 given, a comparison needs two or more"}},
		{"compare echo --server a=ws://127.0.0.1:1/ --peer a=x", []string{"flags --server and --peer: two servers have the name a"}},
		{"compare connect --depth 4 --url ws://x/ --rounds 0 --path echo --markdown #x" + two, []string{
			"flag --depth: compare connect does not use it",
			"flag --url: compare connect does not use it",
			`flag --rounds: "0" is out of range, expected 1 to 100`,
			`flag --path: "echo" is not a path like /echo`,
			`flag --markdown: "#x" is not the name of a file, or FILE#SECTION`}},
		{"compare echo --stalled 2 --expect lost=0" + two, []string{"flag --stalled: compare echo does not use it", "flag --expect: compare echo does not use it"}},
		{"compare echo --connections 4 --loops 5" + two, []string{"flag --loops: 5 are more than the 4 connections"}},
		{"echo --rounds 3", []string{"flag --rounds: scenario echo does not use it, compare does"}},
	} {
		_, err := parse(strings.Fields(test.args), system)
		wrong, ok := errors.AsType[*usageError](err)
		if !ok {
			t.Errorf("%s: %v, want a *usageError", test.args, err)
			continue
		}
		if !slices.Equal(wrong.faults, test.want) {
			t.Errorf("%s\n got %q\nwant %q", test.args, wrong.faults, test.want)
		}
	}
}

func TestCompareParse(t *testing.T) {
	args := []string{"compare", "echo", "--peer", "a= bin/x  --listen=127.0.0.1:0 ", "--depth", "3", "--server", "b=ws://127.0.0.1:1/y?z=1"}
	c, err := parse(args, system)
	if err != nil {
		t.Fatal(err)
	}
	o := c.compare.options
	if !c.compare.on || c.options.Scenario != "echo" || c.options.Depth != 3 || o.Rounds != 3 || o.Path != "/echo" || len(o.Servers) != 2 ||
		o.Servers[0].Name != "a" || !slices.Equal(o.Servers[0].Command, []string{"bin/x", "--listen=127.0.0.1:0"}) || o.Servers[1].URL != "ws://127.0.0.1:1/y?z=1" {
		t.Errorf("got %+v", *c)
	}
}

// What a comparison prints, writes, and its exit status.
func TestCompareRun(t *testing.T) {
	good, bad := serve(t, &echo{}), serve(t, &echo{drop: true})
	dir := t.TempDir()
	page, file := filepath.Join(dir, "page.md"), filepath.Join(dir, "c.json")
	small := " --connections 4 --loops 1 --duration 100ms --warmup 0s --depth 4 --rounds 1 --server a=" + good
	for _, test := range []struct {
		args           string
		status         int
		stdout, stderr string // a part of it; "" means nothing at all
	}{
		{"compare echo --server b=" + good + small + " --json " + file + " --markdown " + page, exitOK, "\nresult   ok\n", ""},
		{"compare echo --server b=" + good + small + " --json -", exitOK, "{\n  \"scenario\": \"echo\",\n", "\nresult   ok\n"},
		{"compare echo --server b=" + bad + small, exitFailed, "FAILED   b, run 1: 4 of 4 opened", ""},
		{"compare echo --peer b=/no/such/program" + small, exitFailed, "", "mqgate-bench: b: fork/exec /no/such/program: no such file"},
		{"compare echo --server b=" + good + small + " --markdown " + page + "x#y", exitUsage, "", "mqgate-bench: flag --markdown: "},
	} {
		t.Run(test.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			status := run(t.Context(), strings.Fields(test.args), &stdout, &stderr, nil)
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
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c bench.Comparison
	if err := json.Unmarshal(text, &c); err != nil || !c.OK || len(c.Servers) != 2 || c.Servers[0].Metrics["rate_per_second"].Median <= 0 {
		t.Errorf("%v: %s", err, text)
	}
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "| b |") {
		t.Errorf("%v: %s", err, text)
	}
}
