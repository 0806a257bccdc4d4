package follow

import (
	"container/heap"
	"log/slog"
	"time"

	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/record"
)

// shard is some of the rooms. All its methods run on one goroutine and wait for nothing. Times are monotonic [ns].
type shard struct {
	out     outside
	clients Clients
	log     *slog.Logger
	stats   *counters
	linger  int64
	every   int64 // between two checks of all rooms

	rooms  map[string]*room // by subject
	timers dues

	suspects []*room   // to be checked
	checking *checkJob // nil: none is under way
	checkAt  int64     // not before
	rounds   []int64   // when all rooms are checked again; the last one is the periodic one

	scratch    record.Record
	ringBytes  int // of all rooms
	queueBytes int
	lost, bad  quiet
}

// outside is what a shard cannot do itself without waiting.
type outside interface {
	// subscribe asks for what is published on a subject from now on.
	subscribe(subject string) (unsubscribe func(), err error)
	// fetch starts to read a log; shard.fetched gets the answer.
	fetch(j *fetchJob)
	// check starts to ask for the last records; shard.checkedRooms gets the answer.
	check(j *checkJob)
	// post runs f on the shard's goroutine. Safe from any goroutine.
	post(f func(now int64))
}

// fetchJob asks for the records of a log after a sequence.
type fetchJob struct {
	room  *room
	held  *held // the answer that they are for; nil: for the room
	after uint64
	truth bool // the leader of the stream is asked, not any replica
	recs  []Record
	err   error
}

// checkJob asks for the last records of logs that have one after a sequence.
type checkJob struct {
	rooms    []*room
	subjects []string
	after    uint64
	recs     []Record
	upTo     uint64 // what the stream has said it has; 0: it has not
	err      error
}

func newShard(out outside, clients Clients, log *slog.Logger, linger, every time.Duration, now int64) *shard {
	return &shard{out: out, clients: clients, log: log, stats: &counters{}, linger: int64(linger), every: int64(every),
		rooms: make(map[string]*room), rounds: []int64{now + int64(every)}}
}

// close lets everything go. Answers that wait fail.
func (s *shard) close() {
	for _, r := range s.rooms {
		for _, h := range append(r.waiting, r.behind...) {
			h.Fail(ErrClosed)
		}
		s.stats.held.Add(-int64(len(r.waiting)))
		r.waiting, r.behind = nil, nil
		s.unfollow(r)
	}
}

// newRoom follows a room of which the last sequence is not known.
func (s *shard) newRoom(id, subject string, now int64) *room {
	r := &room{id: id, subject: subject, lingerUntil: now + s.linger}
	s.rooms[subject] = r
	s.stats.rooms.Add(1)
	s.subscribe(r, now)
	s.schedule(r, r.lingerUntil)
	return r
}

func (s *shard) subscribe(r *room, now int64) {
	unsubscribe, err := s.out.subscribe(r.subject)
	if err != nil {
		if n, ok := s.bad.line(now); ok {
			s.log.Error("a room cannot be followed; tried again", "room", r.id, "err", err, "not_logged", n)
		}
		r.subscribeAt = now + int64(retryMax)
		s.schedule(r, r.subscribeAt)
		return
	}
	r.unsubscribe = unsubscribe
	r.confirms, r.confirmAt = 0, now+int64(again[0])
	s.schedule(r, r.confirmAt)
}

// start says that every record after seq is still to come: the subscribers have what is up to it.
func (s *shard) start(r *room, seq uint64) {
	r.known, r.last, r.checked, r.ringFrom = true, seq, seq, seq
	s.suspect(r)
}

func (s *shard) unfollow(r *room) {
	r.gone = true
	delete(s.rooms, r.subject)
	s.stats.rooms.Add(-1)
	if r.unsubscribe != nil {
		r.unsubscribe()
	}
	s.dropRing(r)
	s.closeGap(r)
}

// interest is what the gateway says of its subscribers.
func (s *shard) interest(id, subject string, some bool, now int64) {
	r := s.rooms[subject]
	if r == nil {
		if !some {
			return
		}
		r = s.newRoom(id, subject, now)
	}
	r.interest = some
	s.rest(r, now)
}

// rest lets a room that nobody needs any more linger.
func (s *shard) rest(r *room, now int64) {
	if r.idle() {
		r.lingerUntil = now + s.linger
		s.schedule(r, r.lingerUntil)
	}
}

// message is what came on a room's subject.
func (s *shard) message(subject string, rec Record, now int64) {
	if r := s.rooms[subject]; r != nil {
		s.record(r, rec, true, now)
	}
}

// record is a record that came from the stream, or, not live, the last one of the log as a check has found it.
func (s *shard) record(r *room, rec Record, live bool, now int64) {
	switch {
	case rec.Seq == 0:
		if g := r.gap; g != nil && len(g.queue) > 0 {
			s.enqueue(g, rec)
			return
		}
		s.publish(r, rec.Data, now)
		s.stats.plain.Add(1)
	case !r.known:
		r.known, r.ringFrom = true, rec.Prev
		s.deliver(r, rec, now)
	case rec.Seq <= r.last:
		if live {
			s.stats.duplicates.Add(1)
		}
	case rec.Prev <= r.last:
		if !live {
			s.stats.gaps.Add(1)
			s.stats.filled.Add(1)
		}
		s.deliver(r, rec, now)
		s.drain(r, now)
	default:
		s.want(r, rec.Prev, now)
		if !s.enqueue(r.gap, rec) {
			r.gap.want = max(r.gap.want, rec.Seq)
		}
	}
}

