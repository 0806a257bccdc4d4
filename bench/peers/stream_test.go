package main

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/gobwas/ws"
)

// The floor's answer is what gobwas makes of the same frames, wherever the client's bytes are cut.
func TestStream(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var in, want bytes.Buffer
	for _, f := range []struct {
		op   ws.OpCode
		fin  bool
		size int
	}{
		{ws.OpBinary, true, 128}, {ws.OpText, true, 0}, {ws.OpPing, true, 5}, {ws.OpBinary, false, 125}, {ws.OpContinuation, true, 126},
		{ws.OpText, true, 65535}, {ws.OpBinary, true, 65536}, {ws.OpBinary, true, 1}, {ws.OpClose, true, 2},
	} {
		payload := make([]byte, f.size)
		for i := range payload {
			payload[i] = byte(rnd.Uint32())
		}
		frame := ws.NewFrame(f.op, f.fin, payload)
		answer := frame
		if f.op == ws.OpPing {
			answer = ws.NewFrame(ws.OpPong, true, payload)
		}
		if err := ws.WriteFrame(&want, answer); err != nil {
			t.Fatal(err)
		}
		if err := ws.WriteFrame(&in, ws.MaskFrame(frame)); err != nil {
			t.Fatal(err)
		}
	}
	in.WriteString("behind the Close, nothing is answered")
	for name, piece := range map[string]func() int{
		"whole":             func() int { return in.Len() },
		"byte by byte":      func() int { return 1 },
		"header by header":  func() int { return 7 },
		"as it may come":    func() int { return 1 + rnd.IntN(20) },
		"in larger pieces":  func() int { return 1 + rnd.IntN(9000) },
		"mostly very small": func() int { return 1 + rnd.IntN(3) },
	} {
		t.Run(name, func(t *testing.T) {
			var s echoStream
			var got []byte
			for rest := in.Bytes(); len(rest) > 0; {
				n := min(piece(), len(rest))
				buffer := make([]byte, maxHeader+n)
				carried := s.carry(buffer[:maxHeader])
				copy(buffer[maxHeader:], rest[:n])
				out, err := s.turn(buffer[maxHeader-carried:])
				if err != nil {
					t.Fatal(err)
				}
				got, rest = append(got, out...), rest[n:]
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%d bytes, want %d; they differ", len(got), want.Len())
			}
			if !s.done() {
				t.Error("the Close was not seen")
			}
		})
	}
}

func TestStreamUnmasked(t *testing.T) {
	if _, err := new(echoStream).turn(ws.MustCompileFrame(ws.NewTextFrame([]byte("hello")))); err != errUnmasked {
		t.Errorf("error %v, want %v", err, errUnmasked)
	}
}
