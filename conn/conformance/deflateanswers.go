package conformance

import "fmt"

// deflateAnswers are parameters of answers. Whether one is allowed depends on the offer, and on nothing else: agree says so.
var deflateAnswers = func() (all []string) {
	all = []string{"", serverFresh, clientFresh, serverFresh + "; " + clientFresh, clientFresh + "; " + serverFresh}
	for bits := 8; bits <= 15; bits++ {
		server, client := fmt.Sprintf("%s=%d", serverWindow, bits), fmt.Sprintf("%s=%d", clientWindow, bits)
		for _, params := range []string{server, client, server + "; " + client, fmt.Sprintf("%s; %s=%d", server, clientWindow, 23-bits)} {
			all = append(all, params, params+"; "+serverFresh, params+"; "+serverFresh+"; "+clientFresh, clientFresh+"; "+params)
		}
	}
	return append(all, serverFresh+`; server_max_window_bits="10"`, serverFresh+`; server_max_window_bits=10; client_max_window_bits="10"`,
		serverFresh+" ;\tserver_max_window_bits = 9 ", "client_max_window_bits = 12; server_max_window_bits = 10")
}()

// DeflateAnswers returns the cases on permessage-deflate for the suite as the server of a client that offers it
// (Target.Inflates): answers that the client has to take or to give up at, and what Deflate has on messages. limit is the
// longest message that the client takes [bytes, inflated].
func DeflateAnswers(limit int) []Case {
	t := table{section: "RFC 7692 7.1", server: true}
	for _, params := range deflateAnswers {
		t.answered("answer "+params, func(string) []string { return []string{deflateOffer(params)} })
	}
	for _, params := range append(deflateOffers.not, clientWindow, serverFresh+"; "+clientWindow) {
		t.answered("answer not "+params, func(string) []string { return []string{deflateOffer(params)} })
		t.answered("answer what is asked for and "+params, grants(params))
	}
	for _, lines := range [][]string{{}, {"x-unknown"}, {"x-webkit-deflate-frame"}, {"permessage-bzip2"}} {
		t.answered(fmt.Sprintf("answer the lines %q", lines), func(string) []string { return lines })
	}
	for _, s := range []struct{ name, before, behind string }{
		{"twice", "", ", " + deflateName}, {"and another extension", "", ", x-unknown"}, {"behind another extension", "x-unknown, ", ""},
		{"with an empty parameter", "", ";"}, {"with a parameter without a name", "", "; =1"}, {"with a parameter without a value", "", "; server_max_window_bits="},
		{"with a value in half of quotes", "", `; server_max_window_bits="8`}, {"with a name of two words", "x ", ""}, {"in a list with empty elements", " , ", ",\t,"},
	} {
		t.answered("answer "+s.name, func(offer string) (l []string) {
			for _, line := range grants("")(offer) {
				l = append(l, s.before+line+s.behind)
			}
			return l
		})
	}
	t.answered("answer in two lines", func(offer string) []string { return append(grants("")(offer), grants("")(offer)...) })
	t.messages("", clientFresh+"; "+serverFresh)
	t.violations(limit)
	return t.cases
}

// answered adds cases that answer, and then exchange messages under what was agreed, if the answer is allowed.
func (t *table) answered(name string, agrees func(offer string) []string) {
	for _, n := range []int{300, 40_000} { // below and above every window
		t.add(fmt.Sprintf("deflate: %s, messages of %d bytes", name, n), good(exchange(n)...)...).agrees = agrees
	}
}
