package config

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Settings that must fit each other: each relation below, at and above its limit.
func TestRelations(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "token", "0123456789abcdef\n")
	writeFile(t, "secret", strings.Repeat("s", 32))
	for _, test := range []struct {
		name string
		args string
		file string
		want []string
	}{
		{name: "paths equal", args: "--path=/x --echo-path=/x",
			want: []string{`flag --echo-path: "/x", expected another path than that of --path (/x, flag --path)`}},
		{name: "echo path equals the default path", args: "--echo-path=/ws",
			want: []string{`flag --echo-path: "/ws", expected another path than that of --path (/ws, default)`}},
		{name: "paths differ", args: "--path=/x --echo-path=/X"},
		{name: "path is wrong itself", args: "--path=x --echo-path=x", want: []string{
			`flag --path: "x" does not start with "/", expected a path that starts with / and has no query, fragment or escapes`,
			`flag --echo-path: "x" does not start with "/", expected a path that starts with / and has no query, fragment ` +
				`or escapes, or nothing`}},

		{name: "pending below message", args: "--max-message-bytes=4097KiB", want: []string{
			`default of --max-pending-bytes: "4MiB", expected more than --max-message-bytes (4097KiB, flag --max-message-bytes)`}},
		{name: "pending equals message", args: "--max-pending-bytes=1MiB", want: []string{
			`flag --max-pending-bytes: "1MiB", expected more than --max-message-bytes (1MiB, default)`}},
		{name: "pending above message", args: "--max-pending-bytes=1048577"},
		{name: "origins of both", args: "--max-message-bytes=2MiB", file: "max-pending-bytes: 1048577\n", want: []string{
			`gateway.yaml:1 key max-pending-bytes: "1048577", expected more than --max-message-bytes (2MiB, flag --max-message-bytes)`}},

		{name: "drain timeout below delay and spread", args: "--drain-delay=31s", want: []string{
			`default of --drain-timeout: "1m", expected at least --drain-delay (31s, flag --drain-delay) and --drain-spread ` +
				`(30s, default) together`}},
		{name: "drain timeout equals delay and spread", args: "--drain-delay=30s"},
		{name: "drain timeout above delay and spread", args: "--drain-delay=29s"},
		{name: "all drain times zero", args: "--drain-delay=0s --drain-spread=0s --drain-timeout=0s"},
		{name: "longest drain", args: "--drain-delay=1h --drain-spread=1h --drain-timeout=2h"},

		{name: "same address twice", args: "--listen=127.0.0.1:1,127.0.0.1:1", want: []string{
			`flag --listen: "127.0.0.1:1,127.0.0.1:1", expected addresses of which no two claim the same port, as 127.0.0.1:1 ` +
				`and 127.0.0.1:1 do`}},
		{name: "address inside another", args: "--listen=:1 --listen=127.0.0.1:1", want: []string{
			`flag --listen: ":1,127.0.0.1:1", expected addresses of which no two claim the same port, as :1 and 127.0.0.1:1 do`}},
		{name: "port 0 twice", args: "--listen=127.0.0.1:0,127.0.0.1:0 --admin=127.0.0.1:0"},
		{name: "admin on the port of listen", args: "--admin=127.0.0.1:8080", want: []string{
			`flag --admin: "127.0.0.1:8080", expected another port than --listen (127.0.0.1:8080, default)`}},

		{name: "admin for everyone without token", args: "--admin=:9090", want: []string{
			`flag --admin: ":9090", expected a loopback address, or a bearer token in --admin-token-file`}},
		{name: "admin for everyone with token", args: "--admin=:9090 --admin-token-file=token"},
		{name: "admin on loopback with token", args: "--admin-token-file=token"},
		{name: "admin on IPv6 loopback", args: "--admin=[::1]:9090"},
		{name: "token without admin", args: "--admin= --admin-token-file=token", want: []string{
			`flag --admin-token-file: "token", expected nothing when --admin is off (, flag --admin)`}},

		{name: "jwt without secret", args: "--auth=jwt", want: []string{
			`flag --auth: "jwt", expected the secret in --auth-secret-file`}},
		{name: "jwt with secret", args: "--auth=jwt --auth-secret-file=secret"},
		{name: "secret without jwt", args: "--auth-secret-file=secret", want: []string{
			`flag --auth-secret-file: "secret", expected --auth=jwt, the secret has no meaning with --auth (open, default)`}},

		{name: "choices", args: "--heartbeat=SERVER --auth=none --log-level=trace --log-format=xml", want: []string{
			`flag --heartbeat: "SERVER" is none of them, expected server, client or off`,
			`flag --auth: "none" is none of them, expected open or jwt`,
			`flag --log-level: "trace" is none of them, expected debug, info, warn or error`,
			`flag --log-format: "xml" is none of them, expected text or json`}},
		{name: "other choices", args: "--heartbeat=off --log-level=error --log-format=json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, got := parseServeArgs(t, strings.Fields(test.args), nil, test.file)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSecretFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("directory", 0o700); err != nil {
		t.Fatal(err)
	}
	x := func(n int) string { return strings.Repeat("x", n) }
	const (
		wantSecret = ", expected a file with at least 32 bytes"
		wantToken  = ", expected a file with 16 or more letters, digits and -._~+/ in one line"
	)
	for _, test := range []struct {
		name, content string
		secret, token string // what is wrong with it as either; "" when nothing
	}{
		{"empty", "", "is empty", "is empty"},
		{"newline", "\n", "is empty", "is empty"},
		{"15", x(15), "holds 15 bytes", "holds 15 bytes"},
		{"15 and newline", x(15) + "\n", "holds 15 bytes", "holds 15 bytes"},
		{"16", x(16), "holds 16 bytes", ""},
		{"17", x(17), "holds 17 bytes", ""},
		{"31 and newline", x(31) + "\n", "holds 31 bytes", ""},
		{"32", x(32), "", ""},
		{"32 and newline", x(32) + "\r\n", "", ""},
		{"33", x(33), "", ""},
		{"two lines", x(16) + "\n" + x(16), "", "contains a character that a bearer token must not have"},
		{"spaces", x(32) + " ", "", "contains a character that a bearer token must not have"},
		{"binary", strings.Repeat("\x00\xff", 16), "", "contains a character that a bearer token must not have"},
		{"padding", x(32) + "==", "", ""},
		{"padding inside", x(32) + "=x", "", "contains a character that a bearer token must not have"},
		{"only padding", strings.Repeat("=", 32), "", "contains nothing but ="},
		{"64KiB-1", x(65535), "", ""},
		{"64KiB", x(65536), "", ""},
		{"64KiB+1", x(65537), "is larger than 64KiB", "is larger than 64KiB"},
		{"directory", "", "cannot be read: is a directory", "cannot be read: is a directory"},
		{"missing", "", "cannot be read: no such file or directory", "cannot be read: no such file or directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name != "directory" && test.name != "missing" {
				writeFile(t, test.name, test.content)
			}
			check := func(args []string, where, problem, expected string, read func(*Serve) Secret) {
				t.Helper()
				s, faults := parseServeArgs(t, args, nil, "")
				if problem == "" {
					want := strings.TrimRight(test.content, "\r\n")
					if faults != nil || string(read(s)) != want {
						t.Errorf("%s: faults %q", where, faults)
					}
					return
				}
				want := []string{fmt.Sprintf("%s: %q, which %s%s", where, test.name, problem, expected)}
				if diff := cmp.Diff(want, faults); diff != "" {
					t.Error(diff)
				}
			}
			check([]string{"--auth=jwt", "--auth-secret-file=" + test.name}, "flag --auth-secret-file", test.secret, wantSecret,
				func(s *Serve) Secret { return s.AuthSecret })
			check([]string{"--admin-token-file=" + test.name}, "flag --admin-token-file", test.token, wantToken,
				func(s *Serve) Secret { return s.AdminToken })
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "good", strings.Repeat("s", 32))
	for _, test := range []struct {
		args string
		want []string
	}{
		{"", nil},
		{"--listen=:8080", []string{"--auth=open on an address that other machines can reach: anybody may be anybody"}},
		{"--listen=:8080 --auth=jwt --auth-secret-file=good", nil},
		{"--backlog=4096", nil},
		{"--memory-limit=8GiB", nil},
		{"--memory-limit=9GiB", []string{"--memory-limit is 9GiB, more than the 8192 MiB that there are"}},
		{"--backlog=4097", []string{"--backlog is 4097, but the kernel allows 4096: raise net.core.somaxconn"}},
	} {
		s := mustServe(t, strings.Fields(test.args), nil, "")
		if !slices.Equal(s.Warnings, test.want) {
			t.Errorf("%s: %q, want %q", test.args, s.Warnings, test.want)
		}
	}
}

