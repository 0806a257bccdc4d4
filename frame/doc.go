// Package frame is RFC 6455 on bytes: frame headers, masking, fragments, UTF-8, close bodies, for both ends of a
// connection.
//
// It is pure: functions of bytes and of a small state. It reads no socket and no clock, starts no goroutine and takes
// no lock; what it keeps between calls it keeps in the Reader that it was called on. So everything in it is tested by
// handing it bytes.
//
// # Reading
//
// A Reader takes the bytes of one connection in whatever pieces the kernel delivers, and gives out whole messages:
//
//	for len(p) > 0 {
//		m, n, ok, err := r.Next(&cfg, p)
//		if err != nil {
//			return err.(*frame.Error) // Code is what to close with; nothing after it may be read
//		}
//		p = p[n:]
//		if !ok {
//			break // all of p is consumed, the rest comes with the next read
//		}
//		handle(m) // m.Payload is borrowed: it points into p, or into a pooled buffer
//		r.Release()
//	}
//
// An idle connection owns one nil pointer. A frame that is whole in p is unmasked where it lies and handed out without
// a copy; only a frame, or a fragmented message, that continues in a later p is copied, into memory from a pool that
// grows as the bytes arrive and goes back when the message is done. What may stand in a frame is checked as early as
// its bytes allow, in reader.go and header.go, the RFC's section beside each rule.
//
// # Writing
//
// AppendFrame and AppendMaskedFrame build frames at the end of a slice, AppendHeader the header alone, AppendCloseBody
// the body of a Close frame. They never change the caller's payload.
//
// # Compression
//
// permessage-deflate (RFC 7692) is in package deflate. A Reader with Config.Inflate inflates compressed messages while
// they arrive, so that a text fails at its first bad byte and a bomb when it reaches the limit, not when it is
// complete; what is delivered is the message. AppendHeaderRSV1 begins a compressed message that is sent. Without Inflate,
// Config.AllowRSV1 lets compressed messages through as they came.
//
// # Speed
//
// `make microbench` measures it beside a plain copy and other libraries; docs/frames.md has the figures.
//
// # Build tag invariants
//
// With -tags invariants a pooled payload is overwritten with 0xDB the moment its time is up, so that whoever keeps it
// reads rubbish at once instead of another connection's message some day.
package frame
