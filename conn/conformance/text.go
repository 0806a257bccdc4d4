package conformance

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// validTexts are UTF-8 at every boundary of RFC 3629 section 3 and 4.
var validTexts = []struct{ name, text string }{
	{"ASCII", "Hello-@"}, {"NUL", "\x00"}, {"DEL", "\x7f"}, {"mixed", "Hello-µ@ßöäüàá-UTF-8!!"}, {"Greek", "κόσμε"}, {"emoji", "👩‍👩‍👧 😀"},
	{"U+0080", "\u0080"}, {"U+07FF", "\u07ff"}, {"U+0800", "\u0800"}, {"U+0FFF", "\u0fff"}, {"U+1000", "\u1000"}, {"U+CFFF", "\ucfff"}, {"U+D000", "\ud000"},
	{"U+D7FF", "\ud7ff"}, {"U+E000", "\ue000"}, {"U+FEFF", "\ufeff"}, {"U+FFFD", "\ufffd"}, {"U+FFFE", "\ufffe"}, {"U+FFFF", "\uffff"},
	{"U+FDD0", "\ufdd0"}, {"U+10000", "\U00010000"}, {"U+1FFFE", "\U0001fffe"}, {"U+1FFFF", "\U0001ffff"}, {"U+3FFFF", "\U0003ffff"}, {"U+40000", "\U00040000"},
	{"U+FFFFF", "\U000fffff"}, {"U+100000", "\U00100000"}, {"U+10FFFE", "\U0010fffe"}, {"U+10FFFF", "\U0010ffff"},
}

// invalidTexts are not UTF-8, and nothing that follows them would help.
var invalidTexts = []struct{ name, text string }{
	{"surrogate in words", "κόσμε\xed\xa0\x80edited"}, {"beyond in words", "κόσμε\xf4\x90\x80\x80edited"},
	{"a stray continuation 80", "\x80"}, {"a stray continuation BF", "\xbf"}, {"two stray continuations", "\x80\xbf"}, {"seven stray continuations", "\x80\xbf\x80\xbf\x80\xbf\x80"},
	{"a continuation behind a complete code point", "\u00e9\x80"}, {"a continuation behind ASCII", "a\xbf"},
	{"C0", "\xc0"}, {"C1", "\xc1"}, {"F5", "\xf5"}, {"F8", "\xf8"}, {"FC", "\xfc"}, {"FE", "\xfe"}, {"FF", "\xff"}, {"FE FE FF FF", "\xfe\xfe\xff\xff"},
	{"overlong / in 2", "\xc0\xaf"}, {"overlong / in 3", "\xe0\x80\xaf"}, {"overlong / in 4", "\xf0\x80\x80\xaf"}, {"overlong / in 5", "\xf8\x80\x80\x80\xaf"}, {"overlong / in 6", "\xfc\x80\x80\x80\x80\xaf"},
	{"overlong U+007F", "\xc1\xbf"}, {"overlong U+07FF", "\xe0\x9f\xbf"}, {"overlong U+FFFF", "\xf0\x8f\xbf\xbf"}, {"overlong NUL", "\xc0\x80"},
	{"overlong NUL in 3", "\xe0\x80\x80"}, {"overlong NUL in 4", "\xf0\x80\x80\x80"},
	{"surrogate D800", "\xed\xa0\x80"}, {"surrogate DB7F", "\xed\xad\xbf"}, {"surrogate DB80", "\xed\xae\x80"}, {"surrogate DBFF", "\xed\xaf\xbf"},
	{"surrogate DC00", "\xed\xb0\x80"}, {"surrogate DF80", "\xed\xbe\x80"}, {"surrogate DFFF", "\xed\xbf\xbf"}, {"a surrogate pair", "\xed\xa0\x80\xed\xb0\x80"},
	{"U+110000", "\xf4\x90\x80\x80"}, {"U+1FFFFF", "\xf7\xbf\xbf\xbf"}, {"U+200000", "\xf8\x88\x80\x80\x80"}, {"U+3FFFFFF", "\xfb\xbf\xbf\xbf\xbf"}, {"U+7FFFFFFF", "\xfd\xbf\xbf\xbf\xbf\xbf"},
	{"ASCII after a lead of 2", "\xc3("}, {"ASCII after a lead of 3", "\xe2("}, {"ASCII third of 3", "\xe2\x82("}, {"ASCII second of 4", "\xf0("}, {"ASCII third of 4", "\xf0\x90("}, {"ASCII last of 4", "\xf0\x90\x8c("},
	{"a lead after a lead", "\xc3\xc3"}, {"a lead after two of 3", "\xe2\x82\xc3\xa9"}, {"a lead after three of 4", "\xf0\x9f\x98\xf0\x9f\x98\x80"}, {"FF inside a code point", "\xe2\xff"},
	{"ISO 8859-1", "Gr\xfc\xdfe"}, {"UTF-16", "\xff\xfeH\x00i\x00"}, {"CESU-8", "\xed\xa1\x8c\xed\xbe\xb4"},
}

