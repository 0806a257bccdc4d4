//go:build !race && !invariants

package conn

// slowdown divides what the largest tests do.
const slowdown = 1
