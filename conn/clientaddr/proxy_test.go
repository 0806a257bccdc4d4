package clientaddr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// v2 makes a header of version 2.
func v2(versionCommand, familyProtocol byte, rest string) string {
	b := append([]byte("\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"), versionCommand, familyProtocol)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(rest)))) + rest
}

const (
	inetBlock  = "\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb" // 192.0.2.1:56324 to 198.51.100.2:443
	inet6Block = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" +
		"\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\xdc\x04\x01\xbb"
	mappedBlock = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x02" + "\xdc\x04\x01\xbb"
	crcTLV   = "\x03\x00\x04\xde\xad\xbe\xef" // wrong, and not looked at
	noAddrs  = "-"
	ipv4     = "192.0.2.1:56324 198.51.100.2:443"
	ipv6     = "[2001:db8::1]:56324 [2001:db8::2]:443"
	longest6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
)

// unix addresses, two of 108 bytes
var unixBlock = strings.Repeat("/run/x\x00\x00\x00", 24)

// L2.3: the headers that are good, and what they say. None is followed by anything here.
var goodHeaders = []struct{ header, want string }{
	{"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", ipv4},
	{"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535 255.255.255.255:65535"},
	{"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0:0 0.0.0.0:0"},
	{"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n", ipv6},
	{"PROXY TCP6 2001:DB8:0:0:0:0:0:1 2001:0db8::0002 56324 443\r\n", ipv6},
	{"PROXY TCP6 " + longest6 + " " + longest6 + " 65535 65535\r\n", "[" + longest6 + "]:65535 [" + longest6 + "]:65535"},
	{"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 56324 443\r\n", ipv4}, // as HAProxy writes it
	{"PROXY TCP6 ::ffff:c000:201 ::ffff:c633:6402 56324 443\r\n", ipv4},
	{"PROXY UNKNOWN\r\n", noAddrs},
	{"PROXY UNKNOWN \r\n", noAddrs},
	{"PROXY UNKNOWN " + longest6 + " " + longest6 + " 65535 65535\r\n", noAddrs}, // 107 bytes
	{"PROXY UNKNOWN what\x00ever \xff TCP4\r\n", noAddrs},

	{v2(0x21, 0x11, inetBlock), ipv4},
	{v2(0x21, 0x21, inet6Block), ipv6},
	{v2(0x21, 0x21, mappedBlock), ipv4},
	{v2(0x21, 0x11, inetBlock+crcTLV), ipv4},
	{v2(0x21, 0x21, inet6Block+crcTLV+"\x04\x00\x02ab"), ipv6},
	{v2(0x21, 0x11, inetBlock+"\x00"), ipv4}, // no TLV: skipped, too
	{v2(0x21, 0x11, inetBlock+strings.Repeat("x", MaxHeaderV2-16-12)), ipv4},
	{v2(0x20, 0x00, ""), noAddrs},
	{v2(0x20, 0x11, inetBlock), noAddrs}, // LOCAL: the addresses are not to be looked at
	{v2(0x20, 0xff, "whatever"), noAddrs},
	{v2(0x20, 0x00, strings.Repeat("x", MaxHeaderV2-16)), noAddrs},
	{v2(0x21, 0x00, ""), noAddrs},
	{v2(0x21, 0x00, "abc"), noAddrs},
	{v2(0x21, 0x01, "abc"), noAddrs},
	{v2(0x21, 0x02, ""), noAddrs},
	{v2(0x21, 0x10, inetBlock), noAddrs},
	{v2(0x21, 0x12, inetBlock), noAddrs}, // UDP
	{v2(0x21, 0x20, inet6Block), noAddrs},
	{v2(0x21, 0x22, inet6Block), noAddrs},
	{v2(0x21, 0x30, unixBlock), noAddrs},
	{v2(0x21, 0x31, unixBlock), noAddrs},
	{v2(0x21, 0x32, unixBlock+crcTLV), noAddrs},
}

func text(h Header) string {
	if h.Source == (netip.AddrPort{}) && h.Destination == (netip.AddrPort{}) {
		return noAddrs
	}
	return fmt.Sprint(h.Source, " ", h.Destination)
}

