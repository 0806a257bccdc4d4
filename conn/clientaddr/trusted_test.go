package clientaddr

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseTrusted(t *testing.T) {
	for _, tc := range []struct {
		list   []string
		want   string
		faults []string
	}{
		{nil, "none", nil},
		{[]string{"none"}, "none", nil},
		{[]string{"loopback"}, "127.0.0.0/8,::1/128", nil},
		{[]string{"192.0.2.7", "2001:db8::/32", "loopback", "192.0.2.7/32"}, "192.0.2.7/32,2001:db8::/32,127.0.0.0/8,::1/128", nil},
		{[]string{"::ffff:192.0.2.7", "::ffff:10.0.0.0/104"}, "192.0.2.7/32,10.0.0.0/8", nil},
		{[]string{"0.0.0.0/1", "::/1"}, "0.0.0.0/1,::/1", nil},
		{[]string{""}, "", []string{`"" is not an address`}},
		{[]string{"loopback", "none"}, "", []string{"stands alone"}},
		{[]string{"Loopback", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.1/8", "fe80::1%eth0", "fe80::%eth0/64", "::ffff:0:0/90", "::/0", "0.0.0.0/0", "::ffff:0.0.0.0/96",
			"10.0.0.0/08", " 10.0.0.1", "none"}, "", []string{
			`"Loopback" is not`, `"10.0.0.0/33" is not`, `"10.0.0/8" is not`, `"localhost" is not`, "the range is 10.0.0.0/8", "has a zone",
			`"fe80::%eth0/64" is not`, "shorter than /96", `"::/0" is everybody`, `"0.0.0.0/0" is everybody`, "is everybody", `"10.0.0.0/08" is not`, `" 10.0.0.1" is not`, "stands alone",
		}},
	} {
		got, err := ParseTrusted(tc.list)
		faults(t, err, tc.faults)
		if err != nil {
			if got.prefixes != nil {
				t.Errorf("%q: faulty, but trusts %v", tc.list, got)
			}
			continue
		}
		if got.String() != tc.want {
			t.Errorf("%q is %v, want %s", tc.list, got, tc.want)
		}
		if again, err := ParseTrusted(strings.Split(got.String(), ",")); err != nil || again.String() != tc.want {
			t.Errorf("%v read again: %v, %v", got, again, err)
		}
	}
}

