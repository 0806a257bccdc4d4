package config

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// check checks what concerns more than one setting, reads the secrets and replaces the values that stand for others.
// A relation is looked at only when the values in it are right by themselves.
func (b *builder) check() {
	s := b.serve
	if b.ok("path", "echo-path") && s.Path == s.EchoPath {
		b.contradiction("echo-path", "path", "expected another path than that of")
	}
	if b.ok("max-pending-bytes", "max-message-bytes") && s.MaxPendingBytes <= s.MaxMessageBytes {
		b.contradiction("max-pending-bytes", "max-message-bytes", "expected more than")
	}
	if b.ok("drain-timeout", "drain-spread", "drain-delay") && s.DrainTimeout < s.DrainDelay+s.DrainSpread {
		b.fault("drain-timeout", "expected at least --drain-delay (%s) and --drain-spread (%s) together",
			b.described("drain-delay"), b.described("drain-spread"))
	}
	b.checkAddresses()
	b.checkAdmin()
	b.checkAuth()
	b.checkRooms()
	b.checkMetaHeaders()
	b.checkBacklog()
	b.checkLoops()
	b.checkConnections()
	b.checkMemory()
	b.checkNATS()
}

// ok reports whether the values of all the settings are usable.
func (b *builder) ok(names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return b.bad[name] })
}

// described returns value and origin of a setting: "4MiB, default".
func (b *builder) described(name string) string {
	e := b.serve.effective[name]
	return strings.Join(e.texts, ",") + ", " + e.origin.String()
}

// fault reports that the value of a setting does not fit others.
func (b *builder) fault(name, format string, args ...any) {
	e := b.serve.effective[name]
	where := e.origin.where
	if e.origin.layer == layerDefault {
		where = "default of --" + name
	}
	b.faults.add(Fault{Where: where, Problem: quote(strings.Join(e.texts, ",")) + ", " + fmt.Sprintf(format, args...)})
}

// contradiction reports that a does not stand to b as expected.
func (b *builder) contradiction(name, other, expected string) {
	b.fault(name, "%s --%s (%s)", expected, other, b.described(other))
}

func (b *builder) checkAddresses() {
	if !b.ok("listen") {
		return
	}
	for i, a := range b.serve.Listen {
		for _, earlier := range b.serve.Listen[:i] {
			if a.overlaps(earlier) {
				b.fault("listen", "expected addresses of which no two claim the same port, as %s and %s do", earlier, a)
			}
		}
	}
	if !b.ok("admin") || b.serve.Admin == nil {
		return
	}
	for _, a := range b.serve.Listen {
		if b.serve.Admin.overlaps(a) {
			b.contradiction("admin", "listen", "expected another port than")
			return
		}
	}
}

// tokenCharacters are those of a bearer token (RFC 6750 section 2.1) beside letters and digits.
const tokenCharacters = "-._~+/="

func (b *builder) checkAdmin() {
	s := b.serve
	if !b.ok("admin", "admin-token-file") {
		return
	}
	const expected = "expected a file with 16 or more letters, digits and -._~+/ in one line"
	switch {
	case s.AdminTokenFile == "" && s.Admin != nil && !s.Admin.IsLoopback():
		b.fault("admin", "expected a loopback address, or a bearer token in --admin-token-file")
	case s.AdminTokenFile != "" && s.Admin == nil:
		b.fault("admin-token-file", "expected nothing when --admin is off (%s)", b.described("admin"))
	}
	if s.AdminTokenFile == "" {
		return
	}
	token, err := readSecret(s.AdminTokenFile, minTokenBytes)
	if err == nil {
		body := bytes.TrimRight(token, "=")
		for _, c := range body {
			if !isAlphanumeric(c) && (c == '=' || !strings.ContainsRune(tokenCharacters, rune(c))) {
				err = fmt.Errorf("contains a character that a bearer token must not have")
				break
			}
		}
		if len(body) == 0 {
			err = fmt.Errorf("contains nothing but =")
		}
	}
	if err != nil {
		b.fault("admin-token-file", "which %v, %s", err, expected)
		return
	}
	s.AdminToken = token
}

func (b *builder) checkRooms() {
	if age := b.serve.MaxHistoryAge; b.ok("max-history-age") && age != 0 && age < minHistoryAge {
		b.fault("max-history-age", "expected 0s, for no limit, or at least %s", formatDuration(minHistoryAge))
	}
}

