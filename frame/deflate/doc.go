// Package deflate is the compression of permessage-deflate (RFC 7692) on bytes: inflating a message that comes in
// pieces, deflating a message that is whole, and what two ends must agree on. It knows nothing of frames, sockets or
// headers: package frame calls it for what arrives, package conn for what is sent, conn/handshake for Params.
//
// # Inflating
//
// An Inflater is fed the payload of a message in whatever pieces it comes, and gives out at once everything that those
// pieces say: so the text can be checked and the size limited while the message is still arriving. No reader of the
// libraries does that: compress/flate and klauspost/compress pull their input, and one that runs dry in the middle of a
// block is lost. That is why RFC 1951 is decoded here. compress/flate is the oracle that the tests compare with.
//
// The output is the caller's buffer and at the same time the history that matches copy from; nothing is kept twice. The
// Inflater never grows it: who gives it no more room than the limit spends no more memory than that.
//
// # Deflating
//
// A Compressor, one per loop, deflates whole messages by klauspost/compress, at its level 1; bench_test.go has what it was
// measured against. It has no state between messages: context takeover is the last bytes of what was sent (a Window),
// given to it as a preset dictionary.
//
// # Two modes
//
// Shared: both ends begin every message with an empty window (no context takeover). Nothing is kept per connection.
// Takeover: each connection has a Context, two Windows of what went each way. docs/compression.md has the costs.
package deflate
