package conn

// Held counts what is kept for connections besides their slots: header values, handshakes that came in pieces, partial
// messages. It must be 0 when no socket is left, also for slots that nobody uses any more. It looks at every slot: for
// tests. On the loop's goroutine.
func (r *Registry) Held() (n int) {
	for _, e := range r.metas.entries {
		if e.refs != 0 || e.values != nil {
			n++
		}
	}
	n = max(n, len(r.metas.index))
	for _, chunk := range r.chunks {
		for i := range chunk {
			if c := &chunk[i]; c.hs != nil || c.in.Partial() || c.in.Buffered() > 0 {
				n++
			}
		}
	}
	return n
}

// Counted returns the number of connections that are counted against the limits. Safe from any goroutine.
func (lim *Limits) Counted() int64 { return lim.open.Load() }
