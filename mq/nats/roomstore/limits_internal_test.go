package roomstore

import (
	"errors"
	"testing"

	"github.com/mqgate/mqgate/mq/nats/subjects"
)

// What waits for one room is bounded.
func TestQueueLimit(t *testing.T) {
	names, err := subjects.New("x")
	if err != nil {
		t.Fatal(err)
	}
	for waiting0, want := range map[int]error{maxQueue - 1: nil, maxQueue: errBusy, maxQueue + 1: errBusy} {
		e := &Engine{names: names, actors: map[string]*actor{}}
		a := &actor{e: e, id: "r", busy: true, queue: make([]*waiting, waiting0)}
		e.actors["r"] = a
		if err := e.enqueue("r", &waiting{}); !errors.Is(err, want) {
			t.Errorf("with %d waiting: %v, want %v", waiting0, err, want)
		}
	}
}

// Times that must be in order, or things go wrong in ways that no test would see.
func TestTimes(t *testing.T) {
	if claimTime <= opTimeout {
		t.Error("an alias could be taken while its room is being created")
	}
	if ackTimeout >= opTimeout {
		t.Error("nothing would be sent again")
	}
	if duplicates <= opTimeout {
		t.Error("a record that is sent again could be stored twice")
	}
	if fenceTime <= opTimeout || goneTime <= fenceTime {
		t.Error("an Authenticate that is under way could make a session of a connection whose end was handled")
	}
	if maxSnapshotEvery*2 > recordsPerRoom {
		t.Error("a snapshot that fails once would leave a gap")
	}
}
