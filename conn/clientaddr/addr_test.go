package clientaddr

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
)

var addrs = []string{
	"", ".", ":", "::", "::1", "1::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1::3:4:5:6:7:8", "1:2:3:4::5:6:7:8",
	"1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8:", ":1:2:3:4:5:6:7:8", "1::2::3", ":::", "1:::2", "::1:", ":1", "1:",
	"12345::", "abcd:EF01::", "g::", "::ffff:1.2.3.4", "::1.2.3.4", "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:1.2.3.4", "1:2:3:4:5:6:7:1.2.3.4",
	"1::3:4:5:6:1.2.3.4", "1:2:3:4:5::6:1.2.3.4", "::1.2.3.4:5", "::1.2.3", "::1.2.3.456", "::1.2.3.4.5", "::ffff:01.2.3.4", "::12345.2.3.4", "1.2.3.4::",
	"0.0.0.0", "255.255.255.255", "256.1.1.1", "1.2.3.4", "1.2.3", "1.2.3.4.", "1.2.3.4.5", ".1.2.3", "1..2.3", "01.2.3.4", "1.2.3.00", "1.2.3.4 ",
	"1.2.3.999999999999999999999", "a.b.c.d", "fe80::1%eth0", "%", "1.2.3.4%a", "2001:db8::10.0.0.1", "-1.2.3.4", "1:2:3:4:5:6:7:8.1", "1.2:3",
	"00000::", "1::2:3:4:5:6:7:1.2.3.4", "::2:3:4:5:6:7:1.2.3.4", "1:2::1.2.3.4", "1:2:1.2.3.4", "0::0", "0:0:0:0:0:0:0:0", "0::0:0:0:0:0:0:0",
}

// What netip makes of it, without zones.
func slowAddr(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	return a, err == nil && !strings.Contains(s, "%")
}

func checkAddr(t *testing.T, s string) {
	t.Helper()
	got, ok := parseAddr([]byte(s))
	if want, wantOK := slowAddr(s); ok != wantOK || ok && got != want {
		t.Errorf("parseAddr(%q) is %v, %v, want %v, %v", s, got, ok, want, wantOK)
	}
}

func TestParseAddr(t *testing.T) {
	good := 0
	for _, s := range addrs {
		checkAddr(t, s)
		if _, ok := parseAddr([]byte(s)); ok {
			good++
		}
	}
	if good < 15 || good > len(addrs)-15 {
		t.Errorf("%d of %d are good: the table has become lopsided", good, len(addrs))
	}
}

func FuzzAddr(f *testing.F) {
	for _, s := range addrs {
		f.Add(s)
	}
	f.Fuzz(checkAddr)
}

func TestParsePort(t *testing.T) {
	for i := range 70000 {
		s := strconv.Itoa(i)
		if got, ok := parsePort([]byte(s)); ok != (i <= 65535) || ok && int(got) != i {
			t.Fatalf("port %s is %d, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "00", "01", "080", "-1", "+1", " 1", "1 ", "a", "1a", "100000", "99999999999999999999"} {
		if got, ok := parsePort([]byte(s)); ok {
			t.Errorf("port %q is %d", s, got)
		}
	}
}