func TestParseGood(t *testing.T) {
	for _, tc := range goodHeaders {
		version := byte(1)
		if tc.header[0] != 'P' {
			version = 2
		}
		for _, rest := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\r\n", tc.header, strings.Repeat("x", 5000)} {
			h, n, err := Parse([]byte(tc.header + rest))
			if err != nil || n != len(tc.header) || text(h) != tc.want || h.Version != version {
				t.Errorf("%q: %s, version %d, %d bytes, %v; want %s, %d", tc.header, text(h), h.Version, n, err, tc.want, len(tc.header))
			}
		}
		for n := range len(tc.header) {
			if h, used, err := Parse([]byte(tc.header[:n])); used != 0 || err != nil || h != (Header{}) {
				t.Fatalf("%q: %v, %d bytes, %v; more is needed", tc.header[:n], h, used, err)
			}
		}
	}
}

// L2.3: what is malformed is an error, as soon as it can be known: at must bytes, and not one before.
func TestParseBad(t *testing.T) {
	long := func(n int) string { return "PROXY UNKNOWN " + strings.Repeat("x", n-len("PROXY UNKNOWN ")) }
	withLength := func(versionCommand, familyProtocol byte, n int) string {
		return v2(versionCommand, familyProtocol, strings.Repeat("x", n))[:16]
	}
	for _, tc := range []struct {
		header string
		want   error
		at     int // bytes after which it is known; 0: all of them
	}{
		{"GET / HTTP/1.1\r\n", ErrNoHeader, 1},
		{"\x16\x03\x01", ErrNoHeader, 1},
		{"\x00", ErrNoHeader, 1},
		{"proxy TCP4", ErrNoHeader, 1},
		{"POST / HTTP/1.1", ErrNoHeader, 2},
		{"PROXY\tTCP4", ErrNoHeader, 6},
		{"PROXY\r\n", ErrNoHeader, 6},
		{" PROXY UNKNOWN\r\n", ErrNoHeader, 1},
		{"\r\nPROXY UNKNOWN\r\n", ErrNoHeader, 3},
		{"\r\n\r\n\x00\r\nQUIT\r", ErrNoHeader, 12},
		{"\n", ErrNoHeader, 1},

		{"PROXY \r\n", errV1Protocol, 0},
		{"PROXY TCP\r\n", errV1Protocol, 0},
		{"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n", errV1Protocol, 0},
		{"PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n", errV1Protocol, 0},
		{"PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n", errV1Protocol, 0},
		{"PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n", errV1Protocol, 0},
		{"PROXY UNKNOWNS\r\n", errV1Protocol, 0},
		{"PROXY unknown\r\n", errV1Protocol, 0},
		{"PROXY TCP4\r\n", errV1Fields, 0},
		{"PROXY TCP4 \r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1\r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2\r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", errV1Fields, 0},
		{"PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n", errV1Fields, 0},
		{"PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n", errV1Protocol, 0},
		{"PROXY TCP4 192.0.2.1\t198.51.100.2 1 2\r\n", errV1Fields, 0},
		{"PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 192.0.02.1 198.51.100.2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 192.0.2.1 localhost 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 ::ffff:192.0.2.1 198.51.100.2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 192.0.2.1 ::1 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP6 ::1 198.51.100.2 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP6 [::1] [::1] 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", errV1Addr, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 00\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 http 2\r\n", errV1Port, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n", errV1Bare, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rG", errV1Bare, 0},
		{"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n", errV1Bare, 39},
		{"PROXY UNKNOWN a\nb\r\n", errV1Bare, 16},
		{"PROXY UNKNOWN a\rb\r\n", errV1Bare, 17},
		{long(106) + "\r\n", errV1Long, 107},
		{long(105) + "\r\r", errV1Bare, 107},
		{long(107), errV1Long, 107},
		{long(500) + "\r\n", errV1Long, 107},

		{v2(0x11, 0x11, inetBlock), errV2Version, 13},
		{v2(0x31, 0x11, inetBlock), errV2Version, 13},
		{v2(0x01, 0x11, inetBlock), errV2Version, 13},
		{v2(0x22, 0x11, inetBlock), errV2Command, 13},
		{v2(0x2f, 0x11, inetBlock), errV2Command, 13},
		{v2(0x21, 0x41, inetBlock), errV2Family, 14},
		{v2(0x21, 0xf1, inetBlock), errV2Family, 14},
		{v2(0x21, 0x13, inetBlock), errV2Proto, 14},
		{v2(0x21, 0x0f, ""), errV2Proto, 14},
		{v2(0x21, 0x11, ""), errV2Short, 16},
		{v2(0x21, 0x11, inetBlock[1:]), errV2Short, 16},
		{v2(0x21, 0x12, inetBlock[1:]), errV2Short, 16},
		{v2(0x21, 0x21, inet6Block[1:]), errV2Short, 16},
		{v2(0x21, 0x20, inetBlock), errV2Short, 16},
		{v2(0x21, 0x31, unixBlock[1:]), errV2Short, 16},
		{withLength(0x21, 0x11, MaxHeaderV2-16+1), errV2Long, 16},
		{withLength(0x20, 0x00, MaxHeaderV2-16+1), errV2Long, 16},
		{withLength(0x21, 0x11, 65535), errV2Long, 16},
	} {
		at := tc.at
		if at == 0 {
			at = len(tc.header)
		}
		for n := range len(tc.header) + 1 {
			var want error
			if n >= at {
				want = tc.want
			}
			if h, used, err := Parse([]byte(tc.header[:n])); err != want || used != 0 || h != (Header{}) {
				t.Errorf("%q: %v, %d bytes, error %v; want %v", tc.header[:n], h, used, err, want)
				break
			}
		}
	}
}

var headerSyntax = regexp.MustCompile(`\APROXY (?:(UNKNOWN)(?: [^\r\n]*)?|(TCP[46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n`)

// slowParse is Parse, slowly. It says only whether there is a header.
func slowParse(p []byte) (h Header, n int) {
	if m := headerSyntax.FindSubmatch(p[:min(len(p), 107)]); m != nil {
		h = Header{Version: 1}
		if m[1] != nil {
			return h, len(m[0])
		}
		var ends [2]netip.AddrPort
		for i := range ends {
			a, err := netip.ParseAddr(string(m[3+i]))
			port, _ := strconv.Atoi(string(m[5+i]))
			if err != nil || a.Is4() != (string(m[2]) == "TCP4") || port > 65535 {
				return Header{}, 0
			}
			ends[i] = netip.AddrPortFrom(a.Unmap(), uint16(port))
		}
		h.Source, h.Destination = ends[0], ends[1]
		return h, len(m[0])
	}
	if len(p) < 16 || !bytes.HasPrefix(p, []byte(v2Signature)) {
		return Header{}, 0
	}
	body := int(p[14])<<8 + int(p[15])
	n = 16 + body
	if n > 4096 || len(p) < n {
		return Header{}, 0
	}
	read := func(size int) (source, destination netip.AddrPort) {
		b := p[16:]
		from, _ := netip.AddrFromSlice(b[:size])
		to, _ := netip.AddrFromSlice(b[size : 2*size])
		b = b[2*size:]
		return netip.AddrPortFrom(from.Unmap(), uint16(b[0])<<8+uint16(b[1])), netip.AddrPortFrom(to.Unmap(), uint16(b[2])<<8+uint16(b[3]))
	}
	h = Header{Version: 2}
	switch {
	case p[12] == 0x20:
	case p[12] != 0x21, p[13]>>4 > 3, p[13]&15 > 2, body < []int{0, 12, 36, 216}[p[13]>>4]:
		return Header{}, 0
	case p[13] == 0x11:
		h.Source, h.Destination = read(4)
	case p[13] == 0x21:
		h.Source, h.Destination = read(16)
	}
	return h, n
}

// FuzzHeader: Parse does not panic, agrees with the slow one, never uses more than there is, and gives the same answer
// when the bytes come one at a time.
func FuzzHeader(f *testing.F) {
	for _, tc := range goodHeaders {
		f.Add([]byte(tc.header + "GET"))
	}
	for _, s := range []string{"", "P", "\r", "PROXY \r\n", "GET / HTTP/1.1\r\n\r\n", "PROXY UNKNOWN a\rb\r\n", "PROXY TCP6 fe80::1%a ::1 1 2\r\n",
		v2(0x21, 0x11, "abc"), v2(0x2f, 0x11, inetBlock), v2(0x21, 0x41, inetBlock), v2(0x21, 0x14, inetBlock), "PROXY TCP4 1.2.3.4 1.2.3.4 65536 01\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) > MaxHeaderV2+100 {
			p = p[:MaxHeaderV2+100]
		}
		h, n, err := Parse(p)
		if n < 0 || n > len(p) || n > MaxHeaderV2 || err != nil && n != 0 || n == 0 && h != (Header{}) {
			t.Fatalf("%q: %v, %d bytes, %v", p, h, n, err)
		}
		if want, wantN := slowParse(p); want != h || wantN != n {
			t.Fatalf("%q: %v, %d bytes, %v; the slow one says %v, %d", p, h, n, err, want, wantN)
		}
		limit := MaxHeaderV2
		if len(p) > 0 && p[0] == 'P' {
			limit = MaxHeaderV1
		}
		if n == 0 && err == nil && len(p) >= limit {
			t.Fatalf("%q: more is asked for after %d bytes", p, len(p))
		}
		for k := range len(p) + 1 {
			h1, n1, err1 := Parse(p[:k:k])
			if n1 == 0 && err1 == nil && k < len(p) {
				if n != 0 && k >= n {
					t.Fatalf("%q: more is asked for after the header of %d bytes", p[:k], n)
				}
				continue
			}
			if h1 != h || n1 != n || err1 != err {
				t.Fatalf("%q after %d bytes: %v, %d, %v; of the whole: %v, %d, %v", p, k, h1, n1, err1, h, n, err)
			}
			break
		}
	})
}

