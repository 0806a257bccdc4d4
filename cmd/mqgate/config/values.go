package config

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. It is written as a whole number with the unit KiB, MiB or GiB (powers of 1024), or as a
// plain number of bytes. Other units are refused: kB and MB mean powers of 1000 to some and of 1024 to others.
type Size int64

const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

var sizeUnits = []struct {
	suffix string
	size   Size
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}}

// String returns the size in the largest unit that divides it: "64KiB", "1500".
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func parseSize(text string) (int64, error) {
	digits, unit := text, Size(1)
	for _, u := range sizeUnits {
		if before, ok := strings.CutSuffix(text, u.suffix); ok {
			digits, unit = before, u.size
			break
		}
	}
	n, err := parseNumber(digits)
	if err != nil {
		return 0, &valueError{text, "is not a whole number of bytes, KiB, MiB or GiB"}
	}
	if n > math.MaxInt64/int64(unit) {
		return math.MaxInt64, nil // out of every range
	}
	if n < math.MinInt64/int64(unit) {
		return math.MinInt64, nil
	}
	return n * int64(unit), nil
}

// Percent is a whole number of hundredths.
type Percent int

// String returns the percentage with its sign: "10%".
func (p Percent) String() string { return strconv.Itoa(int(p)) + "%" }

// of returns that part of n, rounded up.
func (p Percent) of(n int) int { return int((int64(n)*int64(p) + 99) / 100) }

func parsePercent(text string) (int64, error) {
	digits, ok := strings.CutSuffix(text, "%")
	n, err := parseNumber(digits)
	if err != nil {
		return 0, &valueError{text, "is not a whole number of percent"}
	}
	if !ok {
		return 0, &valueError{text, "has no percent sign"}
	}
	return n, nil
}

// parseNumber reads a whole number: an optional sign and decimal digits. A number too large for an int64 becomes the
// largest one, which is out of every range.
func parseNumber(text string) (int64, error) {
	digits := strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+")
	if len(text)-len(digits) > 1 || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, &valueError{text, "is not a whole number"}
	}
	n, _ := strconv.ParseInt(text, 10, 64) // the only error left is the range, and then n is the nearest limit
	return n, nil
}

func parseDuration(text string) (int64, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return int64(d), nil
	}
	switch n, numErr := parseNumber(text); {
	case numErr == nil && n != 0:
		return 0, &valueError{text, "has no unit (ms, s, m, h)"}
	case strings.Contains(err.Error(), "invalid duration") && durationTooLong(text):
		return math.MaxInt64, nil
	}
	return 0, &valueError{text, "is not a duration"}
}

// durationTooLong reports whether text is a duration but for its length: time.ParseDuration has one error for both.
func durationTooLong(text string) bool {
	short := strings.Map(func(r rune) rune {
		if r >= '1' && r <= '9' {
			return '0'
		}
		return r
	}, text)
	_, err := time.ParseDuration(short)
	return err == nil
}

// formatDuration returns d as Go writes it without the zero units at the end: "1m", not "1m0s".
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Secret is something that must not be shown: it prints as a placeholder everywhere.
type Secret []byte

// String does not return the secret.
func (s Secret) String() string { return "[secret]" }

// GoString does not return the secret (fmt's %#v).
func (s Secret) GoString() string { return "[secret]" }

// Format prints the placeholder for every verb: %x of a byte slice would print the secret.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// LogValue does not return the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue("[secret]") }

// MarshalText does not return the secret (JSON).
func (s Secret) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Address is an address to listen on.
type Address struct {
	Host netip.Addr // the zero Addr: every address of this machine, IPv6 and IPv4
	Port uint16     // 0: the kernel picks one
}

// String returns the address as net.Listen takes it: "127.0.0.1:8080", "[::1]:8080", ":8080".
func (a Address) String() string {
	if !a.Host.IsValid() {
		return net.JoinHostPort("", strconv.Itoa(int(a.Port)))
	}
	return netip.AddrPortFrom(a.Host, a.Port).String()
}

