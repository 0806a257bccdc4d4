//go:build !invariants

package frame

// invariants switches on the checks that are too dear for every day: see the package comment.
const invariants = false
