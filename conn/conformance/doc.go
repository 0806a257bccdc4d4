// Package conformance judges a WebSocket endpoint by RFC 6455 and RFC 7692, over a real TCP connection and from the
// outside: it is handed an address, or an accepted connection, and knows nothing of what is behind it.
//
// A Case is a script: bytes that the suite sends, in pieces of its choice, and what the endpoint under test has to answer
// to them, in order, with nothing else before, between or behind, up to the end of the TCP connection. There is one
// expected behaviour per case. Where the RFC leaves a choice the case allows all of it (a pong may overtake a message, an
// echo may be fragmented), or leaves the question out; "MAY" and "it usually works" are not passed as right.
//
// The suite plays either end. As the client (Case.RunClient) it judges servers, as the server (Case.RunServer) clients; the
// endpoint under test echoes text and binary messages. Tables by section of the RFC, which names are made of:
//
//	Protocol        framing, controls, fragments, UTF-8, close, sizes: for both roles
//	Limit           the longest message that the endpoint takes: for both roles
//	Requests        opening handshakes that a server has to accept or refuse
//	Answers         answers to its opening handshake that a client has to accept or refuse
//	Deflate         permessage-deflate: offers that a server has to agree to or to decline, and messages
//	DeflateAnswers  permessage-deflate: answers that a client has to take or to give up at, and messages
//
// Nothing of the packages that are judged is used: frames are built and read by the slow codec in wire.go, HTTP by
// net/http, UTF-8 is checked by unicode/utf8, compression done by compress/flate and, where repetitions are to lie at the
// very end of a window, by pack.go; decompression by inflate.go, which is slow too and also sees how far back an endpoint
// points. So an error would have to be made twice, in two ways.
//
// Random choices come from Seed and the name of the case: a case does the same in every run.
package conformance
