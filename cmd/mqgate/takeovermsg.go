package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// The protocol of --takeover: a conversation of two processes of the same user over a unix socket of type SEQPACKET, one
// JSON object per packet. The new process begins.
//
//	new → old  {"version":1,"message":"take","pid":N}
//	old → new  {"version":1,"message":"listeners","pid":N,"listeners":[...],"more":BOOL}, with as many descriptors
//	           (SCM_RIGHTS) as listeners, in their order; repeated while more is true
//	new → old  {"version":1,"message":"confirm"}: it accepts from all of them
//	old → new  {"version":1,"message":"done"}: it has stopped accepting and drains
//
// Instead of any of these either may send {"version":1,"message":"refuse","reason":TEXT}. Until the old process has read
// confirm, the end of the conversation, whatever ends it, leaves it as it was.
const takeoverVersion = 1

const (
	takeoverTake      = "take"
	takeoverListeners = "listeners"
	takeoverConfirm   = "confirm"
	takeoverDone      = "done"
	takeoverRefuse    = "refuse"
)

// Kinds of listeners.
const (
	takeoverClient = "client"
	takeoverAdmin  = "admin"
)

const (
	// takeoverMaxFDs [descriptors] of one packet: the kernel's limit (SCM_MAX_FD) is 253.
	takeoverMaxFDs = 200
	// takeoverMaxBytes [bytes] of one packet: 200 listeners of 100 bytes each, and to spare. The kernel's limit is
	// net.core.wmem_default, 208 KiB.
	takeoverMaxBytes = 64 << 10
)

// takeoverMessage is one packet.
type takeoverMessage struct {
	Version   int                `json:"version"`
	Message   string             `json:"message"`
	PID       int                `json:"pid,omitempty"`
	Reason    string             `json:"reason,omitempty"`
	Listeners []takeoverListener `json:"listeners,omitempty"`
	More      bool               `json:"more,omitempty"`
}

// takeoverListener says what a descriptor is.
type takeoverListener struct {
	Kind    string `json:"kind"`           // takeoverClient or takeoverAdmin
	Index   int    `json:"index"`          // of the client's address among those of --listen
	Address string `json:"address"`        // "127.0.0.1:8080"
	Loop    int    `json:"loop,omitempty"` // of the old process that accepts from it
}

// A refusal is a reason that the other process gave.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// sendTakeover sends one packet. The descriptors stay the caller's.
func sendTakeover(c *net.UnixConn, m takeoverMessage, fds []int) error {
	m.Version = takeoverVersion
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receiveTakeover receives one packet of the kind that is due. The descriptors are the caller's and not inherited by
// children; after an error there are none. io.EOF: the other process has gone; *refusal: it refused.
func receiveTakeover(c *net.UnixConn, due string) (m takeoverMessage, fds []int, err error) {
	b, rights := make([]byte, takeoverMaxBytes), make([]byte, unix.CmsgSpace(4*takeoverMaxFDs))
	n, rn, flags, _, err := c.ReadMsgUnix(b, rights)
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			err = io.EOF
		}
		return m, nil, err
	}
	fds, err = receivedFDs(rights[:rn])
	defer func() {
		if err != nil {
			closeFDs(fds)
			fds = nil
		}
	}()
	switch {
	case err != nil:
		return m, fds, err
	case n == 0 && rn == 0:
		return m, fds, io.EOF
	case flags&unix.MSG_CTRUNC != 0:
		return m, fds, errors.New("not all descriptors came through: is the open-file limit reached?")
	case flags&unix.MSG_TRUNC != 0:
		return m, fds, fmt.Errorf("a message of more than %d bytes", takeoverMaxBytes)
	}
	m, err = parseTakeover(b[:n], due, len(fds))
	return m, fds, err
}

// parseTakeover reads one packet that came with that many descriptors.
func parseTakeover(b []byte, due string, fds int) (m takeoverMessage, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("a message that is not JSON of the takeover protocol: %w", err)
	}
	switch {
	case m.Version != takeoverVersion:
		return m, fmt.Errorf("it speaks version %d of the takeover protocol, this process version %d", m.Version, takeoverVersion)
	case m.Message == takeoverRefuse:
		return m, &refusal{m.Reason}
	case m.Message != due:
		return m, fmt.Errorf("message %q of the takeover protocol, expected %q", m.Message, due)
	case len(m.Listeners) != fds:
		return m, fmt.Errorf("%d listeners with %d descriptors", len(m.Listeners), fds)
	}
	return m, nil
}

func receivedFDs(rights []byte) (fds []int, err error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("control messages: %w", err)
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fds, fmt.Errorf("descriptors: %w", err)
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // a copy of what others keep open
	}
}

// checkPeer returns an error unless the process at the other end runs as the same user as this one. Descriptors are given
// to, and taken from, nobody else.
func checkPeer(c *net.UnixConn, own int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("SO_PEERCRED: %w", failed)
	}
	if int64(peer.Uid) != int64(own) {
		return fmt.Errorf("process %d runs as user %d, this one as user %d", peer.Pid, peer.Uid, own)
	}
	return nil
}
