package loop

import "time"

// Limits of one loop. Values that operators may want to change are in Config; these are properties of the design.
const (
	// readBufferSize is the loop's one read buffer [bytes]. A frame that fits is handled in place. 64 KiB is what one
	// read(2) usually gets at most from a socket with default buffers.
	readBufferSize = 64 << 10

	// maxReadsPerEvent bounds the work for one socket per turn: 4 x 64 KiB, then the others have their turn (epoll is
	// level-triggered and reports the rest again). Against: one fast sender starving everybody on its loop.
	maxReadsPerEvent = 4

	// maxAcceptsPerEvent bounds the connections accepted from one listener per turn, against a storm of connections
	// starving established ones.
	maxAcceptsPerEvent = 128

	// maxEvents caps netpoll's event array [events]: it doubles up to 128 Ki entries of 1.3 KB and never shrinks, 175 MB
	// per loop after one burst. At 1,024 entries with no barriers it is 65 KB.
	maxEvents = 1024

	// maxIovecs bounds one writev(2) [buffers]; the kernel's limit is 1,024.
	maxIovecs = 64

	// flushThreshold [bytes]: a socket with more than this queued in one turn is written out at once instead of at the end
	// of its turn, which bounds memory when one read batch causes much output.
	flushThreshold = 256 << 10

	// A loop keeps free queues for the next output: those with an output buffer of keptQueueBytes [bytes] at most, urgent
	// output of keptQueueUrgent [bytes] and room for keptQueueUnits [of 16 bytes], and no more than take keptQueuesBytes
	// [bytes] in all. That is enough for a broadcast to 20,000 sockets, whose queues hold references only, without an
	// allocation. What is larger is left to the collector, or the memory of a burst would stay.
	keptQueueBytes  = 128 << 10 // a reply of 64 KiB and its header fit
	keptQueueUrgent = 4 << 10
	keptQueueUnits  = 1024
	keptQueuesBytes = 4 << 20

	// sharedSample is how many units of one queue SharedPart looks at. Against: a queue of a quarter of a million tiny
	// broadcasts, whose every look would take a millisecond.
	sharedSample = 64

	// keptRefs bounds what each of the four lists of sockets with something to do (dirty, errors, notify, freed) keeps of a
	// burst [entries of 8 bytes]: together 1 MiB a loop. After a broadcast to everybody they would otherwise hold 8 bytes
	// per connection for ever.
	keptRefs = 32 << 10

	// maxRounds bounds how often one turn goes over what its own notifications caused. Against: a handler that writes
	// more whenever its output is drained, to a peer that reads as fast, would never let the loop go; the rest waits for
	// the next turn.
	maxRounds = 4

	// acceptRetry is how long accepting rests when the process is out of descriptors or memory (L8.4).
	acceptRetry = 100 * time.Millisecond

	// chunkSlots is the number of sockets per slab chunk: memory grows by this many and never moves. 256 x 128 bytes are 4
	// pages of Go's allocator to the byte.
	chunkSlots = 256

	// MaxSlots is the number of sockets that one loop can hold: connection ids carry 24 bits of slot.
	MaxSlots = 1 << 24
)
