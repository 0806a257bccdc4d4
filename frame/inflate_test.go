package frame

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/mqgate/mqgate/frame/deflate"
)

func inflating(cfg Config) Config {
	cfg.AllowRSV1, cfg.Inflate = true, true
	return cfg
}

// packed is p compressed, if need be with more bytes than before.
func packed(p []byte) []byte {
	var c deflate.Compressor
	if out, ok := c.Append(nil, p, deflate.MaxWindowBits, nil); ok {
		return out
	}
	out := []byte{}
	for len(p) > 0 {
		n := min(len(p), 0xffff)
		out = append(append(out, 0, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8)), p[:n]...)
		p = p[n:]
	}
	return append(out, 0)
}

// compressed is a frame that is a compressed message.
func compressed(cfg Config, op OpCode, payload string) []byte {
	p := packed([]byte(payload))
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	in := append(AppendHeaderRSV1(nil, op, true, len(p), cfg.Role == RoleServer, key), p...)
	if cfg.Role == RoleServer {
		Mask(in[len(in)-len(p):], key, 0)
	}
	return in
}

// Compressed messages by the rules of RFC 7692, and by those of RFC 6455 for what they inflate to. Each input is fed whole,
// byte by byte and cut in two everywhere; at is the first byte that is wrong.
func TestInflatingReader(t *testing.T) {
	hello := func(end int) event { return event{Text, true, []byte("Hello"), end} }
	server, client := inflating(server), inflating(client)
	bomb := compressed(client, Binary, string(make([]byte, 100_000)))
	for _, tc := range []struct {
		name string
		cfg  Config
		in   []byte
		want verdict
	}{
		{"7.2.3.1 unfragmented", client, wire(`c1 07 f2 48 cd c9 c9 07 00`), verdict{events: []event{hello(9)}}},
		{"7.2.3.1 masked", server, wire(`c1 87 37 fa 21 3d  c5 b2 ec f4 fe fd 21`), verdict{events: []event{hello(13)}}},
		{"7.2.3.1 fragmented", client, wire(`41 03 f2 48 cd  80 04 c9 c9 07 00`), verdict{events: []event{hello(11)}}},
		{"7.2.3.3 stored", client, wire(`c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00`), verdict{events: []event{hello(13)}}},
		{"7.2.3.4 BFINAL", client, wire(`c1 08 f3 48 cd c9 c9 07 00 00`), verdict{events: []event{hello(10)}}},
		{"7.2.3.5 two blocks", client, wire(`c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00`), verdict{events: []event{hello(15)}}},
		{"7.2.3.6 empty", client, wire(`c1 01 00`), verdict{events: []event{{Text, true, nil, 3}}}},
		{"empty, binary, in fragments", client, wire(`42 00  00 01 00  80 00`), verdict{events: []event{{Binary, true, nil, 7}}}},
		{"uncompressed among compressed", client, wire(`c1 07 f2 48 cd c9 c9 07 00  81 01 61  c1 07 f2 48 cd c9 c9 07 00`),
			verdict{events: []event{hello(9), msg(Text, "a", 12), hello(21)}}},
		{"ping between fragments", client, wire(`41 03 f2 48 cd  89 02 ff ff  80 04 c9 c9 07 00`), verdict{events: []event{msg(Ping, "\xff\xff", 9), hello(15)}}},
		{"unfinished", client, wire(`41 03 f2 48 cd`), verdict{partial: true}},

		{"6 RSV1 on a continuation", client, wire(`41 03 f2 48 cd c0`), verdict{err: ErrReservedBits, at: 5}},
		{"6 RSV1 on a ping", client, wire(`c9`), verdict{err: ErrReservedBits}},
		{"reserved block", client, wire(`c1 7d 00 00 00 ff ff 07`), verdict{err: ErrDeflate, at: 7}},
		{"a stored length, before the rest", client, wire(`42 7d 00 05 00 fb ff`), verdict{err: ErrDeflate, at: 6}},
		{"no context takeover", client, wire(`c1 07 f2 48 cd c9 c9 07 00  c1 05 f2 00 11 00 00`), verdict{events: []event{hello(9)}, err: ErrDeflate, at: 13}},
		{"nothing at all", client, wire(`c1 00`), verdict{err: ErrDeflate, at: 1}},
		{"without its end", client, wire(`c1 04 f2 48 cd c9`), verdict{err: ErrDeflate, at: 5}},
		{"without its end, in fragments", client, wire(`41 04 f2 48 cd c9  80 00`), verdict{err: ErrDeflate, at: 7}},

		{"8.1 the first bad byte of a stored block", client, wire(`41 7d 00 05 00 fa ff 61 80`), verdict{err: ErrInvalidUTF8, at: 8}},
		{"8.1 a code point over two fragments", client, wire(`41 06 00 02 00 fd ff c3  80 02 a9 00`), verdict{events: []event{{Text, true, []byte("é"), 12}}}},
		{"8.1 a code point that the next fragment breaks", client, wire(`41 06 00 02 00 fd ff c3  00 7d 28`), verdict{err: ErrInvalidUTF8, at: 10}},
		{"8.1 ends inside a code point", client, wire(`c1 07 00 01 00 fe ff c3 00`), verdict{err: ErrInvalidUTF8, at: 8}},
		{"8.1 binary is not text", client, wire(`c2 07 00 01 00 fe ff c3 00`), verdict{events: []event{{Binary, true, []byte("\xc3"), 9}}}},

		{"10.4 at the limit", with(client, 5), wire(`c1 07 f2 48 cd c9 c9 07 00`), verdict{events: []event{hello(9)}}},
		{"10.4 one above, at the byte that says so", with(client, 4), wire(`c1 07 f2 48 cd c9 c9 07 00`), verdict{err: ErrTooBig, at: 7}},
		{"10.4 a bomb", with(client, 1000), bomb, verdict{err: ErrTooBig, at: 20}},
		{"10.4 announced too long", with(client, 80), wire(`c2 7e 04 5b`), verdict{err: ErrTooBig, at: 3}},
		{"10.4 announced too long in fragments", with(client, 80), join(wire(`42 7e 04 50`), bytes.Repeat(wire(`00 00 00 ff ff`), 220), zero(4), wire(`00 0b`)),
			verdict{err: ErrTooBig, at: 1109}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "10.4 a bomb" {
				tc.want.at = judge(tc.cfg, tc.in).at
				if tc.want.at > len(bomb)/5 {
					t.Errorf("found out after %d of %d bytes", tc.want.at, len(bomb))
				}
			}
			feedEveryWay(t, tc.cfg, tc.in, tc.want)
			compare(t, judge(tc.cfg, tc.in), tc.want, tc.want.at+1)
		})
	}
}