func TestContains(t *testing.T) {
	trusted := trust(t, "loopback", "10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "fe80::/64", "::ffff:172.16.0.0/108")
	for s, want := range map[string]bool{
		"127.0.0.1": true, "127.255.255.255": true, "128.0.0.0": false, "126.255.255.255": false, "::1": true, "::": false, "::2": false, "::ffff:127.0.0.1": true,
		"10.0.0.0": true, "10.255.255.255": true, "9.255.255.255": false, "11.0.0.0": false, "::ffff:10.1.2.3": true, "::10.1.2.3": false,
		"192.0.2.6": false, "192.0.2.7": true, "192.0.2.8": false, "2001:db8::": true, "2001:db8:ffff::1": true, "2001:db9::": false,
		"fe80::1%eth0": true, "fe80::1": true, "fe80:0:0:1::1": false, "172.16.0.1": true, "172.31.255.255": true, "172.32.0.0": false, "::ffff:172.16.0.1": true,
	} {
		if got := trusted.Contains(addr(s)); got != want {
			t.Errorf("%s trusted: %v", s, got)
		}
		if (Trusted{}).Contains(addr(s)) {
			t.Errorf("%s is trusted by nobody", s)
		}
	}
	if trusted.Contains(netip.Addr{}) {
		t.Error("the zero Addr is trusted")
	}
}

// L2.3: the address of the client. The trusted proxies are 10.0.0.0/8 and 2001:db8:1::/48.
var resolves = []struct {
	name string
	peer string
	xff  string // header lines separated by |; "" for none
	want string
}{
	{"no proxy", "192.0.2.1", "", "192.0.2.1"},
	{"no proxy, the client lies", "192.0.2.1", "1.1.1.1", "192.0.2.1"},
	{"loopback is not in this list", "127.0.0.1", "1.1.1.1", "127.0.0.1"},
	{"the proxy itself", "10.0.0.1", "", "10.0.0.1"},
	{"an empty header", "10.0.0.1", " ", "10.0.0.1"},
	{"one proxy", "10.0.0.1", "192.0.2.1", "192.0.2.1"},
	{"one proxy, the client lies", "10.0.0.1", "1.1.1.1, 192.0.2.1", "192.0.2.1"},
	{"the client claims to be trusted", "10.0.0.1", "10.9.9.9, 192.0.2.1", "192.0.2.1"},
	{"the client writes a line of its own", "10.0.0.1", "1.1.1.1|192.0.2.1", "192.0.2.1"},
	{"two proxies", "10.0.0.1", "1.1.1.1, 192.0.2.1, 10.0.0.2", "192.0.2.1"},
	{"two proxies, a line each", "10.0.0.1", "1.1.1.1|192.0.2.1|10.0.0.2", "192.0.2.1"},
	{"two proxies of both families", "2001:db8:1::1", "1.1.1.1,2001:db8:2::1,10.0.0.2", "2001:db8:2::1"},
	{"all trusted", "10.0.0.1", "10.0.0.4, 10.0.0.3,10.0.0.2", "10.0.0.4"},
	{"mapped peer", "::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"},
	{"mapped peer, not trusted", "::ffff:192.0.2.2", "192.0.2.1", "192.0.2.2"},
	{"mapped elements", "10.0.0.1", "1.1.1.1, ::ffff:192.0.2.1, ::ffff:10.0.0.2", "192.0.2.1"},
	{"ports", "10.0.0.1", "1.1.1.1, 192.0.2.1:4711, 10.0.0.2:80", "192.0.2.1"},
	{"brackets", "10.0.0.1", "1.1.1.1, [2001:db8:2::1], [2001:db8:1::1]", "2001:db8:2::1"},
	{"brackets and ports", "10.0.0.1", "1.1.1.1, [2001:db8:2::1]:4711, [2001:db8:1::1]:0", "2001:db8:2::1"},
	{"mapped in brackets", "10.0.0.1", "[::ffff:192.0.2.1]:4711", "192.0.2.1"},
	{"no brackets: the last group is no port", "10.0.0.1", "2001:db8:2::1:80", "2001:db8:2::1:80"},
	{"empty elements are none", "10.0.0.1", "1.1.1.1, ,192.0.2.1, ,", "192.0.2.1"},
	{"white space", "10.0.0.1", "\t1.1.1.1 ,\t192.0.2.1\t , 10.0.0.2 ", "192.0.2.1"},

	{"unknown", "10.0.0.1", "1.1.1.1, unknown", "10.0.0.1"},
	{"unknown to the farther proxy", "10.0.0.1", "1.1.1.1, unknown, 10.0.0.2", "10.0.0.2"},
	{"unknown beyond the client", "10.0.0.1", "unknown, 192.0.2.1, 10.0.0.2", "192.0.2.1"},
	{"obfuscated", "10.0.0.1", "1.1.1.1, _hidden, 10.0.0.2", "10.0.0.2"},
	{"obfuscated port", "10.0.0.1", "1.1.1.1, 192.0.2.1:_p", "10.0.0.1"},
	{"a name", "10.0.0.1", "1.1.1.1, localhost, 10.0.0.2", "10.0.0.2"},
	{"a UNIX socket", "10.0.0.1", "1.1.1.1, unix:, 10.0.0.2", "10.0.0.2"},
	{"quotes", "10.0.0.1", `1.1.1.1, "192.0.2.1"`, "10.0.0.1"},
	{"as in Forwarded", "10.0.0.1", "1.1.1.1, for=192.0.2.1", "10.0.0.1"},
	{"two in one", "10.0.0.1", "1.1.1.1, 192.0.2.1 192.0.2.2", "10.0.0.1"},
	{"a range", "10.0.0.1", "1.1.1.1, 192.0.2.0/24", "10.0.0.1"},
	{"a zone", "10.0.0.1", "1.1.1.1, fe80::1%eth0", "10.0.0.1"},
	{"leading zeros", "10.0.0.1", "1.1.1.1, 192.0.02.1", "10.0.0.1"},
	{"a number", "10.0.0.1", "1.1.1.1, 3221225985", "10.0.0.1"},
	{"IPv4 in brackets", "10.0.0.1", "1.1.1.1, [192.0.2.1]", "10.0.0.1"},
	{"an open bracket", "10.0.0.1", "1.1.1.1, [2001:db8:2::1", "10.0.0.1"},
	{"a closed one", "10.0.0.1", "1.1.1.1, 2001:db8:2::1]", "10.0.0.1"},
	{"empty brackets", "10.0.0.1", "1.1.1.1, []", "10.0.0.1"},
	{"after the bracket", "10.0.0.1", "1.1.1.1, [2001:db8:2::1]4711", "10.0.0.1"},
	{"an empty port", "10.0.0.1", "1.1.1.1, 192.0.2.1:", "10.0.0.1"},
	{"an empty port after a bracket", "10.0.0.1", "1.1.1.1, [2001:db8:2::1]:", "10.0.0.1"},
	{"a port above all", "10.0.0.1", "1.1.1.1, 192.0.2.1:65536", "10.0.0.1"},
	{"two ports", "10.0.0.1", "1.1.1.1, 192.0.2.1:1:2", "10.0.0.1"},
}

func TestResolve(t *testing.T) {
	trusted := trust(t, "10.0.0.0/8", "2001:db8:1::/48")
	for _, tc := range resolves {
		var lines []string
		if tc.xff != "" {
			lines = strings.Split(tc.xff, "|")
		}
		f := fields(t, lines...)
		if got := Resolve(addr(tc.peer), trusted, f); got != addr(tc.want) {
			t.Errorf("%s: %v, want %s", tc.name, got, tc.want)
		}
		// Nobody trusted: the peer, whatever is said.
		if got := Resolve(addr(tc.peer), Trusted{}, f); got != addr(tc.peer).Unmap() {
			t.Errorf("%s, nobody trusted: %v", tc.name, got)
		}
		if got := slowResolve(addr(tc.peer), trusted, f.Values("X-Forwarded-For")); got != addr(tc.want) {
			t.Errorf("%s: the slow one says %v, want %s", tc.name, got, tc.want)
		}
		// What a client puts in front changes nothing, unless all were trusted, and then the client was.
		for _, lie := range []string{"1.2.3.4", "10.6.6.6", "unknown", "10.6.6.6, 1.2.3.4"} {
			if trusted.Contains(addr(tc.want)) {
				continue
			}
			if got := Resolve(addr(tc.peer), trusted, fields(t, append([]string{lie}, lines...)...)); got != addr(tc.want) {
				t.Errorf("%s, with %s in front: %v, want %s", tc.name, lie, got, tc.want)
			}
		}
	}
	if got := Resolve(addr("10.0.0.1"), trusted, nil); got != addr("10.0.0.1") {
		t.Errorf("no fields: %v", got)
	}
	if got := Resolve(netip.Addr{}, trusted, fields(t, "1.1.1.1")); got.IsValid() {
		t.Errorf("no peer: %v", got)
	}
	if got := Resolve(addr("fe80::1%eth0"), trusted, fields(t, "1.1.1.1")); got != addr("fe80::1%eth0") {
		t.Errorf("a peer with a zone that is not trusted: %v", got)
	}
}

// slowResolve is Resolve, with all elements in a list, and by net/netip.
func slowResolve(peer netip.Addr, trusted Trusted, values func(func([]byte) bool)) netip.Addr {
	chain := []string{} // from the client's end
	for v := range values {
		for _, e := range strings.Split(string(v), ",") {
			if e = strings.Trim(e, " \t"); e != "" {
				chain = append(chain, e)
			}
		}
	}
	isTrusted := func(a netip.Addr) bool {
		for _, s := range strings.Split(trusted.String(), ",") {
			if p, err := netip.ParsePrefix(s); err == nil && p.Contains(a.Unmap().WithZone("")) {
				return true
			}
		}
		return false
	}
	read := func(s string) (netip.Addr, bool) {
		if strings.Contains(s, "%") {
			return netip.Addr{}, false
		}
		if a, err := netip.ParseAddr(s); err == nil {
			return a.Unmap(), true
		}
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			a, err := netip.ParseAddr(s[1 : len(s)-1])
			return a.Unmap(), err == nil && a.Is6()
		}
		a, err := netip.ParseAddrPort(s)
		port := s[strings.LastIndexByte(s, ':')+1:]
		return a.Addr().Unmap(), err == nil && (port == "0" || !strings.HasPrefix(port, "0"))
	}
	at := peer.Unmap()
	for len(chain) > 0 && isTrusted(at) {
		next, ok := read(chain[len(chain)-1])
		if !ok {
			break
		}
		at, chain = next, chain[:len(chain)-1]
	}
	return at
}

