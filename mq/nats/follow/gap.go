package follow

import "errors"

// want says that a record with this sequence, which is after the last, or one between them was stored: it is fetched.
func (s *shard) want(r *room, seq uint64, now int64) {
	if r.gap == nil {
		r.gap = &gap{}
	}
	r.gap.want = max(r.gap.want, seq)
	s.fill(r, now)
}

// fill asks the stream for what comes after the last record. After an answer that did not help, the leader is asked.
func (s *shard) fill(r *room, now int64) {
	g := r.gap
	if g.fetching != nil || now < g.at {
		return
	}
	g.fetching = &fetchJob{room: r, after: r.last, truth: g.misses > 0}
	s.out.fetch(g.fetching)
}

// enqueue lets a record wait for those before it and reports whether there was room for it, or it was there.
func (s *shard) enqueue(g *gap, rec Record) bool {
	n := len(rec.Data)
	if len(g.queue) >= queueRecords || g.bytes+n > queueBytes || s.queueBytes+n > shardQueueBytes {
		s.stats.overflows.Add(1)
		return false
	}
	if !g.insert(rec) {
		s.stats.duplicates.Add(1)
		return true
	}
	s.queueBytes += n
	return true
}

// drain delivers what waits in the queue and is next.
func (s *shard) drain(r *room, now int64) {
	g := r.gap
	if g == nil {
		return
	}
	n := 0
	for n < len(g.queue) && (g.queue[n].Seq == 0 || g.queue[n].Prev <= r.last) {
		rec := g.queue[n]
		g.queue[n] = Record{}
		n++
		g.bytes -= len(rec.Data)
		s.queueBytes -= len(rec.Data)
		switch {
		case rec.Seq == 0:
			s.publish(r, rec.Data, now)
			s.stats.plain.Add(1)
		case rec.Seq <= r.last:
			s.stats.duplicates.Add(1)
		default:
			s.deliver(r, rec, now)
		}
	}
	g.queue = g.queue[n:]
	if g.want <= r.last && g.fetching == nil { // and nothing is in the queue: want is at or above what its records wait for
		s.closeGap(r)
	}
}

// closeGap forgets a gap that is filled, or that nobody needs filled.
func (s *shard) closeGap(r *room) {
	if r.gap == nil {
		return
	}
	s.queueBytes -= r.gap.bytes
	if r.gap.filled {
		s.stats.gaps.Add(1)
	}
	r.gap = nil
}

// fetched is the answer of the stream to fetchJob.
func (s *shard) fetched(j *fetchJob, now int64) {
	r := j.room
	if j.err != nil {
		s.failed(j.err, now)
	}
	if j.held != nil {
		s.fetchedFor(j, now)
		return
	}
	g := r.gap
	if g == nil || g.fetching != j { // the stream was replaced meanwhile, or the room is not followed any more
		return
	}
	g.fetching = nil
	if j.err != nil {
		g.later(now)
		s.schedule(r, g.at)
		return
	}
	before := r.last
	for _, rec := range j.recs {
		if rec.Seq <= r.last {
			continue
		}
		if rec.Prev > r.last {
			s.lose(r, "the stream has later ones only", now)
		}
		g.filled = true
		s.stats.filled.Add(1)
		s.deliver(r, rec, now)
	}
	moved := r.last > before
	s.drain(r, now)
	if r.gap == nil {
		return
	}
	if moved {
		g.retry = retry{}
	} else if g.fruitless(now, j.truth) {
		s.giveUp(r, now)
		if r.gap == nil {
			return
		}
		g.retry = retry{}
	}
	s.fill(r, now)
	if g.fetching == nil {
		s.schedule(r, g.at)
	}
}

// failed counts a request that the stream did not answer. That there is no connection is said elsewhere.
func (s *shard) failed(err error, now int64) {
	s.stats.failures.Add(1)
	if errors.Is(err, errAway) {
		return
	}
	if n, ok := s.bad.line(now); ok {
		s.log.Warn("the stream of rooms did not answer; it is asked again", "err", err, "not_logged", n)
	}
}

// giveUp goes on behind records that the stream does not have.
func (s *shard) giveUp(r *room, now int64) {
	s.lose(r, "the stream does not have them", now)
	to := r.gap.want
	for _, rec := range r.gap.queue {
		if rec.Seq != 0 { // nothing before it is missing but what is given up
			to = min(to, rec.Prev)
			break
		}
	}
	r.last = to
	s.dropRing(r)
	s.release(r, now)
	s.drain(r, now)
}

// lose counts records that no subscriber here will get, and says so.
func (s *shard) lose(r *room, why string, now int64) {
	s.stats.lost.Add(1)
	if n, ok := s.lost.line(now); ok {
		s.log.Error("records of a room are lost to its subscribers here", "why", why, "room", r.id, "after", r.last, "not_logged", n)
	}
}
