// Package bench is the load generator: scenarios that drive a WebSocket server with many connections, check every message
// that comes back, and measure the server and themselves.
//
// The connections are those of package conn in the client role, on loops of package loop, so that the generator needs
// about as much CPU per message as the server, and one process holds as many connections as the server does.
//
// A run has a coordinator, the goroutine that calls Run, and a driver per loop. A driver, its clients and the scenario's
// load on it belong to the loop's goroutine; the coordinator asks for work and reads counters by tasks on the loops. All
// phases are bounded in time and count:
//
//	open     the warm-up connections, a pause in which the server's memory settles, then the rest
//	measure  what the scenario does
//	close    every connection with code 1000, so many at a time; what does not answer is cut off
//	report   counters of all loops, together with what /proc says about the server
//
// A new scenario is an entry in the table of scenarios: a load, which lives on the loops, and a measure function, which
// runs on the coordinator.
package bench
