package config

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestDoctorFlags(t *testing.T) {
	for _, test := range []struct {
		args   string
		want   Doctor
		faults []string
	}{
		{args: "doctor", want: Doctor{Connections: 1_000_000, Loops: 4, FDTables: FDTablesShared}},
		{args: "doctor --connections 5 --loops=7 --fd-tables per-loop --json",
			want: Doctor{Connections: 5, Loops: 7, FDTables: FDTablesPerLoop, JSON: true}},
		{args: "doctor --connections=0 --loops=256 --fd-tables=x --json=maybe", faults: []string{
			`flag --json: "--json=maybe", expected no value`,
			`flag --connections: "0" is out of range, expected a whole number from 1 to 8000000`,
			`flag --loops: "256" is out of range, expected a whole number from 0 to 255`,
			`flag --fd-tables: "x" is none of them, expected shared or per-loop`}},
		{args: "doctor --json --json --connections 1 --connections 2", faults: []string{
			"flag --json: given 2 times, expected once", "flag --connections: given 2 times, expected once"}},
		{args: "doctor --max-connections 5", faults: []string{"flag --max-connections: unknown flag of mqgate doctor"}},
		{args: "doctor --connection 5", faults: []string{"flag --connection: unknown flag, did you mean --connections?"}},
		{args: "doctor --connections", faults: []string{"flag --connections: has no value, expected a whole number from 1 to 8000000"}},
		{args: "doctor here", faults: []string{`command line: unexpected argument "here", expected flags only`}},
		{args: "serve --json", faults: []string{"flag --json: unknown flag"}},
	} {
		// The doctor does not read the environment: what is wrong there does not concern it.
		var env []string
		if strings.HasPrefix(test.args, "doctor") {
			env = []string{"MQGATE_LOOPS=-1"}
		}
		command, err := Parse(strings.Fields(test.args), env, testSystem, new(bytes.Buffer))
		var faults []string
		if wrong, ok := errors.AsType[*Faults](err); ok {
			faults = faultLines(wrong)
		}
		if !slices.Equal(faults, test.faults) {
			t.Errorf("%s:\n got %q\nwant %q", test.args, faults, test.faults)
		}
		if test.faults == nil {
			test.want.System = testSystem
			if command == nil || command.Name != CommandDoctor || *command.Doctor != test.want {
				t.Errorf("%s: %+v, %v", test.args, command, err)
			}
		}
	}
}

// The doctor counts open files as the server does, and what it asks for is exactly enough.
func TestDoctorCountsAsTheServer(t *testing.T) {
	for _, tables := range []FDTables{FDTablesShared, FDTablesPerLoop} {
		serve := mustServe(t, []string{"--fd-tables", string(tables)}, nil, "")
		d := &Doctor{Loops: serve.Loops, FDTables: tables}
		if got := d.ConnectionsFor(serve.OpenFiles); got != serve.MaxConnections {
			t.Errorf("%s: the doctor says %d connections, the server takes %d", tables, got, serve.MaxConnections)
		}
		for _, n := range []int{1, 1000, 17_698, 250_001, 1_000_000, maxMaxConnections} {
			files := d.FilesFor(n)
			if d.ConnectionsFor(files) < n || d.ConnectionsFor(files-1) >= n {
				t.Errorf("%s: %d open files for %d connections: they hold %d, one less %d", tables, files, n,
					d.ConnectionsFor(files), d.ConnectionsFor(files-1))
			}
		}
	}
}
