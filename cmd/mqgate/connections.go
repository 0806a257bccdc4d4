package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/frame"
	"github.com/mqgate/mqgate/mq"
)

// The part of the admin interface that is about single connections. What has to be known of a connection is asked for on
// its loop; the handlers wait for the answer, or until whoever asked has gone.

// connection is the answer to GET /connections/{id}.
type connection struct {
	ID           string    `json:"id"`
	State        string    `json:"state"`
	Remote       string    `json:"remote"`
	Since        time.Time `json:"since"`
	RTTms        float64   `json:"rtt_ms"` // 0: none measured yet
	PendingBytes int       `json:"pending_bytes"`
	Requests     int       `json:"requests"` // of the client, at the worker
	Rooms        []string  `json:"rooms"`    // subscribed to
}

func (a *admin) describe(w http.ResponseWriter, r *http.Request) {
	id, err := conn.ParseID(r.PathValue("id"))
	if err != nil {
		answerError(w, mq.ErrNotFound)
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
	if c, ok := await(r, found); !ok {
		return
	} else if c == nil {
		answerError(w, mq.ErrNotFound)
	} else {
		answerJSON(w, http.StatusOK, c)
	}
}

// closing says how a connection is to be closed.
type closing struct {
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// closeConnection closes a connection of whichever endpoint (L5.2). There is no error but a wrong question: {"closed":
// false} says that there was nothing to close.
func (a *admin) closeConnection(w http.ResponseWriter, r *http.Request) {
	var body closing
	if !readBody(w, r, adminEnvelope, &body) {
		return
	}
	if !frame.ValidSendCode(body.Code) {
		answerText(w, http.StatusBadRequest, fmt.Sprintf("code %d: %v", body.Code, conn.ErrCloseCode))
		return
	}
	done := make(chan error, 1)
	if id, err := conn.ParseID(r.PathValue("id")); err != nil {
		done <- mq.ErrNotFound
	} else {
		a.g.server.Do(id, func(c *conn.Conn) {
			if c == nil {
				done <- mq.ErrNotFound
				return
			}
			done <- c.Close(body.Code, body.Reason, conn.CauseLocal)
		})
	}
	if err, ok := await(r, done); ok {
		if err != nil {
			a.g.log.Warn("close through the admin interface: nothing to close", "id", r.PathValue("id"), "err", err)
		}
		answerJSON(w, http.StatusOK, map[string]bool{"closed": err == nil})
	}
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
	if err, ok := await(r, sent); !ok {
		return
	} else if err != nil {
		answerError(w, err)
	} else {
		answerJSON(w, http.StatusOK, map[string]bool{"sent": true})
	}
}

// response is a client's answer.
type response struct {
	message
	WallTime float64 `json:"wall_time_ms"` // as the client says; 0 when it says none, or nonsense
}

func (a *admin) sendRequest(w http.ResponseWriter, r *http.Request) {
	id, m, ok := a.message(w, r)
	if !ok {
		return
	}
	type result struct {
		response
		err error
	}
	done := make(chan result, 1)
	a.g.mq.SendRequest(id, m.Type, m.Payload, func(res mq.Response, err error) {
		if math.IsNaN(res.WallTime) || math.IsInf(res.WallTime, 0) { // JSON has no word for these
			res.WallTime = 0
		}
		done <- result{response{message{strings.Clone(res.Type), append([]byte{}, res.Payload...)}, res.WallTime}, err}
	})
	if res, ok := await(r, done); !ok {
		return
	} else if res.err != nil {
		answerError(w, res.err)
	} else {
		answerJSON(w, http.StatusOK, res.response)
	}
}

// message reads what is to be sent, and to whom. false: the error has been answered.
func (a *admin) message(w http.ResponseWriter, r *http.Request) (id conn.ID, m message, ok bool) {
	if !readBody(w, r, int64(a.g.cfg.MaxMessageBytes)*4/3+adminEnvelope, &m) {
		return id, m, false
	}
	if m.Type == "" {
		answerText(w, http.StatusBadRequest, `the body needs "type": the name of the message, e.g. "chat.RoomEvent"`)
		return id, m, false
	}
	id, err := conn.ParseID(r.PathValue("id"))
	if err != nil {
		answerError(w, mq.ErrNotFound)
		return id, m, false
	}
	return id, m, true
}

// await waits for an answer. false: whoever asked has gone, and nothing need be said.
func await[T any](r *http.Request, answer <-chan T) (v T, ok bool) {
	select {
	case v = <-answer:
		return v, true
	case <-r.Context().Done():
		return v, false
	}
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
