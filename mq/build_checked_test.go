//go:build race || invariants

package mq

// plainBuild: with the race detector sync.Pool drops at random what it is given, and the checks of the invariants build
// allocate themselves, so that allocations cannot be counted. Both are slow, so that random tests try fewer seeds.
const plainBuild = false
