package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// printVersion writes one line: version, commit, Go version and platform.
func printVersion(w io.Writer) error {
	info, _ := debug.ReadBuildInfo() // nil only without module support
	_, err := fmt.Fprintln(w, versionLine(version, info))
	return err
}

// versionLine prefers the linker's version to that of the module; the commit is known when Go built from a checkout.
func versionLine(linked string, info *debug.BuildInfo) string {
	module, commit, modified := "", "", ""
	if info != nil {
		module = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value
			case "vcs.modified":
				if s.Value == "true" {
					modified = ", modified"
				}
			}
		}
	}
	return fmt.Sprintf("mqgate %s (commit %s%s) %s %s/%s", cmp.Or(linked, module, "unknown"),
		cmp.Or(commit, "unknown"), modified, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