func zero(n int) []byte { return make([]byte, n) }

// A bomb of 1:1000 is refused in the memory of the limit, and all of that is given back.
func TestBombMemory(t *testing.T) {
	cfg := inflating(client)
	bomb := compressed(client, Binary, string(make([]byte, 16*cfg.MaxMessage)))
	var r Reader
	most := 0
	for i := range bomb {
		_, _, ok, err := r.Next(&cfg, bomb[i:i+1])
		most = max(most, r.Buffered())
		if err != nil {
			if err != ErrTooBig || most > maxHeldInflating(cfg, cfg.MaxMessage) || r.Buffered() != 0 {
				t.Errorf("%v, %d bytes held, then %d", err, most, r.Buffered())
			}
			return
		}
		if ok {
			t.Fatal("the bomb went through")
		}
	}
	t.Fatal("no error")
}

// Context takeover (RFC 7692 section 7.1.1): messages refer to those before them, but not to the uncompressed ones among
// them, however they are cut.
func TestReaderTakeover(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 7692))
	p := deflate.Params{ServerMaxWindowBits: 10, ClientMaxWindowBits: 15}
	for round := range 50 {
		sender, receiver := deflate.NewContext(p, true), deflate.NewContext(p, false)
		var c deflate.Compressor
		var in []byte
		var want []event
		references := 0
		for i := range 30 {
			text := []byte(strings.Repeat("a message like the others, ", 5+rng.IntN(5)) + string(rune('a'+i)))
			if rng.IntN(4) == 0 {
				in = AppendFrame(in, Text, true, text)
				want = append(want, event{Text, false, text, len(in)})
				continue
			}
			out, ok := c.Append(nil, text, p.SendBits(true), sender.Out())
			if !ok {
				t.Fatal("not shorter")
			}
			if len(out) < 25 {
				references++
			}
			sender.Out().Add(text)
			cut := rng.IntN(len(out) + 1)
			in = AppendHeaderRSV1(in, Text, false, cut, false, [4]byte{})
			in = append(in, out[:cut]...)
			in = AppendFrame(in, Ping, true, nil)
			want = append(want, event{Ping, false, nil, len(in)})
			in = AppendFrame(in, Continuation, true, out[cut:])
			want = append(want, event{Text, true, text, len(in)})
		}
		if references < 5 {
			t.Fatal("no message refers to another")
		}
		cfg := inflating(client)
		var r Reader
		for at, n := 0, 0; at < len(in); at += n {
			chunk := bytes.Clone(in[at:min(len(in), at+1+rng.IntN(1+round*10))])
			m, used, ok, err := r.NextWith(&cfg, receiver.In(), chunk)
			if err != nil {
				t.Fatal(err)
			}
			n = used
			if ok {
				if len(want) == 0 || m.Op != want[0].op || m.RSV1 != want[0].rsv1 || !bytes.Equal(m.Payload, want[0].payload) || at+n != want[0].end {
					t.Fatalf("%v %q ending at %d, want %v", m.Op, m.Payload, at+n, want[0])
				}
				want = want[1:]
			}
			r.Release()
		}
		if len(want) > 0 || r != (Reader{}) {
			t.Fatalf("%d messages missing, %d bytes held", len(want), r.Buffered())
		}
	}
	var r Reader
	cfg := inflating(client)
	if _, n, ok, err := r.NextWith(&cfg, deflate.NewContext(p, true).In(), nil); n != 0 || ok || err != nil || r != (Reader{}) {
		t.Error("nothing is not nothing")
	}
}

func BenchmarkInflatingReader(b *testing.B) {
	text := strings.Repeat(`{"type":"chat.message","text":"hello there"},`, 23)
	in := compressed(server, Text, text)
	cfg := inflating(server)
	buf := make([]byte, len(in))
	var r Reader
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, in)
		if m, _, _, err := r.Next(&cfg, buf); err != nil || len(m.Payload) != len(text) {
			b.Fatal(err)
		}
		r.Release()
	}
}
