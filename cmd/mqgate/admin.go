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
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the admin interface.
const (
	adminReadTimeout  = 10 * time.Second
	adminWriteTimeout = 2 * time.Minute // a profile takes 30 s, a request to a client up to --server-request-timeout
	adminStop         = 2 * time.Second // how long answers may take to end when the process does
	adminEnvelope     = 4 << 10         // [bytes] of a request's JSON besides the payload
)

// admin is the HTTP interface for operators: health, metrics, profiles, single connections, drain.
type admin struct {
	g        *gateway
	http     *http.Server
	listener net.Listener
	done     chan struct{}
}

// serveAdmin starts the admin interface, if there is to be one.
func (g *gateway) serveAdmin() (*admin, error) {
	a := &admin{g: g, done: make(chan struct{})}
	if g.cfg.Admin == nil {
		close(a.done)
		return a, nil
	}
	var err error
	if a.listener, err = net.Listen("tcp", g.cfg.Admin.String()); err != nil {
		return nil, fmt.Errorf("--admin %v: %w", g.cfg.Admin, explainListen(err))
	}
	a.http = &http.Server{
		Handler: a.handler(), ReadTimeout: adminReadTimeout, WriteTimeout: adminWriteTimeout,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(a.done)
		if err := a.http.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			g.log.Error("the admin interface has failed", "err", err)
		}
	}()
	return a, nil
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
		ctx, cancel := context.WithTimeout(context.Background(), adminStop)
		defer cancel()
		if err := a.http.Shutdown(ctx); err != nil {
			_ = a.http.Close() // what is still being answered is cut off
		}
	}
	<-a.done
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerText(w, http.StatusOK, "alive") })
	mux.HandleFunc("GET /readyz", a.ready)
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{g: a.g}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /connections/{id}", a.describe)
	mux.HandleFunc("POST /connections/{id}/close", a.closeConnection)
	mux.HandleFunc("POST /connections/{id}/event", a.sendEvent)
	mux.HandleFunc("POST /connections/{id}/request", a.sendRequest)
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		a.g.log.Info("drain asked for through the admin interface")
		a.g.drainer.Start()
		answerJSON(w, http.StatusAccepted, map[string]bool{"draining": true})
	})
	mux.HandleFunc("DELETE /drain", func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, http.StatusOK, map[string]bool{"cancelled": a.g.drainer.Cancel()})
	})
	// A page in an operator's browser must not be able to drain the gateway on the operator's loopback.
	return a.authorized(http.NewCrossOriginProtection().Handler(mux))
}

// authorized lets requests through that carry the bearer token, or all when there is none (loopback only: the
// configuration sees to that).
func (a *admin) authorized(next http.Handler) http.Handler {
	if len(a.g.cfg.AdminToken) == 0 {
		return next
	}
	want := sha256.Sum256(a.g.cfg.AdminToken)
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
	answerText(w, http.StatusOK, "ready")
}

// connection is the answer to GET /connections/{id}.
type connection struct {
	ID           string    `json:"id"`
	State        string    `json:"state"`
	Remote       string    `json:"remote"`
	Since        time.Time `json:"since"`
	RTTms        float64   `json:"rtt_ms"`
	PendingBytes int       `json:"pending_bytes"`
	Requests     int       `json:"requests"`
	Rooms        []string  `json:"rooms"`
}

func (a *admin) describe(w http.ResponseWriter, r *http.Request) {
	id, ok := a.id(w, r)
	if !ok {
		return
	}
	found := make(chan *connection, 1)
	a.g.server.Do(id, func(c *conn.Conn) {
		if c == nil {
			found <- nil
			return
		}
		d := mq.Description{Rooms: []string{}}
		if c.Endpoint().Path == a.g.cfg.Path {
			d = a.g.mq.Describe(c)
		}
		found <- &connection{ID: id.String(), State: c.State().String(), Remote: c.Remote().String(), Since: c.Start().UTC(),
			RTTms: float64(c.RTT().Microseconds()) / 1000, PendingBytes: c.Pending(), Requests: d.Requests, Rooms: d.Rooms}
	})
	if c := <-found; c != nil {
		answerJSON(w, http.StatusOK, c)
	} else {
		answerError(w, mq.ErrNotFound)
	}
}

