// Package wire is the MQ protocol on bytes: the envelope every message travels in, its two forms on a WebSocket (raw
// protobuf in binary messages, standard base64 of it in text messages), and the messages of the packages mq, pcast and
// chat. It is pure: no I/O, no clock, no state, and safe from any goroutine.
//
// It is written by hand over protowire rather than generated, for two reasons. The clients' encoder departs from
// protobuf in ways that generated code does not follow (below), and the gateway decodes an envelope for every message
// it carries, which here allocates nothing.
//
// # What is borrowed
//
// Unmarshal copies nothing. Every string and every []byte in a decoded Envelope or message is a view of the slice that
// was given to Unmarshal and is valid only as long as that slice is left unchanged: when the caller's read buffer is
// reused, such a string changes under its owner's feet. What is kept beyond that must be copied with strings.Clone or
// bytes.Clone. Slices of messages (Members, Streams, ...) and of strings (Options, Roles) are memory of the message and
// are reused by its next Unmarshal. AppendTo copies everything into dst and keeps nothing.
//
// An element of a list costs its sender as little as two bytes and the memory of its reader 16 (a string) to 72 (a
// Member): whoever decodes messages of strangers bounds their length first.
//
// # How the encoding departs from protobuf
//
//   - Repeated scalars are written unpacked, each with its own tag. Both forms are read.
//   - A field that equals its declared default is left out even where the schema calls it required. In turn nothing is
//     rejected for want of a required field, but for the type of an envelope, without which nothing can be done with it.
//   - A required field without a declared default is written even when it is zero or empty.
//   - Fields are written in ascending order, and read in any. Of a field that may occur once, the last one wins.
//   - Unknown fields are skipped. Unknown values of an enum are an error: clients throw on them, so passing one on
//     would hand every receiver a message that it cannot read.
//   - Groups do not occur in the protocol and are an error, also as unknown fields.
//   - Strings must be valid UTF-8. The clients' encoder never writes anything else, and strict decoders among the
//     receivers would refuse the whole message.
//   - Varints of more than ten bytes or more than 64 bits are an error; padded ones within that are read, as everywhere.
package wire
