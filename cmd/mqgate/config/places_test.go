package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFile(t *testing.T) {
	t.Chdir(t.TempDir())
	const expectedLoops = ", expected a whole number from 0 to 255"
	for _, test := range []struct {
		name, text string
		want       []string
		loops      int // 4 by default
		headers    []string
	}{
		{name: "comment only", text: "# nothing\n", loops: 4},
		{name: "empty document", text: "---\n", loops: 4},
		{name: "null", text: "~\n", loops: 4},
		{name: "values", text: "---\nloops: 3 # three\nmeta-headers: [A, B]\n", loops: 3, headers: []string{"A", "B"}},
		{name: "quoted", text: "\"loops\": \"3\"\nmeta-headers: A,B\n", loops: 3, headers: []string{"A", "B"}},
		{name: "block list", text: "meta-headers:\n  - A\n  - B\n", loops: 4, headers: []string{"A", "B"}},
		{name: "empty list", text: "meta-headers: []\n", loops: 4, headers: []string{}},
		{name: "alias", text: "loops: &n 3\nbacklog: *n\n", loops: 3},
		{name: "word that YAML 1.1 takes for false", text: "heartbeat: off\n", loops: 4},
		{name: "address that YAML 1.1 takes for a number", text: "listen: 127.0.0.1:8080\nadmin: \"\"\n", loops: 4},
		{name: "octal is decimal", text: "loops: 010\n", loops: 10},

		{name: "hexadecimal", text: "loops: 0x10\n", want: []string{
			`gateway.yaml:1 key loops: "0x10" is not a whole number` + expectedLoops}},
		{name: "float", text: "loops: 4.0\n", want: []string{`gateway.yaml:1 key loops: "4.0" is not a whole number` + expectedLoops}},
		{name: "truth", text: "loops: true\n", want: []string{`gateway.yaml:1 key loops: "true" is of the type bool` + expectedLoops}},
		{name: "binary", text: "loops: !!binary Mw==\n", want: []string{
			`gateway.yaml:1 key loops: "Mw==" is of the type binary` + expectedLoops}},
		{name: "own type", text: "loops: !x 3\n", want: []string{`gateway.yaml:1 key loops: "3" is of the type x` + expectedLoops}},
		{name: "mapping", text: "\nloops:\n  a: 1\n", want: []string{`gateway.yaml:2 key loops: is a mapping` + expectedLoops}},
		{name: "list for one value", text: "loops: [3]\n", want: []string{`gateway.yaml:1 key loops: is a list` + expectedLoops}},
		{name: "null value", text: "loops:\n", want: []string{
			`gateway.yaml:1 key loops: has no value (write "" for an empty one)` + expectedLoops}},
		{name: "list in list", text: "meta-headers: [[A]]\n", want: []string{
			"gateway.yaml:1 key meta-headers: is a list, expected 0 to 16 names of HTTP headers (letters, digits and !#$%&'*+-.^_`|~)"}},
		{name: "comma in a list", text: "meta-headers: ['A,B']\n", want: []string{
			"gateway.yaml:1 key meta-headers: \"A,B\" contains ',', expected 0 to 16 names of HTTP headers " +
				"(letters, digits and !#$%&'*+-.^_`|~)"}},
		{name: "list that contains itself", text: "meta-headers: &x [*x]\n", want: []string{
			"gateway.yaml:1 key meta-headers: is a list, expected 0 to 16 names of HTTP headers (letters, digits and !#$%&'*+-.^_`|~)"}},
		{name: "unknown keys", text: "PATH: /a\n--path: /a\nping_interval: 5s\nmqtt: off\nMQGATE_PATH: /a\n", want: []string{
			"gateway.yaml:1 key PATH: unknown key, expected the name of a flag without its dashes",
			"gateway.yaml:2 key --path: unknown key, expected the name of a flag without its dashes",
			"gateway.yaml:3 key ping_interval: unknown key, did you mean ping-interval?",
			"gateway.yaml:4 key mqtt: unknown key, expected the name of a flag without its dashes",
			"gateway.yaml:5 key MQGATE_PATH: unknown key, expected the name of a flag without its dashes"}},
		{name: "merge", text: "<<: {loops: 3}\n", want: []string{
			"gateway.yaml:1 key <<: unknown key, expected the name of a flag without its dashes"}},
		{name: "key that is no word", text: "[a]: 3\n", want: []string{
			"gateway.yaml:1: the key is not a word, expected the name of a flag without its dashes"}},
		{name: "of the command line", text: "check: true\nconfig: x\nhelp: true\n", want: []string{
			"gateway.yaml:1 key check: expected as the flag --check, not in a file",
			"gateway.yaml:2 key config: expected as the flag --config, not in a file",
			"gateway.yaml:3 key help: unknown key, expected the name of a flag without its dashes"}},
		{name: "three times", text: "loops: 3\nloops: 3\nloops: x\n", want: []string{
			"gateway.yaml:2 key loops: given again, expected once (first in line 1)",
			"gateway.yaml:3 key loops: given again, expected once (first in line 1)"}},
		{name: "list", text: "- loops\n", want: []string{`gateway.yaml:1: not a mapping, expected lines of the form "name: value"`}},
		{name: "word", text: "loops\n", want: []string{`gateway.yaml:1: not a mapping, expected lines of the form "name: value"`}},
		{name: "two documents", text: "loops: 3\n---\nloops: 4\n", want: []string{"gateway.yaml:2: a second document, expected one"}},
		{name: "not YAML", text: "loops: 3\n\tpath: x\n", want: []string{
			"gateway.yaml:2: not YAML, here or below: found a tab character that violates indentation"}},
		{name: "not YAML in the second document", text: "loops: 3\n---\n]\n", want: []string{
			"gateway.yaml:2: not YAML, here or below: did not find expected node content"}},
		{name: "not text", text: "\x00\xff", want: []string{"gateway.yaml: not YAML, control characters are not allowed"}},
		{name: "unknown alias", text: "loops: *n\n", want: []string{"gateway.yaml: not YAML, unknown anchor 'n' referenced"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, faults := parseServeArgs(t, nil, nil, test.text)
			if diff := cmp.Diff(test.want, faults); diff != "" {
				t.Fatal(diff)
			}
			if test.want != nil {
				return
			}
			headers := test.headers
			if headers == nil {
				headers = []string{"User-Agent"}
			}
			if s.Loops != test.loops || !slices.Equal(s.MetaHeaders, headers) {
				t.Errorf("%d loops, headers %q", s.Loops, s.MetaHeaders)
			}
		})
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("directory", 0o700); err != nil {
		t.Fatal(err)
	}
	comment := func(n int) string { return "#" + strings.Repeat("x", n-1) }
	writeFile(t, "1MiB-1", comment(1<<20-1))
	writeFile(t, "1MiB", comment(1<<20))
	writeFile(t, "1MiB+1", comment(1<<20+1))
	for name, problem := range map[string]string{
		"1MiB-1": "", "1MiB": "", "1MiB+1": "is larger than 1MiB", "missing": "cannot be read: no such file or directory",
		"directory": "cannot be read: is a directory", "a\x00b": "contains a zero byte",
	} {
		// --auth=jwt lacks its secret, but that may be in the file: no fault about it.
		args := []string{"--config=" + name, "--auth=jwt"}
		if problem == "" {
			args = args[:1]
		}
		_, faults := parseServeArgs(t, args, nil, "")
		if problem == "" && faults != nil || problem != "" && (len(faults) == 0 || !strings.Contains(faults[0], problem)) {
			t.Errorf("%q: %q, want %q", name, faults, problem)
		}
		if problem != "" && name != "a\x00b" && len(faults) != 1 {
			t.Errorf("%q: %q, want one fault", name, faults)
		}
	}
	_, faults := parseServeArgs(t, nil, []string{"MQGATE_CONFIG=missing"}, "")
	want := []string{`environment MQGATE_CONFIG: "missing" cannot be read: no such file or directory, expected a YAML file`}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Error(diff)
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name string
		env  []string
		want []string
	}{
		{name: "others", env: []string{"PATH=/bin", "mqgate_loops=x", "XMQGATE_LOOPS=x", "MQGATE=1", "=x", ""}},
		{name: "set", env: []string{"MQGATE_LOOPS=3"}},
		{name: "empty is given", env: []string{"MQGATE_LOOPS="}, want: []string{
			`environment MQGATE_LOOPS: "" is not a whole number, expected a whole number from 0 to 255`}},
		{name: "unknown, without its value", env: []string{"MQGATE_=secret", "MQGATE_TOKEN=secret", "MQGATE_LOOP=secret"}, want: []string{
			"environment MQGATE_: unknown variable, expected the name of a setting after MQGATE_",
			"environment MQGATE_LOOP: unknown variable, did you mean MQGATE_LOOPS?",
			"environment MQGATE_TOKEN: unknown variable, expected the name of a setting after MQGATE_"}},
		{name: "twice", env: []string{"MQGATE_LOOPS=3", "MQGATE_LOOPS=3"}, want: []string{
			"environment MQGATE_LOOPS: given more than once, expected once"}},
		{name: "switch", env: []string{"MQGATE_CHECK=true"}, want: []string{
			"environment MQGATE_CHECK: expected on the command line only, as --check"}},
		{name: "service link outside Kubernetes", env: []string{"MQGATE_PORT=tcp://10.0.0.1:80"}, want: []string{
			"environment MQGATE_PORT: unknown variable, expected the name of a setting after MQGATE_"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, faults := parseServeArgs(t, nil, test.env, "")
			if diff := cmp.Diff(test.want, faults); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A Service called mqgate makes Kubernetes set these in every container of the namespace, the gateway's own too.
func TestEnvironmentOfKubernetes(t *testing.T) {
	links := []string{
		"MQGATE_PORT=tcp://10.0.0.1:80", "MQGATE_PORT_80_TCP=tcp://10.0.0.1:80", "MQGATE_PORT_80_TCP_ADDR=10.0.0.1",
		"MQGATE_PORT_80_TCP_PORT=80", "MQGATE_PORT_80_TCP_PROTO=tcp", "MQGATE_SERVICE_HOST=10.0.0.1", "MQGATE_SERVICE_PORT=80",
		"MQGATE_SERVICE_PORT_HTTP=80", "MQGATE_ADMIN_SERVICE_HOST=10.0.0.2",
	}
	env := append([]string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "MQGATE_LOOPS=3"}, links...)
	s := mustServe(t, nil, env, "")
	if s.Loops != 3 || len(s.Warnings) != 1 {
		t.Fatalf("%d loops, warnings %q", s.Loops, s.Warnings)
	}
	for _, link := range links {
		name, _, _ := strings.Cut(link, "=")
		if !strings.Contains(s.Warnings[0]+",", " "+name+",") {
			t.Errorf("%s is not in %q", name, s.Warnings[0])
		}
	}
	_, faults := parseServeArgs(t, nil, append(env, "MQGATE_PINGS=1"), "")
	want := []string{"environment MQGATE_PINGS: unknown variable, expected the name of a setting after MQGATE_"}
	if diff := cmp.Diff(want, faults); diff != "" {
		t.Error(diff)
	}
}

func FuzzFile(f *testing.F) {
	f.Add("loops: 3\nmeta-headers: [A, *x]\n")
	f.Add("a: &x [*x]\n<<: *x\n---\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := dir + "/fuzz.yaml"
		writeFile(t, path, text)
		_, faults, ok := readFile(path, origin{}, settings)
		if !ok && len(faults) == 0 {
			t.Fatal("nothing read, and no fault")
		}
	})
}
