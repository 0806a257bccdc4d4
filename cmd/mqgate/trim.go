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
// Every trimEvery the heap is looked at. When there has been little traffic since the last look, less than a
// trimIdleShare of the heap, and there is reason to think that something can be freed, the heap is collected twice (a
// sync.Pool lets go at the second collection) and what is free is returned to the system. The reasons: the runtime has
// collected since the last trim, so memory has come and gone; or the heap has grown by more than a 32nd and trimSlack.
// Under load the heap is never trimmed and the runtime's own pace applies; an idle process is trimmed once after each
// collection of the runtime's, which comes every two minutes then.
const (
	trimEvery     = 5 * time.Second
	trimSlack     = 64 << 10 // [bytes]
	trimIdleShare = 8
)

// memory is what the trimmer looks at.
type memory struct {
	heap        uint64 // bytes that the heap occupies: mapped and not returned to the system
	collections uint64 // so far
	traffic     uint64 // bytes received and sent so far
}

// trimmer decides when to trim.
type trimmer struct {
	floor       uint64 // heap after the last trim, or the smallest one since [bytes]
	collections uint64 // at the last trim
	traffic     uint64 // at the last look
}

// due reports whether to trim now.
func (t *trimmer) due(m memory) bool {
	moved := m.traffic - t.traffic
	t.traffic = m.traffic
	t.floor = min(t.floor, m.heap)
	idle := moved < m.heap/trimIdleShare
	return idle && (m.collections != t.collections || m.heap > t.floor+t.floor/32+trimSlack)
}

// trimmed notes what a trim has left.
func (t *trimmer) trimmed(m memory) { t.floor, t.collections = m.heap, m.collections }

// trimMemory runs the rule until ctx ends. traffic returns the bytes received and sent so far; release has the gateway let
// go of the buffers that it keeps for the next burst.
func trimMemory(ctx context.Context, log *slog.Logger, traffic func() uint64, release func()) {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	var t trimmer
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := readMemory()
		before.traffic = traffic()
		if t.due(before) {
			release()
			trim()
			after := readMemory()
			t.trimmed(after)
			log.Debug("memory returned to the system", "before_bytes", before.heap, "after_bytes", after.heap)
		}
	}
}

// trim returns to the system what is free.
func trim() {
	runtime.GC()
	debug.FreeOSMemory() // collects again
}

// readMemory reads all but the traffic.
func readMemory() memory {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(samples)
	return memory{
		heap:        samples[0].Value.Uint64() + samples[1].Value.Uint64() + samples[2].Value.Uint64(),
		collections: samples[3].Value.Uint64(),
	}
}
