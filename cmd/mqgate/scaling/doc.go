// Package scaling measures what NATS between gateways and workers costs, beside one process that has everything in it:
// processor time for a request and for a delivery, memory for a room that is followed, and what one connection to NATS carries.
// There is nothing in it but a benchmark of real processes, in turns, whose figures docs/scaling.md explains:
//
//	make scaling
package scaling
