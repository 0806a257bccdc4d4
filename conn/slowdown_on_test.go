//go:build race || invariants

package conn

// slowdown divides what the largest tests do: every call is checked in these builds, at a microsecond and more.
const slowdown = 20
