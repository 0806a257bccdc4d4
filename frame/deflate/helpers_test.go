package deflate

import (
	"bytes"
	stdlib "compress/flate"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// oracle inflates a message at once with compress/flate, knowing all that came before it: each stream in it by a reader of
// its own. A message ends in the header of a stored block; so its output must be the same but for an x whether that
// block is empty or an x, with a last block of either of two kinds behind it. Where the message ends elsewhere, these
// bytes mean something else in one of the cases.
func oracle(message, before []byte) (out []byte, ok bool) {
	for i, ending := range []string{tail + "\x01\x00\x00\xff\xff", "\x01\x00\xfe\xffx\x03\x00"} {
		in := bytes.NewReader(append(message[:len(message):len(message)], ending...))
		var got []byte
		for {
			dict := append(before[:len(before):len(before)], got...)
			r := stdlib.NewReaderDict(in, dict[max(0, len(dict)-1<<MaxWindowBits):])
			part, err := io.ReadAll(r)
			got = append(got, part...)
			if err != nil {
				return got, false
			}
			if in.Len() == 0 {
				break
			}
		}
		if i == 1 {
			return out, string(got) == string(out)+"x"
		}
		out = got
	}
	panic("unreachable")
}

var errTooBig = errors.New("too big")
var errCorrupt = errors.New("corrupt")

// inflate feeds a message to z in pieces of the sizes that size gives, with room for a byte at first and more when it is
// asked for, up to limit.
func inflate(t testing.TB, z *Inflater, message []byte, w *Window, limit int, size func() int) (out []byte, err error) {
	t.Helper()
	feed := func(p []byte) error {
		for {
			before := len(out)
			got, n, status := z.Inflate(out, p, w)
			if n > len(p) || len(got) < before || len(got) > limit {
				t.Fatalf("took %d of %d bytes, %d after %d of output", n, len(p), len(got), before)
			}
			out, p = got, p[n:]
			switch status {
			case Corrupt:
				return errCorrupt
			case NeedInput:
				if len(p) > 0 {
					t.Fatalf("asks for more with %d bytes left", len(p))
				}
				return nil
			case NeedRoom:
				if len(out) != cap(out) {
					t.Fatalf("asks for room, having %d of %d bytes", len(out), cap(out))
				}
				if len(out) == limit {
					return errTooBig
				}
				larger := make([]byte, len(out), min(limit, 2*len(out)+1))
				copy(larger, out)
				out = larger
			}
		}
	}
	for rest := message; len(rest) > 0; {
		k := max(1, min(size(), len(rest)))
		piece := bytes.Clone(rest[:k]) // it must not look at it later
		if err := feed(piece); err != nil {
			return out, err
		}
		for i := range piece {
			piece[i] = 0xdb
		}
		rest = rest[k:]
	}
	if !z.End() {
		return out, errCorrupt
	}
	return out, nil
}

func whole() int { return 1 << 30 }

// window returns a window that p has gone through.
func window(bits uint8, p []byte) *Window {
	w := &Window{bits: bits}
	w.Add(p)
	return w
}

// chat is n bytes of what a chat sends: JSON with much that is the same in every message.
func chat(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7692))
	words := strings.Fields("hello meeting the gateway message about tomorrow conversation please review and deploy ok thanks latency client")
	type message struct{ Type, Conversation, Sender, Text, ID string }
	var out []byte
	for len(out) < n {
		text := ""
		for range 8 {
			text += words[rng.IntN(len(words))] + " "
		}
		b, err := json.Marshal(message{"chat.message", fmt.Sprintf("c-%06d", rng.IntN(1000)), fmt.Sprintf("user-%d", rng.IntN(50)), text, fmt.Sprintf("%016x", rng.Uint64())})
		if err != nil {
			panic(err)
		}
		out = append(out, b...)
	}
	return out[:n]
}

// envelopes is n bytes of what the MQ protocol sends in its binary form: protobuf, field by field, with ids of random bytes.
func envelopes(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7692))
	var out []byte
	field := func(number int, p []byte) {
		out = binary.AppendUvarint(out, uint64(number<<3|2))
		out = binary.AppendUvarint(out, uint64(len(p)))
		out = append(out, p...)
	}
	for len(out) < n {
		id := make([]byte, 16)
		for i := range id {
			id[i] = byte(rng.Uint32())
		}
		field(1, id)
		field(2, []byte("chat.send"))
		out = binary.AppendUvarint(append(out, 3<<3), rng.Uint64()>>24)
		field(4, chat(rng.Uint64(), 60))
	}
	return out[:n]
}

// compressions of text, of many kinds: the ways of compress/flate, flushes in between, several streams.
func compressions(text []byte) map[string][]byte {
	all := map[string][]byte{}
	for _, level := range []int{stdlib.HuffmanOnly, stdlib.NoCompression, 1, 6, 9} {
		var b bytes.Buffer
		w, err := stdlib.NewWriter(&b, level)
		if err != nil {
			panic(err)
		}
		_, _ = w.Write(text)
		_ = w.Flush()
		all[fmt.Sprintf("level %d", level)] = bytes.TrimSuffix(b.Bytes(), []byte(tail))
	}
	var flushed, final bytes.Buffer
	w, _ := stdlib.NewWriter(&flushed, 6)
	for i, c := range text {
		_, _ = w.Write([]byte{c})
		if i%37 == 0 {
			_ = w.Flush()
		}
	}
	_ = w.Flush()
	all["flushed"] = bytes.TrimSuffix(flushed.Bytes(), []byte(tail))
	for i := 0; i < len(text); i += 100 {
		dict := text[max(0, i-1<<MaxWindowBits):i]
		w, _ := stdlib.NewWriterDict(&final, 6, dict)
		_, _ = w.Write(text[i:min(i+100, len(text))])
		_ = w.Close()
	}
	final.WriteByte(0)
	all["streams"] = final.Bytes()
	return all
}
