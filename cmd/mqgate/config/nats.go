package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

const groupNATS = "NATS: more than one machine"

// NATSEmbedded is the word for a NATS server in this process, in place of URLs.
const NATSEmbedded = "embedded"

// NATS is what a process needs to know of NATS: all of it for mqgate serve, a part for mqgate worker.
type NATS struct {
	Servers     []string // URLs, or NATSEmbedded alone; empty: no NATS
	Prefix      string   // of subjects, streams and buckets
	Connections int      // of this process
	Creds       string   // file with a JWT and its seed; "": none
	NKey        string   // file with the seed of an NKey; "": none. Not both
	CA          string   // file with certificates to trust; "": the system's
	Cert, Key   string   // files with our certificate and its key; "": none
	Replicas    int      // of streams and buckets that are not there yet

	Grace      time.Duration // not ready when NATS is away longer
	Lease      time.Duration // whole seconds: how long a gateway that says nothing counts as there
	Idempotent []string      // types of requests that are sent again when NATS was lost
	Ordered    []string      // types that go one after the other, or beginnings of types that end with a dot

	Store  string   // folder of the embedded server; "": a temporary one
	Listen *Address // of the embedded server; nil: nobody else can join
}

// On reports whether there is NATS at all.
func (n *NATS) On() bool { return len(n.Servers) > 0 }

// Embedded reports whether the server is in this process.
func (n *NATS) Embedded() bool { return slices.Equal(n.Servers, []string{NATSEmbedded}) }

// Options is what the settings say about connections to NATS, but for the server in this process.
func (n *NATS) Options() nats.Options {
	o := nats.Options{Prefix: n.Prefix, Connections: n.Connections, Credentials: n.Creds, NKeySeed: n.NKey, TLSCA: n.CA, TLSCert: n.Cert, TLSKey: n.Key}
	if !n.Embedded() {
		o.URLs = n.Servers
	}
	return o
}

