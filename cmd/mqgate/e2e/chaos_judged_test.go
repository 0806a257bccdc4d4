package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mqgate/mqgate/mq/wire"
)

// chaosRecord returns the record of a small chaos without faults: A and B are in the one room and there at the end; C came, said
// something, and went.
func chaosRecord() (j *judge, a, b, c *chaosConn, living []map[string]string) {
	begun := time.Now().Add(-time.Minute)
	x := &chaos{rooms: []string{"R"}, timeout: time.Second}
	say := func(text, status, reason string) *asked {
		return &asked{typ: wire.TypeSendMessageToRoom, text: text, at: begun.Add(2 * time.Second), answered: begun.Add(3 * time.Second), answers: 1,
			status: status, reason: reason}
	}
	history := []wire.ChatMessage{{MessageID: "1", Message: "A/1"}, {MessageID: "2", Message: "C/1"}, {MessageID: "3", Message: "A/2"}, {MessageID: "4", Message: "B/1"}}
	join := roomNews{12, wire.MemberJoined, "SC", "C"}
	left := roomNews{13, wire.MemberLeft, "SC", "C"}
	a = &chaosConn{x: x, who: "A", session: "SA", opened: begun, joined: true, since: 10, members: map[string]uint64{"SA": 10},
		events: []roomNews{{10, wire.MemberJoined, "SA", "A"}, {11, wire.MemberJoined, "SB", "B"}, join, left}, subscribed: true,
		heard: slices.Clone(history), asked: []*asked{say("A/1", wire.StatusOK, ""), say("A/2", wire.StatusOK, ""), say("A/3", "", wire.ReasonTimeout)}}
	b = &chaosConn{x: x, who: "B", session: "SB", opened: begun, joined: true, since: 11, members: map[string]uint64{"SA": 10, "SB": 11},
		events: []roomNews{{11, wire.MemberJoined, "SB", "B"}, join, left}, subscribed: true, after: "1", heard: slices.Clone(history[1:]),
		asked: []*asked{say("B/1", wire.StatusOK, "")}}
	c = &chaosConn{x: x, who: "C", session: "SC", opened: begun, joined: true, since: 12, members: map[string]uint64{"SA": 10, "SB": 11, "SC": 12},
		events: []roomNews{join}, subscribed: true, after: "1", heard: slices.Clone(history[1:2]), ended: begun.Add(10 * time.Second), end: "gone",
		asked: []*asked{say("C/1", wire.StatusOK, ""), {typ: wire.TypeLeaveRoom, at: begun.Add(10 * time.Second)}}}
	x.conns = []*chaosConn{a, b, c}
	return &judge{x: x, history: [][]wire.ChatMessage{history}}, a, b, c, []map[string]string{{"SA": "A", "SB": "B"}}
}

