package config

import (
	"log/slog"
	"slices"
	"time"

	"github.com/mqgate/mqgate/conn/clientaddr"
)

// Groups of settings, in the order of the help.
const (
	groupListening   = "Listening"
	groupAdmin       = "Admin interface"
	groupSource      = "Where clients come from"
	groupLimits      = "Limits"
	groupTimeouts    = "Timeouts"
	groupHeartbeat   = "Heartbeat"
	groupDrain       = "Drain"
	groupCompression = "Compression"
	groupRooms       = "Rooms and authentication"
	groupLogging     = "Logging"
	groupGeneral     = "General"
)

// settings is every setting of `mqgate serve`, in the order of the help.
var settings = slices.Concat(gatewaySettings, natsSettings, generalSettings)

// gatewaySettings are those about clients and what is done for them.
var gatewaySettings = []setting{
	listOf(setting{
		name: "listen", group: groupListening, placeholder: "HOST:PORT", def: "127.0.0.1:8080",
		doc: "Address for WebSocket clients. The host is an IP address, in brackets when IPv6, or empty for every address " +
			"of the machine; port 0 picks a free port.",
	}, "addresses HOST:PORT with an IP address, [IPv6] or nothing as host and a port from 0 to 65535", 1, maxListen,
		parseAddress, Address.String, func(s *Serve) *[]Address { return &s.Listen }),
	textOf(setting{
		name: "path", group: groupListening, placeholder: "PATH", def: "/ws",
		doc: "Path of the WebSocket endpoint for MQ clients. Other paths are answered with 404.",
	}, pathExpected, parsePath, func(s *Serve) *string { return &s.Path }),
	textOf(setting{
		name: "echo-path", group: groupListening, placeholder: "PATH", def: "",
		doc: "Path of a WebSocket endpoint that sends every text and binary message back, for conformance and load " +
			"tests. Empty: none.",
	}, pathExpected+", or nothing", emptyOr(parsePath), func(s *Serve) *string { return &s.EchoPath }),
	number(setting{
		name: "backlog", group: groupListening, def: "4096",
		doc: "Connections per loop and address that the kernel holds until they are accepted. The kernel itself allows " +
			"no more than net.core.somaxconn.",
	}, 1, 65535, func(s *Serve) *int { return &s.Backlog }),
	number(setting{
		name: "loops", group: groupListening, def: "0",
		doc: "Reactors, each with its own share of the connections. 0: one per processor " +
			"(GOMAXPROCS, at most 255).",
	}, 0, maxLoops, func(s *Serve) *int { return &s.Loops }),
	choice(setting{
		name: "fd-tables", group: groupListening, placeholder: "TABLES", def: "shared",
		doc: "Whose descriptor table connections are in. per-loop: each loop has a thread and a table of its own, so that " +
			"the open-file limit holds for each of the --loops and not for all together. Needs Linux 5.9.",
	}, []FDTables{FDTablesShared, FDTablesPerLoop}, func(s *Serve) *FDTables { return &s.FDTables }),
	textOf(setting{
		name: "takeover", group: groupListening, placeholder: "SOCKET", def: "",
		doc: "Path of a unix socket for restarts without a refused connection: a process started with the same path takes " +
			"the listeners of the one that runs, which then drains. Empty: off.",
	}, socketExpected, emptyOr(parseSocketPath), func(s *Serve) *string { return &s.Takeover }),

	addressOrNone(setting{
		name: "admin", group: groupAdmin, placeholder: "HOST:PORT", def: "127.0.0.1:9090",
		doc: "Address of the admin interface: health, metrics, profiles, and control of connections. Empty: off. On an " +
			"address that is not loopback --admin-token-file is required.",
	}, "an address HOST:PORT with an IP address, [IPv6] or nothing as host and a port from 0 to 65535, or nothing",
		func(s *Serve) **Address { return &s.Admin }),
	textOf(setting{
		name: "admin-token-file", group: groupAdmin, placeholder: "FILE", def: "",
		doc: "File with the bearer token that every admin request must carry: 16 or more letters, digits and -._~+/ in " +
			"one line. Empty: no token is asked for.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.AdminTokenFile }),

	wordsOf(setting{
		name: "trusted-proxies", group: groupSource, placeholder: "ADDRESS", def: "loopback",
		doc: "Proxies and load balancers whose word about a client's address counts: X-Forwarded-For, read from its end, " +
			"and the PROXY header. loopback, none, addresses and ranges like 10.0.0.0/8. All clients of a proxy that is not " +
			"named here count as one address.",
	}, "of loopback, none, IP addresses and ranges", maxTrustedProxies, func(list []string) error {
		_, err := clientaddr.ParseTrusted(list)
		return err
	}, func(s *Serve) *[]string { return &s.TrustedProxies }),
	choice(setting{
		name: "proxy-protocol", group: groupSource, placeholder: "MODE", def: "off",
		doc: "Whether every connection begins with a header of the PROXY protocol, version 1 or 2, as load balancers " +
			"write it. on: a connection without one, or from an address that --trusted-proxies does not name, is refused.",
	}, []ProxyProtocol{ProxyProtocolOff, ProxyProtocolOn}, func(s *Serve) *ProxyProtocol { return &s.ProxyProtocol }),
	wordsOf(setting{
		name: "origins", group: groupSource, placeholder: "ORIGIN", def: "any",
		doc: "Web sites whose pages may connect, by the Origin header: any, none, https://example.com, " +
			"https://*.example.com. Clients that are no browsers send none and are let in, unless \"required\" is listed.",
	}, "of any, none, null, required and origins SCHEME://HOST[:PORT]", maxOrigins, func(list []string) error {
		_, err := clientaddr.ParseOrigins(list)
		return err
	}, func(s *Serve) *[]string { return &s.Origins }),

	number(setting{
		name: "max-connections", group: groupLimits, def: "0",
		doc: "Open connections. One more is told to go away with close code 1013. 0: as many as the open-file limit " +
			"carries after the slack and a reserve.",
	}, 0, maxMaxConnections, func(s *Serve) *int { return &s.MaxConnections }),
	numeric(setting{
		name: "max-connections-slack", group: groupLimits, placeholder: "PERCENT", def: "10%",
		doc: "Part of --max-connections that may be open on top of it while those too many are being told. Beyond that " +
			"the upgrade is refused with 503.",
	}, "a percentage", 0, 100, parsePercent, Percent.String, func(s *Serve) *Percent { return &s.MaxConnectionsSlack }),
	number(setting{
		name: "limit-closes-per-second", group: groupLimits, def: "100",
		doc: "Clients above --max-connections that are told so each second by close code 1013. The rest are refused with " +
			"503, since a client that is let in and closed comes back at once.",
	}, 0, maxPerSecond, func(s *Serve) *int { return &s.LimitClosesPerSecond }),
	number(setting{
		name: "max-connections-per-ip", group: groupLimits, def: "0",
		doc: "Open connections of one address; an IPv6 /64 counts as one. One more is refused with 503. 0: no limit.",
	}, 0, maxMaxConnections, func(s *Serve) *int { return &s.MaxConnectionsPerIP }),
	number(setting{
		name: "handshake-rate-per-ip", group: groupLimits, def: "0",
		doc: "Upgrades per second of one address; an IPv6 /64 counts as one. One more is refused with 503. 0: no limit.",
	}, 0, maxPerSecond, func(s *Serve) *int { return &s.HandshakeRatePerIP }),
	size(setting{
		name: "max-message-bytes", group: groupLimits, def: "1MiB",
		doc: "Longest message from a client, in bytes after reassembly. A longer one closes the connection with 1009.",
	}, 1*KiB, 64*MiB, func(s *Serve) *Size { return &s.MaxMessageBytes }),
	size(setting{
		name: "max-pending-bytes", group: groupLimits, def: "4MiB",
		doc: "Bytes that may wait to be written to one client, and sixteen times the messages. A consumer that falls " +
			"further behind is closed with 3335. Must exceed --max-message-bytes.",
	}, 2*KiB, 1*GiB, func(s *Serve) *Size { return &s.MaxPendingBytes }),
	number(setting{
		name: "max-requests-per-connection", group: groupLimits, def: "256",
		doc: `Requests of one client in flight. One more is answered with mq.Error "failed".`,
	}, 1, 65535, func(s *Serve) *int { return &s.MaxRequestsPerConnection }),
	number(setting{
		name: "max-messages-per-second", group: groupLimits, def: "0",
		doc: "Messages and control frames of one client per second, as many at once. What comes too early waits, and the " +
			"client is not read until it has had its turn. 0: no limit.",
	}, 0, maxPerSecond, func(s *Serve) *int { return &s.MaxMessagesPerSecond }),
	memoryLimit(setting{
		name: "memory-limit", group: groupLimits, placeholder: "SIZE", def: "auto",
		doc: "Memory that the process may take. From 80% of it those who make it hold most are not read, from 90% " +
			"upgrades are refused with 503, from 95% those who hold most are closed with 1013. auto: three quarters of what " +
			"the cgroup or the machine has; the rest is for the kernel's socket buffers. off: no limit.",
	}, func(s *Serve) *Size { return &s.MemoryLimit }),

	duration(setting{
		name: "handshake-timeout", group: groupTimeouts, def: "10s",
		doc: "Time from accept to the end of the upgrade request. A slower peer is disconnected.",
	}, minTimeout, maxTimeout, func(s *Serve) *time.Duration { return &s.HandshakeTimeout }),
	duration(setting{
		name: "request-timeout", group: groupTimeouts, def: "15s",
		doc: `Time for the worker to answer a client's request. Then the client gets mq.Error "timeout". Clients give ` +
			"up by themselves after 18s.",
	}, minTimeout, maxTimeout, func(s *Serve) *time.Duration { return &s.RequestTimeout }),
	duration(setting{
		name: "server-request-timeout", group: groupTimeouts, def: "15s",
		doc: "Time for a client to answer a request that the server sent it.",
	}, minTimeout, maxTimeout, func(s *Serve) *time.Duration { return &s.ServerRequestTimeout }),
	duration(setting{
		name: "close-timeout", group: groupTimeouts, def: "5s",
		doc: "Time for a client to answer a Close frame, and after that to close its end of the socket. Then the " +
			"socket is closed by force.",
	}, minTimeout, maxTimeout, func(s *Serve) *time.Duration { return &s.CloseTimeout }),
	duration(setting{
		name: "write-timeout", group: groupTimeouts, def: "10s",
		doc: "Time that the oldest waiting byte may wait to be written. A client that does not read for longer is " +
			"closed with 3335.",
	}, minTimeout, maxTimeout, func(s *Serve) *time.Duration { return &s.WriteTimeout }),

	choice(setting{
		name: "heartbeat", group: groupHeartbeat, placeholder: "MODE", def: "server",
		doc: "Who shows that a connection lives. server: the server pings. client: the client sends something at least " +
			"every two intervals, for clients that cannot answer pings. off: nobody.",
	}, []Heartbeat{HeartbeatServer, HeartbeatClient, HeartbeatOff}, func(s *Serve) *Heartbeat { return &s.Heartbeat }),
	duration(setting{
		name: "ping-interval", group: groupHeartbeat, def: "20s",
		doc: "Time between two pings to a connection. One that gave no sign of life in between is closed with 3334.",
	}, minTimeout, maxTimeout, func(s *Serve) *time.Duration { return &s.PingInterval }),

	duration(setting{
		name: "drain-delay", group: groupDrain, def: "0s",
		doc: "Time between /readyz turning 503 and the listeners closing, for load balancers to notice.",
	}, 0, maxTimeout, func(s *Serve) *time.Duration { return &s.DrainDelay }),
	duration(setting{
		name: "drain-spread", group: groupDrain, def: "30s",
		doc: "Time over which the connections are closed with 3333, at an even pace of at least 1000 a second.",
	}, 0, maxTimeout, func(s *Serve) *time.Duration { return &s.DrainSpread }),
	duration(setting{
		name: "drain-timeout", group: groupDrain, def: "60s",
		doc: "Time from the start of the drain until whatever is left is closed by force. At least --drain-delay and " +
			"--drain-spread together.",
	}, 0, 3*maxTimeout, func(s *Serve) *time.Duration { return &s.DrainTimeout }),

	choice(setting{
		name: "compression", group: groupCompression, placeholder: "MODE", def: "off",
		doc: "permessage-deflate (RFC 7692) for clients that offer it. shared: every message by itself, no memory per " +
			"connection. takeover: messages refer to earlier ones, up to 36 KiB per connection. off: never.",
	}, []Compression{CompressionOff, CompressionShared, CompressionTakeover}, func(s *Serve) *Compression { return &s.Compression }),
	size(setting{
		name: "compression-min-size", group: groupCompression, def: "256",
		doc: "Shortest message that is sent compressed. What does not become shorter is sent as it is in any case.",
	}, 0, 1*MiB, func(s *Serve) *Size { return &s.CompressionMinSize }),

	choice(setting{
		name: "auth", group: groupRooms, placeholder: "MODE", def: "open",
		doc: "What pcast.Authenticate demands. open: any token, for development. jwt: a JWT signed with HS256 and the " +
			"secret of --auth-secret-file.",
	}, []Auth{AuthOpen, AuthJWT}, func(s *Serve) *Auth { return &s.Auth }),
	textOf(setting{
		name: "auth-secret-file", group: groupRooms, placeholder: "FILE", def: "",
		doc: "File with the shared secret of --auth=jwt, and only of that: 32 bytes or more, of which one line " +
			"break at the end is not a part.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.AuthSecretFile }),
	listOf(setting{
		name: "meta-headers", group: groupRooms, placeholder: "NAME", def: "User-Agent",
		doc: "Headers of the upgrade request that are kept for the worker. Empty: none.",
	}, "names of HTTP headers (letters, digits and !#$%&'*+-.^_`|~)", 0, maxMetaHeaders,
		parseHeaderName, func(name string) string { return name }, func(s *Serve) *[]string { return &s.MetaHeaders }),
	duration(setting{
		name: "reenter-grace", group: groupRooms, def: "10s",
		doc: "Time that a member whose connection was lost keeps its place in the room. 0s: it leaves at once.",
	}, 0, maxTimeout, func(s *Serve) *time.Duration { return &s.ReenterGrace }),
	number(setting{
		name: "max-sessions", group: groupRooms, def: "1000000",
		doc: "Sessions at the same time, those of lost connections that may still come back included. One more is " +
			`refused with status "capacity".`,
	}, 1, 1<<24, func(s *Serve) *int { return &s.MaxSessions }),
	number(setting{
		name: "max-rooms", group: groupRooms, def: "10000",
		doc: `Rooms at the same time. One more is refused with status "capacity".`,
	}, 1, 1<<24, func(s *Serve) *int { return &s.MaxRooms }),
	number(setting{
		name: "max-members-per-room", group: groupRooms, def: "5000",
		doc: `Members of one room. One more is refused with status "capacity".`,
	}, 1, 1<<20, func(s *Serve) *int { return &s.MaxMembersPerRoom }),
	number(setting{
		name: "max-history-per-room", group: groupRooms, def: "1000",
		doc: "Chat messages that a room remembers. When there are more, the oldest go.",
	}, 1, 1<<20, func(s *Serve) *int { return &s.MaxHistoryPerRoom }),
	size(setting{
		name: "max-history-bytes-per-room", group: groupRooms, def: "64KiB",
		doc: "Bytes of chat messages that a room remembers. When there are more, the oldest go.",
	}, 32*KiB, 1*GiB, func(s *Serve) *Size { return &s.MaxHistoryBytesPerRoom }),
	duration(setting{
		name: "max-history-age", group: groupRooms, def: "24h",
		doc: "How long a chat message can be fetched; 1s at least. The next message in its room takes it out of memory. 0s: as long as the " +
			"other two limits leave it.",
	}, 0, maxHistoryAge, func(s *Serve) *time.Duration { return &s.MaxHistoryAge }),
}

// generalSettings are those that every process has.
var generalSettings = []setting{choice(setting{
	name: "log-level", group: groupLogging, placeholder: "LEVEL", def: "info",
	doc: "Least severe records to log, on standard error.",
}, []logLevel{logLevel(slog.LevelDebug), logLevel(slog.LevelInfo), logLevel(slog.LevelWarn), logLevel(slog.LevelError)},
	func(s *Serve) *logLevel { return (*logLevel)(&s.LogLevel) }),
	choice(setting{
		name: "log-format", group: groupLogging, placeholder: "FORMAT", def: "text",
		doc: "Form of a record. text: key=value pairs. json: one object a line. Durations are written like 1m30s.",
	}, []LogFormat{LogText, LogJSON}, func(s *Serve) *LogFormat { return &s.LogFormat }),

	textOf(setting{
		name: "config", group: groupGeneral, placeholder: "FILE", def: "", notInFile: true,
		doc: "YAML file with further settings: the names of the flags without their dashes, as in \"ping-interval: 20s\", " +
			"and lists for flags that may be repeated. Flags and environment beat it.",
	}, fileExpected, parseFileName, func(s *Serve) *string { return &s.ConfigFile }),
	{
		name: "check", group: groupGeneral, flagOnly: true, notInFile: true,
		doc: "Check everything, also the files named here; list the configuration with the origin of each value, or all " +
			"faults; and exit with 0 or 2.",
	},
}

const (
	pathExpected = "a path that starts with / and has no query, fragment or escapes"
	fileExpected = "the path of a file, or nothing"
	// 96: maxSocketPathBytes.
	socketExpected = "the path of a unix socket of at most 96 bytes, or nothing"
)
