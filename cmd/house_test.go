package cmd_test

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules of the house that no tool knows, checked on the source of the whole repository: which package may import
// which, the longest file, no test that sleeps. CONTRIBUTING.md gives them in prose.

const module = "github.com/mqgate/mqgate"

// maxLines is where a file has become two things. The aim is 600; a little more is not worth a commit.
const maxLines = 650

// A law says what the non-test files of a folder, and of the folders below it that have no law of their own, may import
// besides the standard library. An entry allows the package of that path and the packages below it. Entries that begin
// with "./" are folders of this module.
type law struct {
	folder string
	allow  []string
	// forbid takes packages out of what allow lets in.
	forbid []string
	// anyThirdParty lets in every package of other modules that forbid does not name.
	anyThirdParty bool
	// noWord must not occur in identifiers and string literals. Comments may use it.
	noWord *regexp.Regexp
}

const (
	natsModules       = "github.com/nats-io"
	prometheusModules = "github.com/prometheus"
)

// The layers, from the top: cmd → bench, mq → conn → frame, loop. Imports go down only. bench speaks the MQ protocol, so
// it may use mq; mq knows nothing of bench. Metrics libraries stay in cmd, NATS in mq/nats.
var laws = []law{
	{
		folder: "loop",
		allow: []string{"./loop", "golang.org/x/sys", "github.com/cloudwego/netpoll",
			"github.com/valyala/bytebufferpool"}, // what a short write leaves waits in a pooled buffer
	},
	{
		folder: "frame",
		allow: []string{"./frame", "github.com/gobwas/ws", "github.com/valyala/bytebufferpool",
			"github.com/klauspost/compress", "golang.org/x/sys/cpu"},
	},
	{
		folder: "conn",
		allow: []string{"./conn", "./frame", "./loop", "golang.org/x/sys", "github.com/gobwas/ws",
			"github.com/valyala/bytebufferpool"},
		noWord: regexp.MustCompile(`\b[mM][qQ]\b|\bmq[A-Z_]|MQ`),
	},
	{
		folder: "mq",
		allow: []string{"./mq", "./conn", "./frame", "./loop", "golang.org/x/sys", "google.golang.org/protobuf",
			"github.com/valyala/bytebufferpool", "github.com/golang-jwt/jwt/v5"},
		forbid: []string{"./mq/nats"},
	},
	{
		folder: "mq/nats",
		allow: []string{"./mq", "./conn", "./frame", "./loop", "google.golang.org/protobuf",
			"github.com/valyala/bytebufferpool", natsModules},
	},
	{
		folder:        "bench",
		allow:         []string{"./bench", "./mq", "./conn", "./frame", "./loop"},
		forbid:        []string{"./bench/peers", natsModules, prometheusModules},
		anyThirdParty: true,
	},
	{ // a module of its own, with the servers to compare with: nothing of ours is in them, nor they in us
		folder:        "bench/peers",
		anyThirdParty: true,
	},
	{
		folder:        "cmd",
		allow:         []string{"./cmd", "./bench", "./mq", "./conn", "./frame", "./loop"},
		forbid:        []string{"./bench/peers", natsModules},
		anyThirdParty: true,
	},
}

