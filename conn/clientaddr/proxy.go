package clientaddr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
)

// Errors of Parse and Header.Remote. All mean that the connection is to be refused: the peer does not
// speak HTTP yet.
var (
	// ErrNoHeader: the connection does not begin with a PROXY header. It came past the load balancer, or the load
	// balancer is not told to write one.
	ErrNoHeader = errors.New("PROXY protocol: the connection does not begin with a header")

	// ErrUntrusted: the peer that wrote the header is not a trusted proxy.
	ErrUntrusted = errors.New("PROXY protocol: the peer is not one of the trusted proxies")

	errV1Long     = errors.New("PROXY protocol: no CRLF within the first 107 bytes of a version 1 header")
	errV1Bare     = errors.New("PROXY protocol: a CR or LF that is not part of a CRLF in a version 1 header")
	errV1Protocol = errors.New("PROXY protocol: the protocol in a version 1 header is not TCP4, TCP6 or UNKNOWN")
	errV1Fields   = errors.New("PROXY protocol: a version 1 header has not exactly two addresses and two ports, one space before each")
	errV1Addr     = errors.New("PROXY protocol: a version 1 header has an address that is malformed or not of its family")
	errV1Port     = errors.New("PROXY protocol: a version 1 header has a port that is not a number from 0 to 65535 without leading zeros")
	errV2Version  = errors.New("PROXY protocol: the version after the binary signature is not 2")
	errV2Command  = errors.New("PROXY protocol: the command of a version 2 header is not LOCAL or PROXY")
	errV2Family   = errors.New("PROXY protocol: the address family of a version 2 header is not known")
	errV2Proto    = errors.New("PROXY protocol: the transport protocol of a version 2 header is not known")
	errV2Long     = errors.New("PROXY protocol: a version 2 header longer than 4096 bytes")
	errV2Short    = errors.New("PROXY protocol: a version 2 header is too short for the addresses of its family")
)

// Header is a PROXY header.
type Header struct {
	Version byte // 1 or 2

	// Source is who connected to the proxy, Destination what it connected to; an IPv4-mapped IPv6 address is the IPv4
	// one. Both are the zero AddrPort when the header has no addresses of TCP over IP: LOCAL (the proxy connects for
	// itself, as health checks do), UNKNOWN, a UNIX socket, UDP.
	Source, Destination netip.AddrPort
}

const (
	v1Prefix    = "PROXY "
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed     = 16 // signature, version and command, family and protocol, length
)

// Parse reads the PROXY header that the connection must begin with (the PROXY protocol, sections 2.1 and 2.2). p is all
// that has been received so far, borrowed for the call. n is the length of the header; what follows it is the client's.
// n is 0 without an error when more is needed, which is never asked for beyond MaxHeaderV1 or MaxHeaderV2. It does not
// allocate.
//
// Once it returned an error or a header, it returns the same for any longer input. The bytes of a PROXY header must not
// be guessed at: a server that takes it on one port takes nothing else there, or a client could write one.
//
// Version 1 is read exactly as written in the specification; only that the addresses of TCP6 may have their last four
// bytes in dotted decimal form, since HAProxy writes IPv4-mapped ones so. What follows UNKNOWN is skipped, as it must be.
// In version 2 whatever follows the addresses is skipped, CRC32C checksums among it: TCP has its own, and the header is
// believed because of who sent it.
func Parse(p []byte) (h Header, n int, err error) {
	switch {
	case len(p) == 0:
		return Header{}, 0, nil
	case p[0] == v1Prefix[0]:
		if k := min(len(p), len(v1Prefix)); string(p[:k]) != v1Prefix[:k] {
			return Header{}, 0, ErrNoHeader
		}
		return parseV1(p)
	default:
		if k := min(len(p), len(v2Signature)); string(p[:k]) != v2Signature[:k] {
			return Header{}, 0, ErrNoHeader
		}
		return parseV2(p)
	}
}

// parseV1 reads a header of version 1; p begins with "PROXY " as far as it goes.
func parseV1(p []byte) (Header, int, error) {
	p = p[:min(len(p), MaxHeaderV1)]
	end := bytes.IndexAny(p, "\r\n")
	switch {
	case end < 0 || end+1 == len(p) && p[end] == '\r':
		if len(p) == MaxHeaderV1 {
			return Header{}, 0, errV1Long
		}
		return Header{}, 0, nil
	case p[end] == '\n' || p[end+1] != '\n':
		return Header{}, 0, errV1Bare
	}
	h, err := parseLine(p[len(v1Prefix):end])
	if err != nil {
		return Header{}, 0, err
	}
	return h, end + 2, nil
}