// TestMemoryLimit: L8.6, what auto stands for, off, and the range.
func TestMemoryLimit(t *testing.T) {
	for _, test := range []struct {
		memory uint64
		arg    string
		want   Size // 0: off; -1: an error
		notes  string
	}{
		{8 << 30, "auto", 6 * GiB, "6144 MiB of 8192 MiB"},
		{512 << 20, "auto", 384 * MiB, ""},
		{32 << 20, "auto", 32 * MiB, "32 MiB of 32 MiB"}, // the least
		{math.MaxUint64, "auto", 12 << 10 * GiB, ""},
		{0, "auto", 0, "off: how much memory there is, is not known"},
		{8 << 30, "off", 0, ""},
		{8 << 30, "32MiB", 32 * MiB, ""},
		{8 << 30, "33554431", -1, ""},
		{8 << 30, "16384GiB", 16 << 10 * GiB, ""},
		{8 << 30, "16385GiB", -1, ""},
		{8 << 30, "0", -1, ""},
		{8 << 30, "-1", -1, ""},
		{8 << 30, "", -1, ""},
		{8 << 30, "Auto", -1, ""},
	} {
		system := testSystem
		system.Memory = test.memory
		command, err := Parse([]string{"serve", "--memory-limit=" + test.arg}, nil, system, new(bytes.Buffer))
		switch {
		case test.want < 0:
			if err == nil || !strings.Contains(err.Error(), "expected a size from 32MiB to 16384GiB, auto or off") {
				t.Errorf("%+v: %v", test, err)
			}
		case err != nil:
			t.Errorf("%+v: %v", test, err)
		default:
			got := command.Serve
			if diff := got.MemoryLimit - test.want; diff < -100 || diff > 100 || (test.want == 0) != (got.MemoryLimit == 0) {
				t.Errorf("%+v: %v", test, got.MemoryLimit)
			}
			if note := got.effective["memory-limit"].note; test.notes != "" && note != test.notes {
				t.Errorf("%+v: note %q", test, note)
			}
			if (len(got.Warnings) > 0) != (test.memory == 0 || Size(min(test.memory, 1<<62)) < test.want) {
				t.Errorf("%+v: warnings %q", test, got.Warnings)
			}
		}
	}
}

