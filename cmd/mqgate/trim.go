package main

import (
	"context"
	"log/slog"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Memory goes back to the system by a rule of this program, not of the Go runtime alone: the runtime collects when the
// heap has doubled, or after two minutes, and an idle gateway allocates nothing. After a burst (64 KiB messages from
// everybody) the buffers would lie in free pools for minutes.
//
// Every trimEvery the heap is looked at. When it is larger than the floor by more than an eighth and trimSlack, and the
// traffic since the last look is less than what could be freed, it is collected twice (a sync.Pool lets go at the second
// collection) and what is free is returned to the system. The floor is the heap after the last trim, or the smallest one
// seen since. Under load the second condition never holds and the runtime's own pace applies.
const (
	trimEvery = 5 * time.Second
	trimSlack = 8 << 20 // [bytes]
)

// trimmer decides when to trim.
type trimmer struct {
	floor   uint64 // heap after the last trim, or the smallest one since [bytes]
	traffic uint64 // bytes received and sent until the last look
}

// due reports whether to trim now, given the heap in use and the traffic so far [bytes].
func (t *trimmer) due(heap, traffic uint64) bool {
	moved := traffic - t.traffic
	t.traffic = traffic
	t.floor = min(t.floor, heap)
	allowed := t.floor + t.floor/8 + trimSlack
	return heap > allowed && moved < heap-t.floor
}

// trimMemory runs the rule until ctx ends. traffic returns the bytes received and sent so far.
func trimMemory(ctx context.Context, log *slog.Logger, traffic func() uint64) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var t trimmer
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if before := heapInUse(); t.due(before, traffic()) {
			t.floor = trim()
			log.Debug("memory returned to the system", "before_bytes", before, "after_bytes", t.floor)
		}
	}
}

// trim returns to the system what is free and returns the heap that remains [bytes].
func trim() uint64 {
	runtime.GC()
	debug.FreeOSMemory() // collects again
	return heapInUse()
}

// heapInUse returns the bytes that the heap occupies: mapped and not returned to the system.
func heapInUse() (n uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		n += s.Value.Uint64()
	}
	return n
}
