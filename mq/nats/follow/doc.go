// Package follow is the traffic of rooms at a gateway: it hears what the logs of rooms with local subscribers say and gives
// it to the gateway, so that each subscriber gets each record after the one at which it subscribed exactly once and in
// order, whatever NATS does in between.
//
// # The log of a room
//
// Each room has a log: a subject of the stream of package subjects, one record (package record) per change. The stream
// publishes what it stores again, with the sequence and the sequence before it in the same log. NATS delivers that at
// most once: records can be missing (a connection was away, a leader died before it published, a reader was too slow),
// come twice or in another order (a new leader). So a Follower counts: a record at or below the last sequence is dropped, one
// that does not follow the last sequence waits until those between were read from the stream. What nobody notices that
// way, because nothing came after it, is found by asking the stream for the last records of all followed rooms: after a
// reconnect, when the stream has a new leader, after a room was followed, when messages were dropped here, and now and then.
//
// # New subscribers
//
// An answer that subscribes says which sequence N it includes. A Handover passes it on in the room's place in the order:
// not before record N went to those that are subscribed already, and with the records after N that went to them meanwhile
// attached, for this connection alone. They come from a short list of recent records, or from the stream.
//
// # Who does what
//
// A room belongs to one of a fixed number of shards, and a shard to one goroutine and one NATS connection: all that happens
// to a room is in one order, and nothing has a lock; a connection that comes back has only its own rooms checked. Shards never wait: what asks the stream and waits for it runs on a few other goroutines.
// Loops of the gateway only put things into a shard's list. Each room has one NATS subscription, however many its
// subscribers, and it stays for a while after the last one has gone.
package follow
