package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// CompareServer is one of the servers to compare: one that runs, with a URL, or one that is started for each round, with
// a command.
type CompareServer struct {
	Name    string
	URL     string   // as ParseTarget takes it
	Command []string // program and arguments; its first lines must have addr=HOST:PORT, and may have pid=PID
}

// what names the server in reports.
func (s *CompareServer) what() string {
	if s.Command != nil {
		return joinCommand(s.Command)
	}
	return s.URL
}

// CompareOptions say what to compare.
type CompareOptions struct {
	// Run is the load, the same for all: the scenario connect or echo. Its Target and ServerPIDs are filled in.
	Run     Options
	Servers []CompareServer // two or more; ratios are to the first
	Path    string          // at the servers that are started
	Rounds  int
	Args    []string // the command line, for the report
}

// CompareScenarios are the scenarios that can be compared: they work against any server.
var CompareScenarios = []string{scenarioConnect, scenarioEcho}

// Validate returns what contradicts each other, as Options.Validate does, which Run has to pass besides.
func (o *CompareOptions) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if len(o.Servers) < 2 {
		fault("flags --server and --peer: %d given, a comparison needs two or more", len(o.Servers))
	}
	names := map[string]bool{}
	for _, s := range o.Servers {
		if names[s.Name] {
			fault("flags --server and --peer: two servers have the name %s", s.Name)
		}
		names[s.Name] = true
	}
	return errors.Join(faults...)
}

// Compare runs the load against each server, --rounds times, in turns: what changes on the machine in the meantime changes
// for all of them. A round begins with the next server, so that none always follows the same one or is always the first.
// A server with a command is started for its turn and ended after it, so that each turn begins with a fresh process. When
// ctx ends the comparison is broken off in good order. The error is for what kept a run from beginning.
//
// It keeps its thread to itself: the servers that it starts die with it.
func Compare(ctx context.Context, o CompareOptions, sys System, progress *Progress) (*Comparison, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if progress == nil {
		progress = &Progress{}
	}
	defer progress.end()
	c := newComparison(&o)
	for round := range o.Rounds {
		for i := range o.Servers {
			i = (i + round) % len(o.Servers)
			if ctx.Err() != nil {
				break
			}
			progress.show(time.Now(), fmt.Sprintf("round %d of %d: %s", round+1, o.Rounds, o.Servers[i].Name))
			t, err := takeTurn(ctx, &o, &o.Servers[i], sys, progress)
			if ctx.Err() != nil && err != nil {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", o.Servers[i].Name, err)
			}
			c.Servers[i].turns = append(c.Servers[i].turns, t)
		}
	}
	c.finish(ctx.Err() != nil)
	return c, nil
}

// turn is one run against one server, and what was measured around it.
type turn struct {
	report      *Report
	cpuPerConn  *float64 // [us] of the server, for opening, holding and closing
	kernelBytes *float64 // per connection: both ends, if both are on this machine
	machine     time.Duration
	others      time.Duration // processor time of all but the server and the generator
}

// takeTurn runs the load against s.
func takeTurn(ctx context.Context, o *CompareOptions, s *CompareServer, sys System, progress *Progress) (turn, error) {
	run := o.Run
	url := s.URL
	if s.Command != nil {
		p, err := startChild(ctx, s.Command)
		if err != nil {
			return turn{}, err
		}
		defer p.stop()
		url, run.ServerPIDs = "ws://"+p.addr+o.Path, []int{p.pid}
	}
	var err error
	if run.Target, err = ParseTarget(url); err != nil {
		return turn{}, fmt.Errorf("%s %w", url, err)
	}
	server := process{}
	if len(run.ServerPIDs) > 0 {
		server.pid = run.ServerPIDs[0]
	} else if addr, err := run.Target.Resolve(ctx); err == nil && addr.Addr().IsLoopback() {
		if server, _ = findProcess(addr); server.pid != 0 { // 0: the report lacks the server
			run.ServerPIDs = []int{server.pid}
		}
	}
	debug.FreeOSMemory() // each turn finds the generator alike
	before, err := readUsage(server)
	if err != nil {
		return turn{}, err
	}
	slab := watchSlab()
	report, err := Run(ctx, run, sys, progress)
	grown := slab.stop()
	if err != nil {
		return turn{}, err
	}
	after, err := readUsage(server)
	if err != nil {
		return turn{}, err
	}
	t := turn{report: report, machine: after.at.Sub(before.at) * time.Duration(runtime.NumCPU())}
	t.others = max(0, after.busy-before.busy-(after.own-before.own)-(after.server-before.server))
	if report.Opened > 0 {
		if grown > 0 {
			t.kernelBytes = number(round(float64(grown)/float64(report.Opened), 0))
		}
		if server.pid != 0 {
			t.cpuPerConn = number(round(micros(after.server-before.server)/float64(report.Opened), 1))
		}
	}
	return t, nil
}

// usage is processor time used so far.
type usage struct {
	at                time.Time
	busy, own, server time.Duration // of the whole machine, this process, the server
}

func readUsage(server process) (usage, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, err
	}
	u := usage{at: time.Now(), own: ownCPU()}
	if u.busy, err = parseBusy(string(text)); err != nil {
		return usage{}, fmt.Errorf("/proc/stat: %w", err)
	}
	if server.pid != 0 {
		if u.server, err = server.cpu(); err != nil {
			return usage{}, fmt.Errorf("the server with pid %d: %w", server.pid, err)
		}
	}
	return u, nil
}

// slabWatch follows the kernel's own memory (SUnreclaim of /proc/meminfo: sockets, files, epoll's entries, what waits in
// socket buffers) while a run goes on.
type slabWatch struct {
	quit chan struct{}
	peak chan int64
}

func watchSlab() *slabWatch {
	w := &slabWatch{quit: make(chan struct{}), peak: make(chan int64, 1)}
	base := slabBytes()
	go func() {
		tick := time.NewTicker(slabStep)
		defer tick.Stop()
		peak := base
		for {
			select {
			case <-tick.C:
				peak = max(peak, slabBytes())
			case <-w.quit:
				w.peak <- peak - base
				return
			}
		}
	}()
	return w
}

// stop ends the watching and returns by how much the memory grew at most [bytes].
func (w *slabWatch) stop() int64 {
	close(w.quit)
	return <-w.peak
}

// slabBytes returns SUnreclaim; 0 when it cannot be read.
func slabBytes() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	n, err := kilobytes(string(text), "SUnreclaim:")
	if err != nil {
		return 0
	}
	return n
}
