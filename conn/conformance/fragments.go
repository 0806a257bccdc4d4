package conformance

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// fragments is section 5.4: messages in pieces, and what may stand between them.
func fragments() []Case {
	t := table{section: "5.4"}
	b := func(s string) []byte { return []byte(s) }
	chops := []struct {
		name string
		how  chop
	}{{"whole", whole}, {"byte by byte", octets}, {"chopped", randomly(9)}}
	for _, d := range dataOps {
		for _, c := range []struct {
			name  string
			sizes []int
		}{
			{"1+1", []int{1, 1}}, {"0+5", []int{0, 5}}, {"5+0", []int{5, 0}}, {"0+0", []int{0, 0}}, {"0+0+0", []int{0, 0, 0}},
			{"0+5+0", []int{0, 5, 0}}, {"5+0+5", []int{5, 0, 5}}, {"1+2+3+4+5", []int{1, 2, 3, 4, 5}}, {"100 of 1", slices.Repeat([]int{1}, 100)},
			{"125+126+127", []int{125, 126, 127}}, {"65535+1", []int{65535, 1}}, {"1+65536", []int{1, 65536}},
		} {
			for _, chop := range chops {
				t.later(fmt.Sprintf("fragments: %s in %s, %s", d.name, c.name, chop.name), func() []step {
					total := 0
					for _, n := range c.sizes {
						total += n
					}
					p := content(d.op, total)
					var frames []frame
					for i, rest := 0, p; i < len(c.sizes); i++ {
						f := newFrame(opContinuation, rest[:c.sizes[i]])
						if i == 0 {
							f.first = d.op
						}
						if i == len(c.sizes)-1 {
							f.first |= fin
						}
						frames, rest = append(frames, f), rest[c.sizes[i]:]
					}
					return good(send(chop.how, frames...), want(message(d.op, p)))
				})
			}
		}
		other := byte(opText + opBinary - d.op)
		for _, chop := range chops {
			name := func(what string) string { return fmt.Sprintf("fragments: %s, %s, %s", d.name, what, chop.name) }
			f, m, l := first(d.op, b("a")), middle(b("b")), last(b("c"))
			abc, hello := message(d.op, b("abc")), text("hello")
			t.add(name("a ping in between"), good(send(chop.how, f, ping("1"), m, l), want(abc, pong("1")))...)
			t.add(name("pings and pongs everywhere"), good(send(chop.how, ping("0"), f, ping("1"), pong("x"), m, pong(""), ping("2"), ping("3"), l, ping("4")),
				want(abc, pong("0"), pong("1"), pong("2"), pong("3"), pong("4")))...)
			t.add(name("a ping in between is answered before the end"), good(send(chop.how, f, ping("1")), want(pong("1")), send(chop.how, m, ping("2")), want(pong("2")), send(chop.how, l), want(abc))...)
			t.add(name("a ping of 125 bytes before the first fragment is whole"), good(send(chop.how, first(d.op, nil), ping(string(content(opBinary, 125)))), want(pong(string(content(opBinary, 125)))),
				send(chop.how, last(b("x"))), want(message(d.op, b("x"))))...)
			t.add(name("two messages"), good(send(chop.how, f, m, l, f, m, l, hello), want(abc, abc, hello))...)

			t.add(name("a final continuation of nothing"), bad(1002, send(chop.how, l))...)
			t.add(name("a continuation of nothing"), bad(1002, send(chop.how, m))...)
			t.add(name("an empty continuation of nothing"), bad(1002, send(chop.how, last(nil)))...)
			t.add(name("a continuation behind a message"), bad(1002, send(chop.how, hello, l), want(hello))...)
			t.add(name("a continuation behind a fragmented message"), bad(1002, send(chop.how, f, l, m), want(message(d.op, b("ac"))))...)
			t.add(name("a continuation behind the answer"), bad(1002, send(chop.how, f, l), want(message(d.op, b("ac"))), send(chop.how, m))...)
			t.add(name("a continuation behind a ping"), bad(1002, send(chop.how, ping("1"), l), want(pong("1")))...)
			t.add(name("a new message of its kind inside"), bad(1002, send(chop.how, f, message(d.op, b("x"))))...)
			t.add(name("a new message of the other kind inside"), bad(1002, send(chop.how, f, message(other, b("x"))))...)
			t.add(name("a new fragmented message inside"), bad(1002, send(chop.how, f, f))...)
			t.add(name("a new fragmented message of the other kind inside"), bad(1002, send(chop.how, f, m, first(other, nil)))...)
			t.add(name("a new message inside, after a ping"), bad(1002, send(chop.how, f, ping("1")), want(pong("1")), send(chop.how, hello))...)
			t.add(name("a new message inside, only its header"), bad(1002, send(chop.how, f, hello.cut(0)))...)
			t.add(name("a close inside"), send(chop.how, f, closing(1000, "")), wantClose(1000), end)
			t.add(name("a close inside, after a ping"), send(chop.how, f, ping("1"), m), want(pong("1")), send(chop.how, closing(3456, "bye")), wantClose(3456), end)
		}
		t.later(fmt.Sprintf("fragments: %s, 10,000 of them empty", d.name), func() []step {
			frames := []frame{first(d.op, b("a"))}
			for range 10_000 {
				frames = append(frames, middle(nil))
			}
			return good(send(whole, append(frames, last(b("b")))...), want(message(d.op, b("ab"))))
		})
		t.later(fmt.Sprintf("fragments: %s, 1000 of them with a ping each", d.name), func() []step {
			p := content(d.op, 1000)
			var frames, pongs []frame
			for i, f := range split(d.op, p, 1) {
				frames, pongs = append(frames, f, ping(fmt.Sprint(i))), append(pongs, pong(fmt.Sprint(i)))
			}
			return good(send(randomly(100), frames...), want(append(pongs, message(d.op, p))...))
		})
	}
	return t.cases
}

