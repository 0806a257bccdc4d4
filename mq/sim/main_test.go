package sim

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "run this seed alone, with its trace; 0: many")
	fromFlag  = flag.Uint64("sim.from", 1, "the first seed of many")
	seedsFlag = flag.Uint64("sim.seeds", 2000/slowdown, "how many seeds")
)

// TestSimulation runs many seeds, or one: see the package comment.
func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		w, v := run(*seedFlag, true)
		if v != nil {
			t.Fatal(v.report())
		}
		t.Log(trace(w.events))
		return
	}
	begun := time.Now()
	var next, turns, total atomic.Uint64
	next.Store(*fromFlag)
	var mu sync.Mutex
	var first *violation
	var tally tally
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				seed := next.Add(1) - 1
				mu.Lock()
				done := first != nil && first.seed < seed // but smaller seeds are finished: the report is always the same
				mu.Unlock()
				if done || seed >= *fromFlag+*seedsFlag {
					return
				}
				w, v := run(seed, false)
				total.Add(1)
				mu.Lock()
				if v != nil && (first == nil || v.seed < first.seed) {
					first = v
				}
				tally.add(w)
				mu.Unlock()
				for _, r := range w.regs {
					turns.Add(r.Snapshot().Loop.Turns)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds from %d, %d turns in %v: %v", total.Load(), *fromFlag, turns.Load(), time.Since(begun).Round(time.Millisecond), &tally)
	if first != nil {
		_, again := run(first.seed, true)
		if again == nil || again.invariant != first.invariant || again.step != first.step {
			t.Errorf("seed %d is not the same when it is run again", first.seed)
			again = first
		}
		t.Fatal(again.report())
	}
	if *seedsFlag >= 2000 {
		tally.check(t)
	}
}

// A seed gives the same run every time, to the last event.
func TestSeedsRepeat(t *testing.T) {
	for seed := uint64(1); seed <= max(1, 40/slowdown); seed++ {
		first, v1 := run(seed, true)
		second, v2 := run(seed, true)
		if v1 != nil || v2 != nil {
			t.Fatalf("seed %d: %v, %v", seed, v1, v2)
		}
		if len(first.events) != len(second.events) {
			t.Fatalf("seed %d: %d events, then %d", seed, len(first.events), len(second.events))
		}
		for i := range first.events {
			a, b := trace(first.events[i:i+1]), trace(second.events[i:i+1])
			if a != b {
				t.Fatalf("seed %d, event %d:\n%s%s", seed, i, a, b)
			}
		}
	}
}

// A report names the seed, the step, the invariant, the last events of that client, and the command that repeats it.
func TestReport(t *testing.T) {
	c, other := &client{n: 1}, &client{n: 2}
	v := &violation{seed: 7, step: 12, act: "ping", client: c, invariant: "the invariant", text: "the text"}
	for i := range 40 {
		v.events = append(v.events, event{i, int64(i) * 1e9, c, fmt.Sprint("event ", i)}, event{i, 0, other, "of another"})
	}
	r := v.report()
	for _, want := range []string{"seed 7, step 12 (ping), client 1", "broken: the invariant", "the text", "last 30 events", "10.000s  client 1   event 10",
		"event 39", "go test ./mq/sim -run TestSimulation -sim.seed=7 -v"} {
		if !strings.Contains(r, want) {
			t.Errorf("%q is not in the report:\n%s", want, r)
		}
	}
	for _, not := range []string{"event 9\n", "another"} {
		if strings.Contains(r, not) {
			t.Errorf("%q is in the report", not)
		}
	}
}

// report says what broke, with the last events of that client, and how to see it again.
func (v *violation) report() string {
	var last []event
	for _, e := range v.events {
		if v.client == nil || e.client == v.client || e.client == nil {
			last = append(last, e)
		}
	}
	const shown = 30
	last = last[max(0, len(last)-shown):]
	who := "the gateway"
	if v.client != nil {
		who = v.client.String()
	}
	return fmt.Sprintf("seed %d, step %d (%s), %s\nbroken: %s\n%s\nthe last %d events:\n%s\nagain: go test ./mq/sim -run TestSimulation -sim.seed=%d -v",
		v.seed, v.step, v.act, who, v.invariant, v.text, len(last), trace(last), v.seed)
}

func trace(events []event) string {
	var b strings.Builder
	for _, e := range events {
		who := "-"
		if e.client != nil {
			who = e.client.String()
		}
		fmt.Fprintf(&b, "  step %3d %10.3fs  %-10s %s\n", e.step, float64(e.at)/1e9, who, e.text)
	}
	return b.String()
}
