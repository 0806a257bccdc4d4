package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/loop"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the admin interface.
const (
	adminReadTimeout  = 10 * time.Second
	adminWriteTimeout = 2 * time.Minute        // a profile takes 30 s; with --server-request-timeout on top, for requests to a client
	adminLast         = 500 * time.Millisecond // how long the process waits for requests that have begun, or may have
	adminPoll         = 2 * time.Millisecond
	adminStop         = 2 * time.Second // how long answers may take to end when the process does
	adminEnvelope     = 4 << 10         // [bytes] of a request's JSON besides the payload
)

// admin is the HTTP interface for operators: health, metrics, profiles, single connections, drain. docs/admin.md
// describes it.
type admin struct {
	g        *gateway
	http     *http.Server
	listener net.Listener
	done     chan struct{}
	asked    asked
}

// listenAdmin opens the admin listener: a duplicate of one that others have opened, or, when that is nil, a new one; nil when
// there is to be none.
func (g *gateway) listenAdmin(given *listeners) (net.Listener, error) {
	if given != nil {
		ln, err := adoptAdmin(given)
		if err != nil {
			return nil, fmt.Errorf("the admin listener that was handed over, on %v: %w", given.addr, err)
		}
		return ln, nil
	}
	if g.cfg.Admin == nil {
		return nil, nil
	}
	ln, err := net.Listen("tcp", g.cfg.Admin.String())
	if err != nil {
		return nil, fmt.Errorf("--admin %v: %w", g.cfg.Admin, explainListen(err))
	}
	return ln, nil
}

// serveAdmin starts the admin interface on a listener, which it takes over; nil: there is to be none.
func (g *gateway) serveAdmin(ln net.Listener) *admin {
	a := &admin{g: g}
	a.serve(ln, a.handler(), g.log, g.cfg.ServerRequestTimeout)
	return a
}

// newAdmin starts an admin interface that has nothing to do with connections.
func newAdmin(ln net.Listener, handler http.Handler, log *slog.Logger, longest time.Duration) *admin {
	a := &admin{}
	a.serve(ln, handler, log, longest)
	return a
}

// serve starts the server; longest is how long an answer may be waited for.
func (a *admin) serve(ln net.Listener, handler http.Handler, log *slog.Logger, longest time.Duration) {
	a.listener, a.done = ln, make(chan struct{})
	if ln == nil {
		close(a.done)
		return
	}
	a.http = &http.Server{
		Handler: handler, ReadTimeout: adminReadTimeout, WriteTimeout: adminWriteTimeout + longest,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), ConnState: a.asked.note,
	}
	go func() {
		defer close(a.done)
		// ErrClosed: stopAccepting.
		if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			log.Error("the admin interface has failed", "err", err)
		}
	}()
}

// adoptAdmin listens on a duplicate of a socket that listens already.
func adoptAdmin(given *listeners) (net.Listener, error) {
	addr, err := loop.ListeningOn(given.fds[0])
	if err != nil {
		return nil, err
	}
	if addr != given.addr {
		return nil, fmt.Errorf("it listens on %v", addr)
	}
	fd, err := loop.Duplicate(given.fds[0])
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), adminFDName)
	defer func() { _ = f.Close() }() // FileListener takes one more duplicate
	return net.FileListener(f)
}

// duplicate returns a duplicate of the listening descriptor, which is the caller's, and its address; -1 without one.
func (a *admin) duplicate() (fd int, addr string, err error) {
	if a.listener == nil {
		return -1, "", nil
	}
	raw, err := a.listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return -1, "", err
	}
	fd = -1
	if failed := raw.Control(func(own uintptr) { fd, err = loop.Duplicate(int(own)) }); failed != nil {
		err = failed
	}
	return fd, a.addr(), err
}

// stopAccepting leaves the listener to others, who have a duplicate. Requests in progress are still answered; connections
// that are kept alive for further ones end.
func (a *admin) stopAccepting() {
	if a.listener == nil {
		return
	}
	_ = a.listener.Close() // closed by a shutdown already, or now
	a.http.SetKeepAlivesEnabled(false)
}

// addr returns the real address, "" when there is no admin interface.
func (a *admin) addr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

func (a *admin) close() {
	if a.http != nil {
		// Shutdown drops a request that is being read when it begins: those first.
		a.stopAccepting()
		a.asked.await(adminLast)
		ctx, cancel := context.WithTimeout(context.Background(), adminStop)
		defer cancel()
		if err := a.http.Shutdown(ctx); err != nil {
			_ = a.http.Close() // what is still being answered is cut off
		}
	}
	<-a.done
}

// asked is the connections that are no idle ones: a request has come or may be on its way. Safe from any goroutine.
type asked struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// note is http.Server.ConnState.
func (q *asked) note(c net.Conn, s http.ConnState) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch s {
	case http.StateNew, http.StateActive:
		if q.conns == nil {
			q.conns = map[net.Conn]struct{}{}
		}
		q.conns[c] = struct{}{}
	case http.StateIdle, http.StateHijacked, http.StateClosed:
		delete(q.conns, c)
	}
}

