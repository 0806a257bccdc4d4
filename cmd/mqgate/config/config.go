// Package config turns the command line, the environment and a file into the configuration of the mqgate server.
//
// Every setting has one name. It is the flag --ping-interval, the environment variable MQGATE_PING_INTERVAL and the key
// ping-interval of the YAML file named by --config. A flag beats the environment, the environment beats the file, the
// file beats the default; a list given in one place replaces the list of the places below, it is not added to it.
//
// Nothing is ignored and nothing is clipped. An unknown name, a value of the wrong type or out of its range, a setting
// given twice and two settings that contradict each other are faults, wherever they stand: also a value that a stronger
// place overrides must be right. All faults are reported together, one line each, with the place, the value and what was
// expected.
//
// The table in settings.go is the only place where a setting is described: the flags, the help, docs/configuration.md,
// the checks and the listing of --check are all made from it.
package config

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"
)

// CommandName names what the user asked for.
type CommandName string

const (
	// CommandServe runs the server, or only checks its configuration: see Command.Check.
	CommandServe CommandName = "serve"
	// CommandWorker runs the rooms worker for gateways with --nats, or only checks its configuration.
	CommandWorker CommandName = "worker"
	// CommandDoctor says how many connections this machine will hold, and what stops it.
	CommandDoctor CommandName = "doctor"
	// CommandVersion prints the version.
	CommandVersion CommandName = "version"
	// CommandHelp has been carried out already: Parse wrote the help.
	CommandHelp CommandName = "help"
)

// Command is a command line that was understood.
type Command struct {
	Name CommandName
	// Serve is the configuration of CommandServe and nil for the others.
	Serve *Serve
	// Worker is the configuration of CommandWorker and nil for the others.
	Worker *Worker
	// Doctor is what CommandDoctor shall examine and nil for the others.
	Doctor *Doctor
	// Check asks for the listing of the configuration (Serve.WriteReport) instead of a server.
	Check bool
}

// System is what a configuration depends on besides its sources.
type System struct {
	// OpenFiles is the number of descriptors that this process may hold (RLIMIT_NOFILE, soft).
	OpenFiles uint64
	// CPUs is the number of loops that --loops=0 stands for: GOMAXPROCS.
	CPUs int
	// Memory is what this process may take at most: the limit of its cgroup, or the machine's memory [bytes]; 0 when it
	// is not known.
	Memory uint64
	// Somaxconn is the kernel's cap on --backlog; 0 when it is not known.
	Somaxconn int
}

// Heartbeat says who keeps a connection alive.
type Heartbeat string

const (
	HeartbeatServer Heartbeat = "server" // the server pings (L7.1-L7.4)
	HeartbeatClient Heartbeat = "client" // the client must send something every two intervals (L7.5)
	HeartbeatOff    Heartbeat = "off"    // nobody looks; a dead peer is found when a write fails
)

// ProxyProtocol says whether connections begin with a PROXY header.
type ProxyProtocol string

const (
	ProxyProtocolOff ProxyProtocol = "off"
	ProxyProtocolOn  ProxyProtocol = "on" // every connection does, version 1 or 2
)

// Compression is what is agreed to when a client offers permessage-deflate (RFC 7692).
type Compression string

const (
	CompressionOff      Compression = "off"
	CompressionShared   Compression = "shared"   // no context takeover
	CompressionTakeover Compression = "takeover" // context takeover in both directions
)

// FDTables says whose table the descriptors of connections are in.
type FDTables string

const (
	FDTablesShared  FDTables = "shared"   // the process's
	FDTablesPerLoop FDTables = "per-loop" // one of each loop's own, with a limit of its own
)

// Auth says what pcast.Authenticate demands of a token.
type Auth string

const (
	AuthOpen Auth = "open" // any token
	AuthJWT  Auth = "jwt"  // a JWT signed with HS256 and the secret of --auth-secret-file
)

// LogFormat is the form of the log on standard error.
type LogFormat string

const (
	LogText LogFormat = "text" // key=value pairs, slog.TextHandler
	LogJSON LogFormat = "json" // one JSON object a line, slog.JSONHandler
)

