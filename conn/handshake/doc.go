// Package handshake is the opening handshake of RFC 6455 section 4 on bytes, in both roles: pure, no I/O, no clock.
//
// The server collects input until Scan finds the end of the header block, and then takes four steps, in this order, each
// of which may end in a Refusal:
//
//	Scan                  400 not HTTP at all, 431 too large
//	Request.ParseHead     400 syntax, 431 too many header lines, 505 HTTP version
//	the caller            404 path, 403 origin, 503 full: Refusals that it made with NotFound, Forbidden, Unavailable
//	Request.CheckUpgrade  405 method, 400 a body, 426 no upgrade or another version, 400 a bad key
//
// The caller's step is between the others so that a request for an unknown path hears 404, whatever else is wrong with
// it; a caller that checks the origin or its capacity does that after CheckUpgrade, so that a plain GET hears 426. Then
// AppendResponse or AppendRefusal writes the answer. Bytes after the header block are the caller's: the client's
// first frames.
//
// The client writes AppendRequest, collects input until End finds the end, and reads the answer with Response.Parse.
//
// permessage-deflate is agreed on by Request.Deflate, whose answer goes into AppendResponse; by the client with
// Compression.Offer, as an extra header, and Response.Deflate after Parse (RFC 7692).
//
// Nothing allocates for an ordinary request or an accepted answer: what is parsed are views borrowed from the input,
// valid as long as the input is.
//
// # What is stricter than HTTP asks
//
// Lines end with CRLF (a bare LF is 400), no obsolete line folding, no empty lines before the request line, header names
// are tokens right up to the colon, header values have no control characters, one Host at most. A lenient reader behind
// a proxy that reads otherwise is how requests are smuggled. What is accepted here, net/http accepts too and reads the
// same way; a fuzz test holds that.
package handshake
