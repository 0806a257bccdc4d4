//go:build !race

package e2e

// heavyCases is whether the heavy cases of the conformance suite are run: under the race detector, which this test does not
// need, the suite's own parser takes minutes for them.
const heavyCases = true
