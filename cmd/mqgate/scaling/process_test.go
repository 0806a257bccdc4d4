package scaling

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/embedded"
	"github.com/mqgate/mqgate/mq/nats/worker"
	"github.com/mqgate/mqgate/mq/wire"
)

// roleEnv makes a child process of this test binary: "nats FOLDER", or "worker URL", which lets everybody in, and knows no
// room.
const roleEnv = "MQGATE_SCALING_ROLE"

func TestMain(m *testing.M) {
	role, argument, _ := strings.Cut(os.Getenv(roleEnv), " ")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch role {
	case "":
		os.Exit(m.Run())
	case "nats":
		var s *embedded.Server
		if s, err = embedded.Start(embedded.Options{Listen: "127.0.0.1:0", StoreDir: argument}); err == nil {
			fmt.Fprintf(os.Stderr, "listening url=%s\n", s.URL())
			<-ctx.Done()
			err = s.Shutdown()
		}
	case "worker":
		answer := wire.GetRoomInfoResponse{Status: wire.StatusNotFound}
		payload := answer.AppendTo(nil)
		err = worker.Run(ctx, nats.Options{URLs: []string{argument}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}, map[string]worker.Handler{
			wire.TypeGetRoomInfo: func(context.Context, *worker.Request) ([]byte, error) { return payload, nil },
			wire.TypeAuthenticate: func(_ context.Context, r *worker.Request) ([]byte, error) {
				answer := wire.AuthenticateResponse{Status: wire.StatusOK, SessionID: r.Conn.String()}
				return answer.AppendTo(nil), nil
			},
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A process is one of those that are measured. It is told to end (SIGTERM) when the benchmark is over, or by stop.
type process struct {
	cmd  *exec.Cmd
	line string // the one that said that it is ready
	once sync.Once
}

// ready matches what mqgate serve, mqgate worker, a worker of mq/nats/worker and the child nats say when they can be used.
var ready = regexp.MustCompile(`\blistening\b|\bworking\b|\bworker is ready\b`)

// start starts a process and returns when it is ready.
func start(b testing.TB, env []string, name string, args ...string) *process {
	b.Helper()
	p := &process{cmd: exec.Command(name, args...)}
	p.cmd.Env = append(os.Environ(), env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.stop(b) })
	said := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if ready.MatchString(lines.Text()) {
				select {
				case said <- lines.Text():
				default:
				}
			}
		}
		close(said)
	}()
	select {
	case line, ok := <-said:
		if !ok {
			b.Fatalf("%s %s has ended before it was ready", name, strings.Join(args, " "))
		}
		p.line = line
	case <-time.After(30 * time.Second):
		b.Fatalf("%s %s is not ready after 30 s", name, strings.Join(args, " "))
	}
	return p
}

func (p *process) stop(b testing.TB) {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		stuck := time.AfterFunc(30*time.Second, func() { _ = p.cmd.Process.Kill() })
		defer stuck.Stop()
		if err := p.cmd.Wait(); err != nil {
			b.Errorf("%s: %v", strings.Join(p.cmd.Args, " "), err)
		}
	})
}

// field returns what stands behind key= in the line that said that the process is ready.
func (p *process) field(b testing.TB, key string) string {
	b.Helper()
	for _, word := range strings.Fields(p.line) {
		if value, ok := strings.CutPrefix(word, key+"="); ok {
			return value
		}
	}
	b.Fatalf("no %s in %q", key, p.line)
	return ""
}

// cpu returns the processor time that the process has used, user and system [s].
func (p *process) cpu(b testing.TB) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0.0
	for _, field := range fields[11:13] { // utime and stime; a tick is 10 ms on every Linux that Go runs on
		n, err := strconv.ParseFloat(field, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return ticks / 100
}

// anonymous returns the resident anonymous memory of the process [bytes]. Any goroutine may call it.
func (p *process) anonymous(b testing.TB) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		b.Error(err)
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			if err != nil {
				b.Error(err)
			}
			return n * 1024
		}
	}
	b.Errorf("process %d has no RssAnon: it has ended", p.cmd.Process.Pid)
	return 0
}