func TestLoops(t *testing.T) {
	for _, test := range []struct {
		args       []string
		cpus, want int
	}{{nil, 1, 1}, {nil, 254, 254}, {nil, 255, 255}, {nil, 256, 255}, {[]string{"--loops=3"}, 1, 3}} {
		system := testSystem
		system.CPUs = test.cpus
		command, err := Parse(append([]string{"serve"}, test.args...), nil, system, new(bytes.Buffer))
		if err != nil || command.Serve.Loops != test.want {
			t.Errorf("%v on %d processors: %+v, %v", test.args, test.cpus, command, err)
		}
	}
}

// The derived number of connections is the largest that fits, and exactly that one is the largest that may be given.
func TestConnectionsAndOpenFiles(t *testing.T) {
	for _, files := range []uint64{200, 256, 1024, 4096, 20000, 65536, 524288, 1048576, 1 << 30, math.MaxUint64} {
		for _, slack := range []string{"0%", "1%", "10%", "33%", "100%"} {
			system := System{OpenFiles: files, CPUs: 2, Memory: 8 << 30}
			args := []string{"serve", "--max-connections-slack=" + slack}
			command, err := Parse(args, nil, system, new(bytes.Buffer))
			if err != nil {
				t.Fatalf("%d files: %v", files, err)
			}
			s := command.Serve
			n := s.MaxConnections
			fits := func(n int) bool {
				return uint64(n+s.MaxConnectionsSlack.of(n))+s.reservedFiles() <= files
			}
			if n < 1 || n > maxMaxConnections || !fits(n) || n < maxMaxConnections && fits(n+1) {
				t.Errorf("%d files, slack %s: %d connections", files, slack, n)
			}
			if n >= 2 {
				if _, err := Parse(append(args, fmt.Sprintf("--max-connections=%d", n-1)), nil, system, new(bytes.Buffer)); err != nil {
					t.Errorf("%d files, slack %s: one less than %d: %v", files, slack, n, err)
				}
			}
			if _, err := Parse(append(args, fmt.Sprintf("--max-connections=%d", n)), nil, system, new(bytes.Buffer)); err != nil {
				t.Errorf("%d files, slack %s: %d: %v", files, slack, n, err)
			}
			if _, err := Parse(append(args, fmt.Sprintf("--max-connections=%d", n+1)), nil, system, new(bytes.Buffer)); err == nil {
				t.Errorf("%d files, slack %s: one more than %d was accepted", files, slack, n)
			}
		}
	}
	_, faults := parseServeArgs(t, []string{"--max-connections=20000"}, nil, "")
	want := []string{`flag --max-connections: "20000", expected a number for which 20000 open files suffice: with 10% slack and ` +
		`a reserve of 532 it takes 22532: raise the limit (ulimit -n, LimitNOFILE=) or lower the number to at most 17698`}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Error(diff)
	}
	_, err := Parse([]string{"serve"}, nil, System{OpenFiles: 64, CPUs: 2, Memory: 8 << 30}, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), `default of --max-connections: "0", expected more open files than 64, of which 115 are reserved: `+
		`raise the limit (ulimit -n, LimitNOFILE=)`) {
		t.Errorf("64 files: %v", err)
	}
}

