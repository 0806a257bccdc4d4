package frame

import "github.com/mqgate/mqgate/frame/deflate"

// inflate takes part, the next bytes of the payload of a data frame of a compressed message (RFC 7692 section 7.2.2); ok
// means that the message is complete. All that part says is checked and in the buffer when it returns: what is wrong with
// it fails now, whatever is still to come. w is as in NextWith.
func (s *state) inflate(cfg *Config, w *deflate.Window, part []byte) (m Message, ok bool, e *Error) {
	if s.frame.masked {
		Mask(part, s.frame.key, s.pos)
	}
	s.pos += len(part)
	if e := s.inflatePart(cfg.MaxMessage, w, part); e != nil {
		return m, false, e
	}
	if s.pos < s.frame.length {
		return m, false, nil
	}
	s.inFrame = false
	if !s.frame.fin {
		s.fragmented = true
		return m, false, nil
	}
	s.fragmented = false
	if !s.z.End() {
		return m, false, ErrDeflate
	}
	if s.op == Text && !s.text.Complete() {
		return m, false, ErrInvalidUTF8 // 8.1: the message ends inside a code point
	}
	s.z.Free()
	s.z = nil
	m.Op, m.RSV1 = s.op, true
	if s.buf != nil {
		s.loan = loanData
		b := s.buf.B
		m.Payload = b[:len(b):len(b)]
	}
	if w != nil {
		w.Add(m.Payload)
	}
	return m, true, nil
}

// inflatePart appends what part inflates to to the buffer, which grows up to most bytes of message, and checks it.
func (s *state) inflatePart(most int, w *deflate.Window, part []byte) *Error {
	for {
		var b []byte
		if s.buf != nil {
			b = s.buf.B
		}
		// The limit is the capacity: not a byte beyond it is inflated.
		out, n, status := s.z.Inflate(b[:len(b):min(cap(b), most)], part, w)
		if s.op == Text && !s.text.Write(out[len(b):]) {
			return ErrInvalidUTF8 // 8.1, at the first bad byte
		}
		if s.buf != nil {
			s.buf.B = b[:len(out)]
		}
		part = part[n:]
		switch status {
		case deflate.NeedInput:
			return nil
		case deflate.Corrupt:
			return ErrDeflate
		case deflate.NeedRoom:
			if len(out) >= most {
				return ErrTooBig // 7.4.1, and no more than that was inflated
			}
			s.grow(min(max(len(out)+1, inflateGuess*len(part)), most))
		}
	}
}
