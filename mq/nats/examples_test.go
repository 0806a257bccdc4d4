package nats

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

// The workers of docs/workers.md, as processes of their own.

const nodeFolder = "worker/node"

// requireNode fails when the packages of the Node worker are not installed as the lock file says.
func requireNode(t *testing.T) {
	t.Helper()
	const how = "The npm packages of this test are installed by: make test"
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	read := func(file string, v any) {
		b, err := os.ReadFile(filepath.Join(nodeFolder, file))
		if err == nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, how)
		}
	}
	read("package-lock.json", &lock)
	for folder, want := range lock.Packages {
		var got struct{ Version string }
		if read(filepath.Join(folder, "package.json"), &got); got.Version != want.Version {
			t.Fatalf("%s is version %s, not %s\n%s", folder, got.Version, want.Version, how)
		}
	}
}

// output keeps what a process says.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// run starts a worker, waits until it says that it is ready, and ends it with the test. stop sends SIGTERM and waits for
// the end.
func run(t *testing.T, dir string, command ...string) (stop func() error) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	var out output
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("%s: %v\n%s", command[0], err, out.String())
		}
	})
	eventually(t, command[0]+" is ready", func() bool { return strings.Contains(out.String(), "ready") })
	return stop
}

// underLoad sends requests from several connections, calls f in the middle, and checks every answer.
func underLoad(t *testing.T, g *gate, typ string, answer func(string) string, f func()) {
	t.Helper()
	half := make(chan bool)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for k := range 200 {
				p := "p" + strconv.Itoa(k)
				if a := g.send(g.conn(i), typ, p).wait(); a.err != nil || a.payload != answer(p) || a.typ != typ+"Response" {
					t.Errorf("%s: %v %q %q, expected %q", p, a.err, a.typ, a.payload, answer(p))
					return
				}
				if i == 0 && k == 100 {
					close(half)
				}
			}
		})
	}
	<-half
	f()
	all.Wait()
}

// The worker in Go, twice: one of them ends under load.
func TestGoExample(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "example")
	if out, err := exec.Command("go", "build", "-o", binary, "./worker/example").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := natstest.Single(t)
	g := newGate(t, connect(t, s.URL(), unbuffered), nil)
	first := run(t, ".", binary, s.URL())
	run(t, ".", binary, s.URL())
	reverse := func(p string) string {
		b := []byte(p)
		for i, k := 0, len(b)-1; i < k; i, k = i+1, k-1 {
			b[i], b[k] = b[k], b[i]
		}
		return string(b)
	}
	underLoad(t, g, "example.Echo", reverse, func() {
		if err := first(); err != nil {
			t.Error(err)
		}
	})
}

// The worker in Node: answers, an error, an event to the client.
func TestNodeExample(t *testing.T) {
	requireNode(t)
	s := natstest.Single(t)
	far := &crowd{}
	g := newGate(t, connect(t, s.URL(), unbuffered), far)
	stop := run(t, nodeFolder, "node", "worker.js", s.URL())
	if a := g.send(g.conn(1), "example.Shout", "").wait(); a.err == nil || a.err.Error() != "worker: nothing was said" {
		t.Errorf("%v", a.err)
	}
	g.send(g.conn(0), "example.Shout", "said").ok()
	if got := far.calls.all(); got[len(got)-1] != "event 0 example.Heard said" {
		t.Errorf("events %q, expected it before the answer", got)
	}
	underLoad(t, g, "example.Shout", strings.ToUpper, func() {})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := g.send(g.conn(0), "example.Shout", "x").wait().err; !errors.Is(err, errNobody) {
		t.Errorf("when it has gone: %v", err)
	}
}

// docs/workers.md shows the examples as they are.
func TestPageShowsExamples(t *testing.T) {
	page, err := os.ReadFile("../../docs/workers.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"worker/example/main.go", "worker/node/worker.js"} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		code := string(b)
		if i := strings.Index(code, "package main"); i > 0 {
			code = code[i:] // without the comment
		}
		if !strings.Contains(string(page), "\n"+code+"```\n") {
			t.Errorf("%s is not in docs/workers.md as it is", file)
		}
	}
}
