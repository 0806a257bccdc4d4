package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is a server that Compare has started.
type child struct {
	cmd  *exec.Cmd
	addr string // HOST:PORT
	pid  int    // that listens: the command's, or what it said

	out  childOutput
	gone chan struct{} // closed when the command has ended
}

var (
	listenAddr = regexp.MustCompile(`\baddr="?([^\s"]+)`)
	listenPID  = regexp.MustCompile(`\bpid="?(\d+)`)
)

// startChild starts a command and waits until it has said where it listens: in a line, on standard output or error, that
// has addr=HOST:PORT. pid=PID in the same line names the process, when it is not the command itself.
func startChild(ctx context.Context, command []string) (*child, error) {
	p := &child{cmd: exec.Command(command[0], command[1:]...), gone: make(chan struct{})}
	p.out.listening = make(chan string, 1)
	p.cmd.WaitDelay = childStop // it may have left its output to another process
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it is the thread's end: see Compare
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // what it had to say is in its output
		close(p.gone)
	}()
	timeout := time.NewTimer(childStart)
	defer timeout.Stop()
	select {
	case line := <-p.out.listening:
		err := p.read(line)
		if err != nil {
			p.stop()
		}
		return p, err
	case <-p.gone:
		return nil, fmt.Errorf("%s: it ended (%v) before it listened%s", joinCommand(command), p.cmd.ProcessState, p.out.tail())
	case <-timeout.C:
		p.stop()
		return nil, fmt.Errorf("%s: no line with addr=HOST:PORT within %v%s", joinCommand(command), childStart, p.out.tail())
	case <-ctx.Done():
		p.stop()
		return nil, ctx.Err()
	}
}

// read takes address and process from the line that says where the server listens.
func (p *child) read(line string) error {
	p.addr, p.pid = listenAddr.FindStringSubmatch(line)[1], p.cmd.Process.Pid
	if _, err := netip.ParseAddrPort(p.addr); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	if m := listenPID.FindStringSubmatch(line); m != nil {
		pid, err := strconv.Atoi(m[1])
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		p.pid = pid
	}
	return nil
}

// stop ends the server: SIGTERM, and SIGKILL when it does not go.
func (p *child) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already: as good
	timeout := time.NewTimer(childStop)
	defer timeout.Stop()
	select {
	case <-p.gone:
	case <-timeout.C:
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

// childOutput is an io.Writer that finds the line with the address, and keeps the beginning for the message when there is
// none.
type childOutput struct {
	listening chan string // the line, once; has room for it

	mu    sync.Mutex
	text  []byte // the beginning, childKeep bytes at most
	found bool
}

// Write implements io.Writer.
func (o *childOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.found {
		return len(b), nil
	}
	o.text = append(o.text, b[:min(len(b), childKeep-len(o.text))]...)
	end := bytes.LastIndexByte(o.text, '\n')
	for line := range strings.Lines(string(o.text[:end+1])) {
		if listenAddr.MatchString(line) {
			o.found = true
			o.listening <- strings.TrimSpace(line)
			break
		}
	}
	return len(b), nil
}

// tail returns what was written, for an error.
func (o *childOutput) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.text) == 0 {
		return "; it wrote nothing"
	}
	return "; it wrote: " + strings.TrimSpace(string(o.text))
}

// joinCommand writes a command as a shell takes it, as far as no word has a quote.
func joinCommand(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		if w == "" || strings.ContainsAny(w, " \t\n*?[]<>|&;()$`\\\"#~!{}") {
			w = "'" + w + "'"
		}
		words[i] = w
	}
	return strings.Join(words, " ")
}
