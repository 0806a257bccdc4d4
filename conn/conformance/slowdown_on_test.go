//go:build race || invariants

package conformance

// slow leaves the largest cases out: megabytes, of which these builds check every byte.
const slow = true
