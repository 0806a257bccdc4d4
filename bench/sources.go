package bench

import (
	"fmt"
	"net/netip"
	"strings"
)

// perSource is how many connections an automatic source address gets. Linux's default net.ipv4.ip_local_port_range has
// 28,232 ports, but connect(2) looks at all those of one parity before it takes one of the other, which it leaves to
// bind(2): beyond 14,116 connections it takes 13 ms instead of 20 us, and 100,000 connections took a minute to open with
// 20,000 from each address. 10,000 leave room for ports in TIME_WAIT.
const perSource = 10_000

// ParseSources reads source addresses: addresses and prefixes with commas, "127.0.0.1,127.0.1.0/24". Of an IPv4 prefix
// shorter than /31 the first and the last address are left out (network and broadcast), of an IPv6 one shorter than /127
// the first (the router's anycast address, RFC 4291 section 2.6.1). The error says what is wrong, without repeating all.
func ParseSources(text string) ([]netip.Addr, error) {
	var list []netip.Addr
	seen := map[netip.Addr]bool{}
	add := func(a netip.Addr) error {
		switch {
		case len(list) > 0 && a.Is4() != list[0].Is4():
			return fmt.Errorf("mixes IPv4 and IPv6")
		case seen[a]:
			return fmt.Errorf("has %v twice", a)
		case len(list) == MaxSources:
			return fmt.Errorf("has more than %d addresses", MaxSources)
		}
		seen[a] = true
		list = append(list, a)
		return nil
	}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if a, err := netip.ParseAddr(part); err == nil {
			if err := add(a.Unmap()); err != nil {
				return nil, err
			}
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return nil, fmt.Errorf("has %q, which is neither an address nor a prefix like 127.0.1.0/24", part)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("has %v, whose address has bits beyond the prefix: %v?", p, p.Masked())
		}
		first := p.Addr()
		wide := first.BitLen()-p.Bits() > 1
		if wide {
			first = first.Next()
		}
		for a := first; p.Contains(a); a = a.Next() {
			if wide && a.Is4() && !p.Contains(a.Next()) {
				break
			}
			if err := add(a); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// autoSources returns the source addresses for so many connections to addr, at most perSource each: 127.0.0.1 and
// following for IPv4 loopback. The zero Addr, for any other target, leaves the choice to the kernel.
func autoSources(addr netip.Addr, connections int) []netip.Addr {
	if !addr.Is4() || !addr.IsLoopback() {
		return []netip.Addr{{}}
	}
	a := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	var list []netip.Addr
	for range (connections + perSource - 1) / perSource {
		list = append(list, a)
		a = a.Next()
	}
	return list
}

// sourcesFor returns the source addresses of a run, and an error when they have too few ports. ports is the size of the
// range that the kernel takes local ports from, which each source address has anew for every server; 0: unknown.
// connections are those to the one server.
func sourcesFor(given []netip.Addr, addr netip.Addr, connections, ports int) ([]netip.Addr, error) {
	list := given
	if len(list) == 0 {
		list = autoSources(addr, connections)
	} else if list[0].Is4() != addr.Is4() {
		return nil, fmt.Errorf("flag --sources: %v cannot connect to %v, which is of the other IP version", list[0], addr)
	}
	if ports > 0 && connections > len(list)*ports {
		return nil, fmt.Errorf("flag --connections: %d to one server do not fit: %d source address(es) with %d ports each "+
			"(net.ipv4.ip_local_port_range) allow %d; name more with --sources", connections, len(list), ports, len(list)*ports)
	}
	return list, nil
}
