package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// A node is a Node process that runs one of the clients in folder node. It speaks the lines described in lines.js.
type node struct {
	name   string
	cmd    *exec.Cmd
	events *journal[event]
	exited chan struct{}
	stderr lockedBuffer

	stdin  io.WriteCloser
	nextID int

	mu      sync.Mutex
	replies map[int]chan reply // by id; a reply is sent once
}

// An event is something that happened at a client; which fields it has, its script tells.
type event struct {
	Event      string
	Code       int
	Reason     string
	Message    string
	Binary     bool
	Extensions string
	Data       json.RawMessage
	Body       json.RawMessage
	Type       string
}

type reply struct {
	ID     *int // nil: the line is an event
	Result json.RawMessage
	Error  string
}

// startNode runs a script of folder node. The process ends with its test.
func startNode(t *testing.T, name, script string) *node {
	t.Helper()
	requireNode(t)
	n := &node{
		name:    name,
		cmd:     exec.Command("node", script),
		events:  newJournal[event](),
		exited:  make(chan struct{}),
		replies: map[int]chan reply{},
	}
	n.cmd.Dir = nodeDir
	n.cmd.Stderr = &n.stderr
	var err error
	if n.stdin, err = n.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go n.read(t, stdout)
	t.Cleanup(func() { n.end(t) })
	return n
}

// end asks the process to end, by the end of its input, and kills it when it does not.
func (n *node) end(t *testing.T) {
	if err := n.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	select {
	case <-n.exited:
	case <-time.After(patience):
		t.Errorf("client %s does not end", n.name)
		n.kill(t)
	}
	if t.Failed() {
		t.Logf("client %s\nevents nobody asked for: %+v\n%s", n.name, n.events.rest(), n.stderr.String())
	}
}

// kill ends the process at once: the kernel closes its sockets, no Close frame is sent.
func (n *node) kill(t *testing.T) {
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-n.exited
}

func (n *node) read(t *testing.T, stdout io.Reader) {
	defer close(n.exited)
	lines := json.NewDecoder(stdout)
	for {
		var line struct {
			reply
			event
		}
		err := lines.Decode(&line)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) { // a killed client may leave half a line
				t.Errorf("client %s: %v", n.name, err)
			}
			break
		}
		switch {
		case line.ID != nil:
			n.mu.Lock()
			n.replies[*line.ID] <- line.reply
			delete(n.replies, *line.ID)
			n.mu.Unlock()
		case line.Event == "uncaught":
			t.Errorf("client %s threw: %s", n.name, line.Message)
		default:
			n.events.add(line.event)
		}
	}
	_ = n.cmd.Wait() // killed or not: what matters has been read
	n.events.end()
}

// call runs a command of the script and returns its result. A command that fails ends the test.
func (n *node) call(t *testing.T, cmd string, args map[string]any) json.RawMessage {
	t.Helper()
	select {
	case answer := <-n.begin(t, cmd, args):
		if answer.Error != "" {
			t.Fatalf("client %s: %s %v: %s", n.name, cmd, args, answer.Error)
		}
		return answer.Result
	case <-n.exited:
		t.Fatalf("client %s ended during %s %v", n.name, cmd, args)
	case <-time.After(patience):
		t.Fatalf("client %s: no answer to %s %v", n.name, cmd, args)
	}
	return nil
}

// begin starts a command of the script; its answer comes over the channel. Only for the goroutine of the test.
func (n *node) begin(t *testing.T, cmd string, args map[string]any) <-chan reply {
	t.Helper()
	line := map[string]any{"id": n.nextID, "cmd": cmd}
	maps.Copy(line, args)
	answer := make(chan reply, 1)
	n.mu.Lock()
	n.replies[n.nextID] = answer
	n.mu.Unlock()
	n.nextID++
	if err := json.NewEncoder(n.stdin).Encode(line); err != nil {
		t.Fatalf("client %s: %v", n.name, err)
	}
	return answer
}

// await waits for an event with this name for which match, when there is one, is true.
func (n *node) await(t *testing.T, name string, match func(event) bool) event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, ok := n.events.take(ctx, func(e event) bool { return e.Event == name && (match == nil || match(e)) })
	if !ok {
		t.Fatalf("client %s: no such %s came; what came: %+v", n.name, name, n.events.rest())
	}
	return got
}

// awaitClose waits for the end of a WebSocket connection and checks the close code that the client saw.
func (n *node) awaitClose(t *testing.T, name string, code int, reason string) {
	t.Helper()
	got := n.await(t, name, nil)
	if got.Code != code || got.Reason != reason {
		t.Errorf("client %s: closed with %d %q, want %d %q", n.name, got.Code, got.Reason, code, reason)
	}
}

func (e event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "{%s", e.Event)
	for _, raw := range []json.RawMessage{e.Data, e.Body} {
		if len(raw) > 0 {
			fmt.Fprintf(&b, " %.200s", raw)
		}
	}
	if e.Code != 0 || e.Reason != "" || e.Message != "" {
		fmt.Fprintf(&b, " %d %q %s", e.Code, e.Reason, e.Message)
	}
	return b.String() + "}"
}
