package conformance

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A table collects the cases of one section.
type table struct {
	section string
	server  bool   // the suite is the server: where that makes a difference
	usual   string // the parameters that most cases of compression have
	cases   []Case
}

func (t *table) add(name string, steps ...step) *Case {
	return t.later(name, func() []step { return steps })
}

// later adds a case whose steps are made when it is run: they are large.
func (t *table) later(name string, steps func() []step) *Case {
	t.cases = append(t.cases, Case{Name: name, Section: t.section, steps: steps})
	return &t.cases[len(t.cases)-1]
}

// echo sends a frame and wants it back.
func echo(how chop, f frame) []step { return []step{send(how, f), want(f)} }

// Protocol returns the cases on what follows the opening handshake, for both roles.
func Protocol() []Case {
	var all []Case
	for _, cases := range [][]Case{framing(), reserved(), masks(), controls(), fragments(), utf8Cases(), closes(), closeCodes(), sizes(), random()} {
		all = append(all, cases...)
	}
	return all
}

// dataOps are the opcodes of messages, for tables.
var dataOps = []struct {
	op   byte
	name string
}{{opText, "text"}, {opBinary, "binary"}}

// content is n bytes that a message of that opcode may have: text is ASCII with some longer code points in it. It repeats
// itself after an odd number of bytes, for speed.
func content(op byte, n int) []byte {
	const period = 61_001
	rnd := rand.New(rand.NewPCG(Seed, uint64(n)))
	b := make([]byte, 0, n+4)
	for once := min(n, period); len(b) < once; {
		switch {
		case op == opBinary:
			b = append(b, byte(rnd.Uint32()))
		case rnd.IntN(16) == 0 && once-len(b) >= 4:
			b = append(b, []string{"é", "世", "😀"}[rnd.IntN(3)]...)
		default:
			b = append(b, 'a'+byte(rnd.IntN(26)))
		}
	}
	for len(b) < n {
		b = append(b, b[:min(n-len(b), period)]...)
	}
	if op == opText && n > period { // the cut at the end may be inside a code point
		for i := n - 1; i >= n-4 && b[i] >= 0x80; i-- {
			b[i] = '.'
		}
	}
	return b
}

// split is a message in fragments of size bytes. An empty message is one frame.
func split(op byte, p []byte, size int) []frame {
	if len(p) <= size {
		return []frame{message(op, p)}
	}
	frames := []frame{first(op, p[:size])}
	for p = p[size:]; len(p) > size; p = p[size:] {
		frames = append(frames, middle(p[:size]))
	}
	return append(frames, last(p))
}

// framing is section 5.2: lengths at every boundary of their encoding, in pieces of all kinds.
func framing() []Case {
	t := table{section: "5.2"}
	lengths := []int{0, 1, 2, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 1 << 20}
	chops := []struct {
		name string
		how  chop
	}{{"whole", whole}, {"byte by byte", octets}, {"chopped to 7", randomly(7)}, {"chopped to 100", randomly(100)}, {"chopped to 5000", randomly(5000)}}
	for _, d := range dataOps {
		for _, n := range lengths {
			for _, c := range chops {
				if n > 1<<17 && c.how.random > 0 && c.how.random < 1000 {
					continue // 10,000 pieces and more
				}
				t.later(fmt.Sprintf("framing: %s of %d bytes %s", d.name, n, c.name), func() []step {
					return good(echo(c.how, message(d.op, content(d.op, n)))...)
				})
			}
		}
		for _, key := range [][4]byte{{}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1}, {0x80, 0, 0, 0}} {
			p := content(d.op, 300)
			t.add(fmt.Sprintf("framing: %s with key %x", d.name, key), good(send(whole, message(d.op, p).withKey(key)), want(message(d.op, p)))...)
		}
		t.later(fmt.Sprintf("framing: 100 messages of %s in one piece", d.name), func() []step {
			var frames []frame
			for n := range 100 {
				frames = append(frames, message(d.op, content(d.op, n*3)))
			}
			return good(send(whole, frames...), want(frames...))
		})
	}

	// The shortest form of a length must be used. The header alone tells: nothing of the payload is sent.
	for _, d := range []struct {
		first byte
		name  string
	}{{fin | opText, "text"}, {fin | opBinary, "binary"}, {opBinary, "a first fragment"}} {
		for _, long := range []struct {
			form    int
			lengths []int
		}{{2, []int{0, 1, 125}}, {8, []int{0, 1, 125, 126, 127, 65535}}} {
			form := long.form
			for _, n := range long.lengths {
				f := newFrame(d.first, make([]byte, n)).lengthIn(form).cut(0)
				t.add(fmt.Sprintf("framing: %s of %d bytes, length in %d bits", d.name, n, 8*form), bad(1002, send(whole, f))...)
				t.add(fmt.Sprintf("framing: %s of %d bytes, length in %d bits, byte by byte", d.name, n, 8*form), bad(1002, send(octets, f))...)
			}
		}
	}
	for _, long := range [][2]int{{2, 125}, {8, 65535}} {
		form, n := long[0], long[1]
		t.add(fmt.Sprintf("framing: a continuation of %d bytes, length in %d bits", n, 8*form),
			bad(1002, send(whole, first(opBinary, nil), middle(make([]byte, n)).lengthIn(form).cut(0)))...)
	}

	// The top bit of a 64-bit length must be 0; other lengths that nobody takes are too big.
	for _, c := range []struct {
		length uint64
		code   int
	}{{1 << 63, 1002}, {1<<63 + 5, 1002}, {1<<64 - 1, 1002}, {1<<63 - 1, 1009}, {1 << 62, 1009}, {1 << 40, 1009}} {
		for _, how := range []struct {
			name string
			how  chop
		}{{"whole", whole}, {"byte by byte", octets}} {
			t.add(fmt.Sprintf("framing: length %#x %s", c.length, how.name), bad(c.code, send(how.how, message(opBinary, nil).says(c.length)))...)
		}
		t.add(fmt.Sprintf("framing: length %#x of a continuation", c.length),
			bad(c.code, send(whole, first(opBinary, []byte("abc")), last(nil).says(c.length)))...)
	}
	return t.cases
}

