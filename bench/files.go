package bench

import "fmt"

// checkFiles returns why the connections do not fit into the open files that a process, or each loop, may have: limit.
func (o *Options) checkFiles(limit uint64) error {
	if o.TablePerLoop {
		reserve := uint64(filesPerTable + o.Loops)
		allowed := uint64(0)
		if limit > reserve {
			allowed = limit - reserve
		}
		most := uint64((o.Connections + o.Loops - 1) / o.Loops)
		if most > allowed {
			return fmt.Errorf("flag --connections: %d on %d loops are %d on one, the limit of a loop's open files (RLIMIT_NOFILE) is %d, "+
				"enough for %d connections: add --loops", o.Connections, o.Loops, most, limit, allowed)
		}
		if o.Stalled == 0 {
			return nil
		}
		// The stalled connections are in the process's table.
		reserve += reservedFiles
		if need := uint64(o.Stalled) + reserve; need > limit {
			return fmt.Errorf("flag --stalled: %d need %d open files, the limit here (RLIMIT_NOFILE) is %d", o.Stalled, need, limit)
		}
		return nil
	}
	reserve := uint64(reservedFiles + o.Loops*filesPerLoop)
	need := uint64(o.Connections+o.Stalled) + reserve
	if need <= limit {
		return nil
	}
	allowed := uint64(0)
	if limit > reserve {
		allowed = limit - reserve
	}
	what := "flag --connections"
	if o.Stalled > 0 {
		what = "flags --connections and --stalled"
	}
	return fmt.Errorf("%s: %d need %d open files, the limit here (RLIMIT_NOFILE) is %d, enough for %d connections; "+
		"--fd-tables=per-loop gives every loop so many", what, o.Connections+o.Stalled, need, limit, allowed)
}
