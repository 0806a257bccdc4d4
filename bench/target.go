package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"

	"github.com/mqgate/mqgate/conn/handshake"
)

// Target is the server to load, as a URL names it.
type Target struct {
	URL  string // as given
	Host string // of the Host header, with the port unless it is 80
	Name string // host without the port
	Port uint16
	Path string // with the query
}

// ParseTarget reads a ws:// URL. The error says what is wrong with it, without repeating it.
func ParseTarget(text string) (Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return Target{}, fmt.Errorf("is not a URL")
	}
	switch {
	case u.Scheme == "wss":
		return Target{}, fmt.Errorf("has the scheme wss: TLS is not supported, load the server behind the proxy")
	case u.Scheme != "ws":
		return Target{}, fmt.Errorf("does not begin with ws://")
	case u.User != nil:
		return Target{}, fmt.Errorf("has a user name")
	case u.Fragment != "":
		return Target{}, fmt.Errorf("has a fragment")
	case u.Hostname() == "":
		return Target{}, fmt.Errorf("has no host")
	}
	t := Target{URL: text, Host: u.Host, Name: u.Hostname(), Port: 80, Path: u.RequestURI()}
	if text := u.Port(); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return Target{}, fmt.Errorf("has the port %s, expected 1 to 65535", text)
		}
		t.Port = uint16(port)
	}
	if err := handshake.CheckRequest(t.Host, t.Path, "", "", nil); err != nil {
		return Target{}, err
	}
	return t, nil
}

// Resolve returns the address of the target. Of several the first IPv4 one is taken.
func (t *Target) Resolve(ctx context.Context) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(t.Name); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), t.Port), nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.Name)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("looking up %s: %w", t.Name, err)
	}
	best := addrs[0].Unmap()
	for _, addr := range addrs {
		if addr = addr.Unmap(); addr.Is4() && !best.Is4() {
			best = addr
		}
	}
	return netip.AddrPortFrom(best, t.Port), nil
}
