package config

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

const commandNames = "serve, worker, doctor or version"

// commandLine is what the arguments say.
type commandLine struct {
	command CommandName // "" when none was named
	help    bool        // help was asked for, and has been written
	check   bool
	json    bool
	given   []given // the settings, in the order of their first appearance
	faults  []Fault
}

// readCommandLine has kong read the arguments. Kong stops at the first argument that it cannot place; that one is
// reported and left out, and the rest is read again, until kong has seen everything. So each round either ends or has
// one argument less.
func readCommandLine(args []string, stdout io.Writer) (*commandLine, error) {
	line := &commandLine{}
	args = slices.Clone(args)
	for {
		values := &recorder{}
		parser, err := newParser(values, stdout)
		if err != nil {
			return nil, err
		}
		ctx, err := kong.Trace(parser, args)
		if err != nil {
			return nil, err
		}
		if ctx.Error == nil {
			return line, line.take(ctx, values)
		}
		at := len(args) - len(ctx.Path[len(ctx.Path)-1].Remainder())
		fault, drop := misplaced(ctx, args[at:])
		line.faults = append(line.faults, fault)
		args = slices.Delete(args, at, at+drop)
	}
}

// take reads the result of a trace without errors.
func (line *commandLine) take(ctx *kong.Context, values *recorder) error {
	if node := ctx.Selected(); node != nil {
		line.command = CommandName(node.Name)
	}
	switches := map[string]int{}
	for _, element := range ctx.Path {
		if element.Flag == nil {
			continue
		}
		switch element.Flag.Name {
		case "help":
			line.help = true
		case "check", "json":
			switches[element.Flag.Name]++
		}
	}
	if line.help {
		return ctx.PrintUsage(false)
	}
	line.check, line.json = values.switches["check"], values.switches["json"]
	for name, times := range switches {
		if times > 1 {
			line.faults = append(line.faults, repeated(name, times))
		}
	}
	count := map[string]int{}
	for _, v := range values.texts {
		count[v.name]++
		s := findIn(settingsOf(line.command), v.name)
		i := slices.IndexFunc(line.given, func(g given) bool { return g.setting == s })
		switch {
		case i < 0:
			line.given = append(line.given, given{s, origin{layer: layerFlag, where: "flag --" + s.name}, s.split(v.text)})
		case s.list:
			texts := s.split(v.text)
			if len(texts) == 0 {
				texts = []string{""} // nothing, beside other values: for store to refuse
			}
			line.given[i].texts = append(line.given[i].texts, texts...)
		}
	}
	for _, g := range line.given {
		if n := count[g.setting.name]; n > 1 && !g.setting.list {
			line.faults = append(line.faults, repeated(g.setting.name, n))
		}
	}
	return nil
}

func repeated(name string, times int) Fault {
	return Fault{Where: "flag --" + name, Problem: fmt.Sprintf("given %d times, expected once", times)}
}

// misplaced explains the first of rest, which kong could not place, and tells how many arguments it takes with it.
func misplaced(ctx *kong.Context, rest []string) (Fault, int) {
	arg := rest[0]
	node := ctx.Selected()
	if !looksLikeFlag(arg) || arg == "--" {
		switch {
		case node != nil:
			return Fault{Where: "command line", Problem: fmt.Sprintf("unexpected argument %s, expected flags only", quote(arg))}, 1
		case arg == "--":
			return Fault{Where: "command line", Problem: fmt.Sprintf("unexpected argument %s, expected %s", quote(arg), commandNames)}, 1
		}
		return Fault{Where: "command line", Problem: fmt.Sprintf("unknown command %s, expected %s", quote(arg), commandNames)}, 1
	}
	flag, _, hasValue := strings.Cut(arg, "=")
	var names []string
	for _, group := range flagsOf(ctx) {
		for _, f := range group {
			names = append(names, f.Name)
		}
	}
	where := "flag " + flag
	name, long := strings.CutPrefix(flag, "--")
	if long && slices.Contains(names, name) {
		var s *setting
		if node != nil {
			s = findIn(settingsOf(CommandName(node.Name)), name)
		}
		switch {
		case s == nil || s.flagOnly: // --help, --check, --json
			return Fault{Where: where, Problem: fmt.Sprintf("%s, expected no value", quote(arg))}, 1
		default:
			return Fault{Where: where, Problem: "has no value, expected " + s.expected}, 1
		}
	}
	drop := 1
	if !hasValue && len(rest) > 1 && !looksLikeFlag(rest[1]) && (node != nil || !isCommand(ctx, rest[1])) {
		drop = 2 // most likely the value
	}
	problem := "unknown flag"
	if s := findSetting(name); s != nil && node == nil {
		problem += " before the command, expected after it: mqgate serve " + flag
	} else if s != nil {
		problem += " of mqgate " + node.Name
	} else if near := nearest(name, names); near != "" {
		problem += ", did you mean --" + near + "?"
	}
	return Fault{Where: where, Problem: problem}, drop
}

