// Package roomstore keeps sessions and rooms in NATS JetStream, so that any number of rooms workers run side by side, none
// has a state of its own, and any of them may die. It is the rooms.Engine of mq/rooms.
//
// # Rooms
//
// A room is its log: the records of one subject of the stream Rooms, each the events of one commit and what else changed
// (package record; rooms.Replay). A worker keeps the state of the rooms that it has been asked about and brings it up to
// date from the log. Changes are written with compare-and-set on the last sequence of the subject: who loses reads what
// came in between and computes again. All operations that wait for a room go into one record (group commit). What only
// reads is checked against the stream's leader, once for all that wait. The stream publishes what it has stored to the
// gateways: an event is seen exactly if it is in the log.
//
// Every so often the state is written to a bucket, and reading begins there: the log of a room keeps its last records
// only. The log of a room that has ended is one record, which goes after a while.
//
// # Who subscribes
//
// An answer that subscribes says the sequence before its own record, so that the subscriber gets that record and all
// later ones. What is before the answer in the same record must not hurt then: a join may come after other joins and
// after messages, a subscription to the conversation after anything but messages. Otherwise it begins the next record.
//
// # Sessions
//
// A session is a value in a bucket, changed with compare-and-set. It lists every room that the session may be a member of:
// a room is noted before it is joined and forgotten after it was left, so whoever ends the session, in whatever process,
// takes it out of all its rooms. Joins are numbered, and who takes a session out bars the joins so far in the room itself
// (rooms.Room.Bar): a join that was on its way in another worker cannot make a ghost.
//
// Ends of connections come from the stream Disconnected, by a durable consumer that all workers share. Graces and the
// time to live of empty rooms are messages of the stream Timers, redelivered until they are due: they survive all workers.
//
// A gateway that died without a word does not tell that its connections have ended. When its lease (bucket Gateways) has
// gone, the sessions that the bucket Conns has for it are treated as lost, by whichever worker notices first.
//
// # Gateways that come back
//
// A gateway that was away asks whether its bindings still hold (Engine.Holds). A session that was given up for lost, but is
// still there, is the connection's again by that.
//
// # Ends while something is under way
//
// A request may still be under way, on a slow worker, when another one handles the end of its connection. The end closes the
// connection's place in the bucket Conns for a while, after which an Authenticate is refused, and everything that has begun
// before meets it at some compare-and-set (conns.go): whatever comes first, no session and no member is left, and nobody
// needs to come back for that.
package roomstore
