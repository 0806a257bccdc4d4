package config

import "github.com/KimMachineGun/automemlimit/memlimit"

// memory returns the memory that this process may take at most [bytes]: the limit of its cgroup or what the machine has,
// whichever is less; 0 when neither is known.
func memory() uint64 {
	least := uint64(0)
	for _, of := range []memlimit.Provider{memlimit.FromCgroup, memlimit.FromSystem} {
		if n, err := of(); err == nil && n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}
