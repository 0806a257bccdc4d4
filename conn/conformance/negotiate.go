package conformance

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// agreement is what the opening handshake has agreed on: RFC 7692 section 7.1.
type agreement struct {
	on                                 bool
	serverBits, clientBits             int
	serverNoTakeover, clientNoTakeover bool
}

// direction is what was agreed on for what one end sends.
func (a agreement) direction(server bool) (bits int, alone bool) {
	if server {
		return a.serverBits, a.serverNoTakeover
	}
	return a.clientBits, a.clientNoTakeover
}

// offered is one offer or answer: its parameters.
type offered struct {
	name   string
	params map[string]string // without a value: "-"
	fault  error
}

// parseOffers splits the value of Sec-WebSocket-Extensions. What the suite itself writes has no comma or semicolon within
// quotes; whoever answers so is misunderstood and fails.
func parseOffers(value string) []offered {
	var all []offered
	for element := range strings.SplitSeq(value, ",") {
		parts := strings.Split(element, ";")
		o := offered{name: strings.TrimSpace(parts[0]), params: map[string]string{}}
		if o.name == "" {
			continue
		}
		for _, part := range parts[1:] {
			name, v, has := strings.Cut(part, "=")
			name, v = strings.TrimSpace(name), strings.TrimSpace(v)
			if len(v) >= 2 && strings.HasPrefix(v, `"`) && strings.HasSuffix(v, `"`) {
				v = v[1 : len(v)-1]
			}
			if !has {
				v = "-"
			}
			if _, twice := o.params[name]; twice {
				o.fault = fmt.Errorf("%s twice", name)
			}
			o.params[name] = v
		}
		all = append(all, o)
	}
	return all
}

// bits is a number of window bits, 8 to 15 without leading zeros: RFC 7692 section 7.1.2.
func windowBits(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 8 && n <= 15 && strconv.Itoa(n) == s
}

// check finds out whether the parameters are allowed, in an offer or in an answer: RFC 7692 section 7.1.
func (o *offered) check(answer bool) error {
	if o.fault != nil {
		return o.fault
	}
	for name, value := range o.params {
		_, number := windowBits(value)
		ok := false
		switch name {
		case serverFresh, clientFresh:
			ok = value == "-"
		case serverWindow:
			ok = number
		case clientWindow:
			ok = number || value == "-" && !answer
		}
		if !ok {
			return fmt.Errorf("parameter %s with value %s", name, value)
		}
	}
	return nil
}

// agree judges the answer to an offer, and returns what they agree on.
func agree(offer string, got []string) (agreement, error) {
	answers := parseOffers(strings.Join(got, ","))
	if len(answers) == 0 {
		return agreement{}, nil
	}
	a := answers[0]
	if len(answers) > 1 || a.name != deflateName {
		return agreement{}, fmt.Errorf("extensions %q agreed to", got)
	}
	if err := a.check(true); err != nil {
		return agreement{}, fmt.Errorf("an answer with %w", err)
	}
	fault := errors.New("permessage-deflate was not offered in a form that can be agreed to")
	for _, o := range parseOffers(offer) {
		if o.name != a.name || o.check(false) != nil {
			continue
		}
		if fault = a.answers(o); fault == nil {
			agreed := agreement{on: true, serverBits: 15, clientBits: 15}
			_, agreed.serverNoTakeover = a.params[serverFresh]
			_, told := a.params[clientFresh]
			_, said := o.params[clientFresh]
			agreed.clientNoTakeover = told || said // 7.1.1.2: who offers this is not going to use it, whatever is answered
			if n, ok := windowBits(a.params[serverWindow]); ok {
				agreed.serverBits = n
			}
			if n, ok := windowBits(a.params[clientWindow]); ok {
				agreed.clientBits = n
			}
			return agreed, nil
		}
	}
	return agreement{}, fault
}

// answers finds out whether the answer a may follow the offer o.
func (a *offered) answers(o offered) error {
	if _, asked := o.params[serverFresh]; asked {
		if _, granted := a.params[serverFresh]; !granted {
			return errors.New("server_no_context_takeover was asked for and ignored") // 7.1.1.1
		}
	}
	if most, asked := windowBits(o.params[serverWindow]); asked {
		if n, granted := windowBits(a.params[serverWindow]); !granted || n > most {
			return errors.New("server_max_window_bits was asked for and ignored") // 7.1.2.1
		}
	}
	if n, set := windowBits(a.params[clientWindow]); set {
		value, allowed := o.params[clientWindow]
		if !allowed {
			return errors.New("client_max_window_bits was not offered") // 7.1.2.2
		}
		if most, has := windowBits(value); has && n > most {
			return errors.New("client_max_window_bits is above the offer")
		}
	}
	return nil
}

// grants makes an answer that the offer allows: the parameters, and what else the client has asked for. Without a good
// offer there is none.
func grants(params string) func(offer string) []string {
	return func(offer string) []string {
		for _, o := range parseOffers(offer) {
			if o.name != deflateName || o.check(false) != nil {
				continue
			}
			answer := deflateOffer(params)
			if _, asked := o.params[serverFresh]; asked && !strings.Contains(params, serverFresh) {
				answer += "; " + serverFresh
			}
			if most, asked := o.params[serverWindow]; asked {
				answer += "; " + serverWindow + "=" + most
			}
			return []string{answer}
		}
		return nil
	}
}