// TestHouse checks the repository.
func TestHouse(t *testing.T) {
	t.Chdir("..") // the root of the repository, from which names are given
	checked := 0
	err := walkGoFiles(".", func(name string, src []byte) error {
		checked++
		faults, err := check(name, src)
		for _, fault := range faults {
			t.Error(fault)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 2 {
		t.Fatalf("only %d Go files were found: the test does not run at the root of the repository", checked)
	}
}

// TestHouseCheckerFinds shows that every rule can fail, and where it must not.
func TestHouseCheckerFinds(t *testing.T) {
	const sleep = "time.Sleep" + "(1)"
	long := "package x\n" + strings.Repeat("// line\n", maxLines-1)
	tests := []struct {
		name string
		file string
		src  string
		want string // the whole fault, or empty when all is well
	}{
		{"the standard library is free", "loop/x.go", `package x; import ("os"; "net/netip")`, ""},
		{"a package below an allowed one", "loop/x.go", `package x; import "golang.org/x/sys/unix"`, ""},
		{"allowed by prefix of the path, not of the string", "frame/x.go", `package x; import "github.com/gobwas/wsx"`,
			`frame/x.go imports "github.com/gobwas/wsx": frame may not`},
		{"sideways", "frame/x.go", `package x; import "github.com/mqgate/mqgate/loop"`,
			`frame/x.go imports "github.com/mqgate/mqgate/loop": frame may not`},
		{"sideways, the other way", "loop/x.go", `package x; import "github.com/mqgate/mqgate/frame"`,
			`loop/x.go imports "github.com/mqgate/mqgate/frame": loop may not`},
		{"upwards", "conn/x.go", `package x; import "github.com/mqgate/mqgate/mq"`,
			`conn/x.go imports "github.com/mqgate/mqgate/mq": conn may not`},
		{"upwards from a folder below", "conn/handshake/x.go", `package x; import "github.com/mqgate/mqgate/mq/wire"`,
			`conn/handshake/x.go imports "github.com/mqgate/mqgate/mq/wire": conn may not`},
		{"mq knows nothing of bench", "mq/x.go", `package x; import "github.com/mqgate/mqgate/bench"`,
			`mq/x.go imports "github.com/mqgate/mqgate/bench": mq may not`},
		{"nothing imports cmd", "bench/x.go", `package x; import "github.com/mqgate/mqgate/cmd/mqgate"`,
			`bench/x.go imports "github.com/mqgate/mqgate/cmd/mqgate": bench may not`},
		{"downwards", "cmd/mqgate/x.go", `package main; import ("github.com/mqgate/mqgate/mq"; "github.com/mqgate/mqgate/loop")`, ""},
		{"a peer with nothing of ours", "bench/peers/x.go", `package main; import "github.com/gorilla/websocket"`, ""},
		{"a peer with something of ours", "bench/peers/x.go", `package main; import "github.com/mqgate/mqgate/frame"`,
			`bench/peers/x.go imports "github.com/mqgate/mqgate/frame": bench/peers may not`},
		{"a peer in bench", "bench/x.go", `package x; import "github.com/mqgate/mqgate/bench/peers"`,
			`bench/x.go imports "github.com/mqgate/mqgate/bench/peers": bench may not`},
		{"metrics outside cmd", "mq/rooms/x.go", `package x; import "github.com/prometheus/client_golang/prometheus"`,
			`mq/rooms/x.go imports "github.com/prometheus/client_golang/prometheus": mq may not`},
		{"metrics in bench", "bench/x.go", `package x; import "github.com/prometheus/client_golang/prometheus"`,
			`bench/x.go imports "github.com/prometheus/client_golang/prometheus": bench may not`},
		{"metrics in cmd", "cmd/mqgate/x.go", `package main; import "github.com/prometheus/client_golang/prometheus"`, ""},
		{"NATS in mq/nats", "mq/nats/x.go", `package x; import "github.com/nats-io/nats.go"`, ""},
		{"NATS in mq", "mq/x.go", `package x; import "github.com/nats-io/nats.go"`,
			`mq/x.go imports "github.com/nats-io/nats.go": mq may not`},
		{"NATS in cmd", "cmd/mqgate/x.go", `package main; import "github.com/nats-io/nats-server/v2/server"`,
			`cmd/mqgate/x.go imports "github.com/nats-io/nats-server/v2/server": cmd may not`},
		{"mq does not lean on its engine", "mq/x.go", `package x; import "github.com/mqgate/mqgate/mq/nats"`,
			`mq/x.go imports "github.com/mqgate/mqgate/mq/nats": mq may not`},
		{"behind a build tag", "loop/x.go", "//go:build invariants\n\npackage x; import \"log/slog\"; import \"github.com/mqgate/mqgate/conn\"",
			`loop/x.go imports "github.com/mqgate/mqgate/conn": loop may not`},
		{"tests are free to import", "conn/x_test.go", `package x; import "github.com/gorilla/websocket"`, ""},
		{"a folder without a law", "util/x.go", `package util`,
			`util/x.go: no law for this folder: add one to cmd/house_test.go`},
		{"tests at the root need none", "x_test.go", `package mqgate_test`, ""},

		{"an MQ word in an identifier", "conn/x.go", `package x; type MQWorker int`,
			`conn/x.go:1:17: conn has no word for "MQWorker"`},
		{"an MQ word in a string", "conn/x.go", `package x; const s = "no mq here"`,
			`conn/x.go:1:22: conn has no word for "\"no mq here\""`},
		{"mqgate is not an MQ word", "conn/x.go", `package x; import "github.com/mqgate/mqgate/loop"; const mqgate = "mqgate: "`, ""},
		{"comments may say what is not here", "conn/x.go", "package x // nothing of MQ", ""},

		{"as long as may be", "loop/x.go", long, ""},
		{"a line too long", "loop/x.go", long + "// one more\n", `loop/x.go has 651 lines, more than 650: which two things is it?`},
		{"generated files may be long", "mq/wire/x.go", "// Code generated by x. DO NOT EDIT.\n\n" + long, ""},

		{"a test that sleeps", "loop/x_test.go", `package x; import "time"; func f() { ` + sleep + ` }`,
			`loop/x_test.go:1:38: a test that sleeps: wait on a condition, or use simulated time`},
		{"under another name", "loop/x_test.go", `package x; import now "time"; var f = now.Sleep`,
			`loop/x_test.go:1:39: a test that sleeps: wait on a condition, or use simulated time`},
		{"another Sleep", "loop/x_test.go", `package x; func f(c clock) { c.Sleep(1) }`, ""},
		{"code may sleep", "bench/x.go", `package x; import "time"; func f() { ` + sleep + ` }`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			faults, err := check(test.file, []byte(test.src))
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			if test.want != "" {
				want = []string{test.want}
			}
			if !slices.Equal(faults, want) {
				t.Errorf("check(%s)\n got %q\nwant %q", test.file, faults, want)
			}
		})
	}
}

// TestHouseWalk shows that the walk finds the files of hidden build tags and folders, and leaves out what is not ours.
func TestHouseWalk(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"a.go", "a.txt", "b/c/d_linux.go", "node_modules/e.go", "b/testdata/f.go", ".git/g.go"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	err := walkGoFiles(root, func(name string, _ []byte) error {
		got = append(got, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a.go", "b/c/d_linux.go"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// walkGoFiles calls visit with every Go file below root, whatever its build tags, by its path from root with slashes.
func walkGoFiles(root string, visit func(name string, src []byte) error) error {
	return filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if file != root && (base == "node_modules" || base == "testdata" || strings.HasPrefix(base, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		return visit(filepath.ToSlash(name), src)
	})
}

// check returns what is wrong with the file called name (its path from the root, with slashes).
func check(name string, src []byte) ([]string, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var faults []string
	if lines := strings.Count(string(src), "\n"); lines > maxLines && !ast.IsGenerated(file) {
		faults = append(faults, fmt.Sprintf("%s has %d lines, more than %d: which two things is it?", name, lines, maxLines))
	}
	if strings.HasSuffix(name, "_test.go") {
		return append(faults, sleeps(fset, file)...), nil
	}
	l := lawFor(name)
	if l == nil {
		return append(faults, name+": no law for this folder: add one to cmd/house_test.go"), nil
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		if !l.allows(imported) {
			faults = append(faults, fmt.Sprintf("%s imports %q: %s may not", name, imported, l.folder))
		}
	}
	if l.noWord != nil {
		faults = append(faults, l.words(name, src)...)
	}
	return faults, nil
}

// lawFor returns the law of the nearest folder above the file that has one.
func lawFor(name string) *law {
	for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
		i := slices.IndexFunc(laws, func(l law) bool { return l.folder == folder })
		if i >= 0 {
			return &laws[i]
		}
	}
	return nil
}

func (l *law) allows(imported string) bool {
	first, _, _ := strings.Cut(imported, "/")
	if !strings.Contains(first, ".") {
		return true // the standard library: no other import path begins with a word without a dot
	}
	under := func(entry string) bool {
		if folder, ours := strings.CutPrefix(entry, "./"); ours {
			entry = module + "/" + folder
		}
		return imported == entry || strings.HasPrefix(imported, entry+"/")
	}
	if slices.ContainsFunc(l.forbid, under) {
		return false
	}
	ours := imported == module || strings.HasPrefix(imported, module+"/")
	return slices.ContainsFunc(l.allow, under) || l.anyThirdParty && !ours
}

// words returns the identifiers and string literals that have the word which the law forbids. Import paths of this module
// are left to allows.
func (l *law) words(name string, src []byte) []string {
	var faults []string
	fset := token.NewFileSet()
	var s scanner.Scanner
	s.Init(fset.AddFile(name, -1, len(src)), src, nil, 0)
	for {
		pos, tok, literal := s.Scan()
		switch {
		case tok == token.EOF:
			return faults
		case tok != token.IDENT && tok != token.STRING, strings.HasPrefix(literal, `"`+module+"/"):
		case l.noWord.MatchString(literal):
			faults = append(faults, fmt.Sprintf("%v: %s has no word for %q", fset.Position(pos), l.folder, literal))
		}
	}
}

// sleeps returns the uses of time.Sleep, called or passed on. In a bubble of testing/synctest it would cost nothing, but
// there too it says "long enough" where a test should say what it waits for.
func sleeps(fset *token.FileSet, file *ast.File) []string {
	var local string
	for _, spec := range file.Imports {
		if spec.Path.Value == `"time"` {
			local = "time"
			if spec.Name != nil {
				local = cmp.Or(spec.Name.Name, local)
			}
		}
	}
	if local == "" {
		return nil
	}
	var faults []string
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok || selector.Sel.Name != "Sleep" {
			return true
		}
		if of, ok := selector.X.(*ast.Ident); ok && of.Name == local {
			faults = append(faults, fmt.Sprintf("%v: a test that sleeps: wait on a condition, or use simulated time",
				fset.Position(selector.Pos())))
		}
		return true
	})
	return faults
}

// TestRowsAreProven checks that every row of docs/lifecycle.md is named by a test.
func TestRowsAreProven(t *testing.T) {
	t.Chdir("..")
	page, err := os.ReadFile("docs/lifecycle.md")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	err = walkGoFiles(".", func(name string, src []byte) error {
		if strings.HasSuffix(name, "_test.go") && name != "cmd/house_test.go" { // whose examples name rows and prove none
			tests.Write(src)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	rows, unproven := rowsWithoutTest(string(page), tests.String())
	if rows < 40 {
		t.Errorf("docs/lifecycle.md has %d rows: are they written differently now?", rows)
	}
	if len(unproven) > 0 {
		t.Errorf("rows of docs/lifecycle.md that no test names: %v", unproven)
	}
}

// rowsWithoutTest counts the rows of a page (lines that begin with "| L1.2 |") and returns those that tests do not name.
func rowsWithoutTest(page, tests string) (rows int, unproven []string) {
	for _, m := range regexp.MustCompile(`(?m)^\| (L\d+\.\d+) \|`).FindAllStringSubmatch(page, -1) {
		rows++
		if !regexp.MustCompile(regexp.QuoteMeta(m[1]) + `(\D|$)`).MatchString(tests) {
			unproven = append(unproven, m[1])
		}
	}
	return rows, unproven
}

func TestRowsWithoutTest(t *testing.T) {
	page := "# Title L9.9\n| row | behaviour |\n| L1.1 | one |\n| L1.2 | see L1.3 |\n| L1.10 | ten |\n"
	rows, unproven := rowsWithoutTest(page, "// L1.10: ...\n// L1.2")
	if rows != 3 || !slices.Equal(unproven, []string{"L1.1"}) {
		t.Errorf("%d rows, without a test %v", rows, unproven)
	}
}
