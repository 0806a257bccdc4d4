package conformance

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

const extensions = "Sec-WebSocket-Extensions"

// sampleKey is the key of the example of RFC 6455 section 1.3; requests that cases write themselves have it.
const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// acceptFor is the Sec-WebSocket-Accept for a key: RFC 6455 section 4.2.2.
func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// lines is a header block, each line ended as it must be.
func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

// openClient sends the opening handshake and judges the answer. Not opened without an error: the case expected that.
func (s *session) openClient(c *Case) (opened bool, err error) {
	request := ""
	if c.request != nil {
		request = c.request(s.t)
	} else {
		l := []string{"GET " + s.t.Path + " HTTP/1.1", "Host: " + s.t.Addr, "Upgrade: websocket", "Connection: Upgrade",
			"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + sampleKey}
		if c.offer != "" {
			l = append(l, extensions+": "+c.offer)
		}
		request = lines(l...)
	}
	how := whole
	if c.request != nil {
		how = []chop{whole, octets, randomly(len(request))}[s.rnd.IntN(3)]
	}
	s.sendBytes(how, []byte(request))
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(s.judge.in, &http.Request{Method: method}) // the answer to HEAD has no body
	if err != nil {
		return false, fmt.Errorf("the answer to the handshake: %w", err)
	}
	status := 101
	if c.status != 0 {
		status = c.status
	}
	if res.StatusCode != status {
		return false, fmt.Errorf("want status %d, got %d", status, res.StatusCode)
	}
	for _, line := range c.header {
		name, value, _ := strings.Cut(line, ": ")
		if !slices.Contains(res.Header.Values(name), value) {
			return false, fmt.Errorf("status %d without %q", status, line)
		}
	}
	if status != 101 {
		return false, s.refused(res)
	}
	s.watched = true
	return true, s.accepted(c, res)
}

// refused judges an answer other than 101: it is complete, and the connection ends with it.
func (s *session) refused(res *http.Response) error {
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return fmt.Errorf("the body of the answer: %w", err)
	}
	if !res.Close {
		return errors.New("the answer has no Connection: close")
	}
	return end(s)
}

// accepted judges a 101: RFC 6455 section 4.2.2.
func (s *session) accepted(c *Case, res *http.Response) error {
	one := func(name, want string, fold bool) error {
		got := res.Header.Values(name)
		if len(got) != 1 || got[0] != want && !(fold && strings.EqualFold(got[0], want)) {
			return fmt.Errorf("%s is %q, want %q", name, got, want)
		}
		return nil
	}
	if res.Proto != "HTTP/1.1" {
		return fmt.Errorf("101 in %s", res.Proto)
	}
	var protocol error
	if got := res.Header.Values("Sec-WebSocket-Protocol"); len(got) > 0 {
		protocol = fmt.Errorf("a subprotocol %q", got)
	}
	var length error
	for _, name := range []string{"Content-Length", "Transfer-Encoding"} { // RFC 9110 section 8.6, RFC 9112 section 6.1
		if res.Header.Get(name) != "" {
			length = errors.New("101 with " + name)
		}
	}
	var err error
	s.agreed, err = agree(c.offer, res.Header.Values(extensions))
	s.judgeDeflate(true)
	return errors.Join(one("Upgrade", "websocket", true), one("Connection", "Upgrade", true),
		one("Sec-WebSocket-Accept", acceptFor(sampleKey), false), protocol, length, err)
}

// judgeDeflate has the judge take compressed messages, if that was agreed; server says who sends them.
func (s *session) judgeDeflate(server bool) {
	if s.agreed.on {
		s.judge.deflat = newInflate(s.agreed.direction(server))
	}
}

// openServer reads the client's opening handshake, judges it and answers.
func (s *session) openServer(c *Case) (opened bool, err error) {
	req, err := http.ReadRequest(s.judge.in)
	if err != nil {
		return false, fmt.Errorf("the opening handshake: %w", err)
	}
	if err := checkRequest(req, s.judge.in); err != nil {
		return false, fmt.Errorf("the opening handshake has %w", err)
	}
	key := req.Header.Get("Sec-WebSocket-Key")
	answer := ordinaryAnswer(key)
	if c.answer != nil {
		answer = c.answer(key)
	}
	gives := c.gives
	if c.agrees != nil {
		offer := strings.Join(req.Header.Values(extensions), ",")
		l := c.agrees(offer)
		for _, value := range l {
			answer = strings.TrimSuffix(answer, "\r\n") + extensions + ": " + value + "\r\n\r\n"
		}
		s.agreed, err = agree(offer, l)
		gives = err != nil
		s.judgeDeflate(false)
	}
	s.sendBytes([]chop{whole, octets, randomly(len(answer))}[s.rnd.IntN(3)], []byte(answer))
	if !gives {
		return true, nil
	}
	got, err := s.judge.in.ReadByte()
	switch {
	case err == nil:
		return false, fmt.Errorf("want the end of TCP, got a byte %#x", got)
	case err != io.EOF && !errors.Is(err, errReset): // a client that gives up need not read what else came
		return false, fmt.Errorf("want the end of TCP, got %w", err)
	}
	return false, nil
}

func ordinaryAnswer(key string) string {
	return lines("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: "+acceptFor(key))
}

// checkRequest judges a client's opening handshake: RFC 6455 section 4.1.
func checkRequest(req *http.Request, behind *bufio.Reader) error {
	var faults []error
	must := func(ok bool, fault string) {
		if !ok {
			faults = append(faults, errors.New(fault))
		}
	}
	one := func(name, value string) {
		got := req.Header.Values(name)
		must(len(got) == 1 && strings.EqualFold(got[0], value), fmt.Sprintf("%s %q", name, got))
	}
	must(req.Method == http.MethodGet, "method "+req.Method)
	must(req.Proto == "HTTP/1.1", "version "+req.Proto)
	must(req.Host != "", "no Host")
	must(req.ContentLength == 0, "a body")
	one("Upgrade", "websocket")
	one("Connection", "Upgrade")
	one("Sec-WebSocket-Version", "13")
	key := req.Header.Values("Sec-WebSocket-Key")
	must(len(key) == 1, "not one Sec-WebSocket-Key")
	if len(key) == 1 {
		nonce, err := base64.StdEncoding.Strict().DecodeString(key[0])
		must(err == nil && len(nonce) == 16, "a key that is not 16 bytes in base64")
	}
	for _, o := range parseOffers(strings.Join(req.Header.Values(extensions), ",")) {
		err := o.check(false) // RFC 7692 section 7.1
		must(o.name == deflateName && err == nil, fmt.Sprintf("the extension %s offered, %v", o.name, err))
	}
	must(behind.Buffered() == 0, "something behind it, before the answer")
	return errors.Join(faults...)
}
