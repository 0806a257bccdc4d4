package conformance

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

const deflateName = "permessage-deflate"

// Parameters of permessage-deflate, RFC 7692 section 7.1.
const (
	serverFresh  = "server_no_context_takeover"
	clientFresh  = "client_no_context_takeover"
	serverWindow = "server_max_window_bits"
	clientWindow = "client_max_window_bits"
)

// browserOffer is what browsers offer, and what servers of other makes can be relied on to agree to.
const browserOffer = clientWindow

// deflateOffers are offers of permessage-deflate that must be agreed to by whoever speaks it, that may be, and that must
// be declined: RFC 7692 sections 5.1 and 7.1.
var deflateOffers = func() (o struct{ must, may, not []string }) {
	o.must = []string{"", "client_max_window_bits", "client_max_window_bits=15", "client_no_context_takeover", "server_no_context_takeover",
		"server_no_context_takeover; client_no_context_takeover", "client_no_context_takeover; server_no_context_takeover; client_max_window_bits"}
	for bits := 8; bits <= 15; bits++ {
		if bits < 15 { // else it is above
			o.may = append(o.may, fmt.Sprintf("client_max_window_bits=%d", bits))
		}
		o.may = append(o.may, fmt.Sprintf("server_max_window_bits=%d", bits),
			fmt.Sprintf("server_max_window_bits=%d; client_max_window_bits", bits), fmt.Sprintf("server_max_window_bits=%d; server_no_context_takeover", bits),
			fmt.Sprintf("client_max_window_bits=%d; client_no_context_takeover", bits), fmt.Sprintf("client_max_window_bits=%d; server_max_window_bits=%d", bits, 23-bits))
	}
	o.may = append(o.may, `server_max_window_bits="10"`, `client_max_window_bits="15"`, "server_max_window_bits = 12")
	o.not = []string{"bogus", "bogus=1", "client_max_window_bits; bogus", "x_no_context_takeover", "Server_No_Context_Takeover=1",
		"server_no_context_takeover=1", "server_no_context_takeover=true", "client_no_context_takeover=0", `client_no_context_takeover="yes"`,
		"server_max_window_bits", "server_max_window_bits=7", "server_max_window_bits=16", "server_max_window_bits=0", "server_max_window_bits=08", "server_max_window_bits=+9",
		"server_max_window_bits=-9", "server_max_window_bits=ten", "server_max_window_bits=0x0a", "server_max_window_bits=10.0", "server_max_window_bits=100",
		"client_max_window_bits=7", "client_max_window_bits=16", "client_max_window_bits=0", "client_max_window_bits=09", "client_max_window_bits=-1", "client_max_window_bits=x",
		"server_no_context_takeover; server_no_context_takeover", "client_no_context_takeover; client_no_context_takeover", "client_max_window_bits; client_max_window_bits",
		"client_max_window_bits; client_max_window_bits=10", "server_max_window_bits=10; server_max_window_bits=10", "server_max_window_bits=10; server_max_window_bits=11"}
	return o
}()

func deflateOffer(params string) string {
	if params == "" {
		return deflateName
	}
	return deflateName + "; " + params
}

// Deflate returns the cases on permessage-deflate, for the suite as the client of a server that speaks it (Target.Inflates)
// and whose message limit is limit [bytes, of inflated payload].
func Deflate(limit int) []Case {
	t := table{section: "RFC 7692 7.1", usual: browserOffer}
	for _, params := range deflateOffers.must {
		t.offered(params, deflateOffer(params), agreed(true))
	}
	for _, params := range deflateOffers.may {
		t.offered(params, deflateOffer(params))
	}
	for _, params := range deflateOffers.not {
		t.offered("not "+params, deflateOffer(params), agreed(false))
		t.offered("not "+params+", but the next", deflateOffer(params)+", "+deflateName, agreed(true))
	}
	t.offered("another name first", "x-unknown, "+deflateName, agreed(true))
	t.offered("another name", "x-webkit-deflate-frame, permessage-bzip2", agreed(false))
	t.offered("two good ones", deflateOffer("client_max_window_bits")+", "+deflateName, agreed(true))
	t.messages(browserOffer, browserOffer+"; "+clientFresh+"; "+serverFresh)
	t.violations(limit)
	return t.cases
}