// TestChaosJudge shows that the judge of TestChaos finds each kind of fault, and none where none is.
func TestChaosJudge(t *testing.T) {
	t.Parallel()
	drop := func(list []wire.ChatMessage, i int) []wire.ChatMessage { return slices.Delete(list, i, i+1) }
	for name, test := range map[string]struct {
		spoil func(j *judge, a, b, c *chaosConn, living []map[string]string)
		want  []string // in the faults; none: no fault
	}{
		"nothing": {func(*judge, *chaosConn, *chaosConn, *chaosConn, []map[string]string) {}, nil},
		"no answer": {func(_ *judge, a, _, _ *chaosConn, _ []map[string]string) {
			a.asked[0].answers, a.asked[0].status = 0, ""
		}, []string{"A (gateway 0", `"A/1"`, "was never answered"}},
		"no answer, and the connection ended much later": {func(_ *judge, _, _, c *chaosConn, _ []map[string]string) {
			c.asked[1].at = c.asked[1].at.Add(-30 * time.Second)
		}, []string{"C (gateway 0", "was never answered"}},
		"a member is told that it is none": {func(_ *judge, a, _, _ *chaosConn, _ []map[string]string) {
			a.asked[2].reason, a.asked[2].status = "", wire.StatusNotInRoom
		}, []string{`"A/3"`, "was answered with not-in-room"}},
		"too many requests fail": {func(_ *judge, a, _, _ *chaosConn, _ []map[string]string) {
			again := *a.asked[2]
			a.asked = append(a.asked, &again)
		}, []string{"2 requests of 6 failed, at most a 4th may"}},
		"too long a silence": {func(_ *judge, a, _, _ *chaosConn, _ []map[string]string) {
			a.asked[1].answered = a.asked[1].answered.Add(chaosSilence + time.Second)
		}, []string{"nobody was told that a message is stored for 41s"}},
		"a message is not stored": {func(j *judge, a, b, _ *chaosConn, _ []map[string]string) {
			j.history[0], a.heard, b.heard = drop(j.history[0], 2), drop(a.heard, 2), drop(b.heard, 1)
		}, []string{`"A/2"`, "answered with ok", "is not in the history"}},
		"a message is stored twice": {func(j *judge, a, b, _ *chaosConn, _ []map[string]string) {
			again := wire.ChatMessage{MessageID: "5", Message: "A/2"}
			j.history[0], a.heard, b.heard = append(j.history[0], again), append(a.heard, again), append(b.heard, again)
		}, []string{`"A/2"`, "is stored twice"}},
		"a sender's messages change places": {func(j *judge, a, _, _ *chaosConn, _ []map[string]string) {
			h := j.history[0]
			h[0].Message, h[2].Message = h[2].Message, h[0].Message
		}, []string{`"A/1" is stored after "A/2"`}},
		"a message of nobody": {func(j *judge, _, _, _ *chaosConn, _ []map[string]string) {
			j.history[0][3].Message = "X/1"
		}, []string{`nobody has sent the message "X/1"`}},
		"a message is not delivered": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.heard = drop(b.heard, 1)
		}, []string{"B (gateway 0", "did not hear 1 messages", `"A/2"`}},
		"the last message is not delivered": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.heard = b.heard[:2]
		}, []string{"B (gateway 0", "did not hear the last 1 messages", `"B/1"`}},
		"a message is delivered twice": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.heard = append(b.heard, b.heard[1])
		}, []string{"B (gateway 0", `heard "A/2" (3) twice`}},
		"messages are delivered in another order": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.heard[0], b.heard[1] = b.heard[1], b.heard[0]
		}, []string{"B (gateway 0", `heard "C/1" (2) after later ones`}},
		"a message from before the subscription": {func(j *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.heard = slices.Insert(b.heard, 0, j.history[0][0])
		}, []string{"B (gateway 0", `heard "A/1" (1) after later ones`}},
		"an event is not delivered": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.events = slices.Delete(b.events, 1, 2)
		}, []string{"B (gateway 0", "did not hear MemberJoined of C"}},
		"the first events are not delivered": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.events = b.events[2:]
		}, []string{"B (gateway 0", "did not hear MemberJoined of C (SC) with timestamp 12 before MemberLeft"}},
		"no event is delivered": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.events = nil
		}, []string{"B (gateway 0", "did not hear MemberLeft of C (SC) with timestamp 13 at the end"}},
		"one who came back before C left": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.since, b.members["SC"], b.events = 0, 12, b.events[2:]
		}, nil},
		"an event is delivered twice": {func(_ *judge, _, b, _ *chaosConn, _ []map[string]string) {
			b.events = append(b.events, b.events[2])
		}, []string{"B (gateway 0", "heard MemberLeft of C (SC) with timestamp 13 twice"}},
		"a disconnect is taken twice": {func(_ *judge, a, b, _ *chaosConn, _ []map[string]string) {
			again := roomNews{14, wire.MemberLeft, "SC", "C"}
			a.events, b.events = append(a.events, again), append(b.events, again)
		}, []string{"C (gateway 0", "2 times that it has left, want 1"}},
		"a disconnect is not taken": {func(_ *judge, a, b, _ *chaosConn, _ []map[string]string) {
			a.events, b.events = a.events[:3], b.events[:2]
		}, []string{"believes that SC is in the room, who is not", "0 times that it has left, want 1"}},
		"somebody who is there has left": {func(_ *judge, a, b, _ *chaosConn, _ []map[string]string) {
			wrong := roomNews{14, wire.MemberLeft, "SB", "B"}
			a.events, b.events = append(a.events, wrong), append(b.events, wrong)
		}, []string{"A (gateway 0", "does not know that B (SB) is in the room", "1 times that it has left, want 0"}},
		"a ghost": {func(_ *judge, a, b, _ *chaosConn, living []map[string]string) {
			maps.DeleteFunc(living[0], func(session, _ string) bool { return session == "SB" })
		}, []string{"believes that SB is in the room, who is not"}},
	} {
		j, a, b, c, living := chaosRecord()
		test.spoil(j, a, b, c, living)
		j.requests()
		j.stored()
		j.delivered()
		j.told(living)
		j.silence()
		all := strings.Join(j.faults, "\n")
		if len(test.want) == 0 && all != "" {
			t.Errorf("%s: %s", name, all)
		}
		for _, want := range test.want {
			if !strings.Contains(all, want) {
				t.Errorf("%s: %q is missing in the faults:\n%s", name, want, all)
			}
		}
	}
	// Answers are judged when they come.
	for name, test := range map[string]struct {
		answers []wire.Envelope
		want    string
	}{
		"one":      {[]wire.Envelope{{RequestID: "C0", Type: "chat.LeaveRoomResponse"}}, ""},
		"two":      {[]wire.Envelope{{RequestID: "C0", Type: "chat.LeaveRoomResponse"}, {RequestID: "C0", Type: wire.TypeError}}, "answered 2 times"},
		"another":  {[]wire.Envelope{{RequestID: "C0", Type: "chat.JoinRoomResponse"}}, "answered with chat.JoinRoomResponse"},
		"nobody's": {[]wire.Envelope{{RequestID: "C1", Type: "chat.LeaveRoomResponse"}}, "was not asked"},
	} {
		c := &chaosConn{asked: []*asked{{typ: wire.TypeLeaveRoom, done: make(chan struct{})}}}
		var got string
		for _, e := range test.answers {
			e.MessageType = wire.Response
			got = c.take(&e)
		}
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}