// Serve is the whole configuration of `mqgate serve`: complete, in range and free of contradictions. It is not changed
// after Parse and may be read from any goroutine. The ranges of the fields are in settings.go.
type Serve struct {
	// Listening.
	Listen   []Address // at least one; no two of them (nor Admin) claim the same port
	Path     string    // path of the MQ endpoint, starts with "/"
	EchoPath string    // path of the echo endpoint, "" when there is none; differs from Path
	Backlog  int       // connections that the kernel keeps for each listener until they are accepted
	Loops    int       // reactors; 0 has been replaced by GOMAXPROCS
	FDTables FDTables  // where their descriptors are
	Takeover string    // path of the unix socket over which the next process takes the listeners; "": off

	// Admin HTTP.
	Admin          *Address // nil: no admin interface
	AdminTokenFile string   // "" only when Admin is nil or a loopback address
	AdminToken     Secret   // the bearer token read from it; nil without a file

	// Where clients come from (L2.1, L2.3). The lists are good for the parsers of package conn/clientaddr.
	TrustedProxies []string
	ProxyProtocol  ProxyProtocol
	Origins        []string

	// Limits.
	MaxConnectionsPerIP      int     // of one address, an IPv6 /64 being one (L2.6); 0: no limit
	HandshakeRatePerIP       int     // upgrades per second and address (L2.6); 0: no limit
	LimitClosesPerSecond     int     // clients above MaxConnections that are told so by a Close frame (L2.5); the rest get 503
	MaxConnections           int     // soft limit of open connections (L2.5); 0 has been replaced by what OpenFiles allow
	MaxConnectionsSlack      Percent // of MaxConnections, above it: see HardConnections
	MaxMessageBytes          Size    // a larger message closes its connection with 1009 (L1.6)
	MaxPendingBytes          Size    // more waiting for one connection closes it (L8.3); above MaxMessageBytes
	MaxRequestsPerConnection int     // in flight; one more fails (L3.3)
	MaxMessagesPerSecond     int     // of one connection; 0: no limit
	MemoryLimit              Size    // L8.6; auto has been replaced by what there is; 0: no limit
	OpenFiles                uint64  // what RLIMIT_NOFILE allows one descriptor table; not a setting. See AllOpenFiles

	// Timeouts.
	HandshakeTimeout     time.Duration // L2.7
	RequestTimeout       time.Duration // L3.4
	ServerRequestTimeout time.Duration // L4.3
	CloseTimeout         time.Duration // L5.3, L1.8
	WriteTimeout         time.Duration // L8.3

	// Heartbeat.
	Heartbeat    Heartbeat
	PingInterval time.Duration // L7.1

	// Drain (L5.5). DrainTimeout counts from the start of the drain and is at least DrainDelay + DrainSpread.
	DrainDelay   time.Duration
	DrainSpread  time.Duration
	DrainTimeout time.Duration

	// Compression of messages; those shorter than CompressionMinSize are sent as they are.
	Compression        Compression
	CompressionMinSize Size

	// Rooms and authentication.
	Auth                   Auth
	AuthSecretFile         string   // "" exactly when Auth is AuthOpen
	AuthSecret             Secret   // the HS256 key read from it, 32 bytes or more; nil without a file
	MetaHeaders            []string // request headers kept for the worker, spelt as given; distinct without regard to case
	ReenterGrace           time.Duration
	MaxSessions            int
	MaxRooms               int
	MaxMembersPerRoom      int
	MaxHistoryPerRoom      int           // chat messages; the oldest go when there are more, or more bytes than the next
	MaxHistoryBytesPerRoom Size          // of encoded chat messages
	MaxHistoryAge          time.Duration // of a chat message that can be fetched; 0: no limit, otherwise at least minHistoryAge

	// More than one machine.
	NATS NATS

	// Logging.
	LogLevel  slog.Level
	LogFormat LogFormat

	// ConfigFile is the file that was read, "" when there was none.
	ConfigFile string

	// Warnings are remarks about a configuration that is valid and yet may not be what its author wanted. Each is one
	// line, to be logged at start.
	Warnings []string

	table     []setting            // of the command
	effective map[string]effective // by the name of the setting: what the report shows
}

// HardConnections is the number of open connections above which an upgrade is refused (L2.6): MaxConnections and the
// slack, rounded up.
func (s *Serve) HardConnections() int {
	return s.MaxConnections + s.MaxConnectionsSlack.of(s.MaxConnections)
}

// Logger returns the logger that LogLevel and LogFormat ask for. Each record is one Write to w. Durations are written as
// in the settings, "1m30s", in both formats; slog's JSON would have them in nanoseconds.
func (s *Serve) Logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.LogLevel}
	switch s.LogFormat {
	case LogJSON:
		options.ReplaceAttr = func(_ []string, a slog.Attr) slog.Attr {
			if a.Value.Kind() == slog.KindDuration {
				a.Value = slog.StringValue(a.Value.Duration().String())
			}
			return a
		}
		return slog.New(slog.NewJSONHandler(w, options))
	case LogText:
		return slog.New(slog.NewTextHandler(w, options))
	}
	panic(fmt.Sprintf("config: log format %q", s.LogFormat))
}

// effective is the value of one setting and where it came from.
type effective struct {
	texts  []string // canonical; more or fewer than one for a list only
	origin origin
	note   string // what a value that stands for another one stands for
}

