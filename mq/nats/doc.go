// Package nats carries requests, answers and events between gateways and workers over NATS, so that both can run on any
// number of machines.
//
// Words:
//
//   - A Conn is a process's connections to one NATS system, each of them a link.
//   - A Relay is the mq.Worker of a gateway: it passes requests on to whoever subscribes to their subject, and carries out
//     what workers tell the connections of its gateway.
//   - A Service is the other end: it drives a mq.Worker in a worker process. Clients is what that worker calls.
//   - A flight is a request of a client between Process and its answer.
//   - An ordered request waits until the one before it on its connection was answered.
//   - A connection is bound to a session when a worker has said so in an answer; the Relay says it with each further request.
//   - An end is the end of a client's connection, on its way to the stream of ends.
//
// Subjects and headers are those of package subjects; docs/workers.md tells them to authors of workers.
package nats
