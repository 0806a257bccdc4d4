// Command peers is the other servers in mqgate's benchmarks (docs/benchmarks.md), one subcommand each: small echo servers
// that send every text and binary message back, on any path.
//
//	peers gorilla --listen 127.0.0.1:0
//	msg=listening peer=gorilla addr=127.0.0.1:41023 pid=4711 gomaxprocs=2
//
// It is a module of its own, so that its dependencies stay out of mqgate's. What runs on Node is in the folder node.
//
// Each peer is set up as its documentation says for many connections:
//
//   - no permessage-deflate, TCP_NODELAY, no log line per connection or message, no deadline per message;
//   - read buffers of 1 KiB where a connection has one of its own: the short messages of the benchmark fit, and the
//     defaults of 4 KiB would only make the peers look heavier;
//   - write buffers and the buffer of a whole message from pools, so that an idle connection has none;
//   - where net/http does the upgrade, the handler returns and the connection goes on in a new goroutine, so that what
//     net/http holds for the request can be collected.
//
// Particular to one of them, and why, stands in its file.
package main