// With a table per loop the derived number fits into all of them, with room for what one loop gets more than its share, and
// exactly that one is the largest that may be given.
func TestConnectionsAndTables(t *testing.T) {
	for _, files := range []uint64{200, 1024, 20000, 1048576, 1 << 40, math.MaxUint64} {
		for _, loops := range []int{1, 2, 50, 100} {
			system := System{OpenFiles: files, CPUs: 2, Memory: 8 << 30}
			args := []string{"serve", "--fd-tables=per-loop", fmt.Sprintf("--loops=%d", loops)}
			command, err := Parse(args, nil, system, new(bytes.Buffer))
			if err != nil {
				t.Fatalf("%d files, %d loops: %v", files, loops, err)
			}
			s := command.Serve
			perLoop := float64(s.HardConnections()) / float64(loops)
			room := float64(min(files, 1<<30))*0.98 - float64(loops) - 17
			if used := perLoop + 4*math.Sqrt(perLoop); used > room || s.MaxConnections < maxMaxConnections && used < room*0.97-4*math.Sqrt(room)+3*math.Sqrt(room) {
				t.Errorf("%d files, %d loops: %d connections, %.0f a loop, of %.0f", files, loops, s.MaxConnections, used, room)
			}
			if want := uint64(loops) * min(files, 1<<30); s.AllOpenFiles() != want {
				t.Errorf("%d files, %d loops: %d in all", files, loops, s.AllOpenFiles())
			}
			if n := s.MaxConnections; n < maxMaxConnections {
				if _, err := Parse(append(args, fmt.Sprintf("--max-connections=%d", n)), nil, system, new(bytes.Buffer)); err != nil {
					t.Errorf("%d files, %d loops: %d: %v", files, loops, n, err)
				}
				if _, err := Parse(append(args, fmt.Sprintf("--max-connections=%d", n+1)), nil, system, new(bytes.Buffer)); err == nil {
					t.Errorf("%d files, %d loops: one more than %d was accepted", files, loops, n)
				}
			}
		}
	}
	_, err := Parse([]string{"serve", "--fd-tables=per-loop", "--loops=100"}, nil, System{OpenFiles: 150, CPUs: 2}, new(bytes.Buffer))
	if err == nil || !strings.Contains(err.Error(), "expected more open files than 15000, of which 15000 are reserved: raise the limit "+
		"(ulimit -n, LimitNOFILE=), add --loops") { // not even the process's own table has room for 100 eventfds
		t.Errorf("100 loops with 150 files: %v", err)
	}
	// The figure that counts: a million connections under a limit of 20,000.
	command, err := Parse([]string{"serve", "--fd-tables=per-loop", "--loops=60", "--max-connections=1000000", "--max-connections-slack=1%"},
		nil, System{OpenFiles: 20000, CPUs: 2, Memory: 8 << 30}, new(bytes.Buffer))
	if err != nil || command.Serve.AllOpenFiles() != 1_200_000 {
		t.Errorf("a million: %v", err)
	}
}

// Each line of the sum in limits.go.
func TestReservedFiles(t *testing.T) {
	s := &Serve{Listen: make([]Address, 3), Loops: 5, OpenFiles: 5000}
	if got, want := s.reservedFiles(), uint64(32+5*8+5*3+100); got != want {
		t.Errorf("without admin %d, want %d", got, want)
	}
	s.Admin = &Address{}
	if got, want := s.reservedFiles(), uint64(32+64+5*8+5*3+100); got != want {
		t.Errorf("with admin %d, want %d", got, want)
	}
	s.FDTables = FDTablesPerLoop
	rest := 5000 - 16 - 5 - 3 - 100
	if got, want := s.connectionsPerTable(), uint64(rest-280); got != want { // 4 times 69.8 are 279.3
		t.Errorf("a table has room for %d, want %d", got, want)
	}
	if got, want := s.reservedFiles(), uint64(5*(5000-rest+280)); got != want {
		t.Errorf("with tables %d, want %d", got, want)
	}
}

func TestThisSystem(t *testing.T) {
	system, err := ThisSystem()
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur != limit.Max || system.OpenFiles != limit.Max {
		t.Errorf("limit %+v, returned %d", limit, system.OpenFiles)
	}
	if system.CPUs != runtime.GOMAXPROCS(0) || system.Somaxconn < 1 || system.Memory < 64<<20 {
		t.Errorf("%+v", system)
	}
}

// Also a soft limit that something lowered after the start of the program is raised.
func TestRaiseOpenFiles(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	lowered := unix.Rlimit{Cur: before.Max - 1, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &lowered); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before) })
	if got, err := RaiseOpenFiles(); err != nil || got != before.Max {
		t.Errorf("%d, %v, want %d", got, err, before.Max)
	}
}
