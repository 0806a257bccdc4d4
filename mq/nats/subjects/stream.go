package subjects

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Rooms returns the configuration of the stream with the logs of rooms, as far as gateways rely on it: what it stores it
// publishes again on the subjects of Room, and everyone may read it directly from any replica. Limits and replicas are
// for who makes the stream to set.
func (n Names) Rooms() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        n.RoomsStream(),
		Description: "mqgate: the logs of rooms",
		Subjects:    []string{n.AllLogs()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		Storage:     jetstream.FileStorage,
		AllowDirect: true,
		RePublish:   &jetstream.RePublish{Source: n.AllLogs(), Destination: n.prefix + ".room.{{wildcard(1)}}"},
	}
}

// Disconnections returns the configuration of the stream with the ends of connections. Gateways and workers make it, whoever
// comes first; storage and replicas are for who does so to set. One that is there stays as it is, whatever it was made
// with, so that an operator may change it with the tools of NATS: nothing but its name and subjects is relied on.
func (n Names) Disconnections() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        n.DisconnectedStream(),
		Description: "mqgate: ends of connections",
		Subjects:    []string{n.AllDisconnected()},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		Storage:     jetstream.FileStorage,
		MaxAge:      endsAge,
		Duplicates:  endsDuplicates,
	}
}

const (
	// endsAge is how long an end stays in the stream [time], for workers that were not there.
	endsAge = 24 * time.Hour

	// endsDuplicates is how long the stream knows an end again by its message id [time]. A gateway that has lost NATS before
	// the acknowledgement came, or whose acknowledgement does not come in time, publishes the end again once NATS is back: so
	// this is how long NATS may be away without a worker being told twice. Ten minutes are enough for servers that start
	// again, one after the other, and for most failures of a network. The server keeps some 150 bytes for each end of that
	// time, 90 MB at 1000 ends in a second, which is why it is not longer. What is told twice after longer outages is at
	// most what a gateway had under way then (256 ends), and does no harm to rooms: they handle an end any number of times.
	endsDuplicates = 10 * time.Minute
)