// sizes moves large messages, whole and in fragments, and many small ones (the sections 9 and 10 of other suites).
func sizes() []Case {
	t := table{section: "5.2, 5.4"}
	for _, d := range dataOps {
		for _, n := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20} {
			t.later(fmt.Sprintf("sizes: %s of %d KiB", d.name, n>>10), func() []step {
				return good(echo(whole, message(d.op, content(d.op, n)))...)
			}).Heavy = n > 1<<20
		}
		for _, size := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20} {
			t.later(fmt.Sprintf("sizes: %s of 4 MiB in fragments of %d", d.name, size), func() []step {
				p := content(d.op, 4<<20)
				return good(send(pieces(1<<18), split(d.op, p, size)...), want(message(d.op, p)))
			}).Heavy = true
		}
		t.later(fmt.Sprintf("sizes: %s of 16 MiB in fragments of 64 KiB", d.name), func() []step {
			p := content(d.op, 16<<20)
			return good(send(pieces(1<<18), split(d.op, p, 64<<10)...), want(message(d.op, p)))
		}).Heavy = true
		for _, size := range []int{64, 128, 256, 512, 1 << 10, 2 << 10} {
			t.later(fmt.Sprintf("sizes: %s of 1 MiB chopped to %d", d.name, size), func() []step {
				return good(echo(pieces(size), message(d.op, content(d.op, 1<<20)))...)
			})
		}
		for _, size := range []int{0, 16, 64, 256, 1 << 10, 4 << 10, 16 << 10} {
			t.later(fmt.Sprintf("sizes: 200 messages of %s of %d bytes, each answered before the next", d.name, size), func() []step {
				var steps []step
				for range 200 {
					steps = append(steps, echo(whole, message(d.op, content(d.op, size)))...)
				}
				return good(steps...)
			})
		}
		t.later(fmt.Sprintf("sizes: %s of 65,536 bytes in fragments of 1300", d.name), func() []step {
			p := content(d.op, 65536)
			return good(send(whole, split(d.op, p, 1300)...), want(message(d.op, p)))
		})
		t.later(fmt.Sprintf("sizes: %s of 65,536 bytes in fragments of 1300, each a piece of its own", d.name), func() []step {
			p := content(d.op, 65536)
			return good(send(pieces(1308), split(d.op, p, 1300)...), want(message(d.op, p))) // 8 bytes of header of a client's frame
		})
	}
	return t.cases
}

