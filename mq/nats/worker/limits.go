package worker

import "time"

// drainTimeout is how long Run waits for what is being handled when its context is done: a little longer than a gateway
// waits for an answer by default, so that nothing is thrown away that somebody may still wait for.
const drainTimeout = 20 * time.Second
