package clientaddr

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mqgate/mqgate/conn/handshake"
)

// Trusted is the set of proxies whose word about a client's address is believed (--trusted-proxies). The zero value
// trusts nobody. It does not change after ParseTrusted, so that any goroutine may use it.
type Trusted struct {
	prefixes []netip.Prefix // IPv4 or IPv6, never IPv4-mapped; masked; no zones
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// ParseTrusted reads a list of
//
//	loopback          127.0.0.0/8 and ::1
//	none              nobody; stands alone
//	192.0.2.7         an address, IPv4 or IPv6
//	2001:db8::/32     a range, IPv4 or IPv6
//
// An IPv4-mapped IPv6 address or range is the IPv4 one, here and wherever addresses are compared. An empty list is
// nobody. The error names all faults, one per line. A range with bits beyond its length is one, since it may not mean
// what it says, and so is a range of length 0: it would let every client choose its address.
func ParseTrusted(list []string) (Trusted, error) {
	var t Trusted
	var faults []error
	for _, s := range list {
		switch {
		case s == "loopback":
			t.add(loopback...)
		case s == "none":
			if len(list) > 1 {
				faults = append(faults, errors.New(`"none" beside others: it stands alone`))
			}
		default:
			p, err := parsePrefix(s)
			if err != nil {
				faults = append(faults, fmt.Errorf("%q %w", s, err))
				continue
			}
			t.add(p)
		}
	}
	if len(faults) > 0 {
		return Trusted{}, errors.Join(faults...)
	}
	return t, nil
}

func (t *Trusted) add(prefixes ...netip.Prefix) {
	for _, p := range prefixes {
		if !slices.Contains(t.prefixes, p) {
			t.prefixes = append(t.prefixes, p)
		}
	}
}

var errNoPrefix = errors.New(`is not an address, a range like 10.0.0.0/8, "loopback" or "none"`)

// parsePrefix reads an address or a range. The error goes on after the text in question.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return netip.Prefix{}, errNoPrefix
		case a.Zone() != "":
			return netip.Prefix{}, errors.New("has a zone, which no proxy would write")
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errNoPrefix
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errors.New("is a range of IPv4-mapped addresses shorter than /96: write the IPv4 range")
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	switch {
	case p.Bits() == 0:
		return netip.Prefix{}, errors.New("is everybody, so that every client could choose its address")
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length; the range is %v", p.Masked())
	}
	return p, nil
}

// Contains reports whether a is trusted. An IPv4-mapped IPv6 address is the IPv4 one; a zone is not looked at; the zero
// Addr is never trusted. It does not allocate.
func (t Trusted) Contains(a netip.Addr) bool {
	if a = a.Unmap(); a.Zone() != "" {
		a = a.WithZone("")
	}
	for _, p := range t.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// String returns the list in a form that ParseTrusted reads.
func (t Trusted) String() string {
	if len(t.prefixes) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, p := range t.prefixes {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// Resolve returns the address of the client (L2.3): the rightmost address of X-Forwarded-For that is not a trusted
// proxy, and only when the peer is one; else the peer. The peer is the socket's, or the one of a PROXY header (see
// Header.Remote). fields are those of the request, borrowed for the call; nil is none. The result is never an
// IPv4-mapped address. It does not allocate.
//
// Each proxy appends the address that it was called from, so the header is read from its end, for as long as the word
// comes from a trusted one:
//
//   - all of them trusted: the leftmost, where the request came from as far as anybody knows;
//   - an element that is no address ("unknown", "_hidden", a name, garbage): the last good one, which is the trusted proxy
//     that wrote this element, or the peer. Nothing to the left of it is looked at: it may be the client's own
//     invention, and whoever wrote the element did not know the client.
//
// So every address returned was either seen by this process on a socket (or told by a PROXY header), or written by a
// proxy that is trusted.
func Resolve(peer netip.Addr, trusted Trusted, fields *handshake.Fields) netip.Addr {
	client := peer.Unmap()
	if fields == nil || !trusted.Contains(client) {
		return client
	}
	for element := range fields.Backward("X-Forwarded-For") {
		a, ok := parseNode(element)
		if !ok {
			return client
		}
		if client = a; !trusted.Contains(a) {
			return client
		}
	}
	return client
}
