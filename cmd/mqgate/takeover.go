package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
)

// takeoverStep is how long either process waits for the other's next message. The new one opens its loops before it asks,
// so each step is a matter of milliseconds; a machine that is short of processors is given time.
const takeoverStep = 10 * time.Second

// predecessor is the process that --takeover found, as the new process sees it. It is used by one goroutine.
type predecessor struct {
	conn      *net.UnixConn
	pid       int
	listeners inherited
	confirmed bool
}

// takeoverAgain is how long to wait before trying again what the end of another process stands in the way of.
const takeoverAgain = 20 * time.Millisecond

// findPredecessor asks the process that answers on the socket at path for its listeners. nil: nobody does, also when path
// is what a process that has ended left there. ended: one has ended in the middle of the conversation, so that its ports
// may be free in a moment only.
func findPredecessor(ctx context.Context, path string) (p *predecessor, ended bool, err error) {
	for since := time.Now(); ; ended = true {
		// EOF: it has ended, or another process has just taken over from it, which then answers.
		if p, err = askPredecessor(ctx, path); !errors.Is(err, io.EOF) || time.Since(since) > takeoverStep {
			break
		}
		if !pause(ctx, takeoverAgain) {
			err = ctx.Err()
			break
		}
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the running process ended the conversation, again and again")
	}
	if err != nil {
		return nil, ended, fmt.Errorf("--takeover %s: %w", path, err)
	}
	return p, ended, nil
}

// pause waits; false when ctx has ended before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// whenFree does what needs a port that a process has which is just ending.
func whenFree(ctx context.Context, do func() error) error {
	for since := time.Now(); ; {
		err := do()
		if !errors.Is(err, syscall.EADDRINUSE) || time.Since(since) > takeoverStep || !pause(ctx, takeoverAgain) {
			return err
		}
	}
}

// askPredecessor is one try of findPredecessor.
func askPredecessor(ctx context.Context, path string) (p *predecessor, err error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("there is something that is not a socket") // it would be replaced
	}
	dialer := net.Dialer{Timeout: takeoverStep}
	c, err := dialer.DialContext(ctx, "unixpacket", path)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p = &predecessor{conn: c.(*net.UnixConn)}
	if err := p.take(); err != nil {
		p.close(err)
		return nil, err
	}
	return p, nil
}

// take asks for the listeners.
func (p *predecessor) take() error {
	if err := checkPeer(p.conn, os.Getuid()); err != nil {
		return err
	}
	if err := p.conn.SetDeadline(time.Now().Add(takeoverStep)); err != nil {
		return err
	}
	if err := sendTakeover(p.conn, takeoverMessage{Message: takeoverTake, PID: os.Getpid()}, nil); err != nil {
		return err
	}
	for {
		m, fds, err := receiveTakeover(p.conn, takeoverListeners)
		if refused, ok := errors.AsType[*refusal](err); ok {
			return fmt.Errorf("the running process refuses: %w", refused)
		}
		if err != nil {
			return err
		}
		p.pid = m.PID
		if err := p.listeners.fill(m.Listeners, fds); err != nil {
			return err
		}
		if !m.More {
			return nil
		}
	}
}

// fill takes over the descriptors of one message, of which some are closed after an error.
func (in *inherited) fill(list []takeoverListener, fds []int) error {
	for i, l := range list {
		if err := in.fillOne(l, fds[i]); err != nil {
			closeFDs(fds[i:])
			return fmt.Errorf("the listener of kind %q, index %d, on %q: %w", l.Kind, l.Index, l.Address, err)
		}
	}
	return nil
}

func (in *inherited) fillOne(l takeoverListener, fd int) error {
	addr, err := netip.ParseAddrPort(l.Address)
	if err != nil {
		return err
	}
	switch {
	case l.Kind == takeoverAdmin && in.admin == nil:
		in.admin = &listeners{addr, []int{fd}}
	case l.Kind == takeoverClient && l.Index == len(in.clients):
		in.clients = append(in.clients, listeners{addr, []int{fd}})
	case l.Kind == takeoverClient && l.Index >= 0 && l.Index == len(in.clients)-1 && addr == in.clients[l.Index].addr:
		in.clients[l.Index].fds = append(in.clients[l.Index].fds, fd)
	default:
		return errors.New("is not expected here")
	}
	return nil
}

// matches returns why a process with this configuration cannot use the listeners. No listeners of clients are fine: the
// process before has closed them, and the addresses are free.
func (in *inherited) matches(cfg *config.Serve) error {
	if n := len(in.clients); n > 0 && n != len(cfg.Listen) {
		return fmt.Errorf("the running process listens on %d addresses, --listen names %d: they must be the same, in the same order",
			n, len(cfg.Listen))
	}
	for i, l := range in.clients {
		if !sameAddress(cfg.Listen[i], l.addr) {
			return fmt.Errorf("the running process listens on %v, --listen is %v", l.addr, cfg.Listen[i])
		}
	}
	switch {
	case in.admin == nil: // --admin is opened as usual, if there is to be one
	case cfg.Admin == nil:
		return fmt.Errorf("the running process has its admin interface on %v, --admin is off", in.admin.addr)
	case !sameAddress(*cfg.Admin, in.admin.addr):
		return fmt.Errorf("the running process has its admin interface on %v, --admin is %v", in.admin.addr, cfg.Admin)
	}
	return nil
}

