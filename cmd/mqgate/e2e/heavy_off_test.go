//go:build race

package e2e

const heavyCases = false
