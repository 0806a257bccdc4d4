package clientaddr

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/conn/handshake"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// request returns a request with these header lines, ok false when it is none.
func request(lines ...string) (r *handshake.Request, ok bool) {
	var b strings.Builder
	b.WriteString("GET / HTTP/1.1\r\nHost: a\r\n")
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	r = new(handshake.Request)
	return r, r.ParseHead([]byte(b.String())) == nil
}

// fields returns the fields of a request with these X-Forwarded-For lines.
func fields(t testing.TB, values ...string) *handshake.Fields {
	t.Helper()
	lines := []string{"X-Real-IP: 192.0.2.66", "Forwarded: for=192.0.2.66"} // not read
	for _, v := range values {
		lines = append(lines, "x-forwarded-FOR:"+v)
	}
	r, ok := request(lines...)
	if !ok {
		t.Fatalf("%q is no request", lines)
	}
	return &r.Fields
}

func trust(t testing.TB, list ...string) Trusted {
	t.Helper()
	trusted, err := ParseTrusted(list)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

// noAllocs reports a function that allocates.
func noAllocs(t *testing.T, name string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times", name, n)
	}
}

// faults checks that an error names each of the texts, one per line, in order.
func faults(t *testing.T, err error, want []string) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	if len(got) != len(want) {
		t.Errorf("faults %q, want %q", got, want)
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("fault %q does not say %q", got[i], want[i])
		}
	}
}
