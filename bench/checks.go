package bench

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Check is something that must hold after a churn.
type Check struct {
	Check    string `json:"check"`
	Expected string `json:"expected"`
	Got      string `json:"got"`
	Holds    bool   `json:"holds"`
}

// reading is the server at one moment.
type reading struct {
	samples Samples
	fds     int // open files of its process; below 0: not known
	memory  *memory
}

// churnResult is what the checks judge.
type churnResult struct {
	n             churnCount
	before, after reading // when nothing had begun, and when all was over
	warm          reading // after the warm-up, when its connections were gone
	servers       int     // how many there are: the readings are the sum of all
	maxGrowth     int64   // that the sum of their memory may have grown since then [bytes]: --max-growth times servers
	refusals      Refusals
}

// quiet are the gauges that are as before when nothing is left of the connections.
var quiet = []string{"mqgate_connections_open", "mqgate_connections_handshaking", "mqgate_connections_lingering", "mqgate_pending_bytes",
	"mqgate_requests_in_flight", "mqgate_server_requests_in_flight", "mqgate_subscriptions", "mqgate_clients_with_state",
	"mqgate_disconnects_unpublished"}

// quietWorker are those of the built-in worker, which a server may not have.
var quietWorker = []string{"mqgate_rooms_sessions", "mqgate_rooms_rooms", "mqgate_rooms_members"}

// letGo reports whether the server has let go of everything.
func letGo(before, now Samples) bool {
	still := func(name string) bool { return now.value(name) > before.value(name) }
	return !slices.ContainsFunc(quiet, still) && !slices.ContainsFunc(quietWorker, still)
}

// count writes a value of a metric.
func count(v float64) string {
	if math.IsNaN(v) {
		return "not exported"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// checks judges a churn. Every equation is over what grew from before to after.
func (r *churnResult) checks() []Check {
	var list []Check
	equal := func(what string, want, got float64) {
		list = append(list, Check{what, count(want), count(got), want == got})
	}
	within := func(what string, low, got, high float64) {
		list = append(list, Check{what, count(low) + " to " + count(high), count(got), low <= got && got <= high})
	}
	before, after := r.before.samples, r.after.samples
	grew := func(name string) float64 { return after.value(name) - before.value(name) }
	// A label that is left out while its counter is 0 has not grown from before.
	grew0 := func(name string) float64 { return or0(after.value(name)) - or0(before.value(name)) }
	n := &r.n

	equal("connections that the server did not end in time", 0, float64(sum(n.stuck)))
	equal("last words of the server (Close, FIN) wrong or missing", 0, float64(sum(n.last)))
	equal("accounting_drift", 0, after.value("mqgate_accounting_drift"))
	for _, name := range quiet {
		equal(strings.TrimPrefix(name, "mqgate_")+" as before", before.value(name), after.value(name))
	}
	for _, name := range quietWorker {
		if !math.IsNaN(before.value(name)) {
			equal(strings.TrimPrefix(name, "mqgate_")+" as before", before.value(name), after.value(name))
		}
	}
	equal("accepts_total grew by the connections made", float64(n.connected), grew("mqgate_accepts_total"))
	list = append(list, Check{"connections upgraded", "at least 1", count(r.upgrades()), r.upgrades() >= 1}) // else the rest says nothing
	equal("connections_total grew by the upgrades", r.upgrades(), grew("mqgate_connections_total"))
	equal("disconnects_total grew by the upgrades", r.upgrades(), grew0("mqgate_disconnects_total"))
	list = append(list, r.causes())
	equal("handshakes_timed_out_total grew by those that said nothing more", float64(n.silent+n.silentRequest), grew("mqgate_handshakes_timed_out_total"))
	equal("handshakes_refused_total{408} grew by those that had begun a request", float64(n.silentRequest), grew("mqgate_handshakes_refused_total{status=408}"))
	if r.refusals != RefusalsNone {
		within("refused by limits: those that were told so, or early-fins that did not wait for it besides", float64(n.refused), r.byLimits(), float64(n.refused+n.blind))
	}
	equal("handshakes_refused_total did not grow else", float64(n.silentRequest), grew("mqgate_handshakes_refused_total")-r.byLimits())
	within("slow_consumers_total grew by the floods that were not read, or more", float64(n.flooded), grew("mqgate_slow_consumers_total"), float64(n.killed[wayStoppedReader]))

	accepted, dropped := grew("mqgate_requests_accepted_total"), grew("mqgate_requests_total{outcome=dropped}")
	ended := grew("mqgate_requests_total")
	equal("requests accepted = answered + connection gone", accepted, ended)
	within("requests answered: those that came in, or more", float64(n.answered), ended-dropped, float64(n.sent))
	if n.echoed == 0 {
		within("requests accepted: not more than were sent", float64(n.answered), accepted, float64(n.sent))
	} else {
		equal("requests accepted by a path that echoes", 0, accepted)
	}
	equal("worker_panics_total", 0, grew("mqgate_worker_panics_total"))

	most := func(what string, was, got, slack float64, text func(float64) string) {
		list = append(list, Check{what, "at most " + text(was+slack), text(got), got <= was+slack})
	}
	if r.warm.fds >= 0 && r.after.fds >= 0 {
		most("open files", float64(r.warm.fds), float64(r.after.fds), 0, count)
	}
	warm := r.warm.samples
	most("go_goroutines", warm.value("go_goroutines"), after.value("go_goroutines"), float64(churnGoroutines*r.servers), count)
	const heap = "go_memstats_heap_inuse_bytes"
	most(heap, warm.value(heap), after.value(heap), float64(r.maxGrowth), bytesText)
	if r.warm.memory != nil && r.after.memory != nil {
		most("RssAnon", float64(r.warm.memory.Anon), float64(r.after.memory.Anon), float64(r.maxGrowth), bytesText)
	}
	return list
}

// causes compares disconnects_total with how the connections went, cause by cause and code by code.
func (r *churnResult) causes() Check {
	const name = "mqgate_disconnects_total"
	got := map[string]uint64{}
	for key, v := range r.after.samples {
		labels, ok := strings.CutPrefix(key, name+"{")
		if !ok {
			continue
		}
		cause, code := label(labels, "reason"), label(labels, "code")
		if slices.Contains(endsOther, cause) {
			got[endOther] += uint64(v - r.before.samples[key])
		} else {
			got[cause+"/"+code] += uint64(v - r.before.samples[key])
		}
	}
	ends := maps.Clone(r.n.ends)
	ends[endOther] -= r.n.upgraded - r.upgraded() // those were none, and all of them count there
	c := Check{Check: "disconnects_total grew by cause and code as the connections went", Expected: "no difference"}
	var wrong []string
	for _, key := range slices.Sorted(maps.Keys(mergeKeys(ends, got))) {
		if ends[key] != got[key] {
			wrong = append(wrong, fmt.Sprintf("%s: %d instead of %d", key, got[key], ends[key]))
		}
	}
	c.Holds, c.Got = wrong == nil, cmp.Or(strings.Join(wrong, "; "), c.Expected)
	return c
}

func mergeKeys(a, b map[string]uint64) map[string]uint64 {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

// label returns the value of a label in "a=x,b=y}".
func label(labels, name string) string {
	for part := range strings.SplitSeq(strings.TrimSuffix(labels, "}"), ",") {
		if v, ok := strings.CutPrefix(part, name+"="); ok {
			return v
		}
	}
	return ""
}