// IsLoopback reports whether only this machine can reach the address.
func (a Address) IsLoopback() bool { return a.Host.IsValid() && a.Host.IsLoopback() }

// overlaps reports whether a and b cannot both be listened on.
func (a Address) overlaps(b Address) bool {
	if a.Port != b.Port || a.Port == 0 {
		return false
	}
	return a.covers(b) || b.covers(a)
}

// covers reports whether listening on a takes what b asks for: "::" and an empty host take the IPv4 addresses too.
func (a Address) covers(b Address) bool {
	switch {
	case !a.Host.IsValid() || a.Host == netip.IPv6Unspecified():
		return true
	case a.Host == netip.IPv4Unspecified():
		return b.Host.Is4()
	}
	return a.Host == b.Host
}

func parseAddress(text string) (Address, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, &valueError{text, "is not host:port"}
	}
	n, err := parseNumber(port)
	if err != nil || port[0] < '0' || port[0] > '9' {
		return Address{}, &valueError{text, "has no number for a port"}
	}
	if n > math.MaxUint16 {
		return Address{}, &valueError{text, "has a port above 65535"}
	}
	if host == "" {
		return Address{Port: uint16(n)}, nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		problem := "has a host that is not an IP address"
		if host == "localhost" {
			problem += " (write 127.0.0.1 or [::1])"
		}
		return Address{}, &valueError{text, problem}
	}
	return Address{Host: addr.Unmap(), Port: uint16(n)}, nil
}

// parseSocketPath accepts paths in the file system: an abstract address cannot be moved to another process in one step.
func parseSocketPath(text string) (string, error) {
	switch {
	case strings.ContainsRune(text, 0):
		return "", &valueError{text, "contains a zero byte"}
	case strings.HasPrefix(text, "@"):
		return "", &valueError{text, "is an abstract address"}
	case strings.HasSuffix(text, "/"):
		return "", &valueError{text, "is a folder"}
	case len(text) > maxSocketPathBytes:
		return "", &valueError{text, fmt.Sprintf("has %d bytes", len(text))}
	}
	return text, nil
}

// parsePath reads the path of an endpoint. It is compared byte by byte with what clients send, so only a path is
// allowed that clients send unchanged: no escapes, no query, no fragment, no "." or ".." or empty segments
// (RFC 3986 sections 3.3 and 6.2.2).
func parsePath(text string) (string, error) {
	switch {
	case !strings.HasPrefix(text, "/"):
		return "", &valueError{text, `does not start with "/"`}
	case strings.Contains(text, "?"):
		return "", &valueError{text, "contains a query"}
	case strings.Contains(text, "#"):
		return "", &valueError{text, "contains a fragment"}
	case len(text) > maxPathBytes:
		return "", &valueError{text, fmt.Sprintf("is longer than %d bytes", maxPathBytes)}
	}
	for _, c := range []byte(text) {
		if !isAlphanumeric(c) && !strings.ContainsRune("-._~!$&'()*+,;=:@/", rune(c)) {
			return "", &valueError{text, fmt.Sprintf("contains %q", c)}
		}
	}
	segments := strings.Split(text[1:], "/")
	for i, segment := range segments {
		if segment == "." || segment == ".." || segment == "" && i < len(segments)-1 {
			return "", &valueError{text, fmt.Sprintf("contains the segment %q, which clients may remove", segment)}
		}
	}
	return text, nil
}

// parseHeaderName reads the name of a request header: a token of RFC 9110 section 5.6.2.
func parseHeaderName(text string) (string, error) {
	if text == "" {
		return "", &valueError{text, "is empty"}
	}
	if len(text) > maxMetaHeaderBytes {
		return "", &valueError{text, fmt.Sprintf("is longer than %d bytes", maxMetaHeaderBytes)}
	}
	for _, c := range []byte(text) {
		if !isAlphanumeric(c) && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return "", &valueError{text, fmt.Sprintf("contains %q", c)}
		}
	}
	return text, nil
}

func isAlphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