func (b *builder) checkAuth() {
	s := b.serve
	if !b.ok("auth", "auth-secret-file") {
		return
	}
	switch {
	case s.Auth == AuthJWT && s.AuthSecretFile == "":
		b.fault("auth", "expected the secret in --auth-secret-file")
	case s.Auth == AuthOpen && s.AuthSecretFile != "":
		b.fault("auth-secret-file", "expected --auth=jwt, the secret has no meaning with --auth (%s)", b.described("auth"))
	case s.Auth == AuthOpen && b.ok("listen") && (!s.NATS.On() || s.NATS.Embedded()) && slices.ContainsFunc(s.Listen, func(a Address) bool { return !a.IsLoopback() }):
		b.warn("--auth=open on an address that other machines can reach: anybody may be anybody")
	}
	if s.AuthSecretFile == "" {
		return
	}
	secret, err := readSecret(s.AuthSecretFile, minKeyBytes)
	if err != nil {
		b.fault("auth-secret-file", "which %v, expected a file with at least %d bytes", err, minKeyBytes)
		return
	}
	s.AuthSecret = secret
}

// readSecret reads a secret of at least least bytes, without the line break at the end that an editor adds. Its errors
// never show the content.
func readSecret(path string, least int) (Secret, error) {
	content, err := readLimited(path, maxSecretBytes)
	if err != nil {
		return nil, err
	}
	content = bytes.TrimSuffix(content, []byte("\n"))
	content = bytes.TrimSuffix(content, []byte("\r"))
	switch {
	case len(content) == 0:
		return nil, fmt.Errorf("is empty")
	case len(content) < least:
		return nil, fmt.Errorf("holds %d bytes", len(content))
	}
	return content, nil
}

func (b *builder) checkMetaHeaders() {
	if !b.ok("meta-headers") {
		return
	}
	for i, name := range b.serve.MetaHeaders {
		for _, earlier := range b.serve.MetaHeaders[:i] {
			if strings.EqualFold(name, earlier) {
				b.fault("meta-headers", "expected each header once, not %s and %s", earlier, name)
			}
		}
	}
}

func (b *builder) checkBacklog() {
	if most := b.system.Somaxconn; b.ok("backlog") && most > 0 && b.serve.Backlog > most {
		b.warn("--backlog is %d, but the kernel allows %d: raise net.core.somaxconn", b.serve.Backlog, most)
	}
}

// checkLoops gives --loops=0 its meaning.
func (b *builder) checkLoops() {
	if !b.ok("loops") || b.serve.Loops != 0 {
		return
	}
	b.serve.Loops = max(1, min(b.system.CPUs, maxLoops))
	b.note("loops", "%d on this machine", b.serve.Loops)
}

// note explains the value of a setting in the report.
func (b *builder) note(name, format string, args ...any) {
	e := b.serve.effective[name]
	e.note = fmt.Sprintf(format, args...)
	b.serve.effective[name] = e
}

// checkConnections gives --max-connections=0 its meaning, or checks that the open-file limit carries the number given.
func (b *builder) checkConnections() {
	s := b.serve
	if !b.ok("max-connections", "max-connections-slack", "loops", "fd-tables", "listen", "admin") {
		return
	}
	reserve, files := s.reservedFiles(), s.AllOpenFiles()
	raise := "raise the limit (ulimit -n, LimitNOFILE=)"
	if s.FDTables == FDTablesPerLoop {
		raise += ", add --loops"
	}
	if s.MaxConnections > 0 {
		needed := uint64(s.HardConnections()) + reserve
		if needed > files {
			b.fault("max-connections", "expected a number for which %d open files suffice: with %s slack and a reserve of %d it "+
				"takes %d: %s or lower the number to at most %d",
				files, s.MaxConnectionsSlack, reserve, needed, raise, s.connectionsFor(reserve))
		}
		return
	}
	s.MaxConnections = s.connectionsFor(reserve)
	if s.MaxConnections == 0 {
		b.fault("max-connections", "expected more open files than %d, of which %d are reserved: %s", files, reserve, raise)
		return
	}
	b.note("max-connections", "%d from %d open files", s.MaxConnections, files)
}

// checkMemory gives --memory-limit=auto its meaning.
func (b *builder) checkMemory() {
	s := b.serve
	if !b.ok("memory-limit") {
		return
	}
	known := Size(min(b.system.Memory, uint64(maxMemoryLimit)))
	switch {
	case s.MemoryLimit == memoryAuto && known == 0:
		s.MemoryLimit = memoryOff
		b.note("memory-limit", "off: how much memory there is, is not known")
		b.warn("--memory-limit=auto has no effect: how much memory there is, is not known")
	case s.MemoryLimit == memoryAuto:
		s.MemoryLimit = max(known*Size(autoMemory)/100, minMemoryLimit)
		b.note("memory-limit", "%d MiB of %d MiB", s.MemoryLimit/MiB, known/MiB)
	case s.MemoryLimit > known && known > 0:
		b.warn("--memory-limit is %s, more than the %d MiB that there are", s.MemoryLimit, known/MiB)
	}
}
