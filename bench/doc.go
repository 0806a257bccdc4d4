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
// Two kinds of connections have to break the rules, which a conn.Conn does not do: those of the scenario churn and the
// stalled ones beside an echo. They are sockets of package loop with a frame reader (churner), each with a plan that
// follows from the seed and its number. What churn then demands of the server is in checks.go.
//
// A run may be at several servers, over which its connections are dealt out (places.go); what is counted for each of them
// by itself is in sides.go, and their processes are in servers.go.
//
// What is sent when is the business of a flow (flow.go), which echo, request and broadcast share: each of them is an
// exchange that sends the next message of a connection and knows how many are in flight. MQ messages are built and read by
// envelopes, and what connections have to do before they can send (authenticate, join a room) are steps of a greeter
// (setup.go). With Options.Charts the coordinator collects a series of points, from which WriteHTML draws.
//
// A new scenario is an entry in the table of scenarios: a load, which lives on the loops, and a measure function, which
// runs on the coordinator.
//
// Compare runs one of the scenarios that any server can be asked for against several of them in turns. The servers of
// other people are in the folder peers, a module of its own.
package bench
