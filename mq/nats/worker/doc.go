// Package worker is the short way to a worker in Go: a function per type of request, and Run. docs/workers.md shows it, and
// what a worker in another language does to be the same.
//
// Whoever needs more (answers later from anywhere, ends of connections, a mq.Worker that also runs in the gateway's
// process) uses nats.Service.
package worker
