package config

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write the golden files anew")

var testSystem = System{OpenFiles: 20000, Memory: 8 << 30, CPUs: 4, Somaxconn: 4096}

// parseServeArgs parses "serve" with args, an environment and, when file is not empty, a configuration file. The file is
// called gateway.yaml in the current directory, which is a temporary one.
func parseServeArgs(t *testing.T, args, env []string, file string) (*Serve, []string) {
	t.Helper()
	if file != "" {
		writeFile(t, "gateway.yaml", file)
		args = append([]string{"--config=gateway.yaml"}, args...)
	}
	command, err := Parse(append([]string{"serve"}, args...), env, testSystem, new(bytes.Buffer))
	if err != nil {
		faults, ok := errors.AsType[*Faults](err)
		if !ok {
			t.Fatalf("error %v, want *Faults", err)
		}
		if command != nil {
			t.Fatal("a command beside an error")
		}
		if n := strings.Count(err.Error(), "\n"); n != len(faults.List) {
			t.Errorf("%d lines for %d faults:\n%v", n, len(faults.List), err)
		}
		return nil, faultLines(faults)
	}
	if command.Name != CommandServe {
		t.Fatalf("command %q", command.Name)
	}
	return command.Serve, nil
}

func faultLines(faults *Faults) []string {
	var lines []string
	for _, f := range faults.List {
		lines = append(lines, f.String())
	}
	return lines
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mustServe(t *testing.T, args, env []string, file string) *Serve {
	t.Helper()
	s, faults := parseServeArgs(t, args, env, file)
	if faults != nil {
		t.Fatalf("unexpected faults:\n%s", strings.Join(faults, "\n"))
	}
	return s
}

func TestDefaults(t *testing.T) {
	admin := Address{netip.MustParseAddr("127.0.0.1"), 9090}
	want := &Serve{
		Listen:                   []Address{{netip.MustParseAddr("127.0.0.1"), 8080}},
		Path:                     "/ws",
		Backlog:                  4096,
		Loops:                    4,
		FDTables:                 FDTablesShared,
		Admin:                    &admin,
		TrustedProxies:           []string{"loopback"},
		ProxyProtocol:            ProxyProtocolOff,
		Origins:                  []string{"any"},
		LimitClosesPerSecond:     100,
		MaxConnections:           17698, // (20000 - 32 - 64 - 4×(8+1) - 400) / 1.1
		MaxConnectionsSlack:      10,
		MaxMessageBytes:          1 << 20,
		MaxPendingBytes:          4 << 20,
		MaxRequestsPerConnection: 256,
		MemoryLimit:              6 * GiB, // 75% of 8 GiB
		OpenFiles:                20000,
		HandshakeTimeout:         10 * time.Second,
		RequestTimeout:           15 * time.Second,
		ServerRequestTimeout:     15 * time.Second,
		CloseTimeout:             5 * time.Second,
		WriteTimeout:             10 * time.Second,
		Heartbeat:                HeartbeatServer,
		PingInterval:             20 * time.Second,
		DrainDelay:               0,
		DrainSpread:              30 * time.Second,
		DrainTimeout:             60 * time.Second,
		Compression:              CompressionOff,
		CompressionMinSize:       256,
		Auth:                     AuthOpen,
		MetaHeaders:              []string{"User-Agent"},
		ReenterGrace:             10 * time.Second,
		MaxSessions:              1000000,
		MaxRooms:                 10000,
		MaxMembersPerRoom:        5000,
		MaxHistoryPerRoom:        1000,
		MaxHistoryBytesPerRoom:   64 << 10,
		MaxHistoryAge:            24 * time.Hour,
		NATS: NATS{Servers: []string{}, Prefix: "mqgate", Connections: 1, Replicas: 1, Grace: 10 * time.Second, Lease: 10 * time.Second,
			Idempotent: []string{"chat.GetRoomInfo", "chat.FetchRoomConversation"}, Ordered: []string{"chat.", "pcast."},
			Listen: &Address{Host: netip.MustParseAddr("127.0.0.1"), Port: 4222}},
		LogLevel:  slog.LevelInfo,
		LogFormat: LogText,
	}
	got := mustServe(t, nil, nil, "")
	options := cmp.Options{cmpopts.IgnoreUnexported(Serve{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })}
	if diff := cmp.Diff(want, got, options); diff != "" {
		t.Error(diff)
	}
	if got, want := got.HardConnections(), 19468; got != want {
		t.Errorf("hard limit %d, want %d", got, want)
	}
}

// A flag beats the environment, the environment the file, the file the default; lists are replaced, not added to.
func TestPrecedence(t *testing.T) {
	t.Chdir(t.TempDir())
	flags := []string{"--ping-interval=1s", "--listen=:1", "--listen", ":2"}
	env := []string{"MQGATE_PING_INTERVAL=2s", "MQGATE_CLOSE_TIMEOUT=2s", "MQGATE_LISTEN=:3,:4,:5", "MQGATE_ADMIN="}
	file := "ping-interval: 3s\nclose-timeout: 3s\nwrite-timeout: 3s\nlisten: [':6']\nadmin: ':7'\n"
	for _, test := range []struct {
		name               string
		args, env          []string
		file               string
		ping, close, write time.Duration
		listen             string
		admin              string
		origin             string // of --ping-interval
	}{
		{"default", nil, nil, "", 20 * time.Second, 5 * time.Second, 10 * time.Second, "127.0.0.1:8080", "127.0.0.1:9090",
			"default"},
		{"file", nil, env[3:], file, 3 * time.Second, 3 * time.Second, 3 * time.Second, ":6", "",
			"gateway.yaml:1 key ping-interval"},
		{"environment", nil, env, file, 2 * time.Second, 2 * time.Second, 3 * time.Second, ":3 :4 :5", "",
			"environment MQGATE_PING_INTERVAL"},
		{"flag", flags, env, file, time.Second, 2 * time.Second, 3 * time.Second, ":1 :2", "", "flag --ping-interval"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mustServe(t, test.args, test.env, test.file)
			var listen []string
			for _, a := range s.Listen {
				listen = append(listen, a.String())
			}
			admin := ""
			if s.Admin != nil {
				admin = s.Admin.String()
			}
			got := fmt.Sprintf("%v %v %v %v %q %v", s.PingInterval, s.CloseTimeout, s.WriteTimeout, listen, admin,
				s.effective["ping-interval"].origin)
			want := fmt.Sprintf("%v %v %v [%s] %q %s", test.ping, test.close, test.write, test.listen, test.admin, test.origin)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// Every numeric setting is accepted at its limits and refused just outside, from wherever it comes.
func TestNumericLimits(t *testing.T) {
	t.Chdir(t.TempDir())
	seen := 0
	for i := range settings {
		s := &settings[i]
		if s.numeric == nil {
			continue
		}
		seen++
		r := s.numeric
		for _, value := range []struct {
			n  int64
			ok bool
		}{{r.min - 1, false}, {r.min, true}, {r.max, true}, {r.max + 1, false}} {
			text := r.text(value.n)
			for _, place := range []struct {
				where     string
				args, env []string
				file      string
			}{
				{where: "flag --" + s.name, args: []string{"--" + s.name + "=" + text}},
				{where: "flag --" + s.name, args: []string{"--" + s.name, text}},
				{where: "environment " + s.env(), env: []string{s.env() + "=" + text}},
				{where: "gateway.yaml:1 key " + s.name, file: s.name + ": " + text + "\n"},
			} {
				serve, faults := parseServeArgs(t, place.args, place.env, place.file)
				want := fmt.Sprintf("%s: %q is out of range, expected %s", place.where, text, s.expected)
				if got := slices.Contains(faults, want); got == value.ok {
					t.Errorf("%s %s: fault %v, want %v\n%s", s.name, text, got, !value.ok, strings.Join(faults, "\n"))
				}
				if serve != nil && value.n != 0 {
					if got := s.show(serve); got[0] != text {
						t.Errorf("%s: %s became %s", s.name, text, got[0])
					}
				}
			}
		}
		if !strings.Contains(s.expected, r.text(r.min)+" to "+r.text(r.max)) {
			t.Errorf("%s: %q does not name the range", s.name, s.expected)
		}
	}
	if seen < 20 {
		t.Errorf("%d numeric settings", seen)
	}
}

// The defaults are written the way the report writes values, or mean the same, and every setting is described.
func TestSettingsTable(t *testing.T) {
	names := map[string]bool{}
	for i := range settings {
		s := &settings[i]
		if names[s.name] || s.name == "" || s.group == "" || !strings.HasSuffix(s.doc, ".") {
			t.Errorf("%q: duplicate or incomplete", s.name)
		}
		names[s.name] = true
		if serviceLink.MatchString(s.env()) {
			t.Errorf("%s has the form of a variable that Kubernetes sets", s.env())
		}
		if s.flagOnly {
			continue
		}
		if s.placeholder == "" || s.expected == "" {
			t.Errorf("%q: incomplete", s.name)
		}
		var serve, again Serve
		if err := s.store(&serve, s.defaults()); err != nil {
			t.Errorf("%s: default: %v", s.name, err)
		}
		if err := s.store(&again, s.show(&serve)); err != nil {
			t.Errorf("%s: shown default: %v", s.name, err)
		}
		if !slices.Equal(s.show(&serve), s.show(&again)) {
			t.Errorf("%s: %q shown and read again is %q", s.name, s.show(&serve), s.show(&again))
		}
	}
}

// All faults of all places in one go, each on its line, in the order command line, environment, file, contradictions.
func TestAllFaultsAtOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	_, got := parseServeArgs(t,
		[]string{"--ping-intervall", "5s", "--path", "x", "--path", "y", "--check", "extra", "--max-message-bytes=1kB",
			"--close-timeout", "-5s", "--backlog", "--auth", "jwt", "--mqtt=embedded"},
		[]string{"HOME=/root", "MQGATE_LOOPS=300", "MQGATE_PINGS=3", "MQGATE_CHECK=1", "MQGATE_PING_INTERVALL=1s"},
		"ping-interval: 5\nloops: [1,2]\nlissten: a\nadmin:\npath: /x\npath: /y\nconfig: x\n")
	want := []string{
		`flag --ping-intervall: unknown flag, did you mean --ping-interval?`,
		`command line: unexpected argument "extra", expected flags only`,
		`flag --backlog: has no value, expected a whole number from 1 to 65535`,
		`flag --mqtt: unknown flag`,
		`flag --path: given 2 times, expected once`,
		`flag --path: "x" does not start with "/", expected a path that starts with / and has no query, fragment or escapes`,
		`flag --max-message-bytes: "1kB" is not a whole number of bytes, KiB, MiB or GiB, expected a size from 1KiB to 64MiB`,
		`flag --close-timeout: "-5s" is out of range, expected a duration from 10ms to 1h`,
		`environment MQGATE_CHECK: expected on the command line only, as --check`,
		`environment MQGATE_PINGS: unknown variable, expected the name of a setting after MQGATE_`,
		`environment MQGATE_PING_INTERVALL: unknown variable, did you mean MQGATE_PING_INTERVAL?`,
		`environment MQGATE_LOOPS: "300" is out of range, expected a whole number from 0 to 255`,
		`gateway.yaml:1 key ping-interval: "5" has no unit (ms, s, m, h), expected a duration from 10ms to 1h`,
		`gateway.yaml:2 key loops: is a list, expected a whole number from 0 to 255`,
		`gateway.yaml:3 key lissten: unknown key, did you mean listen?`,
		`gateway.yaml:4 key admin: has no value (write "" for an empty one), expected an address HOST:PORT with an IP ` +
			`address, [IPv6] or nothing as host and a port from 0 to 65535, or nothing`,
		`gateway.yaml:6 key path: given again, expected once (first in line 5)`,
		`gateway.yaml:7 key config: expected as the flag --config, not in a file`,
		`flag --auth: "jwt", expected the secret in --auth-secret-file`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestErrorText(t *testing.T) {
	_, err := Parse([]string{"serve", "--loops=x", "--path=a\n\x1bb", "a\nb"}, nil, testSystem, new(bytes.Buffer))
	want := `mqgate serve: 3 faults (mqgate serve --help explains):
  command line: unexpected argument "a\nb", expected flags only
  flag --loops: "x" is not a whole number, expected a whole number from 0 to 255
  flag --path: "a\n\x1bb" does not start with "/", expected a path that starts with / and has no query, fragment or escapes`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse([]string{"serve", "--a\n\x1bb"}, nil, testSystem, new(bytes.Buffer))
	want = "mqgate serve: 1 fault (mqgate serve --help explains):\n" + `  flag --a\n\x1bb: unknown flag`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	_, err = Parse([]string{"serve", "--path=" + strings.Repeat("x", 5000)}, nil, testSystem, new(bytes.Buffer))
	if n := len(err.Error()); n > 500 {
		t.Errorf("a long value makes an error of %d bytes", n)
	}
}

func TestCommands(t *testing.T) {
	for _, test := range []struct {
		args    string
		command CommandName
		check   bool
		faults  []string
	}{
		{args: "serve", command: CommandServe},
		{args: "serve --check", command: CommandServe, check: true},
		{args: "serve --check=true", command: CommandServe, check: true},
		{args: "serve --check=false", command: CommandServe},
		{args: "version", command: CommandVersion},
		{args: "--help", command: CommandHelp},
		{args: "-h", command: CommandHelp},
		{args: "serve --help", command: CommandHelp},
		{args: "serve --loops=x --bogus -h", command: CommandHelp},
		{args: "version --help", command: CommandHelp},
		{args: "", faults: []string{"command line: no command, expected serve, worker, doctor or version"}},
		{args: "workers", faults: []string{`command line: unknown command "workers", expected serve, worker, doctor or version`}},
		{args: "--", faults: []string{"command line: no command, expected serve, worker, doctor or version"}},
		{args: "-- x", faults: []string{
			`command line: unexpected argument "--", expected serve, worker, doctor or version`,
			`command line: unknown command "x", expected serve, worker, doctor or version`}},
		{args: "serve serve", faults: []string{`command line: unexpected argument "serve", expected flags only`}},
		{args: "serve - -- x", faults: []string{
			`command line: unexpected argument "-", expected flags only`,
			`command line: unexpected argument "--", expected flags only`,
			`command line: unexpected argument "x", expected flags only`}},
		{args: "serve --check --check", faults: []string{"flag --check: given 2 times, expected once"}},
		{args: "serve --check=maybe", faults: []string{`flag --check: "--check=maybe", expected no value`}},
		{args: "serve -x 1 -hx", faults: []string{"flag -x: unknown flag", "flag -hx: unknown flag"}},
		{args: "--loops=3 serve --bad", faults: []string{
			"flag --loops: unknown flag before the command, expected after it: mqgate serve --loops",
			"flag --bad: unknown flag"}},
		{args: "--loops 3 serve", faults: []string{
			"flag --loops: unknown flag before the command, expected after it: mqgate serve --loops"}},
		{args: "--bogus serve", faults: []string{"flag --bogus: unknown flag"}},
		{args: "version --loops 3", faults: []string{"flag --loops: unknown flag of mqgate version"}},
		{args: "version x", faults: []string{`command line: unexpected argument "x", expected flags only`}},
		{args: "serve --loops --check", faults: []string{"flag --loops: has no value, expected a whole number from 0 to 255"}},
		{args: "serve --loops", faults: []string{"flag --loops: has no value, expected a whole number from 0 to 255"}},
		{args: "serve --loops=", faults: []string{`flag --loops: "" is not a whole number, expected a whole number from 0 to 255`}},
		{args: "serve --loops 1 --loops 2 --loops 3", faults: []string{"flag --loops: given 3 times, expected once"}},
		// Settings of later versions are not accepted before they do something.
		{args: "serve --mqtt=x", faults: []string{
			"flag --mqtt: unknown flag"}},
	} {
		t.Run(test.args, func(t *testing.T) {
			var help bytes.Buffer
			command, err := Parse(strings.Fields(test.args), nil, testSystem, &help)
			if len(test.faults) > 0 {
				faults, ok := errors.AsType[*Faults](err)
				if !ok {
					t.Fatalf("error %v", err)
				}
				if diff := cmp.Diff(test.faults, faultLines(faults)); diff != "" {
					t.Error(diff)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if command.Name != test.command || command.Check != test.check || (command.Serve != nil) != (test.command == CommandServe) {
				t.Errorf("got %+v", command)
			}
			if (help.Len() > 0) != (test.command == CommandHelp) {
				t.Errorf("wrote %q", help.String())
			}
		})
	}
}

func TestLists(t *testing.T) {
	for _, test := range []struct {
		args []string
		env  []string
		want []string
		bad  string
	}{
		{args: []string{"--meta-headers=A", "--meta-headers", "B,C"}, want: []string{"A", "B", "C"}},
		{args: []string{"--meta-headers="}},
		{env: []string{"MQGATE_META_HEADERS="}},
		{env: []string{"MQGATE_META_HEADERS=X-A,x-b"}, want: []string{"X-A", "x-b"}},
		{args: []string{"--meta-headers=A,,B"}, bad: `flag --meta-headers: "" is empty`},
		{args: []string{"--meta-headers=A", "--meta-headers="}, bad: `flag --meta-headers: "" is empty`},
		{args: []string{"--meta-headers=A,B,a"}, bad: `flag --meta-headers: "A,B,a", expected each header once, not A and a`},
		{args: []string{"--meta-headers=X Y"}, bad: `flag --meta-headers: "X Y" contains ' '`},
	} {
		s, faults := parseServeArgs(t, test.args, test.env, "")
		if test.bad != "" {
			if len(faults) != 1 || !strings.HasPrefix(faults[0], test.bad) {
				t.Errorf("%q: faults %q, want %q", test.args, faults, test.bad)
			}
			continue
		}
		if faults != nil || !slices.Equal(s.MetaHeaders, test.want) {
			t.Errorf("%q %q: %v, faults %q", test.args, test.env, s, faults)
		}
	}
	// The number of values: below, at and above.
	headers := func(n int) string {
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("H%d", i)
		}
		return "--meta-headers=" + strings.Join(names, ",")
	}
	addresses := func(n int) []string {
		var args []string
		for i := range n {
			args = append(args, fmt.Sprintf("--listen=:%d", 100+i))
		}
		return args
	}
	mustServe(t, []string{headers(15)}, nil, "")
	mustServe(t, []string{headers(16)}, nil, "")
	mustServe(t, addresses(15), nil, "")
	mustServe(t, addresses(16), nil, "")
	for _, args := range [][]string{{headers(17)}, addresses(17)} {
		if _, faults := parseServeArgs(t, args, nil, ""); len(faults) != 1 || !strings.Contains(faults[0], ": has 17 values, expected ") {
			t.Errorf("17 values: %q", faults)
		}
	}
	if _, faults := parseServeArgs(t, []string{"--listen="}, nil, ""); len(faults) != 1 ||
		!strings.Contains(faults[0], ": has 0 values, expected 1 to 16 addresses") {
		t.Errorf("no address: %q", faults)
	}
}

// A wrong value is a fault also where a stronger place overrides it.
func TestOverriddenValuesAreChecked(t *testing.T) {
	t.Chdir(t.TempDir())
	_, faults := parseServeArgs(t, []string{"--loops=1"}, []string{"MQGATE_LOOPS=x"}, "loops: y\n")
	want := []string{
		`environment MQGATE_LOOPS: "x" is not a whole number, expected a whole number from 0 to 255`,
		`gateway.yaml:1 key loops: "y" is not a whole number, expected a whole number from 0 to 255`,
	}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Error(diff)
	}
	// The stronger value still takes part in the relations; a wrong stronger value is not replaced by the weaker one.
	_, faults = parseServeArgs(t, []string{"--path=/x", "--echo-path=/x"}, []string{"MQGATE_PATH=y"}, "")
	want = []string{
		`environment MQGATE_PATH: "y" does not start with "/", expected a path that starts with / and has no query, fragment or escapes`,
		`flag --echo-path: "/x", expected another path than that of --path (/x, flag --path)`,
	}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Error(diff)
	}
	_, faults = parseServeArgs(t, []string{"--path=y"}, []string{"MQGATE_PATH=/x", "MQGATE_ECHO_PATH=/x"}, "")
	want = []string{
		`flag --path: "y" does not start with "/", expected a path that starts with / and has no query, fragment or escapes`,
	}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Error(diff)
	}
}

func TestConfigFileNamedByEnvironment(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	writeFile(t, path, "loops: 7\n")
	s := mustServe(t, nil, []string{"MQGATE_CONFIG=" + path}, "")
	if s.Loops != 7 || s.ConfigFile != path {
		t.Errorf("loops %d from %q", s.Loops, s.ConfigFile)
	}
	if s := mustServe(t, []string{"--config="}, []string{"MQGATE_CONFIG=" + path}, ""); s.Loops != 4 || s.ConfigFile != "" {
		t.Errorf("loops %d from %q", s.Loops, s.ConfigFile)
	}
}

func FuzzCommandLine(f *testing.F) {
	f.Add("serve\n--loops\n3\n--bogus\n--\n-hx\n--check=x\n-\n--=\n---")
	f.Add("--listen\nserve\n--listen=\n--path")
	f.Fuzz(func(t *testing.T, line string) {
		command, err := Parse(append([]string{"serve"}, strings.Split(line, "\n")...), nil, testSystem, new(bytes.Buffer))
		if (command == nil) == (err == nil) {
			t.Fatalf("command %v, error %v", command, err)
		}
		if faults, ok := errors.AsType[*Faults](err); err != nil && (!ok || len(faults.List) == 0) {
			t.Fatalf("error %v", err)
		}
	})
}
