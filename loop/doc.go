// Package loop is the reactor: sockets, readiness, accepting, write-out, tasks and timers, one goroutine per loop.
//
// A Loop owns its sockets completely. Everything about a socket happens on its loop's goroutine, so nothing here takes a
// lock on the way of a byte; other goroutines reach a socket only by a task posted to its loop (Loop.Post). A Group is
// the loops of one process.
//
// # A turn
//
// The kernel (epoll, through netpoll's Poll) hands over a batch of events; working it off is one turn:
//
//	Begin        the clock is read once
//	SocketEvent  per ready socket: bounded reads into the loop's one buffer, Handler.OnData per read, then one write of
//	             all that the handler queued for this socket
//	RunTasks     what others posted
//	End          due timers; one write for every other socket that was written to; notifications; closed slots become free
//
// The same Loop runs over a simulated Kernel in tests (package looptest): time, short writes, resets and the order of
// events are then the test's to choose.
//
// # Slots
//
// A socket is addressed by its slot, a small number that indexes the slabs here and in package conn. A slot is used again
// after its socket has closed; its generation then differs (Loop.Generation), which is how a late reference is told from
// a good one.
package loop
