//go:build invariants

package sim

// slowdown divides the number of seeds in builds that check more and are slower for it: here every call of a loop looks
// at the stack.
const slowdown = 200
