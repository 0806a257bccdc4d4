package conformance

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

var update = flag.Bool("update", false, "write the golden files of testdata")

// foreigners are echo servers of other makes. Each has its lists of what it fails in testdata: they show that the suite can
// tell right from wrong, and that it does not ask for what only our server does.
var foreigners = []struct {
	name  string
	serve func(limit int, inflates bool) http.HandlerFunc
}{
	{"gorilla", serveGorilla},
	{"gws", serveGws},
}

func serveGorilla(limit int, inflates bool) http.HandlerFunc {
	u := &gorilla.Upgrader{EnableCompression: inflates}
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer c.Close()
		c.SetReadLimit(int64(limit))
		for {
			kind, p, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, p) != nil {
				return
			}
		}
	}
}

type gwsEcho struct{ gws.BuiltinEventHandler }

func (gwsEcho) OnPing(c *gws.Conn, p []byte) { _ = c.WritePong(p) }

func (gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	_ = c.WriteMessage(m.Opcode, m.Bytes())
	_ = m.Close()
}

func (gwsEcho) OnClose(c *gws.Conn, _ error) { _ = c.NetConn().Close() }

func serveGws(limit int, inflates bool) http.HandlerFunc {
	u := gws.NewUpgrader(gwsEcho{}, &gws.ServerOption{ReadMaxPayloadSize: limit, WriteMaxPayloadSize: limit, CheckUtf8Enabled: true,
		PermessageDeflate: gws.PermessageDeflate{Enabled: inflates, ServerContextTakeover: true, ClientContextTakeover: true, Threshold: 1}})
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r)
		if err != nil {
			return // it has answered
		}
		defer c.NetConn().Close() // it panics when it is told of a length above 2^63
		c.ReadLoop()
	}
}

// watch is a listener that knows what its connections have read and written, and whether they wait for input.
type watch struct {
	net.Listener
	mu    sync.Mutex
	conns map[string]*watched // by remote address
}

type watched struct {
	net.Conn
	w             *watch
	read, written int64
	reading       bool
}

func (w *watch) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	wc := &watched{Conn: c, w: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns[c.RemoteAddr().String()] = wc
	return wc, nil
}

func (c *watched) Read(p []byte) (int, error) {
	c.count(func() { c.reading = true })
	n, err := c.Conn.Read(p)
	c.count(func() { c.reading, c.read = false, c.read+int64(n) })
	return n, err
}

func (c *watched) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.count(func() { c.written += int64(n) })
	return n, err
}

func (c *watched) count(f func()) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	f()
}

// waits is Target.Waits.
func (w *watch) waits(suite net.Addr, sent, received int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.conns[suite.String()]
	return c != nil && c.reading && c.read == sent && c.written == received
}

// serveForeign starts a server of another make.
func serveForeign(t *testing.T, h http.HandlerFunc, inflates bool) *Target {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &watch{Listener: listener, conns: map[string]*watched{}}
	mux := http.NewServeMux()
	mux.Handle(echoPath, h)
	server := &http.Server{Handler: mux, MaxHeaderBytes: 8 << 10, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(w)
	}()
	t.Cleanup(func() {
		_ = server.Shutdown(context.Background())
		<-done
		for _, c := range w.conns {
			_ = c.Close()
		}
	})
	return &Target{Addr: listener.Addr().String(), Path: echoPath, Patience: patience, Waits: w.waits, ResetIsEnd: true, Inflates: inflates}
}

// The suite finds what other servers are known to do wrong, and nothing else.
func TestForeignServers(t *testing.T) {
	light := slices.DeleteFunc(Protocol(), func(c Case) bool { return c.Heavy })
	if slow {
		t.Logf("%d cases left out for each of %d servers: what these builds find would be in code that is not ours",
			len(light)+len(Limit(smallLimit))+len(Deflate(deflateLimit))+len(certainRequests()), len(foreigners))
		return
	}
	for _, f := range foreigners {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			big := serveForeign(t, f.serve(echoLimit, false), false)
			small := serveForeign(t, f.serve(smallLimit, false), false)
			golden(t, f.name+".txt", failures(big, light)+failures(small, Limit(smallLimit)))
			golden(t, f.name+"-requests.txt", failures(big, certainRequests()))
			inflates := serveForeign(t, f.serve(deflateLimit, true), true)
			golden(t, f.name+"-deflate.txt", failures(inflates, Deflate(deflateLimit)))
		})
	}
}

// certainRequests are the requests whose fate is certain with net/http. It waits for the end of two; with bytes behind the
// header block it depends on their time of arrival what becomes of them.
func certainRequests() []Case {
	return slices.DeleteFunc(Requests(), func(c Case) bool {
		return slices.Contains([]string{"request: a TLS client", "request: the first 8192 bytes of a longer one"}, c.Name) ||
			strings.HasSuffix(c.Name, "behind it") || strings.Contains(c.Name, `\nX: y`) || strings.Contains(c.Name, `X: y\n`)
	})
}

// failures runs the cases and returns a line for each that failed.
func failures(target *Target, cases []Case) string {
	var b strings.Builder
	for i := range cases {
		if err := cases[i].RunClient(target); err != nil {
			fmt.Fprintf(&b, "%s: %s\n", cases[i].Name, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	return b.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	wanted, have := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(string(want)) {
		wanted[line] = true
	}
	for line := range strings.Lines(got) {
		if have[line] = true; !wanted[line] {
			t.Errorf("%s does not have: %s", file, line)
		}
	}
	for line := range wanted {
		if !have[line] {
			t.Errorf("only %s has: %s", file, line)
		}
	}
}