func (q *asked) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.conns)
}

// await waits until there are none, for a time at most.
func (q *asked) await(most time.Duration) {
	tick := time.NewTicker(adminPoll)
	defer tick.Stop()
	for since := time.Now(); q.len() > 0 && time.Since(since) < most; {
		<-tick.C
	}
}

func (a *admin) handler() http.Handler {
	mux := adminMux(a.ready, &collector{g: a.g})
	mux.HandleFunc("GET /connections/{id}", a.describe)
	mux.HandleFunc("POST /connections/{id}/close", a.closeConnection)
	mux.HandleFunc("POST /connections/{id}/event", a.sendEvent)
	mux.HandleFunc("POST /connections/{id}/request", a.sendRequest)
	mux.HandleFunc("POST /drain", a.startDrain)
	mux.HandleFunc("DELETE /drain", a.cancelDrain)
	return guarded(a.g.cfg.AdminToken, mux)
}

// guarded lets only those in who may.
func guarded(token config.Secret, mux http.Handler) http.Handler {
	// A page in an operator's browser must not be able to drain the gateway on the operator's loopback.
	handler := http.NewCrossOriginProtection().Handler(mux)
	if len(token) > 0 {
		return authorized(token, handler)
	}
	return local(handler)
}

// adminMux answers what gateways and workers have in common.
func adminMux(ready http.HandlerFunc, metrics prometheus.Collector) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerText(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", ready)
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol) // pprof asks for many symbols by POST
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// authorized lets requests through that carry the bearer token.
func authorized(secret []byte, next http.Handler) http.Handler {
	want := sha256.Sum256(secret)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(token)) // of equal length, so that the comparison tells nothing
		if !strings.EqualFold(scheme, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Bearer realm="mqgate admin"`)
			answerText(w, http.StatusUnauthorized, "a bearer token is required: Authorization: Bearer TOKEN")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// local lets requests through that name their host by its address, or as localhost. Without a token the interface is on
// loopback only (the configuration sees to that), which keeps out other machines but not the operator's own browser: a
// page whose name was made to point to 127.0.0.1 after it was loaded is of the same origin as this interface.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		_, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if err != nil && host != "" && !strings.EqualFold(host, "localhost") {
			answerText(w, http.StatusForbidden, "without --admin-token-file the host must be an IP address or localhost")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ready tells a load balancer whether to send new connections here.
func (a *admin) ready(w http.ResponseWriter, _ *http.Request) {
	if a.g.drainer.Active() {
		answerText(w, http.StatusServiceUnavailable, "draining")
		return
	}
	var open int64
	for _, s := range a.g.server.Snapshots() {
		open += s.Conn.Open
	}
	if open >= int64(a.g.cfg.MaxConnections) {
		answerText(w, http.StatusServiceUnavailable, fmt.Sprintf("full: %d of %d connections", open, a.g.cfg.MaxConnections))
		return
	}
	if b := a.g.budget; b != nil && b.Level() >= conn.Refusing {
		answerText(w, http.StatusServiceUnavailable, fmt.Sprintf("full: %d of %d bytes of memory", b.Used(), b.Limit()))
		return
	}
	if n := a.g.nats; n != nil {
		if why := n.away(); why != "" {
			answerText(w, http.StatusServiceUnavailable, why)
			return
		}
	}
	answerText(w, http.StatusOK, "ready")
}

// startDrain: when the answer is on its way, /readyz says 503.
func (a *admin) startDrain(w http.ResponseWriter, _ *http.Request) {
	a.g.log.Info("drain asked for through the admin interface")
	a.g.drainer.Start()
	answerJSON(w, http.StatusAccepted, map[string]bool{"draining": true})
}

// cancelDrain: when the answer is on its way, the gateway listens again.
func (a *admin) cancelDrain(w http.ResponseWriter, _ *http.Request) {
	cancelled, err := a.g.drainer.Cancel()
	if errors.Is(err, errHandedOver) || errors.Is(err, errSignalled) {
		answerText(w, http.StatusConflict, err.Error())
		return
	}
	if err != nil {
		answerText(w, http.StatusInternalServerError, err.Error())
		return
	}
	answerJSON(w, http.StatusOK, map[string]bool{"cancelled": cancelled})
}

// readBody reads a JSON body of at most limit bytes strictly: unknown keys and anything after it are errors. false: the
// error has been answered.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		_, end := d.Token()
		if end == io.EOF {
			return true
		}
		err = errors.New("something follows the JSON object")
		if _, tooLarge := errors.AsType[*http.MaxBytesError](end); tooLarge {
			err = end
		}
	}
	status := http.StatusBadRequest
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		status, err = http.StatusRequestEntityTooLarge, fmt.Errorf("it has more than %d bytes", limit)
	}
	answerText(w, status, "the body must be one JSON object: "+err.Error())
	return false
}

func answerText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // whoever asked has gone
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		answerText(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // whoever asked has gone
}