func flagsOf(ctx *kong.Context) [][]*kong.Flag {
	if node := ctx.Selected(); node != nil {
		return node.AllFlags(true)
	}
	return ctx.Model.AllFlags(true)
}

func isCommand(ctx *kong.Context, arg string) bool {
	return slices.ContainsFunc(ctx.Model.Children, func(n *kong.Node) bool { return n.Name == arg })
}

// looksLikeFlag tells flags from values. A number with a sign is a value: out of range, but not an unknown flag.
func looksLikeFlag(arg string) bool {
	return len(arg) > 1 && arg[0] == '-' && (arg[1] < '0' || arg[1] > '9') && arg[1] != '.'
}

// recorder is the kong.Mapper of all settings. It writes down what was given and decides nothing: the texts of all
// places are read by the same code, so that a wrong one does not hide the next.
type recorder struct {
	texts    []recorded
	switches map[string]bool
}

type recorded struct{ name, text string }

// Decode takes the value of a flag (kong.Mapper).
func (r *recorder) Decode(ctx *kong.DecodeContext, _ reflect.Value) error {
	token := ctx.Scan.Peek()
	text := token.String()
	if token.IsEOL() || token.Type == kong.UntypedToken && looksLikeFlag(text) {
		return errors.New("no value")
	}
	ctx.Scan.Pop()
	r.texts = append(r.texts, recorded{ctx.Value.Name, text})
	return nil
}

// switchRecorder is the kong.Mapper of --check and --json.
type switchRecorder struct{ *recorder }

// IsBool tells kong that the flag needs no value (kong.BoolMapper).
func (switchRecorder) IsBool() bool { return true }

// Decode takes the flag, alone or with =true or =false (kong.Mapper).
func (r switchRecorder) Decode(ctx *kong.DecodeContext, _ reflect.Value) error {
	on := true
	if token := ctx.Scan.Peek(); token.Type == kong.FlagValueToken {
		var err error
		if on, err = strconv.ParseBool(token.String()); err != nil {
			return err
		}
		ctx.Scan.Pop()
	}
	if r.switches == nil {
		r.switches = map[string]bool{}
	}
	r.switches[ctx.Value.Name] = on
	return nil
}

// newParser makes the grammar of the command line from the table of settings.
func newParser(values *recorder, stdout io.Writer) (*kong.Kong, error) {
	return kong.New(&struct{}{},
		kong.Name("mqgate"),
		kong.Description(helpIntro),
		kong.Writers(stdout, stdout),
		kong.Help(printHelp),
		kong.NamedMapper("text", values),
		kong.NamedMapper("switch", switchRecorder{values}),
		kong.DynamicCommand(string(CommandServe), "Run the gateway until SIGTERM or SIGINT drains it.", "",
			grammar(settings)),
		kong.DynamicCommand(string(CommandWorker), "Run the rooms worker for gateways with --nats, until SIGTERM or SIGINT.", "",
			grammar(workerSettings)),
		kong.DynamicCommand(string(CommandDoctor), "Say how many connections this machine will hold, and what stops it.", "",
			grammar(doctorSettings)),
		kong.DynamicCommand(string(CommandVersion), "Print the version, that of Go, and the commit.", "", &struct{}{}),
		kong.PostBuild(describe),
	)
}

// grammar makes the struct from whose tags kong reads the flags of a table.
func grammar(table []setting) any {
	fields := make([]reflect.StructField, len(table))
	for i, s := range table {
		fields[i] = reflect.StructField{Name: fmt.Sprintf("Setting%d", i), Type: reflect.TypeFor[string]()}
		mapper := "text"
		if s.flagOnly {
			mapper = "switch"
		}
		fields[i].Tag = reflect.StructTag(fmt.Sprintf("name:%q type:%q", s.name, mapper))
	}
	return reflect.New(reflect.StructOf(fields)).Interface()
}

// describe puts the texts into kong's model. They do not go through struct tags, where quotes would need escapes.
func describe(k *kong.Kong) error {
	k.Model.HelpFlag.Help = "Show this help and exit."
	k.Model.HelpFlag.Group = &kong.Group{Key: groupGeneral, Title: groupGeneral}
	for _, node := range k.Model.Children {
		switch CommandName(node.Name) {
		case CommandServe:
			node.Detail = helpServe
		case CommandWorker:
			node.Detail = helpWorker
		case CommandDoctor:
			node.Detail = helpDoctor
		case CommandVersion, CommandHelp:
		}
		for _, flag := range node.Flags {
			s := findIn(settingsOf(CommandName(node.Name)), flag.Name)
			flag.Help = s.doc
			flag.PlaceHolder = s.placeholder
			flag.Group = &kong.Group{Key: s.group, Title: s.group}
		}
	}
	return nil
}