// reserved is section 5.2 too: bits and opcodes without a meaning.
func reserved() []Case {
	t := table{section: "5.2"}
	hello := text("hello")
	for bits := 1; bits <= 7; bits++ {
		b := byte(bits << 4)
		name := func(what string) string {
			return fmt.Sprintf("reserved: bits %d%d%d %s", bits>>2, bits>>1&1, bits&1, what)
		}
		t.add(name("on text"), bad(1002, send(whole, newFrame(fin|b|opText, []byte("x"))))...)
		t.add(name("on text, only its header"), bad(1002, send(octets, newFrame(fin|b|opText, []byte("x")).cut(0)))...)
		t.add(name("on empty text"), bad(1002, send(whole, newFrame(fin|b|opText, nil)))...)
		t.add(name("on binary"), bad(1002, send(whole, newFrame(fin|b|opBinary, []byte("x"))))...)
		t.add(name("behind a message"), bad(1002, send(whole, hello, newFrame(fin|b|opBinary, nil)), want(hello))...)
		t.add(name("behind a message, byte by byte"), bad(1002, send(octets, hello, newFrame(fin|b|opBinary, nil)), want(hello))...)
		t.add(name("on a first fragment"), bad(1002, send(whole, newFrame(b|opText, []byte("x"))))...)
		t.add(name("on a continuation"), bad(1002, send(whole, first(opText, []byte("x")), newFrame(b|opContinuation, nil)))...)
		t.add(name("on the last fragment"), bad(1002, send(whole, first(opText, []byte("x")), newFrame(fin|b|opContinuation, nil)))...)
		t.add(name("on a ping"), bad(1002, send(whole, newFrame(fin|b|opPing, nil)))...)
		t.add(name("on a pong"), bad(1002, send(whole, newFrame(fin|b|opPong, nil)))...)
		t.add(name("on a ping between fragments"), bad(1002, send(whole, first(opText, []byte("x")), newFrame(fin|b|opPing, nil)))...)
		t.add(name("on a close"), bad(1002, send(whole, newFrame(fin|b|opClose, closePayload(1000, ""))))...)
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		name := func(what string) string { return fmt.Sprintf("reserved: opcode %d %s", op, what) }
		t.add(name("empty"), bad(1002, send(whole, newFrame(fin|op, nil)))...)
		t.add(name("with payload"), bad(1002, send(whole, newFrame(fin|op, []byte("reserved"))))...)
		t.add(name("only its header"), bad(1002, send(octets, newFrame(fin|op, []byte("reserved")).cut(0)))...)
		t.add(name("not final"), bad(1002, send(whole, newFrame(op, []byte("x"))))...)
		t.add(name("of 300 bytes"), bad(1002, send(whole, newFrame(fin|op, make([]byte, 300)).cut(0)))...)
		t.add(name("behind a message"), bad(1002, send(whole, hello, newFrame(fin|op, nil)), want(hello))...)
		t.add(name("behind a message and a ping, byte by byte"), bad(1002, send(octets, hello, ping("?"), newFrame(fin|op, nil)), want(hello, pong("?")))...)
		t.add(name("between fragments"), bad(1002, send(whole, first(opText, []byte("x")), newFrame(fin|op, nil)))...)
		t.add(name("after a ping was answered between fragments"), bad(1002, send(whole, first(opText, []byte("x")), ping("1")), want(pong("1")), send(whole, newFrame(fin|op, nil)))...)
	}
	return t.cases
}