// deflates gives a case compression: params are what the suite offers as a client, or adds to its answer as a server.
func (t *table) deflates(c *Case, params string) {
	if t.server {
		c.agrees = grants(params)
	} else {
		c.offer = deflateOffer(params)
	}
}

// offered adds a case that offers, and then exchanges messages under whatever was agreed.
func (t *table) offered(name, offer string, steps ...step) {
	for _, n := range []int{300, 40_000} { // below and above every window
		t.add(fmt.Sprintf("deflate: offer %q, messages of %d bytes", name, n), good(slices.Concat(steps, exchange(n))...)...).offer = offer
	}
}

// exchange is some messages of n bytes, compressed if that was agreed, and others that are not.
func exchange(n int) (all []step) {
	for i, level := range []int{flate.DefaultCompression, flate.DefaultCompression, farthest, farthest} {
		m := message([]byte{opText, opBinary}[i%2], repetitive(n))
		all = append(all, sendDeflated(whole, 1<<20, level, m), want(m))
	}
	if n < 1000 {
		all = append(all, beyond)
	}
	plain := text("not compressed")
	return append(all, send(whole, plain, ping("1")), want(plain, pong("1")))
}

// beyond exchanges messages that repeat what lies just beyond the endpoint's window, in the message before and in the
// same one: it must send them in another way, or not refer to it.
func beyond(s *session) error {
	bits, _ := s.agreed.direction(s.client)
	window := 1 << bits
	x, run := string(content(opText, 64)), strings.Repeat // runs, because a compressor skips more of what it cannot compress
	for _, p := range []string{x + run("a", window*6/10), run("b", window/2) + x, x + run("c", window*11/10) + x} {
		m := text(p)
		if err := sendDeflated(whole, 1<<20, flate.DefaultCompression, m)(s); err != nil {
			return err
		}
		if err := want(m)(s); err != nil {
			return err
		}
	}
	return nil
}

// agreed checks whether the offer was agreed to.
func agreed(want bool) step {
	return func(s *session) error {
		if s.t.Inflates && s.agreed.on != want {
			return fmt.Errorf("want the offer agreed to: %t, got %t", want, s.agreed.on)
		}
		return nil
	}
}

// repetitive is n bytes of text that compress well, and whose repetitions are up to 32 KiB apart.
func repetitive(n int) []byte {
	rnd := rand.New(rand.NewPCG(Seed, 7))
	b := make([]byte, 0, n+20)
	for len(b) < n {
		if back := 1 + rnd.IntN(32<<10); back < len(b)-20 && rnd.IntN(3) > 0 {
			b = append(b, b[len(b)-back:len(b)-back+20]...)
			continue
		}
		b = append(b, 'a'+byte(rnd.IntN(26)))
	}
	return b[:n]
}

// farthest is a level beside those of compress/flate: repetitions are taken from as far back as may be.
const farthest = 10

// compress compresses the payload of a message (RFC 7692 section 7.2.1), in the window and with the context that were
// agreed. compress/flate has one size of window; in a smaller one all levels but that of no compression are farthest.
func (s *session) compress(level int, p []byte) []byte {
	bits, alone := s.agreed.direction(!s.client)
	if bits < 15 && level != flate.NoCompression {
		level = farthest
	}
	if s.packer == nil || alone {
		s.packer = &packer{window: 1 << bits}
	}
	if level == farthest {
		s.deflater = nil // what it knows is no longer the last
		return s.packer.message(p)
	}
	s.packer.before = lastOf(append(s.packer.before, p...), s.packer.window)
	if s.deflater == nil || alone || s.deflaterLevel != level {
		s.deflated.Reset()
		s.deflater, _ = flate.NewWriter(&s.deflated, level) // the levels are constants of that package
		s.deflaterLevel = level
	}
	begin := s.deflated.Len()
	_, _ = s.deflater.Write(p) // a bytes.Buffer takes everything
	_ = s.deflater.Flush()
	return bytes.TrimSuffix(bytes.Clone(s.deflated.Bytes()[begin:]), []byte{0, 0, 0xff, 0xff})
}