// truncatedTexts end inside a code point: wrong at the end of a message, and only there.
var truncatedTexts = []struct{ name, text, rest string }{
	{"1 of 2", "\xc2", "\x80"}, {"1 of 2, DF", "\xdf", "\xbf"}, {"1 of 3", "\xe0", "\xa0\x80"}, {"2 of 3", "\xe2\x82", "\xac"}, {"2 of 3, ED 9F", "\xed\x9f", "\xbf"}, {"1 of 3, EF", "\xef", "\xbf\xbf"},
	{"1 of 4", "\xf0", "\x90\x80\x80"}, {"2 of 4", "\xf0\x9f", "\x98\x80"}, {"3 of 4", "\xf0\x9f\x98", "\x80"}, {"3 of 4, F4 8F BF", "\xf4\x8f\xbf", "\xbf"},
	{"3 of 4 behind words", "Hello κόσμε \xf0\x9f\x98", "\x80"},
}

// firstBad returns the index of the first byte of p after which nothing can make it UTF-8, or len(p). It tries what could
// follow: the continuation bytes 80, 90 and A0 are one of each range that a second byte may be asked to be in.
func firstBad(p []byte) int {
	ends := [][]byte{nil}
	for i := 0; len(ends[i]) < 3; i++ {
		for _, b := range []byte{0x80, 0x90, 0xa0} {
			ends = append(ends, append(bytes.Clone(ends[i]), b))
		}
	}
	for n := 1; n <= len(p); n++ {
		viable := false
		for _, e := range ends {
			viable = viable || utf8.Valid(append(bytes.Clone(p[:n]), e...))
		}
		if !viable {
			return n - 1
		}
	}
	return len(p)
}