// Parse understands a command line. args are the arguments without the program's name, env is in the form of
// os.Environ. Besides these it reads the files that they name. Help is written to stdout, wrapped to HelpWidth columns.
//
// The error is a *Faults when the user is at fault; a Command comes back only without one.
func Parse(args, env []string, system System, stdout io.Writer) (*Command, error) {
	line, err := readCommandLine(args, stdout)
	if err != nil {
		return nil, err
	}
	if line.help {
		return &Command{Name: CommandHelp}, nil
	}
	faults := &Faults{command: line.command}
	faults.add(line.faults...)
	switch line.command {
	case CommandServe:
		serve := parseServe(line, env, system, faults)
		if faults.any() {
			return nil, faults
		}
		return &Command{Name: CommandServe, Serve: serve, Check: line.check}, nil
	case CommandWorker:
		worker := parseServe(line, env, system, faults)
		if faults.any() {
			return nil, faults
		}
		return &Command{Name: CommandWorker, Worker: worker, Check: line.check}, nil
	case CommandDoctor:
		doctor := parseDoctor(line, system, faults)
		if faults.any() {
			return nil, faults
		}
		return &Command{Name: CommandDoctor, Doctor: doctor}, nil
	case CommandVersion:
		if faults.any() {
			return nil, faults
		}
		return &Command{Name: CommandVersion}, nil
	case CommandHelp: // not a command of the user's: the help flag was handled above
	}
	if !faults.any() {
		faults.add(Fault{Where: "command line", Problem: "no command, expected " + commandNames})
	}
	return nil, faults
}

// parseServe reads the configuration of mqgate serve or mqgate worker: it gathers the layers, checks each of their values, puts the strongest in place and checks the whole.
func parseServe(line *commandLine, env []string, system System, faults *Faults) *Serve {
	table := settingsOf(line.command)
	b := &builder{serve: &Serve{OpenFiles: system.OpenFiles, table: table}, command: line.command, table: table, system: system, faults: faults,
		bad: map[string]bool{}}
	b.layer(line.given)
	fromEnv, envFaults, note := readEnvironment(env, table, line.command)
	faults.add(envFaults...)
	b.layer(fromEnv)
	if note != "" {
		b.warn("%s", note)
	}
	fileWasRead := true
	if path, where := b.configFile(); path != "" {
		fromFile, fileFaults, read := readFile(path, where, table)
		before := len(faults.List)
		faults.add(fileFaults...)
		b.layer(fromFile)
		slices.SortStableFunc(faults.List[before:], func(x, y Fault) int { return x.line - y.line })
		fileWasRead = read
	}
	b.assemble()
	switch { // without the file half of the values are unknown, and what they contradict would be guessed
	case !fileWasRead:
	case line.command == CommandWorker:
		b.checkWorker()
	default:
		b.check()
	}
	return b.serve
}

// given is one setting as one place gives it.
type given struct {
	setting *setting
	origin  origin
	texts   []string
}

// builder assembles a Serve from its layers.
type builder struct {
	serve   *Serve
	command CommandName
	table   []setting // of the command
	system  System
	faults  *Faults
	layers  []map[string]given // strongest first
	bad     map[string]bool    // settings whose strongest value cannot be used
}

func (b *builder) warn(format string, args ...any) {
	b.serve.Warnings = append(b.serve.Warnings, oneLine(fmt.Sprintf(format, args...)))
}

// layer adds the next weaker layer and checks each of its values by itself.
func (b *builder) layer(values []given) {
	layer := map[string]given{}
	for _, v := range values {
		if err := v.setting.store(new(Serve), v.texts); err != nil {
			b.faults.add(v.setting.fault(v.origin, err))
			b.bad[v.setting.name] = b.bad[v.setting.name] || !b.overridden(v.setting.name)
		}
		layer[v.setting.name] = v
	}
	b.layers = append(b.layers, layer)
}

// overridden reports whether one of the layers so far gives name.
func (b *builder) overridden(name string) bool {
	for _, layer := range b.layers {
		if _, ok := layer[name]; ok {
			return true
		}
	}
	return false
}

// configFile returns the path of the configuration file and who named it.
func (b *builder) configFile() (string, origin) {
	for _, layer := range b.layers {
		if v, ok := layer["config"]; ok {
			if b.bad["config"] {
				return "", origin{}
			}
			return v.texts[0], v.origin
		}
	}
	return "", origin{}
}

// assemble stores the strongest value of each setting.
func (b *builder) assemble() {
	b.serve.effective = map[string]effective{}
	for i := range b.table {
		s := &b.table[i]
		if s.flagOnly {
			continue
		}
		v := given{setting: s, origin: origin{layer: layerDefault}, texts: s.defaults()}
		for _, layer := range b.layers {
			if found, ok := layer[s.name]; ok {
				v = found
				break
			}
		}
		if b.bad[s.name] {
			continue
		}
		if err := s.store(b.serve, v.texts); err != nil {
			panic(fmt.Sprintf("config: the default of --%s: %v", s.name, err)) // given values were checked in layer
		}
		b.serve.effective[s.name] = effective{texts: s.show(b.serve), origin: v.origin}
	}
}
