package conformance

import (
	"fmt"
	"strings"
)

// closeCodes is section 7.4: which codes a Close frame may have.
func closeCodes() []Case {
	t := table{section: "7.4"}
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3333, 3999, 4000, 4001, 4998, 4999} {
		t.add(fmt.Sprintf("code: %d", code), send(whole, closing(code, "")), wantClose(code), end)
		t.add(fmt.Sprintf("code: %d with a reason, byte by byte", code), send(octets, closing(code, "because")), wantClose(code), end)
	}
	for _, code := range []int{0, 1, 2, 10, 100, 256, 500, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1099, 1100, 1500, 1999, 2000, 2001, 2500, 2998, 2999, 5000, 5001, 9999, 10000, 32768, 59395, 65535} {
		t.add(fmt.Sprintf("code: %d", code), bad(1002, send(whole, closing(code, "")))...)
		t.add(fmt.Sprintf("code: %d with a reason, byte by byte", code), bad(1002, send(octets, closing(code, "because")))...)
		t.add(fmt.Sprintf("code: %d behind a message", code), bad(1002, send(whole, text("a"), closing(code, "")), want(text("a")))...)
	}
	return t.cases
}

// closes is sections 5.5.1 and 7: the close handshake, and what may stand around it.
func closes() []Case {
	t := table{section: "5.5.1"}
	t.add("close: empty", send(whole, closeBody(nil)), wantClose(0), end)
	t.add("close: empty, byte by byte", send(octets, closeBody(nil)), wantClose(0), end)
	t.add("close: empty, behind a message", send(whole, text("a"), closeBody(nil)), want(text("a")), wantClose(0), end)
	for _, b := range []byte{0, 3, 0xe8, 0xff} {
		t.add(fmt.Sprintf("close: a body of the byte %#x", b), bad(1002, send(whole, closeBody([]byte{b})))...)
	}
	t.add("close: a body of one byte, byte by byte", bad(1002, send(octets, closeBody([]byte{3})))...)
	for _, n := range []int{1, 2, 100, 122, 123} {
		t.add(fmt.Sprintf("close: a reason of %d bytes", n), send(whole, closing(1000, strings.Repeat("r", n))), wantClose(1000), end)
		t.add(fmt.Sprintf("close: a reason of %d bytes, chopped", n), send(randomly(9), closing(4000, strings.Repeat("r", n))), wantClose(4000), end)
	}
	for _, n := range []int{124, 125, 1000} {
		t.add(fmt.Sprintf("close: a reason of %d bytes", n), bad(1002, send(whole, closing(1000, strings.Repeat("r", n)).cut(0)))...)
	}
	for _, v := range validTexts {
		t.add("close: reason "+v.name, send(whole, closing(1000, v.text)), wantClose(1000), end)
	}
	t.add("close: a reason of 123 bytes in long code points", send(whole, closing(1000, strings.Repeat("世", 41))), wantClose(1000), end)
	for _, v := range invalidTexts {
		t.add("close: reason "+v.name, bad(1007, send(whole, closing(1000, v.text)))...)
	}
	for _, v := range truncatedTexts {
		t.add("close: reason ends with "+v.name, bad(1007, send(octets, closing(3000, v.text)))...)
	}

	t.section = "7"
	t.add("close: at once", good()...)
	for _, c := range []struct {
		name string
		how  chop
	}{{"in one piece", whole}, {"byte by byte", octets}, {"chopped", randomly(10)}} {
		name := func(what string) string { return fmt.Sprintf("close: %s, %s", what, c.name) }
		bye := closing(1000, "bye")
		// Whatever follows a Close is not looked at (section 5.5.1: nothing may be sent after it).
		t.add(name("text behind it"), send(c.how, bye, text("late")), wantClose(1000), end)
		t.add(name("messages and pings behind it"), send(c.how, text("a"), bye, text("late"), message(opBinary, make([]byte, 3000)), ping("late")), want(text("a")), wantClose(1000), end)
		t.add(name("a ping behind it"), send(c.how, bye, ping("late")), wantClose(1000), end)
		t.add(name("a pong behind it"), send(c.how, bye, pong("late")), wantClose(1000), end)
		t.add(name("a second close behind it"), send(c.how, bye, bye), wantClose(1000), end)
		t.add(name("another close behind it"), send(c.how, bye, closing(4000, "again")), wantClose(1000), end)
		t.add(name("an empty close behind it"), send(c.how, bye, closeBody(nil)), wantClose(1000), end)
		t.add(name("a bad close behind it"), send(c.how, bye, closing(1005, "")), wantClose(1000), end)
		t.add(name("a reserved opcode behind it"), send(c.how, bye, newFrame(fin|3, []byte("x"))), wantClose(1000), end)
		t.add(name("a frame masked the wrong way behind it"), send(c.how, bye, text("x").wrongMask()), wantClose(1000), end)
		t.add(name("text that is not UTF-8 behind it"), send(c.how, bye, text("\xff")), wantClose(1000), end)
		t.add(name("rubbish behind it"), send(c.how, bye), sendRaw(c.how, content(opBinary, 2000)), wantClose(1000), end)
		t.add(name("a close behind a violation"), bad(1002, send(c.how, newFrame(fin|3, nil), bye))...)
		t.add(name("messages behind a violation"), bad(1002, send(c.how, text("a"), newFrame(fin|3, nil), text("b"), ping("c")), want(text("a")))...)
		t.add(name("messages, a ping and the close"), send(c.how, text("a"), message(opBinary, nil), ping("p"), bye), want(text("a"), message(opBinary, nil), pong("p")), wantClose(1000), end)
	}
	t.later("close: behind a message of 1 MiB", func() []step {
		m := message(opBinary, content(opBinary, 1<<20))
		return []step{send(whole, m, closing(1001, "")), want(m), wantClose(1001), end}
	})
	t.add("close: a pong behind the end of both", send(whole, closing(1000, "")), wantClose(1000), send(whole, pong("late")), end)

	t.section = "7.1.1" // TCP ends without a close handshake
	t.add("end: of TCP at once", halfClose)
	t.add("end: of TCP behind a message", send(whole, text("a")), want(text("a")), halfClose)
	t.add("end: of TCP with a message before it", send(whole, text("a"), ping("b")), want(text("a"), pong("b")), halfClose)
	t.add("end: of TCP inside a header", send(whole, text("a")), want(text("a")), sendRaw(whole, []byte{fin | opText}), halfClose)
	t.add("end: of TCP inside a frame", send(whole, text("abc").cut(1)), halfClose)
	t.add("end: of TCP between fragments", send(whole, first(opText, []byte("a")), ping("?")), want(pong("?")), halfClose)
	t.add("end: of TCP inside a close", send(whole, closing(1000, "reason").cut(4)), halfClose)
	return t.cases
}
