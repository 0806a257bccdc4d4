package bench

import (
	"fmt"
	"strconv"
	"strings"
)

// URLReport is what a run at several servers has of one of them.
type URLReport struct {
	URL         string `json:"url"`
	PID         *int   `json:"pid"`         // null: not known, and likewise what follows of the process
	Connections uint64 `json:"connections"` // dealt to it; churn: made
	Opened      uint64 `json:"opened"`      // churn: upgraded, or gone without waiting for the answer
	Failed      uint64 `json:"failed"`
	// LostConnections is those that it, or the network, ended.
	LostConnections uint64            `json:"lost_connections"`
	LostByCode      map[string]uint64 `json:"lost_connections_by_code"`
	// Messages is what came from it as it should, in the measured phase, and LostMessages what was due on its connections
	// and did not come, in all phases; of a broadcast it does not matter at which server it was sent. null: churn.
	Messages              *uint64  `json:"messages"`
	LostMessages          *uint64  `json:"lost_messages"`
	RSSBytes              *float64 `json:"rss_bytes"` // these as in ServerReport
	RSSAnonBytes          *float64 `json:"rss_anon_bytes"`
	RSSBytesPerConnection *float64 `json:"rss_bytes_per_connection"`
	CPUSeconds            *float64 `json:"cpu_seconds"`
}

// reportURLs completes p when there are several servers.
func (r *run) reportURLs(p *Report, t *tally) {
	if r.places.count() < 2 {
		return
	}
	dealt := r.places.dealt(uint64(r.o.Connections))
	opened := map[int]uint64{} // by process: one may be at several places
	for k, to := range r.places.list {
		u := URLReport{URL: to.target.URL, Connections: dealt[k], LostByCode: map[string]uint64{}}
		if r.churn != nil {
			s := r.churn.result.n.sides[k]
			u.Connections, u.Opened, u.Failed, u.LostConnections = s.dialled, s.upgraded, s.failed, s.lost
		} else {
			s := &t.sides[k]
			u.Opened, u.Failed, u.LostConnections = s.opened, s.failed, sum(s.lost)
			u.Messages, u.LostMessages = &s.messages, &s.missing
			for code, n := range s.lost {
				u.LostByCode[strconv.Itoa(int(code))] = n
			}
		}
		if pid := r.server.each[k].pid; pid != 0 {
			u.PID = &pid
			opened[pid] += u.Opened
		}
		if m := r.idle.at(k); m != nil {
			u.RSSBytes, u.RSSAnonBytes = number(m.RSS), number(m.Anon)
		}
		if cpu := r.serverCPU.at(k); cpu != nil && !r.measuredTo.IsZero() {
			u.CPUSeconds = number(round(cpu.Seconds(), 3))
		}
		p.Servers = append(p.Servers, u)
	}
	for k := range p.Servers {
		if u := &p.Servers[k]; u.PID != nil {
			u.RSSBytesPerConnection = perConnection(r.base.at(k), r.idle.at(k), opened[*u.PID])
		}
	}
}

// writeURLs writes the lines of the report for people.
func (p *Report) writeURLs(line func(head, format string, args ...any)) {
	for k, u := range p.Servers {
		head := ""
		if k == 0 {
			head = "by URL"
		}
		line(head, "%s", u.URL)
		codes := ""
		for _, code := range byCount(u.LostByCode) {
			codes += fmt.Sprintf(", %d with close code %s", u.LostByCode[code], code)
		}
		line("", "  %d of %d opened, %d failed, %d lost%s", u.Opened, u.Connections, u.Failed, u.LostConnections, codes)
		var parts []string
		part := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
		if u.Messages != nil && p.MessagesSent > 0 {
			part("%d messages came, %d lost", *u.Messages, *u.LostMessages)
		}
		if u.PID == nil {
			part("process not known")
		} else {
			part("pid %d", *u.PID)
		}
		if u.CPUSeconds != nil {
			part("CPU %.2f s", *u.CPUSeconds)
		}
		if u.RSSBytes != nil {
			part("RSS %s", bytesText(*u.RSSBytes))
		}
		line("", "  %s", strings.Join(parts, ", "))
	}
}
