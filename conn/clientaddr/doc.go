// Package clientaddr says who a connection comes from, and how many may come from there (L2.3, L2.6). It is pure: bytes,
// addresses and a time go in, a verdict comes out; no I/O, no clock.
//
//	Parse, Header    the PROXY protocol, versions 1 and 2, which a load balancer writes before the client's own bytes
//	Trusted          the proxies whose word counts
//	Resolve          the client's address, out of X-Forwarded-For
//	Origins          which web sites may connect
//	Limiter          connections and handshakes per address
//
// The order in which a server uses them, for a connection whose socket says that it comes from socket:
//
//  1. With the PROXY protocol switched on: it collects input until Parse has found a header, and Header.Remote gives the
//     peer, which takes the place of the socket's address. Without it the socket's address is the peer.
//  2. When the request is there: Resolve gives the client's address, unless Header.Remote said that X-Forwarded-For must
//     not be read.
//  3. Origins.Allowed, else 403.
//  4. Limiter.Admit for the client's address, else 503; Limiter.Release for the same address when the connection is gone.
//
// # Never an address that a client can choose
//
// Whoever can make the gateway believe another address passes every limit per address and puts the blame in the log on
// somebody else. So a word about an address counts only when it was written by a proxy that the operator named: a PROXY
// header from anybody else ends the connection; X-Forwarded-For is read from its end, which the nearest proxy wrote, and
// only as far as the proxies are trusted; what cannot be read ends the reading, since what stands before it may be the
// client's own.
package clientaddr
