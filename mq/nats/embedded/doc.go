// Package embedded runs a NATS server with JetStream inside this process: what "mqgate serve --nats embedded" starts, so
// that a second gateway or a worker can join without anything else being installed, and what tests talk to.
//
// A Server is nats-server as it is, with its log lines in slog, one store directory and a clean end. Connections of this
// process need no socket: Server.InProcess.
package embedded