// L2.3
func TestRemote(t *testing.T) {
	trusted := trust(t, "10.0.0.0/8", "2001:db8:1::/48")
	full := Header{Version: 2, Source: addrPort("192.0.2.1:1234"), Destination: addrPort("198.51.100.2:443")}
	for _, tc := range []struct {
		header    Header
		socket    string
		want      string // "" for ErrUntrusted
		forwarded bool
	}{
		{full, "10.1.2.3:99", "192.0.2.1:1234", true},
		{full, "[::ffff:10.1.2.3]:99", "192.0.2.1:1234", true},
		{full, "[2001:db8:1::1]:99", "192.0.2.1:1234", true},
		{full, "192.0.2.9:99", "", false},
		{full, "127.0.0.1:99", "", false},
		{Header{Version: 1}, "10.1.2.3:99", "10.1.2.3:99", false},
		{Header{Version: 1}, "[::ffff:10.1.2.3]:99", "10.1.2.3:99", false},
		{Header{Version: 1}, "192.0.2.9:99", "", false},
	} {
		remote, forwarded, err := tc.header.Remote(addrPort(tc.socket), trusted)
		if tc.want == "" {
			if err != ErrUntrusted || remote.IsValid() || forwarded {
				t.Errorf("%v from %s: %v, %v, %v", tc.header, tc.socket, remote, forwarded, err)
			}
			continue
		}
		if err != nil || remote != addrPort(tc.want) || forwarded != tc.forwarded {
			t.Errorf("%v from %s: %v, %v, %v; want %s, %v", tc.header, tc.socket, remote, forwarded, err, tc.want, tc.forwarded)
		}
	}
}

func TestParseAllocs(t *testing.T) {
	for _, s := range []string{goodHeaders[0].header, goodHeaders[3].header, v2(0x21, 0x21, inet6Block), "GET / HTTP/1.1", "PROXY TCP4 a b c d\r\n", v2(0x21, 0x11, "")} {
		p := []byte(s)
		noAllocs(t, s, func() { Parse(p) })
	}
}
