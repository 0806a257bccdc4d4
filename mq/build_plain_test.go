//go:build !race && !invariants

package mq

const plainBuild = true
