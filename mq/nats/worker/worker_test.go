package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	natsio "github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/mqgate/mqgate/conn"
	"github.com/mqgate/mqgate/mq"
	"github.com/mqgate/mqgate/mq/nats"
	"github.com/mqgate/mqgate/mq/nats/embedded/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Handlers get what a gateway says, answer, fail and panic, each alone; and Run ends when it should, with what is under way.
func TestRun(t *testing.T) {
	s := natstest.Single(t)
	nc := natstest.Connect(t, []string{s.URL()})
	id := conn.NewIssuer().Make(1, 2, 3)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	begun, open := make(chan bool), make(chan bool)
	ended := make(chan error)
	go func() {
		ended <- Run(ctx, nats.Options{URLs: []string{s.URL()}}, map[string]Handler{
			"x.Good": func(_ context.Context, r *Request) ([]byte, error) {
				told := make(chan error)
				r.Clients.SendEvent(r.Conn, "x.E", nil, func(err error) { told <- err })
				if err := <-told; err != mq.ErrNotFound {
					t.Errorf("event to a gateway that is not there: %v", err)
				}
				m := r.Meta()
				return []byte(strings.Join([]string{r.Conn.String(), r.Session, r.Type, string(r.Payload), m.Headers[0].Value}, "|")), nil
			},
			"x.Bad":   func(context.Context, *Request) ([]byte, error) { return nil, errors.New("because") },
			"x.Panic": func(context.Context, *Request) ([]byte, error) { panic("on purpose") },
			"x.Slow": func(ctx context.Context, _ *Request) ([]byte, error) {
				begun <- true
				<-open
				return []byte("done"), ctx.Err()
			},
		})
	}()
	ask := func(typ string) (*natsio.Msg, error) {
		return nc.RequestMsg(&natsio.Msg{Subject: "mqgate.req." + typ, Data: []byte("payload"), Header: natsio.Header{
			"Mqgate-Connection": {id.String()}, "Mqgate-Session": {"S"}, "Mqgate-Meta-User-Agent": {"test"}}}, natstest.Deadline)
	}
	natstest.Eventually(t, "the worker is there", func() bool { _, err := ask("x.Bad"); return err == nil })
	if m, err := ask("x.Good"); err != nil || string(m.Data) != id.String()+"|S|x.Good|payload|test" || len(m.Header) != 0 {
		t.Errorf("%v %+v", err, m)
	}
	if m, err := ask("x.Bad"); err != nil || m.Header.Get("Mqgate-Error") != "because" {
		t.Errorf("%v %+v", err, m)
	}
	if m, err := ask("x.Panic"); err != nil || m.Header.Get("Mqgate-Error") == "" {
		t.Errorf("%v %+v", err, m)
	}
	if _, err := ask("x.Other"); !errors.Is(err, natsio.ErrNoResponders) {
		t.Errorf("a type without a handler: %v", err)
	}
	slow := make(chan string)
	go func() {
		m, err := ask("x.Slow")
		if err != nil {
			t.Error(err)
		}
		slow <- string(m.Data)
	}()
	<-begun
	stop()
	natstest.Eventually(t, "nothing more is taken", func() bool { _, err := ask("x.Bad"); return errors.Is(err, natsio.ErrNoResponders) })
	select {
	case err := <-ended:
		t.Fatalf("ended before its last answer: %v", err)
	default:
	}
	close(open)
	if got := <-slow; got != "done" {
		t.Errorf("%q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), natstest.Deadline)
	defer cancel()
	good := map[string]Handler{"x": func(context.Context, *Request) ([]byte, error) { return nil, nil }}
	for _, test := range []struct {
		o        nats.Options
		handlers map[string]Handler
		want     string
	}{
		{nats.Options{}, nil, "no handlers"},
		{nats.Options{}, map[string]Handler{"x": nil}, "no handler for x"},
		{nats.Options{}, good, "URLs"},
		{nats.Options{URLs: []string{natstest.Single(t).URL()}}, map[string]Handler{"a b": good["x"]}, `"a b"`},
	} {
		if err := Run(ctx, test.o, test.handlers); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, expected it to say %s", err, test.want)
		}
	}
	if drainTimeout <= 15*time.Second {
		t.Error("a drain ends before gateways give up")
	}
}
