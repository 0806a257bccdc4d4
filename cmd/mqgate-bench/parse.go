package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mqgate/mqgate/bench"
)

// usageError is all that is wrong with the command line.
type usageError struct{ faults []string }

// Error returns a headline and a line per fault.
func (e *usageError) Error() string {
	noun := "faults"
	if len(e.faults) == 1 {
		noun = "fault"
	}
	return fmt.Sprintf("mqgate-bench: %d %s (mqgate-bench --help explains):\n  %s", len(e.faults), noun, strings.Join(e.faults, "\n  "))
}

func scenarioNames() string {
	var names []string
	for _, s := range bench.Scenarios() {
		names = append(names, s.Name)
	}
	return list(names, "or")
}

// list writes words as one would say them: a, b or c.
func list(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}

// parse reads the arguments. It goes on after a fault, so that all are reported at once; the error is a *usageError.
func parse(args []string, sys bench.System) (*command, error) {
	c := &command{}
	e := &usageError{}
	fault := func(format string, args ...any) { e.faults = append(e.faults, fmt.Sprintf(format, args...)) }
	var scenario []string
	given := map[string][]string{} // by name, the values in their order
	var order []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--help" || arg == "-h" {
			c.help = true
			continue
		}
		if !isFlag(arg) {
			scenario = append(scenario, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		f := findFlag(name)
		if f == nil || !strings.HasPrefix(arg, "--") {
			written, _, _ := strings.Cut(arg, "=")
			fault("flag %s: unknown flag%s", oneLine(written), suggestion(strings.TrimLeft(written, "-")))
			if !hasValue && len(args) > 0 && !isFlag(args[0]) && len(scenario) > 0 {
				args = args[1:] // most likely its value
			}
			continue
		}
		if !hasValue {
			if len(args) == 0 || isFlag(args[0]) {
				fault("flag --%s: has no value, expected --%s=%s", name, name, f.placeholder)
				continue
			}
			value, args = args[0], args[1:]
		}
		if given[name] == nil {
			order = append(order, name)
		}
		given[name] = append(given[name], value)
	}
	if c.help {
		return c, nil
	}
	if len(scenario) > 0 && scenario[0] == compareWord {
		c.compare.on, scenario = true, scenario[1:]
	}
	c.options.Scenario = chooseScenario(scenario, fault)
	if s := c.options.Scenario; c.compare.on && s != "" && !slices.Contains(bench.CompareScenarios, s) {
		fault("scenario %s: it cannot be compared, %s can", s, strings.Join(bench.CompareScenarios, " and "))
	}
	for i := range flags {
		f := &flags[i]
		if given[f.name] == nil && f.def != "" {
			if err := f.set(c, f.def); err != nil {
				panic(fmt.Sprintf("the default of --%s %v", f.name, err))
			}
		}
	}
	for _, name := range order {
		f := findFlag(name)
		if n := len(given[name]); n > 1 && !f.list {
			fault("flag --%s: given %d times, expected once", name, n)
		}
		for _, value := range given[name] {
			if err := f.set(c, value); err != nil {
				fault("flag --%s: %s %v", name, oneLine(strconv.Quote(value)), err)
			}
		}
		if s := c.options.Scenario; s != "" && !c.takes(f) {
			if c.compare.on {
				fault("flag --%s: compare %s does not use it", name, s)
				continue
			}
			verb := "does"
			users := strings.Split(f.scenario, " and ")
			if len(users) > 1 {
				verb = "do"
			}
			fault("flag --%s: scenario %s does not use it, %s %s", name, s, list(users, "and"), verb)
		}
	}
	if c.options.Scenario != "" {
		e.faults = append(e.faults, relations(c, given, sys)...)
		if err := c.compare.options.Validate(); c.compare.on && err != nil {
			e.faults = append(e.faults, strings.Split(err.Error(), "\n")...)
		}
	}
	if len(e.faults) > 0 {
		return nil, e
	}
	return c, nil
}

