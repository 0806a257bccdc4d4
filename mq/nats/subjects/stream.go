package subjects

import "github.com/nats-io/nats.go/jetstream"

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
