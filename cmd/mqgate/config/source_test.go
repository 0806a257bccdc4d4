package config

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// Lists that are more than a list of words: each element is checked, and all together.
func TestSources(t *testing.T) {
	for _, test := range []struct {
		args  []string
		field func(*Serve) []string
		want  []string // nil: a fault that contains fault
		fault string
	}{
		{[]string{"--trusted-proxies=none"}, func(s *Serve) []string { return s.TrustedProxies }, []string{"none"}, ""},
		{[]string{"--trusted-proxies=loopback,10.0.0.0/8", "--trusted-proxies=2001:db8::/32"}, func(s *Serve) []string { return s.TrustedProxies },
			[]string{"loopback", "10.0.0.0/8", "2001:db8::/32"}, ""},
		{[]string{"--trusted-proxies=10.0.0.0/33"}, nil, nil, "flag --trusted-proxies: \"10.0.0.0/33\" is wrong"},
		{[]string{"--trusted-proxies=0.0.0.0/0"}, nil, nil, "expected 1 to 64 of loopback, none, IP addresses and ranges"},
		{[]string{"--trusted-proxies=none,10.0.0.1"}, nil, nil, "none"},
		{[]string{"--trusted-proxies="}, nil, nil, "has 0 values"},
		{[]string{"--trusted-proxies=" + strings.TrimSuffix(strings.Repeat("10.0.0.1,", 64), ",")}, func(s *Serve) []string { return s.TrustedProxies[:1] }, []string{"10.0.0.1"}, ""},
		{[]string{"--trusted-proxies=" + strings.TrimSuffix(strings.Repeat("10.0.0.1,", 65), ",")}, nil, nil, "has 65 values"},
		{[]string{"--origins=https://example.com,https://*.example.org:8443"}, func(s *Serve) []string { return s.Origins },
			[]string{"https://example.com", "https://*.example.org:8443"}, ""},
		{[]string{"--origins=example.com"}, nil, nil, "flag --origins: \"example.com\" is wrong"},
		{[]string{"--origins=any,https://example.com"}, nil, nil, "flag --origins"},
		{[]string{"--proxy-protocol=on"}, func(s *Serve) []string { return []string{string(s.ProxyProtocol)} }, []string{"on"}, ""},
		{[]string{"--proxy-protocol=v2"}, nil, nil, "expected off or on"},
	} {
		command, err := Parse(append([]string{"serve"}, test.args...), nil, System{OpenFiles: 20000, Memory: 8 << 30, CPUs: 2}, io.Discard)
		if test.want != nil {
			if err != nil {
				t.Errorf("%q: %v", test.args, err)
			} else if got := test.field(command.Serve); !slices.Equal(got, test.want) {
				t.Errorf("%q: %q, expected %q", test.args, got, test.want)
			}
			continue
		}
		faults, ok := errors.AsType[*Faults](err)
		if !ok || len(faults.List) != 1 || !strings.Contains(err.Error(), test.fault) || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("%q: %v, expected one fault with %q", test.args, err, test.fault)
		}
	}
}