// relations completes the options and returns what contradicts each other. Only what was read without a fault is looked
// at: a field that is still zero had none.
func relations(c *command, given map[string][]string, sys bench.System) []string {
	o := &c.options
	if !slices.Contains(strings.Split(sending, " and "), o.Scenario) {
		o.Payload, o.Depth, o.Warmup = 0, 0, 0
	}
	if o.Scenario != "broadcast" {
		o.Rooms, o.Members = 0, 0
	} else {
		if given["connections"] != nil {
			return []string{"flag --connections: scenario broadcast does not use it: it opens --rooms times --members"}
		}
		if o.Connections = o.Rooms * o.Members; o.Connections > bench.MaxConnections {
			return []string{fmt.Sprintf("flags --rooms and --members: %d times %d are more than %d connections", o.Rooms, o.Members, bench.MaxConnections)}
		}
	}
	if faults := requestRelations(o, given); faults != nil {
		return faults
	}
	if faults := adminRelations(c, given); faults != nil {
		return faults
	}
	if o.Scenario != "connect" {
		o.BurstBytes = 0
	} else if o.BurstBytes == 0 && len(given["burst-bytes"]) == 0 {
		for _, name := range []string{"burst-after", "burst-reply"} {
			if given[name] != nil {
				return []string{"flag --" + name + ": without --burst-bytes it does nothing"}
			}
		}
	}
	if o.Stalled == 0 && len(given["stalled"]) == 0 && given["stalled-pairs"] != nil {
		return []string{"flag --stalled-pairs: without --stalled it does nothing"}
	}
	if o.Connections == 0 || o.Duration == 0 {
		return nil
	}
	if given["loops"] == nil {
		o.Loops = min(max(sys.CPUs, bench.MinLoops), bench.MaxLoops, o.Connections)
	}
	if err := o.Validate(sys); err != nil {
		return strings.Split(err.Error(), "\n")
	}
	return nil
}

// adminRelations is relations for the servers' metrics.
func adminRelations(c *command, given map[string][]string) []string {
	o, urls, n := &c.options, max(1, len(given["url"])), 0
	for i, url := range given["admin"] {
		if url != "" {
			n++
		}
		if slices.Contains(given["admin"][:i], url) {
			return []string{"flag --admin: " + oneLine(strconv.Quote(url)) + " is given twice"}
		}
	}
	switch {
	case o.Scenario == "churn" && urls > 1 && n != urls:
		return []string{fmt.Sprintf("flag --admin: %d given for %d --url, expected one for each", n, urls)}
	case n > urls:
		return []string{fmt.Sprintf("flag --admin: %d given for %d --url", n, urls)}
	}
	if len(c.admins) > 0 {
		o.Metrics = bench.SumMetrics(c.admins)
	}
	return nil
}

// requestRelations is relations for what is asked.
func requestRelations(o *bench.Options, given map[string][]string) []string {
	names := []string{"token", "request-type", "request-payload", "answer-status", "answer-timeout"}
	if o.Scenario == "ramp" && o.RampOf == "echo" {
		for _, name := range names {
			if given[name] != nil {
				return []string{"flag --" + name + ": without --of request it does nothing"}
			}
		}
		o.RequestPayload = nil
	}
	if o.RequestType == "" || o.RequestType == bench.DefaultRequest && o.RequestPayload == nil {
		return nil
	}
	if o.RequestPayload == nil && len(given["request-payload"]) == 0 {
		return []string{"flag --request-type: " + o.RequestType + " needs --request-payload"}
	}
	if given["payload"] != nil {
		return []string{"flag --payload: --request-payload says what is sent"}
	}
	if given["answer-status"] == nil {
		o.AnswerStatus = "" // what is right cannot be known
	}
	return nil
}

func chooseScenario(words []string, fault func(format string, args ...any)) string {
	if len(words) == 0 {
		fault("no scenario, expected %s", scenarioNames())
		return ""
	}
	for _, word := range words[1:] {
		fault("unexpected argument %s, expected flags only after the scenario", oneLine(strconv.Quote(word)))
	}
	if !slices.ContainsFunc(bench.Scenarios(), func(s bench.Scenario) bool { return s.Name == words[0] }) {
		fault("scenario %s: there is none of that name, expected %s", oneLine(strconv.Quote(words[0])), scenarioNames())
		return ""
	}
	return words[0]
}

// isFlag tells flags from values. A number with a sign is a value: out of range, but not an unknown flag; and so is -.
func isFlag(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && (arg[1] < '0' || arg[1] > '9') && arg[1] != '.'
}

// suggestion names the flag that was probably meant: one that begins like it, or the other way round.
func suggestion(name string) string {
	if name != "" {
		for i := range flags {
			if f := flags[i].name; strings.HasPrefix(f, name) || strings.HasPrefix(name, f) {
				return ", did you mean --" + f + "?"
			}
		}
	}
	return ""
}

// oneLine cuts a long argument and keeps what is not printed out of the terminal.
func oneLine(s string) string {
	const longest = 200
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
