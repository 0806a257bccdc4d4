package subjects

import (
	"testing"
	"time"
)

// The stream of ends keeps an end for longer than it knows it again, as the server demands, and knows it again for longer
// than a gateway needs to publish it again once NATS is back.
func TestDisconnections(t *testing.T) {
	c := mustNew(t, "my.app").Disconnections()
	if c.Name != "my_app_disconnected" || len(c.Subjects) != 1 || c.Subjects[0] != "my.app.disconnected.*" {
		t.Errorf("%+v", c)
	}
	if c.Duplicates != 10*time.Minute || c.MaxAge != 24*time.Hour || c.Duplicates > c.MaxAge {
		t.Errorf("duplicates %v, age %v", c.Duplicates, c.MaxAge)
	}
}