// FuzzResolve: as the slow one, and never an address that is neither the peer's nor in the header.
func FuzzResolve(f *testing.F) {
	for _, tc := range resolves {
		f.Add(tc.peer, tc.xff)
	}
	trusted := trust(f, "10.0.0.0/8", "2001:db8:1::/48", "loopback")
	f.Fuzz(func(t *testing.T, from, xff string) {
		peer, err := netip.ParseAddr(from)
		if err != nil {
			return
		}
		var lines []string
		for _, v := range strings.Split(xff, "|") {
			lines = append(lines, "X-Forwarded-For: "+v)
		}
		r, ok := request(lines...)
		if !ok {
			return
		}
		got, want := Resolve(peer, trusted, &r.Fields), slowResolve(peer, trusted, r.Values("X-Forwarded-For"))
		if got != want {
			t.Fatalf("from %v with %q: %v, want %v", peer, xff, got, want)
		}
		if got.Is4In6() {
			t.Fatalf("from %v with %q: %v is IPv4-mapped", peer, xff, got)
		}
	})
}

func TestResolveAllocs(t *testing.T) {
	trusted := trust(t, "loopback", "10.0.0.0/8", "2001:db8:1::/48")
	peer := addr("::ffff:10.0.0.1")
	for _, xff := range []string{"", "1.1.1.1, 192.0.2.1, 10.0.0.2", "1.1.1.1, [2001:db8::1]:80, 10.0.0.2", "unknown", "999.1.1.1", "[::g]", "fe80::1%eth0"} {
		f := fields(t, xff)
		noAllocs(t, xff, func() { Resolve(peer, trusted, f) })
	}
	zoned := addr("fe80::1%eth0")
	noAllocs(t, "Contains with a zone", func() { trusted.Contains(zoned) })
}
