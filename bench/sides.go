package bench

// What is counted for each server by itself.

// side is what one loop has counted of the connections to one server.
type side struct {
	opened uint64
	failed map[string]uint64 // by error text
	lost   map[uint16]uint64 // connections not closed by us, by close code
}

// sideTally is what the run has counted of one server.
type sideTally struct {
	opened, failed uint64
	lost           map[uint16]uint64
	messages       uint64 // that came back in the measured phase
	missing        uint64 // final: that were due on its connections, and did not come
}

// newSides makes what a driver counts.
func newSides(places int) []side {
	list := make([]side, places)
	for k := range list {
		list[k] = side{failed: map[string]uint64{}, lost: map[uint16]uint64{}}
	}
	return list
}

// lose counts that so many messages did not come on a connection to a server.
func (t *tally) lose(place, n int) {
	t.missing += uint64(n)
	t.sides[place].missing += uint64(n)
}

// churnSide counts the connections to one server.
type churnSide struct{ dialled, upgraded, failed, lost uint64 }

// failed counts a connection that could not be opened.
func (c *churner) failed(number uint64, text string) {
	k := c.places.of(number)
	c.n.sides[k].failed++
	countText(c.n.failed, c.places.named(k, text))
}

// upgraded counts an upgrade.
func (c *churner) upgraded(p *peer) {
	p.upgraded = true
	c.n.upgraded++
	c.n.sides[c.places.of(p.number)].upgraded++
}