// masks is section 5.1: frames of a client are masked, frames of a server are not.
func masks() []Case {
	t := table{section: "5.1"}
	for _, c := range []struct {
		name string
		f    frame
	}{
		{"text", text("hello")}, {"empty text", text("")}, {"binary", message(opBinary, []byte{1, 2, 3})}, {"ping", ping("")},
		{"pong", pong("x")}, {"close", closing(1000, "")}, {"empty close", closeBody(nil)}, {"first fragment", first(opText, []byte("x"))},
		{"200 bytes", message(opBinary, make([]byte, 200))}, {"70,000 bytes", message(opBinary, make([]byte, 70000))},
	} {
		t.add("mask: the wrong way: "+c.name, bad(1002, send(whole, c.f.wrongMask().cut(0)))...)
		t.add("mask: the wrong way: "+c.name+", byte by byte, behind a message", bad(1002, send(octets, text("ok"), c.f.wrongMask().cut(0)), want(text("ok")))...)
	}
	t.add("mask: the wrong way: a continuation", bad(1002, send(whole, first(opText, []byte("x")), last(nil).wrongMask()))...)
	t.add("mask: the wrong way: a ping between fragments", bad(1002, send(whole, first(opText, []byte("x")), ping("").wrongMask()))...)
	return t.cases
}

// controls is section 5.5: pings, pongs, and what no control frame may be.
func controls() []Case {
	t := table{section: "5.5"}
	for _, n := range []int{0, 1, 8, 124, 125} {
		for _, c := range []struct {
			name string
			how  chop
		}{{"whole", whole}, {"byte by byte", octets}, {"chopped", randomly(20)}} {
			p := string(content(opBinary, n)) // need not be UTF-8
			t.add(fmt.Sprintf("control: ping of %d bytes %s", n, c.name), good(send(c.how, ping(p)), want(pong(p)))...)
			t.add(fmt.Sprintf("control: pong of %d bytes %s", n, c.name), good(send(c.how, pong(p), ping("?")), want(pong("?")))...)
		}
	}
	t.add("control: every byte in pings", good(send(whole, ping("\x00\x7f\x80\xff\xfe\xc3\x28")), want(pong("\x00\x7f\x80\xff\xfe\xc3\x28")))...)
	for _, c := range []struct {
		op   byte
		name string
	}{{opPing, "ping"}, {opPong, "pong"}, {opClose, "close"}} {
		for _, n := range []int{126, 127, 65535, 65536} {
			f := newFrame(fin|c.op, append(closePayload(1000, ""), make([]byte, n-2)...))
			t.add(fmt.Sprintf("control: %s of %d bytes", c.name, n), bad(1002, send(whole, f.cut(0)))...)
			t.add(fmt.Sprintf("control: %s of %d bytes, byte by byte, behind a message", c.name, n), bad(1002, send(octets, text("ok"), f.cut(0)), want(text("ok")))...)
		}
		for _, form := range []int{2, 8} {
			f := newFrame(fin|c.op, closePayload(1000, "")).lengthIn(form)
			t.add(fmt.Sprintf("control: %s of 2 bytes, length in %d bits", c.name, 8*form), bad(1002, send(whole, f.cut(0)))...)
		}
		t.add("control: "+c.name+" not final", bad(1002, send(whole, newFrame(c.op, nil)))...)
		t.add("control: "+c.name+" not final, only its header", bad(1002, send(octets, newFrame(c.op, closePayload(1000, "")).cut(0)))...)
		t.add("control: "+c.name+" in two fragments", bad(1002, send(octets, newFrame(c.op, closePayload(1000, ""))))...)
		t.add("control: "+c.name+" not final between fragments", bad(1002, send(whole, first(opText, []byte("x")), newFrame(c.op, nil)))...)
	}

	var pings, pongs []frame
	for i := range 1000 {
		p := fmt.Sprint("ping ", i)
		pings, pongs = append(pings, ping(p)), append(pongs, pong(p))
	}
	t.add("control: 10 pings", good(send(whole, pings[:10]...), want(pongs[:10]...))...)
	t.add("control: 10 pings byte by byte", good(send(octets, pings[:10]...), want(pongs[:10]...))...)
	t.add("control: 1000 pings at once", good(send(whole, pings...), want(pongs...))...)
	t.add("control: 1000 pings chopped", good(send(randomly(50), pings...), want(pongs...))...)
	t.add("control: unsolicited pongs", good(send(whole, pong(""), pong("x"), pong(strings.Repeat("y", 125)), text("a")), want(text("a")))...)
	t.add("control: a pong of what was pinged before", good(send(whole, ping("1")), want(pong("1")), send(whole, pong("1"), ping("2")), want(pong("2")))...)
	var mixed, answers []frame
	for i := range 100 {
		m := message([]byte{opText, opBinary}[i%2], content(opText, i*7))
		mixed, answers = append(mixed, m, pings[i], pong("?")), append(answers, m, pongs[i])
	}
	t.add("control: pings and messages in turn", good(send(whole, mixed...), want(answers...))...)
	t.add("control: pings and messages in turn, chopped", good(send(randomly(30), mixed...), want(answers...))...)
	for _, n := range []int{70000, 1 << 20} {
		t.later(fmt.Sprintf("control: a ping behind %d bytes", n), func() []step {
			m := message(opBinary, content(opBinary, n))
			return good(send(whole, m, ping("?")), want(m, pong("?")))
		})
	}
	return t.cases
}
