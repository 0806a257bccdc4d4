// Package natstest gives tests real NATS servers with JetStream: one in the process, or a cluster whose nodes are
// processes of their own that can be killed and started again, and a way to cut a connection in between.
//
// The nodes of a cluster are the test binary itself, started once more: whoever imports this package can be one. Only
// tests import it.
package natstest
