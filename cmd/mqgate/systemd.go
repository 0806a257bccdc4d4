package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/loop"
)

// adminFDName is the FileDescriptorName= that makes a socket of systemd the admin listener; all others are for clients.
const adminFDName = "admin"

// inherited are listening sockets that this process has not opened itself. The descriptors are its own.
type inherited struct {
	clients []listeners
	admin   *listeners // one descriptor; nil: there is none
}

// listeners are sockets that listen on one address.
type listeners struct {
	addr netip.AddrPort
	fds  []int
}

// fromSystemd returns the sockets that a service manager has passed (LISTEN_FDS, sd_listen_fds(3)), nil without any. The
// variables are removed from the environment. Call it once.
func fromSystemd() (*inherited, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil
	}
	in := new(inherited)
	var faults []error
	for _, f := range files {
		if err := in.add(int(f.Fd()), f.Name()); err != nil {
			faults = append(faults, fmt.Errorf("LISTEN_FDS: the descriptor named %q: %w", f.Name(), err))
		}
		_ = f.Close() // nothing was written
	}
	if len(faults) > 0 {
		in.close()
		return nil, errors.Join(faults...)
	}
	return in, nil
}

// add takes a duplicate of fd.
func (in *inherited) add(fd int, name string) error {
	addr, err := loop.ListeningOn(fd)
	if err != nil {
		return err
	}
	if name == adminFDName && in.admin != nil {
		return fmt.Errorf("there is another of that name, on %v, expected one", in.admin.addr)
	}
	own, err := loop.Duplicate(fd)
	if err != nil {
		return err
	}
	if name == adminFDName {
		in.admin = &listeners{addr, []int{own}}
		return nil
	}
	i := slices.IndexFunc(in.clients, func(l listeners) bool { return l.addr == addr })
	if i < 0 {
		i = len(in.clients)
		in.clients = append(in.clients, listeners{addr: addr})
	}
	in.clients[i].fds = append(in.clients[i].fds, own)
	return nil
}

// close closes the descriptors: who accepts from them has duplicates. It may be called more than once, and on nil.
func (in *inherited) close() {
	if in == nil {
		return
	}
	for _, l := range in.clients {
		closeFDs(l.fds)
	}
	if in.admin != nil {
		closeFDs(in.admin.fds)
	}
	*in = inherited{}
}

// check returns why a process with this configuration cannot use what the service manager has passed; nil is fine.
func (in *inherited) check(cfg *config.Serve) error {
	switch {
	case in == nil:
	case cfg.Takeover != "":
		return errors.New("--takeover has no meaning with it, the service manager keeps the listeners open: use one of the two")
	case in.admin == nil:
	case cfg.Admin == nil:
		return fmt.Errorf("there is a descriptor named %q, --admin is off", adminFDName)
	case cfg.AdminTokenFile == "" && !in.admin.addr.Addr().IsLoopback(): // as for --admin itself
		return fmt.Errorf("the descriptor named %q listens on %v, expected a loopback address, or a bearer token in --admin-token-file",
			adminFDName, in.admin.addr)
	}
	return nil
}

// inherit has the gateway use sockets of the service manager, which stay the caller's and open; nil: there are none. Before
// run.
func (g *gateway) inherit(in *inherited) {
	if in == nil {
		return
	}
	in.log(g.log)
	// What the configuration warns of for --listen, which is not bound.
	public := func(l listeners) bool { return !l.addr.Addr().IsLoopback() }
	if g.cfg.Auth == config.AuthOpen && slices.ContainsFunc(in.clients, public) {
		g.log.Warn("--auth=open on an address that other machines can reach: anybody may be anybody")
	}
	g.systemd = in
	g.drainer.others = len(in.clients) > 0
}

// adopt has the loops accept from sockets that others have opened, an entry per address.
func (g *gateway) adopt(sets []listeners) error {
	var addrs []netip.AddrPort
	for _, l := range sets {
		addr, err := g.server.Adopt(l.fds)
		if err == nil && addr != l.addr {
			err = fmt.Errorf("it listens on %v", addr)
		}
		if err != nil {
			return fmt.Errorf("the listener that was handed over, on %v: %w", l.addr, err)
		}
		addrs = append(addrs, addr)
	}
	if g.addrs == nil { // else it listens again
		g.addrs = addrs
	}
	return nil
}

// log says which addresses they are.
func (in *inherited) log(log *slog.Logger) {
	var clients []netip.AddrPort
	for _, l := range in.clients {
		clients = append(clients, l.addr)
	}
	admin := ""
	if in.admin != nil {
		admin = in.admin.addr.String()
	}
	log.Info("listeners come from the service manager", "addr", joinAddrs(clients), "admin", admin)
}

// notify tells the service manager, if there is one that wants to know (NOTIFY_SOCKET, sd_notify(3)).
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("the service manager could not be notified", "state", state, "err", err)
	}
}
