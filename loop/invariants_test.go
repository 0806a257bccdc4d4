//go:build invariants

package loop

import (
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// keeper is a handler that keeps what is only lent to it.
type keeper struct {
	echoHandler
	kept []byte
}

func (h *keeper) OnData(_ uint32, p []byte) { h.kept = p }

// Whoever keeps the bytes of OnData beyond the call finds garbage.
func TestBorrowedBytesAreMangled(t *testing.T) {
	k := &fake{}
	h := &keeper{}
	l := New(Config{Kernel: k, Handler: h, Log: discard})
	l.Begin()
	l.Accept(3, 0, netip.AddrPort{})
	l.SocketEvent(0, true, false)
	l.End()
	if len(h.kept) != len(fakeMessage) || len(bytes.Trim(h.kept, "\xdb")) != 0 {
		t.Errorf("after OnData the buffer reads %q", h.kept)
	}
}

// panicOf returns what f panics with, called on another goroutine.
func panicOf(f func()) (said string) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				said = fmt.Sprint(r)
			}
		}()
		f()
	}()
	<-done
	return said
}

// Every method but the few that are for any goroutine panics on one that is not the loop's, between turns as well.
func TestOwner(t *testing.T) {
	_, l := newFake()
	methods := map[string]func(){
		"Accept":        func() { l.Accept(3, 0, netip.AddrPort{}) },
		"Begin":         nil, // makes the caller the owner
		"Broken":        func() { l.Broken(0) },
		"CancelTimer":   func() { l.CancelTimer(0) },
		"Clock":         func() { l.Clock() },
		"Close":         func() { l.Close(0) },
		"Dial":          func() { l.Dial(netip.AddrPort{}, netip.Addr{}) },
		"Do":            nil, // any goroutine
		"DropUnsent":    func() { l.DropUnsent(0) },
		"End":           func() { l.End() },
		"Flush":         func() { l.Flush(0) },
		"Generation":    func() { l.Generation(0) },
		"Held":          func() { l.Held(0) },
		"HeldBytes":     func() { l.HeldBytes() },
		"SharedBytes":   func() { l.SharedBytes() },
		"SharedPart":    func() { l.SharedPart(0) },
		"InUse":         func() { l.InUse(0) },
		"Index":         nil, // any goroutine
		"LocalAddr":     func() { l.LocalAddr(0) },
		"NewTimers":     func() { l.NewTimers(nil) },
		"NotifyDrained": func() { l.NotifyDrained(0) },
		"Now":           func() { l.Now() },
		"OldestPending": func() { l.OldestPending(0) },
		"Open":          func() { l.Open() },
		"PauseRead":     func() { l.PauseRead(0) },
		"Pending":       func() { l.Pending(0) },
		"PendingBytes":  func() { l.PendingBytes() },
		"Post":          nil, // any goroutine
		"PostFunc":      nil, // any goroutine
		"Queued":        func() { l.Queued(0) },
		"Reserve":       func() { l.Reserve(0, 1) },
		"Reset":         func() { l.Reset(0) },
		"ResumeRead":    func() { l.ResumeRead(0) },
		"RunTasks":      func() { l.RunTasks() },
		"SetTimer":      func() { l.SetTimer(0, 1) },
		"ShutdownWrite": func() { l.ShutdownWrite(0) },
		"Slots":         func() { l.Slots() },
		"SocketEvent":   func() { l.SocketEvent(0, true, true) },
		"Stats":         func() { l.Stats() },
		"TimersArmed":   func() { l.TimersArmed() },
		"Trim":          func() { l.Trim() },
		"UrgentPending": func() { l.UrgentPending(0) },
		"Write":         func() { l.Write(0, []byte("x")) },
		"WriteShared":   func() { l.WriteShared(0, NewShared([]byte("x"))) },
		"WriteUrgent":   func() { l.WriteUrgent(0, []byte("x")) },
	}
	typ := reflect.TypeFor[*Loop]()
	for i := range typ.NumMethod() {
		name := typ.Method(i).Name
		f, ok := methods[name]
		switch {
		case !ok:
			t.Errorf("is %s for any goroutine? Say so here", name)
		case f != nil:
			if said := panicOf(f); !strings.Contains(said, "on another") {
				t.Errorf("%s on another goroutine: %q", name, said)
			}
		}
	}
	if said := panicOf(func() { l.PostFunc(func() {}); l.Index() }); said != "" {
		t.Errorf("methods for any goroutine panic: %s", said)
	}
	l.Begin() // and on the loop's own all of them work
	for name, f := range methods {
		if f != nil && name != "Close" && name != "Reset" && name != "End" && name != "RunTasks" {
			f()
		}
	}
	l.End()
	l.owner.release()
	if said := panicOf(func() { l.Open() }); said != "" {
		t.Errorf("after the loop has ended: %s", said)
	}
}

// A loop may be made and prepared on another goroutine than the one that runs it.
func TestOwnerBeforeRunning(t *testing.T) {
	var l *Loop
	if said := panicOf(func() {
		l = New(Config{Kernel: &fake{}, Handler: &echoHandler{}, Log: discard})
		l.NewTimers(func(uint32) {})
	}); said != "" {
		t.Fatal(said)
	}
	l.NewTimers(func(uint32) {})
	if said := panicOf(func() { l.Begin(); l.Open(); l.End() }); said != "" {
		t.Fatal(said)
	}
	if said := panicOf(func() { l.Open() }); said == "" {
		t.Error("a third goroutine may use the loop")
	}
	// On real sockets.
	g, handlers := startEchoes(t, 2, nil)
	if said := panicOf(func() { handlers[0].Open() }); !strings.Contains(said, "on another") {
		t.Errorf("%q", said)
	}
	g.Loops()[1].Do(func() { // one loop's goroutine is not another's
		defer func() {
			if recover() == nil {
				t.Error("a loop may use another")
			}
		}()
		handlers[0].Open()
	})
	g.Stop()
	if handlers[0].Open() != 0 {
		t.Error("a socket is open")
	}
}

// A socket that is closed is not to be used, although the ordinary build lets some of that pass.
func TestUseAfterClose(t *testing.T) {
	_, l := newFake()
	l.Begin()
	l.Close(0)
	for name, f := range map[string]func(){
		"NotifyDrained": func() { l.NotifyDrained(0) },
		"PauseRead":     func() { l.PauseRead(0) },
		"ResumeRead":    func() { l.ResumeRead(0) },
		"ShutdownWrite": func() { l.ShutdownWrite(0) },
		"SetTimer":      func() { l.SetTimer(0, 1) },
		"LocalAddr":     func() { l.LocalAddr(0) },
	} {
		func() {
			defer func() {
				if r := recover(); !strings.Contains(fmt.Sprint(r), "closed socket") {
					t.Errorf("%s: %v", name, r)
				}
			}()
			f()
		}()
	}
	l.End()
}
