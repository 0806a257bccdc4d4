package main

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame/deflate"
)

// newBudget returns the budget that --memory-limit asks for, or nil (L8.6). The Go runtime is told the limit as well: it
// then collects more often as it comes near, so that garbage is not what reaches it, unless GOMEMLIMIT says otherwise.
func newBudget(cfg *config.Serve, log *slog.Logger) *conn.Budget {
	if cfg.MemoryLimit == 0 {
		return nil
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(cfg.MemoryLimit))
	}
	return conn.NewBudget(int64(cfg.MemoryLimit), log)
}

// What the connections with --compression=takeover may keep together: a part of --memory-limit, or so much without one.
// Whoever comes when it is used up is compressed without takeover.
const (
	takeoverPart      = 4 // a quarter
	takeoverUnlimited = 1 << 30
)

func takeovers(cfg *config.Serve) *deflate.Budget {
	if cfg.MemoryLimit == 0 {
		return deflate.NewBudget(takeoverUnlimited)
	}
	return deflate.NewBudget(int64(cfg.MemoryLimit) / takeoverPart)
}

// collectAgain is how often the heap is collected at most, besides the runtime's own collections, while memory is short.
const collectAgain = time.Second

// watchBudget tells the budget after every collection of the heap what the process takes besides what the loops hold for
// their peers, until ctx ends. Collections come whenever much has been allocated, so this is never far behind; what the
// loops hold is known at every moment without it.
//
// A collection that began before the loops let go of much has counted that as alive, and without load no other would come
// for minutes. So while memory seems to be short the heap is collected again, for a twentieth of the time at most.
func watchBudget(ctx context.Context, b *conn.Budget) {
	collected := make(chan struct{}, 1)
	var took time.Duration // of the last collection here
	for {
		b.SetBase(baseMemory(readBase(), b.Held()))
		var again <-chan time.Time // never, when memory is not short
		if b.Level() != conn.Calm {
			again = time.After(max(collectAgain, 20*took))
		}
		canary := new(struct{ self *byte }) // with a pointer: objects without one share their memory with others
		runtime.AddCleanup(canary, func(c chan<- struct{}) {
			select {
			case c <- struct{}{}:
			default:
			}
		}, collected)
		select {
		case <-collected:
		case <-again:
			began := time.Now()
			runtime.GC()
			took = time.Since(began)
		case <-ctx.Done():
			return
		}
	}
}

// base is what baseMemory is made of [bytes].
type base struct {
	live     uint64 // what the last collection found alive, buffers included
	overhead uint64 // stacks and the runtime's own structures
}

// baseMemory returns what is alive without held, which the loops hold and which was alive as well.
func baseMemory(m base, held int64) int64 { return max(int64(m.live)-held, 0) + int64(m.overhead) }

func readBase() base {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	overhead := samples[1].Value.Uint64()
	for _, heap := range samples[2:] {
		overhead -= heap.Value.Uint64()
	}
	return base{samples[0].Value.Uint64(), overhead}
}