// sendDeflated compresses a message, when that was agreed, and sends it in fragments of size.
func sendDeflated(how chop, size, level int, m frame) step {
	return func(s *session) error {
		op := m.first & 0xf
		if !s.agreed.on {
			return send(how, split(op, m.payload, size)...)(s)
		}
		frames := split(op, s.compress(level, m.payload), size)
		frames[0].first |= rsv1
		return send(how, frames...)(s)
	}
}

// messages are messages of all sizes, compressed in all ways that there are: RFC 7692 section 7.2.
func (t *table) messages(variants ...string) {
	t.section = "RFC 7692 7.2"
	for _, params := range variants {
		name := func(format string, args ...any) string {
			return fmt.Sprintf("deflate: %q: ", params) + fmt.Sprintf(format, args...)
		}
		add := func(name string, steps ...step) *Case {
			c := t.add(name, good(steps...)...)
			t.deflates(c, params)
			return c
		}
		for _, d := range dataOps {
			for _, n := range []int{0, 1, 16, 125, 126, 127, 1024, 8192, 65535, 65536, 300_000} {
				for _, size := range []int{1 << 20, 1000, 7, 1} {
					if n/size > 20_000 {
						continue
					}
					m, random := message(d.op, repetitive(n)), message(d.op, content(d.op, n))
					add(name("%s of %d bytes in fragments of %d", d.name, n, size),
						sendDeflated(whole, size, 6, m), want(m), sendDeflated(whole, size, 6, m), want(m), sendDeflated(whole, size, 6, random), want(random)).Heavy = n > 1<<17
				}
				m := message(d.op, repetitive(n))
				add(name("%s of %d bytes, chopped", d.name, n), sendDeflated(randomly(50), 1<<20, 6, m), want(m), sendDeflated(octets, 50, 6, m), want(m)).Heavy = n > 1<<17
				for _, level := range []int{flate.NoCompression, flate.HuffmanOnly, flate.BestSpeed, flate.BestCompression, farthest} {
					add(name("%s of %d bytes at level %d", d.name, n, level), sendDeflated(whole, 1<<20, level, m), want(m), sendDeflated(whole, 300, level, m), want(m)).Heavy = n > 1<<17
				}
			}
			var steps []step
			for i := range 100 {
				m := message(d.op, repetitive(i*37))
				one := sendDeflated(whole, 500, 6, m)
				if i%3 == 2 {
					one = send(whole, m)
				}
				steps = append(steps, one, want(m))
			}
			add(name("100 messages of %s, compressed and not", d.name), steps...)
			steps = nil
			for i := range 40 { // the windows slide, and both ways of compressing find what is at their ends
				m := message(d.op, repetitive(3000 + i*97)[i*31:])
				steps = append(steps, sendDeflated(whole, 1<<20, []int{farthest, 6}[i/20], m), want(m))
			}
			add(name("40 messages of %s, each one repeating those before", d.name), steps...)
			large := message(d.op, repetitive(1<<20))
			add(name("%s of 1 MiB", d.name), sendDeflated(whole, 1<<30, 6, large), want(large)).Heavy = true
		}
		// The examples of RFC 7692 section 7.2.3, and what they stand for: "Hello".
		hello := text("Hello")
		for _, e := range []struct{ name, payload string }{
			{"one block", "\xf2\x48\xcd\xc9\xc9\x07\x00"}, {"no compression", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"}, {"a final block", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"},
			{"two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"}, {"an empty block more", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff\x00"},
			{"empty blocks first", "\x00\x00\x00\xff\xff\x00\x00\x00\xff\xff\xf2\x48\xcd\xc9\xc9\x07\x00"},
		} {
			for _, size := range []int{100, 3, 1} {
				frames := split(opText, []byte(e.payload), size)
				frames[0].first |= rsv1
				add(name("%s in fragments of %d", e.name, size), agreed(true), send(whole, frames...), want(hello), send(octets, frames...), want(hello))
			}
		}
		add(name("the second Hello of the RFC, with context"), agreed(true), send(whole, newFrame(fin|rsv1|opText, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00"))), want(hello), func(s *session) error {
			p := "\xf2\x00\x11\x00\x00" // 7.2.3.2
			if _, alone := s.agreed.direction(!s.client); alone {
				p = "\xf2\x48\xcd\xc9\xc9\x07\x00"
			}
			return send(whole, newFrame(fin|rsv1|opText, []byte(p)))(s)
		}, want(hello))
		add(name("an empty message"), agreed(true), send(whole, newFrame(fin|rsv1|opText, []byte{0})), want(text("")))
		add(name("empty fragments"), agreed(true), send(whole, newFrame(rsv1|opText, nil), middle([]byte("\xf2\x48\xcd")), middle(nil), middle([]byte("\xc9\xc9\x07\x00")), last(nil)), want(hello))
		add(name("pings between fragments"), agreed(true), send(whole, newFrame(rsv1|opText, []byte("\xf2\x48\xcd")), ping("1")), want(pong("1")), send(whole, middle([]byte("\xc9\xc9")), ping("2"), last([]byte("\x07\x00"))), want(hello, pong("2")))
		add(name("a code point across fragments"), agreed(true), func(s *session) error {
			p := s.compress(flate.NoCompression, []byte("世"))
			return send(whole, newFrame(rsv1|opText, p[:6]), last(p[6:]))(s)
		}, want(text("世")))
	}
}

// flushed is the compressed form of p as the beginning of a message, all of it readable.
func flushed(p []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.DefaultCompression)
	_, _ = w.Write(p)
	_ = w.Flush()
	return b.Bytes()
}

// deflated is the compressed form of p as a whole message: RFC 7692 section 7.2.1 takes the last four bytes off.
func deflated(p []byte) []byte { return bytes.TrimSuffix(flushed(p), []byte{0, 0, 0xff, 0xff}) }

// violations are what must end the connection, or stay within its limit: RFC 7692 sections 6 and 8, RFC 6455 section 8.1.
func (t *table) violations(limit int) {
	t.section = "RFC 7692 6"
	hello := []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")
	add := func(name string, code int, steps ...step) {
		t.deflates(t.add("deflate: "+name, bad(code, append([]step{agreed(true)}, steps...)...)...), t.usual)
	}
	add("RSV1 on a continuation", 1002, send(whole, newFrame(rsv1|opText, hello[:3]), newFrame(fin|rsv1|opContinuation, hello[3:])))
	add("RSV1 on a continuation of a message without it", 1002, send(whole, first(opText, []byte("a")), newFrame(fin|rsv1|opContinuation, hello)))
	add("RSV1 on a continuation of nothing", 1002, send(whole, newFrame(fin|rsv1|opContinuation, hello)))
	for _, c := range []struct {
		name string
		op   byte
	}{{"ping", opPing}, {"pong", opPong}, {"close", opClose}} {
		add("RSV1 on a "+c.name, 1002, send(whole, newFrame(fin|rsv1|c.op, nil)))
		add("RSV1 on a "+c.name+" between fragments", 1002, send(whole, newFrame(rsv1|opText, hello[:3]), newFrame(fin|rsv1|c.op, nil)))
	}
	add("RSV2", 1002, send(whole, newFrame(fin|rsv2|opText, hello)))
	add("RSV1 and RSV3", 1002, send(whole, newFrame(fin|rsv1|rsv3|opText, hello)))
	add("RSV1 on a reserved opcode", 1002, send(whole, newFrame(fin|rsv1|3, hello)))
	none := t.add("deflate: RSV1, not agreed", bad(1002, agreed(false), send(whole, newFrame(fin|rsv1|opText, hello)))...)
	if !t.server {
		none.offer = deflateOffer("bogus")
	}

	t.section = "RFC 7692 7.2.2"
	for _, v := range []struct{ name, payload string }{
		{"a block of type 3", "\x07"}, {"a stored block with a wrong length", "\x00\x05\x00\x05\x00Hello\x00"}, {"a distance too far back", "\x02\x13\x00\x00"}, {"rubbish", strings.Repeat("\xff", 100)},
		{"half a block", "\xf2\x48\xcd"}, {"a stored block cut short", "\x00\x05\x00\xfa\xff\x48\x65"}, {"half of a dynamic header", "\x04\xc0"},
	} {
		for _, d := range dataOps {
			c := t.add(fmt.Sprintf("deflate: %s in %s", v.name, d.name), agreed(true), send(whole, newFrame(fin|rsv1|d.op, []byte(v.payload))), wantCloseOf(1002, 1007), end)
			t.deflates(c, t.usual)
		}
	}

	t.section = "8.1" // inside the message, too, with the first bad byte
	for _, v := range []struct{ name, text string }{{"a stray continuation", "abc\x80"}, {"a surrogate", "κόσμε\xed\xa0"}, {"FF after 100 KiB", string(content(opText, 100<<10)) + "\xff"}} {
		p := flushed([]byte(v.text))
		add("text with "+v.name, 1007, send(whole, newFrame(fin|rsv1|opText, deflated([]byte(v.text+" and more")))))
		add("text with "+v.name+", before the end of its message", 1007, send(whole, newFrame(rsv1|opText, p)))
		add("text with "+v.name+", before the end of its frame", 1007, send(whole, newFrame(fin|rsv1|opText, p).cutOf(len(p)+100)))
	}
	add("text that ends inside a code point", 1007, send(whole, newFrame(fin|rsv1|opText, deflated([]byte("abc\xe4\xb8")))))
	m := message(opBinary, []byte("\xff\xfe"))
	t.deflates(t.add("deflate: binary that is not UTF-8", good(sendDeflated(whole, 100, 6, m), want(m))...), t.usual)

	t.section = "10.4" // what it inflates to counts against the limit
	at := func() []byte { return deflated(make([]byte, limit)) }
	bomb := func() []byte { return deflated(make([]byte, 4*limit)) }
	later := func(name string, steps func() []step) *Case {
		c := t.later("deflate: "+name, steps)
		t.deflates(c, t.usual)
		c.Heavy = limit > 1<<20
		return c
	}
	later("a message that inflates to the limit", func() []step {
		return good(agreed(true), send(whole, newFrame(fin|rsv1|opBinary, at())), want(message(opBinary, make([]byte, limit))))
	})
	later("a message that inflates to a byte above the limit", func() []step {
		return bad(1009, agreed(true), send(whole, newFrame(fin|rsv1|opBinary, deflated(make([]byte, limit+1)))))
	})
	later("a bomb", func() []step { return bad(1009, agreed(true), send(whole, newFrame(fin|rsv1|opBinary, bomb()))) })
	later("a bomb that does not end its message", func() []step { return bad(1009, agreed(true), send(whole, newFrame(rsv1|opBinary, bomb()))) })
	later("a bomb in fragments", func() []step {
		frames := split(opText, bomb(), 100)
		frames[0].first |= rsv1
		return bad(1009, agreed(true), send(whole, frames...))
	})
}

// wantCloseOf waits for a Close with one of these codes, where no RFC says which.
func wantCloseOf(codes ...int) step {
	return func(s *session) error {
		got, err := s.next()
		if err != nil {
			return err
		}
		for _, code := range codes {
			if got.end == nil && got.op == opClose && bytes.HasPrefix(got.payload, closePayload(code, "")) {
				return nil
			}
		}
		return fmt.Errorf("want a close with one of %v, got %v", codes, got)
	}
}