// parseLine reads what is between "PROXY " and CRLF.
func parseLine(p []byte) (Header, error) {
	h := Header{Version: 1}
	protocol, rest, more := bytes.Cut(p, space)
	switch string(protocol) {
	case "UNKNOWN":
		return h, nil
	case "TCP4", "TCP6":
	default:
		return h, errV1Protocol
	}
	var at [4][]byte // source, destination, source port, destination port
	for i := range at {
		if !more {
			return h, errV1Fields
		}
		if at[i], rest, more = bytes.Cut(rest, space); len(at[i]) == 0 {
			return h, errV1Fields
		}
	}
	if more {
		return h, errV1Fields
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		a, ok := parseAddr(at[i])
		if !ok || a.Is4() != (protocol[3] == '4') {
			return h, errV1Addr
		}
		port, ok := parsePort(at[2+i])
		if !ok {
			return h, errV1Port
		}
		ends[i] = netip.AddrPortFrom(a.Unmap(), port)
	}
	h.Source, h.Destination = ends[0], ends[1]
	return h, nil
}

var space = []byte{' '}

// addressLen is the length of the two addresses and ports of a version 2 header by family [bytes].
var addressLen = [...]int{unspec: 0, inet: 2*4 + 2*2, inet6: 2*16 + 2*2, unix: 2 * 108}

// Address families, transport protocols and commands of version 2.
const (
	unspec, inet, inet6, unix = 0, 1, 2, 3
	stream, dgram             = 1, 2
	local, proxied            = 0, 1
)

// parseV2 reads a header of version 2; p begins with the signature as far as it goes. Each byte is judged in its turn,
// so that the judgement does not depend on how much more has come.
func parseV2(p []byte) (Header, int, error) {
	const versionCommand, familyProtocol, length = 12, 13, 14
	if len(p) <= versionCommand {
		return Header{}, 0, nil
	}
	command := p[versionCommand] & 0x0f
	switch {
	case p[versionCommand]>>4 != 2:
		return Header{}, 0, errV2Version
	case command != local && command != proxied:
		return Header{}, 0, errV2Command
	case len(p) <= familyProtocol:
		return Header{}, 0, nil
	}
	family, protocol := p[familyProtocol]>>4, p[familyProtocol]&0x0f
	if command == local {
		family, protocol = unspec, unspec // which must be ignored
	}
	switch {
	case family > unix:
		return Header{}, 0, errV2Family
	case protocol > dgram:
		return Header{}, 0, errV2Proto
	case len(p) < v2Fixed:
		return Header{}, 0, nil
	}
	n := v2Fixed + int(binary.BigEndian.Uint16(p[length:]))
	switch {
	case n > MaxHeaderV2:
		return Header{}, 0, errV2Long
	case n < v2Fixed+addressLen[family]:
		return Header{}, 0, errV2Short
	case len(p) < n:
		return Header{}, 0, nil
	}
	h := Header{Version: 2}
	if protocol != stream {
		return h, n, nil
	}
	switch family {
	case inet:
		b := p[v2Fixed : v2Fixed+12]
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[8:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), binary.BigEndian.Uint16(b[10:]))
	case inet6:
		b := p[v2Fixed : v2Fixed+36]
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[32:]))
		h.Destination = netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[16:])).Unmap(), binary.BigEndian.Uint16(b[34:]))
	}
	return h, n, nil
}

// Remote returns who the connection comes from, given the socket's own peer, which wrote the header (L2.3): the header's
// source, or the socket's peer when the header has none. It is ErrUntrusted when the peer is not a trusted proxy; a
// server may ask Trusted.Contains as soon as it accepts, rather than wait for the header.
//
// forwarded says whether X-Forwarded-For may be read, with Resolve. It must not when the header has no source: the
// balancer that wrote the header is trusted, but whoever is behind it is not known, and the request is theirs.
func (h *Header) Remote(socket netip.AddrPort, trusted Trusted) (remote netip.AddrPort, forwarded bool, err error) {
	if !trusted.Contains(socket.Addr()) {
		return netip.AddrPort{}, false, ErrUntrusted
	}
	if !h.Source.IsValid() {
		return netip.AddrPortFrom(socket.Addr().Unmap(), socket.Port()), false, nil
	}
	return h.Source, true, nil
}
