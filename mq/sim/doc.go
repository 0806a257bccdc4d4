// Package sim holds the simulation of the whole gateway: the real packages loop, conn and mq over a network, a clock,
// clients and a worker that a seed decides. It has tests only.
//
// # A run
//
// One seed is one run of some hundred steps. The seed chooses a configuration (limits, timeouts, who keeps connections
// alive, compression, one loop or two), how nasty the network is (package looptest: short reads and writes, EAGAIN, EINTR, events that
// are out of date, no memory to watch a socket), and how likely each action is. Then every step is one action: a client
// arrives, sends something good or bad, stops reading, goes; the worker answers, late, twice, or never, or sends something
// by itself; the operator drains or forces; time passes. In the end everything closes, by one way of several, and nothing
// may be left.
//
// A run is one goroutine and no clock but the simulated one, so a seed always gives the same run. Runs of several seeds go
// side by side.
//
// # What is checked
//
// After every turn of a loop: the accounts (total - disconnected = open = entries, drift 0, requests accepted = ended + in
// flight), the limits, the memory of waiting output. Whenever the loops are at rest: what every client has received, by a
// parser that knows nothing of package frame, against what it must have received by then. In the end: no socket, timer,
// request, subscription or buffer is left, and every connection was opened once, closed once, and told to the worker once.
//
// What is compressed is inflated by the standard library, and looked at for references outside of the agreed window; what is
// slow is expected to be read as soon as it may be: nobody is held back, or given up, for what he did not do.
//
// The files: world_test.go the run and its steps, client_test.go what clients do, abuse_test.go what they should not do,
// pack_test.go how they compress, dial_test.go those clients that are package conn itself, peer_test.go what clients receive,
// worker_test.go the worker, watch_test.go the handler between conn and mq that watches both, check_test.go the invariants,
// tally_test.go what must have been reached, main_test.go flags and report.
//
// # When it fails
//
// It prints the seed, the step, the invariant that was broken and the last events of that connection, and the command
// that repeats the run:
//
//	go test ./mq/sim -run TestSimulation -sim.seed=N -v
package sim