// utf8Cases is section 8.1: text is UTF-8, and what is not fails the connection with its first bad byte.
func utf8Cases() []Case {
	t := table{section: "8.1"}
	for _, v := range validTexts {
		p := []byte(v.text)
		t.add("utf8: "+v.name+" whole", good(echo(whole, message(opText, p))...)...)
		t.add("utf8: "+v.name+" byte by byte", good(echo(octets, message(opText, p))...)...)
		t.add("utf8: "+v.name+" in fragments of 1", good(send(whole, split(opText, p, 1)...), want(message(opText, p)))...)
		t.add("utf8: "+v.name+" in fragments of 1 with a ping after each", good(pinged(opText, p)...)...)
	}
	for _, v := range invalidTexts {
		p := []byte(v.text)
		n := firstBad(p) + 1
		t.add("utf8: "+v.name+" whole", bad(1007, send(whole, message(opText, p)))...)
		t.add("utf8: "+v.name+" behind a message, in words", bad(1007, send(whole, text("ok"), text("before "+v.text+" behind")), want(text("ok")))...)
		t.add("utf8: "+v.name+" up to the bad byte of a frame", bad(1007, send(whole, message(opText, p[:n:n]).cutOf(n+100)))...)
		t.add("utf8: "+v.name+" byte by byte up to the bad byte of a frame", bad(1007, send(octets, message(opText, p[:n:n]).cutOf(n+1)))...)
		t.add("utf8: "+v.name+" up to the bad byte of a long frame", bad(1007, send(randomly(5000), message(opText, append(content(opText, 70000), p[:n]...)).cutOf(200000)))...)
		t.add("utf8: "+v.name+" up to the bad byte of a first fragment", bad(1007, send(whole, first(opText, p[:n])))...)
		t.add("utf8: "+v.name+" in fragments of 1 up to the bad byte", bad(1007, openFragments(p[:n])...)...)
		t.add("utf8: "+v.name+" in binary", good(echo(whole, message(opBinary, p))...)...)
		t.add("utf8: "+v.name+" in fragments of binary", good(send(octets, split(opBinary, p, 1)...), want(message(opBinary, p)))...)
		if n > 1 {
			// The bad byte in a piece of its own, after the endpoint has shown that it has read what is before it.
			t.add("utf8: "+v.name+" with the bad byte alone", bad(1007, send(whole, first(opText, p[:n-1]), ping("?")), want(pong("?")), send(whole, middle(p[n-1:n])))...)
			t.add("utf8: "+v.name+" with the bad byte alone in an open frame", bad(1007, send(whole, first(opText, p[:n-1]), ping("?")), want(pong("?")), send(whole, last(p[n-1:n]).cutOf(50)))...)
		}
	}
	for _, v := range truncatedTexts {
		p, rest := []byte(v.text), []byte(v.rest)
		all := message(opText, append(bytes.Clone(p), rest...))
		t.add("utf8: "+v.name+" at the end of a message", bad(1007, send(whole, message(opText, p)))...)
		t.add("utf8: "+v.name+" at the end of a message, byte by byte", bad(1007, send(octets, message(opText, p)))...)
		t.add("utf8: "+v.name+" at the end of the last fragment", bad(1007, send(whole, first(opText, []byte("a")), last(p)))...)
		t.add("utf8: "+v.name+" and an empty last fragment", bad(1007, send(whole, first(opText, p), middle(nil), last(nil)))...)
		t.add("utf8: "+v.name+" and a last fragment of ASCII", bad(1007, send(whole, first(opText, p), last([]byte("a")).cutOf(2)))...)
		t.add("utf8: "+v.name+" and the rest in another fragment", good(send(whole, first(opText, p), last(rest)), want(all))...)
		t.add("utf8: "+v.name+" and the rest after a ping", good(send(whole, first(opText, p), ping("?")), want(pong("?")), send(whole, last(rest)), want(all))...)
		t.add("utf8: "+v.name+" and the rest behind empty fragments", good(send(octets, first(opText, nil), middle(p), middle(nil), middle(rest), last(nil)), want(all))...)
		t.add("utf8: "+v.name+" at the end, the rest in the next message", bad(1007, send(whole, message(opText, p), message(opText, rest)))...)
		t.add("utf8: "+v.name+" in binary", good(echo(whole, message(opBinary, p))...)...)
	}
	for _, n := range []int{125, 126, 1000, 65535, 65536, 1 << 20} {
		t.later(fmt.Sprintf("utf8: the last of %d bytes is bad", n), func() []step {
			p := content(opText, n)
			p = append(p[:n-1:n-1], 0xff)
			return bad(1007, send(pieces(4096), message(opText, p)))
		})
		t.later(fmt.Sprintf("utf8: %d bytes of 3-byte code points, chopped", n), func() []step {
			p := bytes.Repeat([]byte("世"), n/3)
			return good(echo(randomly(1000), message(opText, p))...)
		})
		t.later(fmt.Sprintf("utf8: %d bytes of 4-byte code points in fragments of 7", n), func() []step {
			p := bytes.Repeat([]byte("😀"), min(n, 70000)/4)
			return good(send(randomly(1000), split(opText, p, 7)...), want(message(opText, p)))
		})
	}
	return t.cases
}

// cutOf is the frame with a header that says length bytes, of which only its payload is sent.
func (f frame) cutOf(length int) frame {
	cut := newFrame(f.first, make([]byte, length))
	cut.payload = f.payload
	return cut
}

// openFragments is a text in fragments of one byte, none of them the last.
func openFragments(p []byte) []step {
	frames := []frame{first(opText, p[:1])}
	for i := 1; i < len(p); i++ {
		frames = append(frames, middle(p[i:i+1]))
	}
	return []step{send(whole, frames...)}
}

// pinged is a message in fragments of one byte; a ping between them must be answered before the next is sent.
func pinged(op byte, p []byte) []step {
	var steps []step
	for i, f := range split(op, p, 1) {
		if f.first&fin != 0 {
			steps = append(steps, send(whole, f), want(message(op, p)))
			continue
		}
		body := fmt.Sprint(i)
		steps = append(steps, send(whole, f, ping(body)), want(pong(body)))
	}
	return steps
}
