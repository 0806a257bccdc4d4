package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const (
	// patience is how long a test waits for something that must happen. It is generous: a slow machine under the race
	// detector is no fault, and nothing waits longer than what it waits for.
	patience = 30 * time.Second
	// moduleRoot is the root of the repository as seen from this package's folder, where go test runs the tests.
	moduleRoot = "../../.."
	nodeDir    = "node"
)

// scratch is where the binary is built; TestMain removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "mqgate-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		if err := os.RemoveAll(scratch); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(status)
	}))
}

// mqgateBinary returns the path of the mqgate under test. It is built once, with the race detector and the build tags that
// the tests themselves were built with.
func mqgateBinary(t *testing.T) string {
	t.Helper()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

var build = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("MQGATE_E2E_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	if err := dependOnSources(); err != nil {
		return "", err
	}
	file := filepath.Join(scratch, "mqgate")
	args := []string{"build", "-o", file}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "-race" || setting.Key == "-tags" {
				args = append(args, setting.Key+"="+setting.Value)
			}
		}
	}
	out, err := exec.Command("go", append(args, "../")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return file, nil
})

// dependOnSources reads the folders of the module. go test remembers a result until a file that the test has looked at
// changes; the sources of the binary are such files, though the test does not import them.
func dependOnSources() error {
	return filepath.WalkDir(moduleRoot, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != moduleRoot && (name == "node_modules" || name == "bin" || strings.HasPrefix(name, ".")) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") || name == "go.mod" || name == "go.sum" {
			_, err = os.Stat(path)
		}
		return err
	})
}

// requireNode fails the test when node, or a package in the version that the lock file names, is missing.
func requireNode(t *testing.T) {
	t.Helper()
	if err := nodeReady(); err != nil {
		t.Fatalf("%v\nThe npm clients of this test are installed by: make test", err)
	}
}

var nodeReady = sync.OnceValue(func() error {
	if _, err := exec.LookPath("node"); err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct{ Version string }
	}
	if err := readJSON(filepath.Join(nodeDir, "package-lock.json"), &lock); err != nil {
		return err
	}
	delete(lock.Packages, "") // package.json itself
	for _, folder := range slices.Sorted(maps.Keys(lock.Packages)) {
		var installed struct{ Version string }
		if err := readJSON(filepath.Join(nodeDir, folder, "package.json"), &installed); err != nil {
			return err
		}
		if want := lock.Packages[folder].Version; installed.Version != want {
			return fmt.Errorf("%s is version %s, not %s", folder, installed.Version, want)
		}
	}
	return nil
})

func readJSON(file string, into any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
