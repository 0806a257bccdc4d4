package config

import (
	"regexp"
	"slices"
	"strings"
)

// envPrefix begins the names of all environment variables that mqgate reads.
const envPrefix = "MQGATE_"

// kubernetesMark is a variable that every container in Kubernetes has.
const kubernetesMark = "KUBERNETES_SERVICE_HOST="

// serviceLink matches the variables that Kubernetes puts into every container for a Service called mqgate or mqgate-...
// in its namespace ("enableServiceLinks"). Nobody wrote them for mqgate, and none is the name of a setting.
var serviceLink = regexp.MustCompile(
	`^MQGATE_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

// readEnvironment finds the settings of a command's table in env, which is in the form of os.Environ. A variable that is set to nothing
// counts as given: MQGATE_ADMIN= turns the admin interface off. The note, if not empty, names the variables that
// were left alone because Kubernetes wrote them. The value of an unknown variable is not shown: it may be a secret.
func readEnvironment(env []string, table []setting, command CommandName) (values []given, faults []Fault, note string) {
	byName := map[string]*setting{}
	var names []string
	for i := range table {
		s := &table[i]
		byName[s.env()] = s
		if !s.flagOnly {
			names = append(names, strings.TrimPrefix(s.env(), envPrefix))
		}
	}
	inKubernetes := slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, kubernetesMark) })
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool { return !strings.HasPrefix(v, envPrefix) })
	slices.Sort(env) // the same faults in the same order at every start
	var links []string
	previous := ""
	for _, variable := range env {
		name, text, _ := strings.Cut(variable, "=")
		where := "environment " + name
		s := byName[name]
		switch {
		case name == previous:
			faults = append(faults, Fault{Where: where, Problem: "given more than once, expected once"})
		case s != nil && s.flagOnly:
			faults = append(faults, Fault{Where: where, Problem: "expected on the command line only, as --" + s.name})
		case s != nil:
			values = append(values, given{s, origin{layer: layerEnv, where: where}, s.split(text)})
		case inKubernetes && serviceLink.MatchString(name):
			links = append(links, name)
		default:
			problem := "unknown variable"
			if isElsewhere(func(s *setting) bool { return s.env() == name }) {
				problem = "expected for mqgate serve only, not for mqgate " + string(command)
			} else if near := nearest(strings.TrimPrefix(name, envPrefix), names); near != "" {
				problem += ", did you mean " + envPrefix + near + "?"
			} else {
				problem += ", expected the name of a setting after " + envPrefix
			}
			faults = append(faults, Fault{Where: where, Problem: problem})
		}
		previous = name
	}
	if len(links) > 0 {
		note = "environment variables that Kubernetes made for a Service were left alone: " + strings.Join(links, ", ")
	}
	return values, faults, note
}

// isElsewhere reports whether one of the settings of mqgate serve is meant, for commands that do not have all of them.
func isElsewhere(meant func(*setting) bool) bool {
	for i := range settings {
		if meant(&settings[i]) {
			return true
		}
	}
	return false
}