// deliver gives the next record of the log to the subscribers and then lets the answers pass that wait for it.
func (s *shard) deliver(r *room, rec Record, now int64) {
	s.publish(r, rec.Data, now)
	s.stats.records.Add(1)
	r.last = rec.Seq
	s.keep(r, rec, now)
	s.release(r, now)
}

// publish gives the events of a record to the subscribers, if there may be any.
func (s *shard) publish(r *room, data []byte, now int64) {
	if !r.listened() {
		return
	}
	if err := s.scratch.Unmarshal(data); err != nil {
		s.malformed(r, err, now)
		return
	}
	for _, e := range s.scratch.Events {
		s.clients.Publish(mq.Topic{Kind: e.Topic, Room: r.id}, e.Type, e.Payload)
	}
	if s.scratch.End {
		for _, t := range r.topics() {
			s.clients.EndTopic(t)
		}
	}
}

func (s *shard) malformed(r *room, err error, now int64) {
	s.stats.malformed.Add(1)
	if n, ok := s.bad.line(now); ok {
		s.log.Error("a record of a room is malformed and passed over", "room", r.id, "after", r.last, "err", err, "not_logged", n)
	}
}

// keep puts a record that was delivered into the ring.
func (s *shard) keep(r *room, rec Record, now int64) {
	r.ring = append(r.ring, rec)
	r.ringBytes += int32(len(rec.Data))
	s.ringBytes += len(rec.Data)
	drop := 0
	for drop < len(r.ring) && (len(r.ring)-drop > ringRecords || r.ringBytes > ringBytes || s.ringBytes > shardRingBytes) {
		n := len(r.ring[drop].Data)
		r.ringBytes -= int32(n)
		s.ringBytes -= n
		r.ringFrom = r.ring[drop].Seq
		r.ring[drop] = Record{} // its memory goes
		drop++
	}
	r.ring = r.ring[drop:]
	r.ringUntil = now + int64(ringAge)
	s.schedule(r, r.ringUntil)
}

func (s *shard) dropRing(r *room) {
	s.ringBytes -= int(r.ringBytes)
	r.ring, r.ringBytes, r.ringFrom = nil, 0, r.last
}

// wake does what a room's time has come for.
func (s *shard) wake(r *room, now int64) {
	if r.idle() && now >= r.lingerUntil {
		s.unfollow(r)
		return
	}
	if r.unsubscribe == nil && now >= r.subscribeAt {
		s.subscribe(r, now)
	}
	if r.confirmAt != 0 && now >= r.confirmAt {
		s.suspect(r)
		r.confirmAt = 0
		if r.confirms++; int(r.confirms) < len(again) {
			r.confirmAt = now + int64(again[r.confirms]-again[r.confirms-1])
		}
	}
	if r.ring != nil && now >= r.ringUntil {
		s.dropRing(r)
	}
	s.wakeHeld(r, now)
	if g := r.gap; g != nil && g.fetching == nil && now >= g.at {
		s.fill(r, now)
	}
	s.reschedule(r)
}

// reschedule arms the timer of a room for the first of its times.
func (s *shard) reschedule(r *room) {
	if r.idle() {
		s.schedule(r, r.lingerUntil)
	}
	if r.unsubscribe == nil {
		s.schedule(r, r.subscribeAt)
	}
	if r.confirmAt != 0 {
		s.schedule(r, r.confirmAt)
	}
	if r.ring != nil {
		s.schedule(r, r.ringUntil)
	}
	for _, h := range r.waiting {
		s.schedule(r, min(h.fetchAt, h.until))
	}
	for _, h := range r.behind {
		if !h.fetching {
			s.schedule(r, min(h.at, h.until))
		}
	}
	if g := r.gap; g != nil && g.fetching == nil {
		s.schedule(r, g.at)
	}
}

// tick does what the time has come for.
func (s *shard) tick(now int64) {
	for len(s.timers) > 0 && s.timers[0].at <= now {
		d := heap.Pop(&s.timers).(due)
		if d.room.due != d.at {
			continue // its time is another one, or it has none and is not followed any more
		}
		d.room.due = 0
		s.wake(d.room, now)
	}
	for len(s.rounds) > 0 && s.rounds[0] <= now {
		s.rounds = s.rounds[1:]
		s.suspectAll()
	}
	if len(s.rounds) == 0 {
		s.rounds = append(s.rounds, now+s.every)
	}
	s.startCheck(now)
}

// next returns when tick must be called.
func (s *shard) next() int64 {
	at := s.rounds[0]
	if len(s.timers) > 0 {
		at = min(at, s.timers[0].at)
	}
	if len(s.suspects) > 0 && s.checking == nil {
		at = min(at, s.checkAt)
	}
	return at
}

// schedule calls wake at a time, or earlier.
func (s *shard) schedule(r *room, at int64) {
	if r.due == 0 || at < r.due {
		r.due = at
		heap.Push(&s.timers, due{at, r})
	}
}

// due is the time of a room. One whose time was set to an earlier one later has several; the others mean nothing.
type due struct {
	at   int64
	room *room
}

// dues is a heap, the earliest first.
type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].at < d[j].at }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(due)) }
func (d *dues) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	(*d)[last] = due{}
	*d = (*d)[:last]
	return x
}

// quiet bounds the log lines of one kind.
type quiet struct {
	last   int64
	silent uint64
}

// line reports whether a line may be logged, and how many were not since the last one.
func (q *quiet) line(now int64) (notLogged uint64, ok bool) {
	if q.last != 0 && now-q.last < int64(warnEvery) {
		q.silent++
		return 0, false
	}
	notLogged = q.silent
	q.last, q.silent = now, 0
	return notLogged, true
}
