package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Options configure a Server.
type Options struct {
	// Listen is where clients and other processes connect, host:port; port 0 picks one. Empty: nowhere, only InProcess.
	// It replaces what ConfigFile says.
	Listen string

	// StoreDir is the directory of JetStream; it is made if need be, and only one server may use it at a time. Empty: the
	// one that ConfigFile names, or else a temporary one, which Shutdown removes with all that is in it.
	StoreDir string

	// ConfigFile is a configuration of nats-server: users, TLS, cluster routes. Empty: none, so that everyone who reaches
	// Listen may do everything.
	ConfigFile string

	// SyncAlways makes JetStream wait for the disk with every message: for machines that may lose power. Without it what
	// was stored in the last two minutes may be lost then; a process that dies loses nothing.
	SyncAlways bool

	// Log receives the server's log lines: its notices with level DEBUG, warnings and errors with their own. nil: none.
	Log *slog.Logger
}

// Server is a running NATS server. All methods are safe from any goroutine.
type Server struct {
	s         *server.Server
	temporary string // store directory to remove, or ""
	once      sync.Once
	left      error // of the removal
}

// Start starts a server and returns when it accepts connections. The caller ends it with Shutdown.
func Start(o Options) (*Server, error) {
	so := &server.Options{}
	if o.ConfigFile != "" {
		var err error
		if so, err = server.ProcessConfigFile(o.ConfigFile); err != nil {
			return nil, fmt.Errorf("embedded NATS server: configuration file %s: %w", o.ConfigFile, err)
		}
	}
	if o.Listen == "" {
		so.DontListen = true
	} else {
		host, port, err := parseListen(o.Listen)
		if err != nil {
			return nil, err
		}
		so.Host, so.Port = host, port
	}
	so.JetStream = true
	so.NoSigs, so.DisableJetStreamBanner = true, true
	so.SyncAlways = so.SyncAlways || o.SyncAlways
	if so.MaxPayload == 0 {
		so.MaxPayload = MaxPayload
	}
	if so.WriteDeadline == 0 {
		so.WriteDeadline = writeDeadline
	}
	if o.StoreDir != "" {
		so.StoreDir = o.StoreDir
	}
	return start(so, o.Log)
}

// start starts a server with options that are complete but for a store directory.
func start(so *server.Options, log *slog.Logger) (*Server, error) {
	s := &Server{}
	if so.StoreDir == "" {
		dir, err := os.MkdirTemp("", "mqgate-nats-")
		if err != nil {
			return nil, fmt.Errorf("embedded NATS server: store directory: %w", err)
		}
		so.StoreDir, s.temporary = dir, dir
	}
	ns, err := server.NewServer(so)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded NATS server: %w", err), s.removeStore())
	}
	s.s = ns
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &logger{log: log, fatal: make(chan string, 1)}
	ns.SetLoggerV2(l, false, false, false)
	ns.Start()
	for end := time.Now().Add(readyTimeout); ; {
		ready := ns.ReadyForConnections(readyPoll)
		select {
		case why := <-l.fatal:
			return nil, errors.Join(fmt.Errorf("embedded NATS server: %s", why), s.Shutdown())
		default:
		}
		if ready {
			return s, nil
		}
		if time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("embedded NATS server: not ready within %v", readyTimeout), s.Shutdown())
		}
	}
}

// readyPoll is how long one look at whether the server is ready waits, before the next one.
const readyPoll = 100 * time.Millisecond

// parseListen returns host and port as nats-server wants them: -1 is any port.
func parseListen(listen string) (string, int, error) {
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("embedded NATS server: listen address %q: expected host:port", listen)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("embedded NATS server: listen address %q: expected a port from 0 to 65535", listen)
	}
	if port == 0 {
		return host, server.RANDOM_PORT, nil
	}
	return host, int(port), nil
}

// URL returns where clients connect, nats://host:port; "" when the server listens nowhere.
func (s *Server) URL() string {
	if a := s.s.Addr(); a != nil {
		return "nats://" + a.String()
	}
	return ""
}

// StoreDir returns the directory with JetStream's files.
func (s *Server) StoreDir() string { return s.s.StoreDir() }

// InProcess is an option for nats.Connect: the connection goes to this server through memory, whatever the URL.
func (s *Server) InProcess() nats.Option { return nats.InProcessServer(s.s) }

// Shutdown ends the server: connections are closed, everything stored is on disk, the temporary store directory is gone.
// It returns when that is done. Later calls return the same.
func (s *Server) Shutdown() error {
	s.once.Do(func() {
		s.s.Shutdown()
		s.s.WaitForShutdown()
		s.left = s.removeStore()
	})
	return s.left
}

func (s *Server) removeStore() error {
	if s.temporary == "" {
		return nil
	}
	if err := os.RemoveAll(s.temporary); err != nil {
		return fmt.Errorf("embedded NATS server: store directory: %w", err)
	}
	return nil
}

// logger is the server's Logger on slog. Its levels for debugging are off.
type logger struct {
	log   *slog.Logger
	fatal chan string // the first reason why the server cannot go on
}

func (l *logger) Noticef(format string, v ...any) {
	l.log.Debug("nats: " + fmt.Sprintf(format, v...))
}
func (l *logger) Warnf(format string, v ...any)  { l.log.Warn("nats: " + fmt.Sprintf(format, v...)) }
func (l *logger) Errorf(format string, v ...any) { l.log.Error("nats: " + fmt.Sprintf(format, v...)) }
func (l *logger) Debugf(format string, v ...any) {}
func (l *logger) Tracef(format string, v ...any) {}

// Fatalf does not end the process as nats-server's own logger does: Start returns the error.
func (l *logger) Fatalf(format string, v ...any) {
	why := fmt.Sprintf(format, v...)
	l.log.Error("nats: " + why)
	select {
	case l.fatal <- why:
	default: // there was one before
	}
}