func (a *admin) closeConnection(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Code   int    `json:"code"`
		Reason string `json:"reason"`
	}
	id, ok := a.id(w, r)
	if !ok || !a.body(w, r, &body) {
		return
	}
	if !frame.ValidSendCode(body.Code) {
		answerText(w, http.StatusBadRequest, fmt.Sprintf("code %d: %v", body.Code, conn.ErrCloseCode))
		return
	}
	closed := make(chan bool, 1)
	a.g.mq.CloseConnection(id, uint16(body.Code), body.Reason, func(ok bool) { closed <- ok })
	answerJSON(w, http.StatusOK, map[string]bool{"closed": <-closed})
}

// message is an event or a request to a client, or its response. The payload is base64 in JSON.
type message struct {
	Type    string `json:"type"`
	Payload []byte `json:"payload"`
}

func (a *admin) sendEvent(w http.ResponseWriter, r *http.Request) {
	id, m, ok := a.message(w, r)
	if !ok {
		return
	}
	sent := make(chan error, 1)
	a.g.mq.SendEvent(id, m.Type, m.Payload, func(err error) { sent <- err })
	if err := <-sent; err != nil {
		answerError(w, err)
		return
	}
	answerJSON(w, http.StatusOK, map[string]bool{"sent": true})
}

func (a *admin) sendRequest(w http.ResponseWriter, r *http.Request) {
	id, m, ok := a.message(w, r)
	if !ok {
		return
	}
	type response struct {
		message
		WallTime float64 `json:"wall_time_ms"`
	}
	type result struct {
		response
		err error
	}
	done := make(chan result, 1)
	a.g.mq.SendRequest(id, m.Type, m.Payload, func(res mq.Response, err error) {
		done <- result{response{message{strings.Clone(res.Type), append([]byte{}, res.Payload...)}, res.WallTime}, err}
	})
	select {
	case res := <-done:
		if res.err != nil {
			answerError(w, res.err)
			return
		}
		answerJSON(w, http.StatusOK, res.response)
	case <-r.Context().Done(): // whoever asked has gone
	}
}

// id reads the connection id of the path.
func (a *admin) id(w http.ResponseWriter, r *http.Request) (conn.ID, bool) {
	id, err := conn.ParseID(r.PathValue("id"))
	if err != nil {
		answerError(w, fmt.Errorf("%w: %w", mq.ErrNotFound, err))
		return id, false
	}
	return id, true
}

func (a *admin) message(w http.ResponseWriter, r *http.Request) (id conn.ID, m message, ok bool) {
	if id, ok = a.id(w, r); !ok || !a.body(w, r, &m) {
		return id, m, false
	}
	if m.Type == "" {
		answerText(w, http.StatusBadRequest, `the body needs "type": the name of the message, e.g. "chat.RoomEvent"`)
		return id, m, false
	}
	return id, m, true
}

// body reads a JSON body strictly: unknown keys and anything after it are errors.
func (a *admin) body(w http.ResponseWriter, r *http.Request, into any) bool {
	limit := int64(a.g.cfg.MaxMessageBytes)*4/3 + adminEnvelope
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("something follows the JSON object")
		}
	}
	if err == nil {
		return true
	}
	status := http.StatusBadRequest
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		status = http.StatusRequestEntityTooLarge
	}
	answerText(w, status, "the body must be one JSON object: "+err.Error())
	return false
}

// answerError answers with the status that belongs to an error of package mq (L4.2, L4.3).
func answerError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, mq.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, mq.ErrNotOpen), errors.Is(err, mq.ErrConnectionClosed):
		status = http.StatusConflict
	case errors.Is(err, mq.ErrTimeout):
		status = http.StatusGatewayTimeout
	case errors.Is(err, mq.ErrTooMany):
		status = http.StatusServiceUnavailable
	}
	answerText(w, status, err.Error())
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
