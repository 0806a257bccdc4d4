package frame

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// plainHeader reads the header at the start of in as the figure of RFC 6455 section 5.2 shows it, as text of zeros and
// ones. at is how many bytes it takes to know the outcome, an error or a header; 0 when in has too few.
func plainHeader(cfg *Config, in []byte, fragmented bool, room int) (h header, e *Error, at int) {
	var b strings.Builder
	for _, c := range in {
		fmt.Fprintf(&b, "%08b", c)
	}
	bits := b.String()
	number := func(from, n int) uint64 {
		v, err := strconv.ParseUint(bits[from:from+n], 2, 64)
		if err != nil {
			panic(err)
		}
		return v
	}
	if len(bits) < 8 {
		return h, nil, 0
	}
	fin, rsv, op := bits[0] == '1', bits[1:4], OpCode(number(4, 4))
	data := op == Text || op == Binary
	switch {
	case rsv != "000" && (rsv != "100" || !cfg.AllowRSV1 || op == Continuation || op >= Close):
		return h, ErrReservedBits, 1
	case !data && !slices.Contains([]OpCode{Continuation, Close, Ping, Pong}, op):
		return h, ErrReservedOpCode, 1
	case op >= Close && !fin:
		return h, ErrControlFragmented, 1
	case op == Continuation && !fragmented:
		return h, ErrUnexpectedContinuation, 1
	case data && fragmented:
		return h, ErrExpectedContinuation, 1
	case len(bits) < 16:
		return h, nil, 0
	}
	masked, length, size := bits[8] == '1', number(9, 7), 2
	switch {
	case masked && cfg.Role == RoleClient:
		return h, ErrMaskForbidden, 2
	case !masked && cfg.Role == RoleServer:
		return h, ErrMaskRequired, 2
	case op >= Close && length > 125:
		return h, ErrControlTooLong, 2
	}
	if length > 125 {
		wide, least := 16, uint64(126)
		if length == 127 {
			wide, least = 64, 65536
			if len(bits) >= 24 && bits[16] == '1' {
				return h, ErrLengthTopBit, 3
			}
		}
		if len(bits) < 16+wide {
			return h, nil, 0
		}
		length, size = number(16, wide), 2+wide/8
		if length < least {
			return h, ErrLengthNotMinimal, size
		}
	}
	if rsv == "100" && cfg.Inflate {
		room = cfg.maxPacked()
	}
	if op < Close && length > uint64(room) {
		return h, ErrTooBig, size
	}
	h = header{length: int(length), op: op, fin: fin, rsv1: rsv == "100", masked: masked}
	if masked {
		if len(in) < size+4 {
			return header{}, nil, 0
		}
		copy(h.key[:], in[size:])
		size += 4
	}
	return h, nil, size
}

// FuzzHeader: a header, or what is wrong with it, is known with the byte that says so and not before, and writing the
// header again gives the same bytes.
func FuzzHeader(f *testing.F) {
	for _, in := range [][]byte{wire(`81 85 01 02 03 04`), wire(`81 05`), wire(`02 fe 00 7e 01 02 03 04`), wire(`82 7e ff ff`), wire(`82 7e 00 7d`),
		wire(`82 7f 00 00 00 00 00 01 00 00`), wire(`82 7f 00 00 00 00 00 00 ff ff`), wire(`82 ff 80 00`), wire(`82 7f 40 00 00 00 00 00 00 00`), wire(`80 80 00 00 00 00`), wire(`00 01`),
		wire(`89 fd 00 00 00 00`), wire(`88 fe`), wire(`08 00`), wire(`c1 83 00 00 00 00`), wire(`c0 00`), wire(`c9 00`), wire(`a1 00`), wire(`83 00`)} {
		for m := range byte(8) {
			f.Add(in, m, false, uint16(65535))
			f.Add(in, m, true, uint16(100))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, m byte, fragmented bool, room uint16) {
		in = in[:min(len(in), MaxHeader+2)]
		cfg := mode(m, 65535)
		want, wrong, at := plainHeader(&cfg, in, fragmented, int(room))
		for n := range len(in) + 1 {
			h, size, e := parseHeader(&cfg, in[:n], fragmented, int(room))
			switch {
			case at == 0 || n < at:
				if size != 0 || e != nil {
					t.Fatalf("%d bytes of % x: size %d, %v, expected to need more", n, in, size, e)
				}
			case e != wrong:
				t.Fatalf("%d bytes of % x: %v, expected %v at %d", n, in, e, wrong, at)
			case e == nil && (h != want || size != at):
				t.Fatalf("%d bytes of % x: %+v of %d bytes, expected %+v of %d", n, in, h, size, want, at)
			}
		}
		if at == 0 || wrong != nil {
			return
		}
		write := AppendHeader
		if want.rsv1 {
			write = AppendHeaderRSV1
		}
		if b := write(nil, want.op, want.fin, want.length, want.masked, want.key); !bytes.Equal(b, in[:at]) {
			t.Fatalf("% x is written as % x", in[:at], b)
		}
	})
}
