package follow

import "time"

// suspect puts a room into the list of those to be checked.
func (s *shard) suspect(r *room) {
	if r.known && !r.suspect {
		r.suspect = true
		s.suspects = append(s.suspects, r)
	}
}

func (s *shard) suspectAll() {
	for _, r := range s.rooms {
		s.suspect(r)
	}
}

// checkAll checks all rooms now and again a little later: records may be missing.
func (s *shard) checkAll(now int64) {
	s.suspectAll()
	s.checkAt = 0
	s.rounds = s.rounds[:0]
	for _, d := range again {
		s.rounds = append(s.rounds, now+int64(d))
	}
	s.rounds = append(s.rounds, now+max(s.every, int64(again[len(again)-1])+int64(time.Millisecond)))
	s.startCheck(now)
}

// startCheck asks about some of the rooms to be checked, unless an answer is awaited.
func (s *shard) startCheck(now int64) {
	if s.checking != nil || now < s.checkAt {
		return
	}
	j := &checkJob{after: ^uint64(0)}
	n := 0
	for n < len(s.suspects) && len(j.rooms) < checkRooms {
		r := s.suspects[n]
		s.suspects[n] = nil
		n++
		r.suspect = false
		if r.gone {
			continue
		}
		j.rooms = append(j.rooms, r)
		j.subjects = append(j.subjects, r.subject)
		j.after = min(j.after, max(r.last, r.checked))
	}
	if s.suspects = s.suspects[n:]; len(s.suspects) == 0 {
		s.suspects = nil
	}
	if len(j.rooms) == 0 {
		return
	}
	s.checking = j
	s.out.check(j)
}

// checkedRooms is the answer of the stream to checkJob.
func (s *shard) checkedRooms(j *checkJob, now int64) {
	if s.checking != j { // the stream was replaced meanwhile: the answer is about sequences of either
		return
	}
	s.checking = nil
	s.stats.checks.Add(1)
	for _, rec := range j.recs {
		if r := s.rooms[rec.Subject]; r != nil {
			s.record(r, rec, false, now)
		}
	}
	for _, r := range j.rooms {
		switch {
		case r.gone:
		case j.err != nil:
			s.suspect(r)
		default:
			r.checked = max(r.checked, j.upTo)
		}
	}
	if j.err != nil {
		s.failed(j.err, now)
		s.checkAt = now + int64(time.Second)
		return
	}
	s.startCheck(now)
}

// reset begins anew with a stream that is another one, with sequences of its own: everything in it comes after what the
// subscribers have.
func (s *shard) reset(now int64) {
	for _, r := range s.rooms {
		s.closeGap(r)
		if r.known {
			s.start(r, 0)
		}
		s.dropRing(r)
		for _, h := range append(r.waiting, r.behind...) {
			h.Fail(ErrHeld)
		}
		s.stats.held.Add(-int64(len(r.waiting)))
		r.waiting, r.behind = nil, nil
		s.rest(r, now)
	}
	s.checking = nil
	s.checkAll(now)
}
