//go:build race && !invariants

package sim

// slowdown divides the number of seeds in builds that check more and are slower for it.
const slowdown = 20
