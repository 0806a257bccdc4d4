package clientaddr

import (
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func TestParseOrigins(t *testing.T) {
	for _, tc := range []struct {
		list   []string
		faults []string
	}{
		{[]string{"any"}, nil},
		{[]string{"none"}, nil},
		{[]string{"any", "required"}, nil},
		{[]string{"null"}, nil},
		{[]string{"null", "required"}, nil},
		{[]string{"https://example.com", "HTTP://Example.com:8080", "https://*.example.com", "http://*.localhost:3000", "capacitor://localhost", "file://",
			"http://192.0.2.1:80", "http://[::1]:8080", "https://xn--bcher-kva.example", "chrome-extension://abcdefgh", "https://a_b.example", "null", "required"}, nil},
		{nil, []string{"no origins"}},
		{[]string{"none", "any"}, []string{"stands alone"}},
		{[]string{"none", "required"}, []string{"stands alone"}},
		{[]string{"none", "null"}, []string{"stands alone"}},
		{[]string{"https://example.com", "none"}, []string{"stands alone"}},
		{[]string{"any", "https://example.com"}, []string{"allows already"}},
		{[]string{"any", "null"}, []string{"allows already"}},
		{[]string{"required"}, []string{"alone would let nobody in"}},
		{[]string{"", "example.com", "Any", "*", "wss://example.com", "WS://example.com", "https://example.com/", "https://example.com?a", "https://example.com#a",
			"https://u:p@example.com", "https://bücher.example", "https://*", "https://*.*.example.com", "https://a.*.example.com", "https://*example.com", "*://example.com",
			"https://example.*", "https://", "https://:443", "://example.com", "1a://example.com", "https://example.com.", "https://.example.com", "https://a..b", "https://a b",
			"https://example.com:", "https://example.com:0", "https://example.com:65536", "https://example.com:080", "https://example.com:*", "https://::1", "https://[::1",
			"https://[192.0.2.1]", "https://[::1]443", "https://[fe80::1%25eth0]", "https://1.2.3", "https://1.2.3.4.5", "https://example.99999999999", "https://*.192.0.2.1", "https://*.[::1]",
			"https://*.com", "https://*.", "file://:80", "app://"}, []string{
			"no scheme", "no scheme", "no scheme", "no scheme", "of the connection", "of the connection", "a path", "a path", "a path",
			"user name", "beyond ASCII", "asterisk", "asterisk", "asterisk", "asterisk", "is not scheme",
			"asterisk", "is not", "is not", "is not", "is not", "is not", "is not", "is not", "is not",
			"is not", "is not", "is not", "is not", "asterisk", "is not", "is not",
			"is not", "is not", "is not", "ends in a number", "ends in a number", "ends in a number", "before an address", "before an address",
			"top-level", "is not", "is not", "is not",
		}},
	} {
		o, err := ParseOrigins(tc.list)
		faults(t, err, tc.faults)
		if (o == nil) != (err != nil) {
			t.Errorf("%q: %v, %v", tc.list, o, err)
		}
	}
}

// L2.1: 403 for an Origin that is not allowed.
func TestAllowed(t *testing.T) {
	const missing = "(none)"
	for _, tc := range []struct {
		list    string
		yes, no []string
	}{
		{"any", []string{missing, "", "null", "https://example.com", "what ever", "\xff"}, nil},
		{"any required", []string{"", "null", "https://example.com"}, []string{missing}},
		{"none", []string{missing}, []string{"", "null", "none", "https://example.com"}},
		{"null", []string{missing, "null"}, []string{"", "NULL", "https://null", "https://example.com"}},
		{"null required", []string{"null"}, []string{missing, ""}},
		{"https://example.com required", []string{"https://example.com"}, []string{missing, "", "null", "required"}},
		{"https://example.com", []string{
			missing, "https://example.com", "HTTPS://EXAMPLE.COM", "https://example.com:443",
		}, []string{
			"", "null", "http://example.com", "http://example.com:443", "https://example.com:80", "https://example.com:8443", "https://www.example.com", "https://example.co",
			"https://example.comm", "https://xexample.com", "https://example.com/", "https://example.com.", "https://example.com.evil.com", "https://evil.com/example.com",
			"https://evil.com#example.com", "https://u@example.com", "https://example.com@evil.com", "https://example.com:", "https://example.com:0443", "https://example.com:0",
			"https://example.com:65979", "https://example.com:443:443", "https://example.com, https://evil.com", "https://evil.com https://example.com", " https://example.com", "https://example.com ",
			"https:/example.com", "https:example.com", "//example.com", "example.com", "https://", "://example.com", "httpſ://example.com", "https://eXample.com\x00", "https://[example.com]", "httpss://example.com",
		}},
		{"http://example.com:80", []string{"http://example.com", "http://example.com:80"}, []string{"https://example.com", "https://example.com:80", "http://example.com:8080"}},
		{"https://example.com:8443", []string{"https://example.com:8443"}, []string{"https://example.com", "https://example.com:443", "https://example.com:844"}},
		{"https://*.example.com", []string{
			"https://a.example.com", "https://a.b.example.com", "https://A.EXAMPLE.com:443", "https://xn--a.example.com", "https://a_b-c.example.com",
		}, []string{
			"https://example.com", "https://.example.com", "https://a..example.com", "https://*.example.com", "https://aexample.com", "https://a.example.com.", "http://a.example.com", "https://a.example.com:8443",
			"https://a.example.com.evil.com", "https://evil.com/.example.com", "https://evil.com:.example.com", "https://u@a.example.com", "https://a b.example.com", "https://é.example.com", "https://[::1].example.com",
		}},
		{"http://*.localhost:3000", []string{"http://a.localhost:3000"}, []string{"http://localhost:3000", "http://a.localhost"}},
		{"http://[2001:DB8::1]:80 http://[::ffff:192.0.2.1]", []string{"http://[2001:db8::1]", "http://[2001:db8:0:0:0:0:0:1]:80", "http://[::ffff:c000:201]"}, []string{
			"http://[2001:db8::2]", "http://2001:db8::1", "http://[2001:db8::1", "http://[2001:db8::1]x", "http://[2001:db8::1]:8080", "https://[2001:db8::1]", "http://192.0.2.1", "http://[192.0.2.1]", "http://[]",
		}},
		{"http://192.0.2.1", []string{"http://192.0.2.1", "http://192.0.2.1:80"}, []string{"http://192.0.2.10", "http://[::ffff:192.0.2.1]", "http://192.0.2.1.evil.com"}},
		{"capacitor://localhost file:// app://x:80", []string{"capacitor://localhost", "file://", "FILE://", "app://x:80"}, []string{"capacitor://localhost:80", "capacitor://", "file:///", "file://x", "file://:1", "app://x", "http://localhost"}},
		{"file://localhost", []string{"file://localhost"}, []string{"file://"}},
		{"https://a.example https://b.example", []string{"https://a.example", "https://b.example"}, []string{"https://c.example", "https://a.example,https://b.example"}},
	} {
		o, err := ParseOrigins(strings.Fields(tc.list))
		if err != nil {
			t.Errorf("%s: %v", tc.list, err)
			continue
		}
		for want, list := range map[bool][]string{true: tc.yes, false: tc.no} {
			for _, s := range list {
				origin := []byte(s)
				if s == missing {
					origin = nil
				}
				if got := o.Allowed(origin); got != want {
					t.Errorf("%s allows %q: %v", tc.list, s, got)
				}
				if got := slowAllowed(strings.Fields(tc.list), origin); got != want {
					t.Errorf("the slow one: %s allows %q: %v", tc.list, s, got)
				}
			}
		}
	}
	if o := new(Origins); !o.Allowed(nil) || o.Allowed([]byte("https://example.com")) || o.Allowed([]byte("null")) {
		t.Error("the zero value is not as documented")
	}
}

var originSyntax = regexp.MustCompile(`^([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|(?:[a-z0-9_-]+\.)*[a-z0-9_-]+|)(?::([1-9][0-9]{0,4}))?$`)

// slowOrigin brings an origin into one form.
func slowOrigin(s string) (scheme, host string, port int, ok bool) {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return "", "", 0, false
		}
	}
	m := originSyntax.FindStringSubmatch(strings.ToLower(s))
	if m == nil || m[2] == "" && (m[1] != "file" || m[3] != "") {
		return "", "", 0, false
	}
	scheme, host = m[1], m[2]
	if host != "" && host[0] == '[' {
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !a.Is6() {
			return "", "", 0, false
		}
		host = "[" + a.StringExpanded() + "]"
	}
	port = map[string]int{"http": 80, "https": 443}[scheme]
	if m[3] != "" {
		port, _ = strconv.Atoi(m[3])
	}
	return scheme, host, port, port <= 65535
}

