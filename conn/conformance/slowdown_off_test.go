//go:build !race && !invariants

package conformance

// slow leaves the largest cases out.
const slow = false