// random is sessions of everything that is allowed, in random order, fragments and pieces.
func random() []Case {
	t := table{section: "5"}
	for i := range 100 {
		t.later(fmt.Sprintf("random: session %d", i), func() []step {
			rnd := rand.New(rand.NewPCG(Seed, uint64(i)))
			control := func() (f frame, answer []frame) {
				p := string(content(opBinary, rnd.IntN(126)))
				if rnd.IntN(3) == 0 {
					return pong(p), nil
				}
				return ping(p), []frame{pong(p)}
			}
			var steps []step
			for range 1 + rnd.IntN(4) {
				var frames, answers []frame
				for range rnd.IntN(12) {
					if rnd.IntN(3) == 0 {
						f, a := control()
						frames, answers = append(frames, f), append(answers, a...)
						continue
					}
					p := content(dataOps[rnd.IntN(2)].op, []int{0, 1, 10, 125, 126, 200, 1000, 5000, 65535, 65536}[rnd.IntN(10)])
					op := byte(opBinary)
					if rnd.IntN(2) == 0 {
						op, p = opText, content(opText, len(p))
					}
					for _, f := range split(op, p, 1+rnd.IntN(len(p)+100)) {
						frames = append(frames, f)
						for f.first&fin == 0 && rnd.IntN(2) == 0 {
							f, a := control()
							frames, answers = append(frames, f), append(answers, a...)
						}
					}
					answers = append(answers, message(op, p))
				}
				steps = append(steps, send([]chop{whole, octets, randomly(10), randomly(1000)}[rnd.IntN(4)], frames...), want(answers...))
			}
			return good(steps...)
		})
	}
	return t.cases
}

// Limit returns the cases on the longest message that the endpoint takes, limit [bytes, 1000 at least].
func Limit(limit int) []Case {
	t := table{section: "7.4.1"}
	for _, d := range dataOps {
		name := func(what string) string { return fmt.Sprintf("limit of %d: %s, %s", limit, d.name, what) }
		heavy := func(name string, steps func() []step) { t.later(name, steps).Heavy = limit > 1<<20 }
		for _, n := range []int{limit - 1, limit} {
			heavy(name(fmt.Sprintf("%d bytes", n)), func() []step {
				return good(echo(whole, message(d.op, content(d.op, n)))...)
			})
			heavy(name(fmt.Sprintf("%d bytes in fragments", n)), func() []step {
				p := content(d.op, n)
				return good(send(pieces(1<<18), split(d.op, p, limit/10+1)...), want(message(d.op, p)))
			})
		}
		heavy(name("two messages that are at it"), func() []step {
			m := message(d.op, content(d.op, limit))
			return good(send(whole, m), want(m), send(whole, m), want(m))
		})
		heavy(name("at it, with pings between the fragments"), func() []step {
			p := content(d.op, limit)
			frames := split(d.op, p, limit/2+1)
			return good(send(whole, frames[0], ping("does not count"), frames[1]), want(pong("does not count"), message(d.op, p)))
		})
		// The header alone tells.
		t.later(name("a byte above, only its header"), func() []step {
			return bad(1009, send(whole, newFrame(fin|d.op, make([]byte, limit+1)).cut(0)))
		})
		t.later(name("a byte above, its header byte by byte"), func() []step {
			return bad(1009, send(octets, newFrame(fin|d.op, make([]byte, limit+1)).cut(0)))
		})
		t.later(name("a first fragment above"), func() []step {
			return bad(1009, send(whole, newFrame(d.op, make([]byte, limit+1)).cut(0)))
		})
		t.later(name("twice as much"), func() []step {
			return bad(1009, send(whole, message(d.op, nil).says(max(1<<16, 2*uint64(limit)))))
		})
		heavy(name("a last fragment too much"), func() []step {
			frames := split(d.op, content(d.op, limit+1), limit)
			return bad(1009, send(whole, frames[0], frames[1].cut(0)))
		})
		heavy(name("a fragment too much in the middle"), func() []step {
			third := limit / 3
			frames := split(d.op, content(d.op, 4*third), third)
			return bad(1009, send(whole, frames[0], frames[1], frames[2], middle(make([]byte, third)).cut(0)))
		})
		heavy(name("an empty last fragment when it is full"), func() []step {
			p := content(d.op, limit)
			return good(send(whole, first(d.op, p), middle(nil), last(nil)), want(message(d.op, p)))
		})
		t.later(name("a message of 1 byte, then too much"), func() []step {
			one := message(d.op, []byte("1"))
			return bad(1009, send(whole, one, newFrame(fin|d.op, make([]byte, limit+1)).cut(0)), want(one))
		})
	}
	return t.cases
}
