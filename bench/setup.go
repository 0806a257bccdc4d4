package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
)

// step is one request that the connections of a loop make before or after the traffic: who they are, which room they are
// in. It belongs to the loop's goroutine.
type step struct {
	name    string
	n       int                   // connections 0 to n-1 of this loop
	request func(i uint32) []byte // the encoded envelope, with room for an id
	status  []string              // any of these is good

	cursor, waiting, done int
	answered              []bool // or nothing is waited for
}

// greeter takes the connections of one loop through steps, maxOpening of them at one time over all loops: a server answers
// JoinRoom with all members, and tells all members.
type greeter struct {
	d *driver
	e *envelopes
	s *step // the present one; nil: none
}

// begin begins a step.
func (g *greeter) begin(s *step) {
	s.answered = make([]bool, s.n)
	g.s = s
	g.some()
}

// some sends further requests of the step.
func (g *greeter) some() {
	s := g.s
	for ; s.cursor < s.n && s.waiting < g.d.maxOpening; s.cursor++ {
		i := uint32(s.cursor)
		c := g.d.connOf(i)
		if c == nil {
			s.answered[i] = true // counted as failed or lost
			s.done++
			continue
		}
		request := s.request(i)
		putID(request, g.d.number(i), setupID)
		p, err := g.e.begin(c, len(request))
		if err == nil {
			copy(p, request)
			err = g.e.send(c, p)
		}
		if err != nil {
			s.answered[i] = true // closing: OnClose counts it
			s.done++
			continue
		}
		s.waiting++
	}
}

// took takes the message in g.e.env when it is the answer to a step's request.
func (g *greeter) took(i uint32) bool {
	env := &g.e.env
	number, seq, ok := parseID(env.RequestID)
	s := g.s
	if s == nil || !ok || seq != setupID || number != g.d.number(i) || env.MessageType != wire.Response || int(i) >= s.n || s.answered[i] {
		return false
	}
	s.answered[i] = true
	s.waiting--
	s.done++
	status := env.Type
	if env.Type == wire.TypeError {
		var e wire.Error
		if e.Unmarshal(env.Payload) == nil {
			status = e.Reason
		}
	} else if text, err := wire.PeekStatus(env.Payload); err == nil {
		status = text
	}
	good := false
	for _, want := range s.status {
		good = good || status == want
	}
	if !good {
		g.d.fail(i, fmt.Sprintf("%s was answered with %q", s.name, status))
	}
	g.some()
	return true
}

// greeting is a load whose connections go through steps.
type greeting interface{ greeterOf() *greeter }

// greet has all connections go through a step, made for each loop by of, and waits. false: it went wrong, or took too long.
func (r *run) greet(ctx context.Context, of func(d *driver) *step) bool {
	steps := make([]*step, len(r.drivers))
	total := 0
	for i, d := range r.drivers {
		steps[i] = of(d)
		total += steps[i].n
		d.loop.Do(func() { d.load.(greeting).greeterOf().begin(steps[i]) })
	}
	limit := openGrace + time.Duration(total)*time.Second/openPace
	done := func() bool {
		n := 0
		for i, d := range r.drivers {
			d.loop.Do(func() { n += steps[i].done })
		}
		return n == total
	}
	ok := r.until(ctx, steps[0].name, time.Now().Add(limit), done)
	for i, d := range r.drivers {
		d.loop.Do(func() {
			if s := steps[i]; s.done < s.n && ctx.Err() == nil {
				for i, answered := range s.answered {
					if !answered {
						d.fail(uint32(i), s.name+" was not answered in time")
					}
				}
			}
			d.load.(greeting).greeterOf().s = nil
		})
	}
	return ok && sum(r.count(false).failed) == 0
}

// authenticate has all connections authenticate.
func (r *run) authenticate(ctx context.Context) bool {
	return r.greet(ctx, func(d *driver) *step {
		return &step{name: wire.TypeAuthenticate, n: len(d.clients), status: []string{wire.StatusOK}, request: func(uint32) []byte {
			m := wire.Authenticate{ClientVersion: "1", DeviceID: "mqgate-bench", Platform: "mqgate-bench", PlatformVersion: "1",
				AuthenticationToken: r.o.Token}
			return requestTemplate(wire.TypeAuthenticate, m.AppendTo(nil))
		}}
	})
}
