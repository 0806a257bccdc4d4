//go:build invariants

package loop

// invariants switches on checks that cost time: see CONTRIBUTING.md.
const invariants = true
