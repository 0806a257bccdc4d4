package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/mqgate/mqgate/loop"
	"golang.org/x/sys/unix"
)

// takeoverRetry is how long accepting on the takeover socket rests after a failure, so that it is no busy loop.
const takeoverRetry = 100 * time.Millisecond

// hiddenSocket is where the socket for path is made: under a name that nobody looks for until this process has the
// listeners.
func hiddenSocket(path string) string { return fmt.Sprintf("%s.%d", path, os.Getpid()) }

// showSocket puts the hidden socket in its place. Whatever socket is there gives way in the same step.
func showSocket(path string) error {
	if err := os.Rename(hiddenSocket(path), path); err != nil {
		return fmt.Errorf("--takeover: %w", err)
	}
	return nil
}

// listenTakeover listens on a new unix socket at path that nobody but this user may connect to.
func listenTakeover(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // a process of the same number was killed here
		return nil, err
	}
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// bind(2) makes the file with the mode of the socket, so there is no moment at which it is open to others.
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	l, err := cfg.Listen(context.Background(), "unixpacket", path)
	if err != nil {
		return nil, err
	}
	ln := l.(*net.UnixListener)
	// By the time that this process ends the path is another's, or a stale file, which does no harm.
	ln.SetUnlinkOnClose(false)
	return ln, nil
}

// offer gives the listeners to the next process that asks for them on ln, until one has confirmed or ctx ends. Then ln is
// closed; its file is left alone.
func (g *gateway) offer(ctx context.Context, ln *net.UnixListener, adm *admin) {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	defer func() { _ = ln.Close() }() // it may be closed already
	for {
		c, err := ln.AcceptUnix()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				_ = c.Close()
			}
			return
		}
		if err != nil {
			g.log.Warn("no takeover is possible at present", "err", err)
			pause(ctx, takeoverRetry)
			continue
		}
		handed, err := g.handOver(ctx, c, ln, adm)
		_ = c.Close() // what was written is with the kernel
		if err != nil {
			g.log.Warn("a takeover has failed; nothing has changed", "err", err)
		}
		if handed {
			return
		}
	}
}

// handOver is one conversation with a process that wants the listeners. true: it has them, and this process drains.
func (g *gateway) handOver(ctx context.Context, c *net.UnixConn, ln io.Closer, adm *admin) (bool, error) {
	undisturbed := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer undisturbed()
	if err := checkPeer(c, os.Getuid()); err != nil {
		return false, err
	}
	step := func() error { return c.SetDeadline(time.Now().Add(takeoverStep)) }
	if err := step(); err != nil {
		return false, err
	}
	asked, fds, err := receiveTakeover(c, takeoverTake)
	closeFDs(fds)
	if err != nil {
		// Whoever speaks another version is told, in this one, by which it knows.
		_ = sendTakeover(c, takeoverMessage{Message: takeoverRefuse, Reason: err.Error()}, nil)
		return false, fmt.Errorf("its first message: %w", err)
	}
	list, fds, err := g.listeners(adm)
	if err != nil {
		_ = sendTakeover(c, takeoverMessage{Message: takeoverRefuse, Reason: err.Error()}, nil)
		return false, err
	}
	// Held until the end: should a drain close the listeners meanwhile, the connections in them are not lost.
	defer closeFDs(fds)
	if err := sendListeners(c, list, fds); err != nil {
		return false, err
	}
	if err := step(); err != nil {
		return false, err
	}
	_, strange, err := receiveTakeover(c, takeoverConfirm)
	closeFDs(strange)
	if refused, ok := errors.AsType[*refusal](err); ok {
		return false, fmt.Errorf("process %d gave up: %w", asked.PID, refused)
	}
	if err != nil {
		return false, fmt.Errorf("process %d did not confirm: %w", asked.PID, err)
	}

	undisturbed() // with nobody connected the drain may be over before the other process is told
	g.log.Info("the listeners were taken over; draining", "by", asked.PID, "listeners", len(list))
	g.drainer.HandedOver()
	notify(g.log, daemon.SdNotifyStopping)
	_ = ln.Close() // the next one asks our successor
	g.server.StopListening()
	adm.stopAccepting()
	if err := sendTakeover(c, takeoverMessage{Message: takeoverDone}, nil); err != nil {
		g.log.Warn("the process that took over could not be told that it is alone", "by", asked.PID, "err", err)
	}
	return true, nil
}

// listeners returns what this process accepts from, and duplicates of the descriptors, which are the caller's. After an
// error there are none.
func (g *gateway) listeners(adm *admin) (list []takeoverListener, fds []int, err error) {
	sockets, err := g.server.Listening()
	if err != nil {
		return nil, nil, err
	}
	index := func(s loop.Listening) int { return slices.Index(g.addrs, s.Addr) }
	slices.SortStableFunc(sockets, func(a, b loop.Listening) int { return index(a) - index(b) })
	for _, s := range sockets {
		fds = append(fds, s.FD)
		list = append(list, takeoverListener{Kind: takeoverClient, Index: index(s), Address: s.Addr.String(), Loop: s.Loop})
	}
	fd, addr, err := adm.duplicate()
	if err != nil {
		closeFDs(fds)
		return nil, nil, fmt.Errorf("the admin listener: %w", err)
	}
	if fd >= 0 {
		fds = append(fds, fd)
		list = append(list, takeoverListener{Kind: takeoverAdmin, Address: addr})
	}
	return list, fds, nil
}

// sendListeners sends them in as many packets as it takes; without any, in one.
func sendListeners(c *net.UnixConn, list []takeoverListener, fds []int) error {
	for {
		n := min(len(list), takeoverMaxFDs)
		m := takeoverMessage{Message: takeoverListeners, PID: os.Getpid(), Listeners: list[:n], More: n < len(list)}
		if err := sendTakeover(c, m, fds[:n]); err != nil {
			return err
		}
		if !m.More {
			return nil
		}
		list, fds = list[n:], fds[n:]
	}
}