// natsSettings are the settings of group NATS.
var natsSettings = []setting{
	listOf(setting{
		name: "nats", group: groupNATS, placeholder: "URL", def: "",
		doc: "NATS servers over which requests go to workers, and events come from them: nats://, tls://, ws:// or wss://HOST:PORT. " +
			"embedded: a server in this process, with a rooms worker. Empty: no NATS, the built-in worker.",
	}, "URLs of NATS servers like nats://127.0.0.1:4222 without user and password, or embedded", 0, maxNATSServers,
		parseNATSServer, func(s string) string { return s }, func(s *Serve) *[]string { return &s.NATS.Servers }),
	textOf(setting{
		name: "nats-prefix", group: groupNATS, placeholder: "PREFIX", def: subjects.DefaultPrefix,
		doc: "Beginning of all subjects, and of the names of streams and buckets. Gateways and workers with the same one belong together.",
	}, `up to 64 letters, digits, "_" and "-", with dots between them`, parseNATSPrefix, func(s *Serve) *string { return &s.NATS.Prefix }),
	number(setting{
		name: "nats-connections", group: groupNATS, def: "1",
		doc: "Connections of this process to NATS, among which its clients are divided, and at a gateway the rooms whose events come over them.",
	}, 1, nats.MaxLinks, func(s *Serve) *int { return &s.NATS.Connections }),
	textOf(setting{
		name: "nats-creds", group: groupNATS, placeholder: "FILE", def: "",
		doc: "Credentials file (.creds) with a JWT and its seed.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.NATS.Creds }),
	textOf(setting{
		name: "nats-nkey", group: groupNATS, placeholder: "FILE", def: "",
		doc: "File with the seed of an NKey.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.NATS.NKey }),
	textOf(setting{
		name: "nats-ca", group: groupNATS, placeholder: "FILE", def: "",
		doc: "File with the certificates to trust, PEM. Empty: those of the system. With one of these three files the connection must be TLS.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.NATS.CA }),
	textOf(setting{
		name: "nats-cert", group: groupNATS, placeholder: "FILE", def: "",
		doc: "File with our own certificate, PEM. Together with --nats-key.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.NATS.Cert }),
	textOf(setting{
		name: "nats-key", group: groupNATS, placeholder: "FILE", def: "",
		doc: "File with the key of that certificate, PEM.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.NATS.Key }),
	duration(setting{
		name: "nats-grace", group: groupNATS, def: "10s",
		doc: "How long NATS may be away until /readyz turns 503.",
	}, 0, maxTimeout, func(s *Serve) *time.Duration { return &s.NATS.Grace }),
	number(setting{
		name: "nats-replicas", group: groupNATS, def: "1",
		doc: "Copies of what is stored in NATS, on as many of its servers: 3 survive the loss of one. For streams and buckets that are not there " +
			"yet; those that are stay as they are.",
	}, 1, 5, func(s *Serve) *int { return &s.NATS.Replicas }),
	duration(setting{
		name: "nats-lease", group: groupNATS, def: "10s",
		doc: "Time after which a gateway of which nothing is heard counts as dead, and its clients as lost. Whole seconds.",
	}, minLease, maxLease, func(s *Serve) *time.Duration { return &s.NATS.Lease }),
	listOf(setting{
		name: "nats-idempotent", group: groupNATS, placeholder: "TYPE", def: strings.Join(nats.DefaultIdempotent, ","),
		doc: "Types of requests that may be handled twice: they are sent again when NATS was lost before their answer came. Others fail then.",
	}, typesExpected, 0, maxTypes, parseType, func(s string) string { return s }, func(s *Serve) *[]string { return &s.NATS.Idempotent }),
	listOf(setting{
		name: "nats-ordered", group: groupNATS, placeholder: "TYPE", def: strings.Join(nats.DefaultOrdered, ","),
		doc: "Types of requests of which a client's next one waits for the answer to the one before; with a dot at the end, all types that begin so.",
	}, typesExpected+"; with a dot at the end: their beginning", 0, maxTypes, parseTypes, func(s string) string { return s },
		func(s *Serve) *[]string { return &s.NATS.Ordered }),
	textOf(setting{
		name: "nats-store", group: groupNATS, placeholder: "FOLDER", def: "",
		doc: "Folder in which the embedded server stores rooms and sessions. Empty: a temporary one, which goes at the end.",
	}, "the path of a folder, or nothing", parseFileName, func(s *Serve) *string { return &s.NATS.Store }),
	addressOrNone(setting{
		name: "nats-listen", group: groupNATS, placeholder: "HOST:PORT", def: "127.0.0.1:4222",
		doc: "Address of the embedded server, for further gateways and workers. It asks for no password. Empty: none.",
	}, "an address HOST:PORT with an IP address, [IPv6] or nothing as host and a port from 0 to 65535, or nothing",
		func(s *Serve) **Address { return &s.NATS.Listen }),
}

const typesExpected = `types of requests: letters, digits, "_" and "-", with dots between them`

// parseNATSServer reads one value of --nats. A text with a password is not quoted, and not accepted either: flags can be
// read by everybody on the machine.
func parseNATSServer(text string) (string, error) {
	if text == NATSEmbedded {
		return text, nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil && strings.Contains(text, "@"), err == nil && u.User != nil:
		return "", &valueError{text[strings.LastIndexByte(text, '@')+1:], "comes after a user or a password (use --nats-creds or --nats-nkey)"}
	case err != nil:
		return "", &valueError{text, "is not a URL"}
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return "", &valueError{text, "has more than a host and a port"}
	}
	if err := (&nats.Options{URLs: []string{text}}).Validate(); err != nil {
		return "", &valueError{text, "is not the URL of a NATS server"}
	}
	return text, nil
}

func parseNATSPrefix(text string) (string, error) {
	if _, err := subjects.New(text); err != nil {
		return "", &valueError{text, "is not a prefix"}
	}
	return text, nil
}

func parseType(text string) (string, error) {
	if !subjects.ValidType(text) {
		return "", &valueError{text, "is not a type"}
	}
	return text, nil
}

func parseTypes(text string) (string, error) {
	if !subjects.ValidType(strings.TrimSuffix(text, ".")) {
		return "", &valueError{text, "is not a type, nor the beginning of one"}
	}
	return text, nil
}

// changed reports whether a setting has another value than its default.
func (b *builder) changed(name string) bool {
	e, ok := b.serve.effective[name]
	if !ok || e.origin.layer == layerDefault {
		return false
	}
	s := findIn(b.table, name)
	var serve Serve
	return s.store(&serve, s.defaults()) != nil || !slices.Equal(s.show(&serve), e.texts)
}

// Settings that mean something with a server in this process only, and those of the worker, which the gateway is not when
// others are.
var (
	embeddedOnly = []string{"nats-store", "nats-listen"}
	workerOnly   = []string{"auth", "auth-secret-file", "reenter-grace", "max-sessions", "max-rooms", "max-members-per-room", "max-history-per-room",
		"max-history-bytes-per-room", "max-history-age"}
	overNetworkOnly = []string{"nats-creds", "nats-nkey", "nats-ca", "nats-cert", "nats-key"}
)

// checkNATS checks what the settings of NATS have to do with each other and with the rest.
func (b *builder) checkNATS() {
	n := &b.serve.NATS
	if !b.ok("nats") {
		return
	}
	if slices.Contains(n.Servers, NATSEmbedded) && len(n.Servers) > 1 {
		b.fault("nats", "expected %s alone, or URLs", NATSEmbedded)
		return
	}
	for i := range b.table {
		if name := b.table[i].name; !n.On() && b.table[i].group == groupNATS && b.changed(name) {
			b.contradiction(name, "nats", "which has no meaning without")
		}
	}
	b.checkNATSFiles()
	if b.ok("nats-lease") && n.Lease%time.Second != 0 {
		b.fault("nats-lease", "expected whole seconds")
	}
	switch {
	case !n.On():
	case n.Embedded():
		b.senseless("nats", overNetworkOnly)
		if b.ok("takeover") && b.serve.Takeover != "" {
			b.contradiction("takeover", "nats", "expected none: the next process cannot have the server's store yet, with")
		}
		b.checkNATSListen()
	default:
		b.senseless("nats", embeddedOnly)
		if b.command == CommandServe {
			b.senseless("nats", workerOnly)
		}
	}
}

// senseless reports settings that have no meaning with the value of another one.
func (b *builder) senseless(with string, names []string) {
	for _, name := range names {
		if b.changed(name) {
			hint := "which has no meaning with"
			if slices.Contains(workerOnly, name) {
				hint = "which is for mqgate worker with"
			}
			b.contradiction(name, with, hint)
		}
	}
}

func (b *builder) checkNATSListen() {
	n := &b.serve.NATS
	if !b.ok("nats-listen", "listen", "admin") || n.Listen == nil {
		return
	}
	others := slices.Clone(b.serve.Listen)
	if b.serve.Admin != nil {
		others = append(others, *b.serve.Admin)
	}
	for _, a := range others {
		if n.Listen.overlaps(a) {
			b.fault("nats-listen", "expected another port than that of %s", a)
			return
		}
	}
	if !n.Listen.IsLoopback() {
		b.warn("--nats-listen on an address that other machines can reach: whoever reaches it may do everything")
	}
}

// checkNATSFiles reads the files, each for itself, so that a fault stands where the file is named.
func (b *builder) checkNATSFiles() {
	n := &b.serve.NATS
	if n.Creds != "" && n.NKey != "" {
		b.contradiction("nats-nkey", "nats-creds", "expected nothing beside")
	}
	switch {
	case n.Cert != "" && n.Key == "":
		b.contradiction("nats-cert", "nats-key", "expected also")
	case n.Cert == "" && n.Key != "":
		b.contradiction("nats-key", "nats-cert", "expected also")
	}
	for _, f := range []struct {
		name string
		o    nats.Options
	}{
		{"nats-creds", nats.Options{Credentials: n.Creds}}, {"nats-nkey", nats.Options{NKeySeed: n.NKey}}, {"nats-ca", nats.Options{TLSCA: n.CA}},
		{"nats-cert", nats.Options{TLSCert: n.Cert, TLSKey: n.Key}},
	} {
		if f.name == "nats-cert" && (n.Cert == "" || n.Key == "") || !b.changed(f.name) {
			continue
		}
		f.o.URLs = []string{"nats://127.0.0.1"} // it checks the files only
		if err := f.o.Validate(); err != nil {
			b.fault(f.name, "which cannot be used (%v), expected a file of that kind", err)
		}
	}
}

// Worker is the configuration of mqgate worker: of a Serve those fields that its settings fill in.
type Worker = Serve

// workerSettings are the settings of mqgate worker: some of those of mqgate serve.
var workerSettings = workerTable()

func workerTable() (table []setting) {
	for _, s := range settings {
		switch {
		case s.name == "admin":
			s.def = "127.0.0.1:9091" // so that a worker and a gateway run side by side
			s.doc = strings.Replace(s.doc, "health, metrics, profiles, and control of connections", "health, metrics and profiles", 1)
		case s.name == "nats":
			s.doc = "NATS servers from which requests come: nats://, tls://, ws:// or wss://HOST:PORT. At least one."
			s.expected = fmt.Sprintf("1 to %d URLs of NATS servers like nats://127.0.0.1:4222 without user and password", maxNATSServers)
			s.rangeDoc = fmt.Sprintf("1 to %d values", maxNATSServers)
		case slices.Contains(embeddedOnly, s.name), s.name == "nats-lease", s.name == "nats-idempotent", s.name == "nats-ordered":
			continue
		case slices.Contains(workerOnly, s.name), s.group == groupAdmin, s.group == groupNATS, s.group == groupLogging, s.group == groupGeneral:
		default:
			continue
		}
		table = append(table, s)
	}
	return table
}

// checkWorker is check for mqgate worker.
func (b *builder) checkWorker() {
	n := &b.serve.NATS
	if b.ok("nats") && (!n.On() || slices.Contains(n.Servers, NATSEmbedded)) {
		b.fault("nats", "expected %s", findIn(b.table, "nats").expected)
	}
	b.checkNATS()
	b.checkAdmin()
	b.checkAuth()
	b.checkRooms()
	if b.ok("auth") && b.serve.Auth == AuthOpen {
		b.warn("--auth=open: at whatever address the gateways are reached, anybody may be anybody")
	}
}
