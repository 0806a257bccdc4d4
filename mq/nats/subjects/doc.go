// Package subjects names everything that mqgate has in NATS: subjects, streams, key-value buckets and headers. All of them
// begin with a prefix, so that several installations can share one NATS system.
//
// Names makes them. It is a value without pointers into anything that changes: safe from any goroutine. What a client
// or worker chooses (types of messages, room ids) becomes part of a subject only through Names, which refuses or encodes it.
package subjects