// slowAllowed is ParseOrigins and Allowed, for a list without faults.
func slowAllowed(list []string, origin []byte) bool {
	if origin == nil {
		return !strings.Contains(" "+strings.Join(list, " ")+" ", " required ")
	}
	scheme, host, port, ok := slowOrigin(string(origin))
	for _, s := range list {
		switch s {
		case "any":
			return true
		case "none", "required":
			continue
		case "null":
			if string(origin) == "null" {
				return true
			}
			continue
		}
		below := strings.Contains(s, "://*.")
		wantScheme, wantHost, wantPort, _ := slowOrigin(strings.Replace(s, "://*.", "://", 1))
		if ok && scheme == wantScheme && port == wantPort && (!below && host == wantHost || below && strings.HasSuffix(host, "."+wantHost)) {
			return true
		}
	}
	return false
}

// FuzzOrigins: ParseOrigins and Allowed do not panic, and a list without faults allows what the slow one allows: each
// origin in it among others.
func FuzzOrigins(f *testing.F) {
	for _, list := range []string{"any", "any required", "none", "null required", "https://example.com", "https://*.example.com:8443 http://[::1]:80", "file:// capacitor://localhost", "http://192.0.2.1 null",
		"https://a/ wss://b c", "https://*.localhost"} {
		for _, origin := range []string{"", "null", "https://example.com", "HTTPS://a.b.EXAMPLE.com:8443", "http://[0::1]", "file://", "capacitor://localhost:1", "http://192.0.2.1:80", "https://é", "https://x.localhost:443"} {
			f.Add(list, []byte(origin))
		}
	}
	f.Fuzz(func(t *testing.T, text string, origin []byte) {
		if origin == nil {
			origin = []byte{}
		}
		list := strings.Split(text, " ")
		o, err := ParseOrigins(list)
		if err != nil {
			if err.Error() == "" || o != nil {
				t.Fatalf("%q: %v, error %q", list, o, err)
			}
			return
		}
		try := [][]byte{nil, origin}
		for _, s := range list {
			try = append(try, []byte(s), []byte(strings.ToUpper(s)), []byte(strings.Replace(s, "*", "a.b", 1)), []byte(strings.Replace(s, "*", string(origin), 1)), []byte(s+":443"))
		}
		for _, origin := range try {
			if got, want := o.Allowed(origin), slowAllowed(list, origin); got != want {
				t.Fatalf("%q allows %q: %v, want %v", list, origin, got, want)
			}
		}
		for _, s := range list {
			if strings.Contains(s, "://") && !o.Allowed([]byte(strings.Replace(s, "://*", "://sub", 1))) {
				t.Fatalf("%q does not allow itself", s)
			}
		}
	})
}

func TestAllowedAllocs(t *testing.T) {
	o, err := ParseOrigins([]string{"null", "https://example.com", "https://*.example.com:8443", "http://[::1]"})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"", "null", "https://EXAMPLE.com:443", "https://a.b.example.com:8443", "https://other", "http://[::1]:80", "http://[::g]", "https://é", "https://a:999999"} {
		origin := []byte(s)
		noAllocs(t, s, func() { o.Allowed(origin) })
	}
}
