package nats

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	natsio "github.com/nats-io/nats.go"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats/subjects"
)

var (
	errNotBound   = errors.New("the connection has no request under way and no session: nothing can be bound to it")
	errNoGateway  = errors.New("the gateway is starting")
	errTopicKind  = errors.New(`header Mqgate-Topic: expected "room" or "conversation"`)
	errCloseCode  = errors.New("header Mqgate-Code: expected a number from 0 to 65535")
	errNoType     = errors.New("header Mqgate-Type: expected a type")
	errNoBind     = errors.New("header Mqgate-Bind: expected a session, or nothing for none")
	errNoCommand  = errors.New("no such command")
	errNotClosing = mq.ErrNotOpen
)

// command carries out what a worker tells a connection of this gateway, and answers when it was asked to.
func (x *Relay) command(l *link, m *natsio.Msg) {
	x.count.commands.Add(1)
	answer := func(a *natsio.Msg, err error) {
		if m.Reply == "" {
			return
		}
		a.Subject = m.Reply
		if err != nil {
			a.Header = natsio.Header{subjects.HeaderError: {err.Error()}}
			a.Data = nil
		}
		x.answer(l, a)
	}
	say := func(err error) { answer(&natsio.Msg{}, err) }
	id, err := conn.ParseID(header(m, subjects.HeaderConnection))
	if err != nil {
		say(fmt.Errorf("header %s: %w", subjects.HeaderConnection, err))
		return
	}
	clients := x.clients.Load()
	if clients == nil {
		say(errNoGateway)
		return
	}
	c, typ := *clients, header(m, subjects.HeaderType)
	switch subjects.Command(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]) {
	case subjects.CommandEvent:
		if typ == "" {
			say(errNoType)
			return
		}
		c.SendEvent(id, typ, m.Data, say)
	case subjects.CommandRequest:
		if typ == "" {
			say(errNoType)
			return
		}
		c.SendRequest(id, typ, m.Data, func(r mq.Response, err error) {
			answer(&natsio.Msg{Data: append([]byte(nil), r.Payload...), Header: natsio.Header{subjects.HeaderType: {strings.Clone(r.Type)},
				HeaderWallTime: {strconv.FormatFloat(r.WallTime, 'g', -1, 64)}}}, err)
		})
	case subjects.CommandClose:
		code, err := strconv.ParseUint(header(m, subjects.HeaderCode), 10, 16)
		if err != nil {
			say(errCloseCode)
			return
		}
		c.CloseConnection(id, uint16(code), string(m.Data), func(closing bool) {
			if closing {
				say(nil)
			} else {
				say(errNotClosing)
			}
		})
	case subjects.CommandUnsubscribe:
		kind, ok := topicKinds[header(m, HeaderTopic)]
		if !ok {
			say(errTopicKind)
			return
		}
		c.Unsubscribe(id, mq.Topic{Kind: kind, Room: string(m.Data)})
		say(nil)
	case subjects.CommandUnsubscribeAll:
		c.UnsubscribeAll(id)
		say(nil)
	case subjects.CommandBind:
		say(x.bind(c, id, m))
	default:
		say(errNoCommand)
	}
}

// bind carries out the command bind.
func (x *Relay) bind(c mq.Clients, id conn.ID, m *natsio.Msg) error {
	session, ok := m.Header[subjects.HeaderBind]
	if !ok || len(session) == 0 {
		return errNoBind
	}
	bound, compare := m.Header[HeaderBound]
	old, changed, known := x.peers.bind(id, session[0], func(old string) bool { return !compare || old == bound[0] })
	if !known && session[0] != "" {
		return errNotBound
	}
	if changed && old != "" {
		c.UnsubscribeAll(id)
	}
	return nil
}

// answer publishes the answer to a command from another goroutine than this one: callbacks of mq.Clients run on loops,
// where nothing may block.
func (x *Relay) answer(l *link, a *natsio.Msg) {
	if !x.senders[l.index].pushAnswer(a) {
		x.count.answersLost.Add(1)
	}
}
