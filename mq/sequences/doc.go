// Package sequences holds no code of the gateway: its tests play every sequence of the lifecycle on the real conn.Registry
// and mq.Gateway over a simulated network and clock, and write docs/sequences.md from what they see.
//
//	go test ./mq/sequences            compares the page with what happens
//	go test ./mq/sequences -update    writes it: read the difference before you commit it
//
// A scene (scenes_*_test.go) says what clients, worker and operator do. Everything else on the page is recorded: frames
// where they cross the kernel's line, states, calls of the handler and the worker, log lines, and the counters that changed.
package sequences