// sameAddress reports whether a process that is to listen on want may take a socket that listens on got.
func sameAddress(want config.Address, got netip.AddrPort) bool {
	if want.Port != 0 && want.Port != got.Port() {
		return false
	}
	if !want.Host.IsValid() {
		return got.Addr().IsUnspecified() // [::], or 0.0.0.0 on a machine without IPv6
	}
	return want.Host.Unmap() == got.Addr().Unmap()
}

// confirm tells the process before that this one accepts from all its listeners, and waits till that one has stopped. From
// then on it must not be undone. An error means that it is not known whether the process before still accepts: this one goes
// on in any case, since it may be the only one that does.
func (p *predecessor) confirm() error {
	p.confirmed = true
	if err := p.conn.SetDeadline(time.Now().Add(takeoverStep)); err != nil {
		return err
	}
	if err := sendTakeover(p.conn, takeoverMessage{Message: takeoverConfirm}, nil); err != nil {
		return err
	}
	_, fds, err := receiveTakeover(p.conn, takeoverDone)
	closeFDs(fds)
	return err
}

// close ends the conversation. Without a confirmation before, the process on the other side goes on, and logs why. nil
// is fine.
func (p *predecessor) close(why error) {
	if p == nil {
		return
	}
	if why != nil && !p.confirmed {
		// Without it the other side knows that this one gave up, but not why.
		_ = sendTakeover(p.conn, takeoverMessage{Message: takeoverRefuse, Reason: why.Error()}, nil)
	}
	_ = p.conn.Close() // nothing is on its way
	p.listeners.close()
}

// open listens: on the sockets of the service manager, on those of the process before, which stops then, or on new ones. It
// returns the admin interface and the socket on which this process waits for the next one, nil without --takeover. After an
// error the process before goes on.
func (g *gateway) open(ctx context.Context) (adm *admin, next *net.UnixListener, err error) {
	var before *predecessor
	ended := false
	if g.cfg.Takeover != "" {
		if before, ended, err = findPredecessor(ctx, g.cfg.Takeover); err != nil {
			return nil, nil, err
		}
	}
	defer func() { before.close(err) }()
	adminSocket := g.systemd.adminSocket()
	if before != nil {
		if err := before.listeners.matches(g.cfg); err != nil {
			return nil, nil, fmt.Errorf("--takeover %s: %w", g.cfg.Takeover, err)
		}
		adminSocket = before.listeners.adminSocket()
	}

	// First what may fail; accepting comes last, since what this process has accepted is lost when it ends.
	if g.cfg.Takeover != "" {
		if next, err = listenTakeover(hiddenSocket(g.cfg.Takeover)); err != nil {
			return nil, nil, fmt.Errorf("--takeover %s: %w", g.cfg.Takeover, err)
		}
	}
	var adminListener net.Listener
	bind := func() (err error) {
		if adminListener == nil {
			if adminListener, err = g.listenAdmin(adminSocket); err != nil {
				return err
			}
		}
		if before != nil && len(before.listeners.clients) > 0 {
			return g.adopt(before.listeners.clients)
		}
		if err = g.listen(); err != nil {
			g.server.StopListening() // those that did open
		}
		return err
	}
	if ended {
		err = whenFree(ctx, bind)
	} else {
		err = bind()
	}
	if err == nil && next != nil && before == nil {
		err = showSocket(g.cfg.Takeover)
	}
	if err != nil {
		if adminListener != nil {
			_ = adminListener.Close() // the error that matters is returned
		}
		if next != nil {
			_ = next.Close()
			_ = os.Remove(hiddenSocket(g.cfg.Takeover))
		}
		return nil, nil, err
	}
	adm = g.serveAdmin(adminListener)
	if before == nil {
		return adm, next, nil
	}
	if err := before.confirm(); err != nil {
		g.log.Warn("took the listeners over, but the process before gave no sign; if it still runs, end it with SIGTERM",
			"pid", before.pid, "err", err)
	} else {
		g.log.Info("took the listeners over", "from", before.pid)
	}
	if err := showSocket(g.cfg.Takeover); err != nil { // too late to go back
		g.log.Error("the next process will not find this one", "err", err)
	}
	return adm, next, nil
}

// adminSocket returns the descriptor of the admin listener, which stays in's, and its address; nil: there is none.
func (in *inherited) adminSocket() *listeners {
	if in == nil {
		return nil
	}
	return in.admin
}
