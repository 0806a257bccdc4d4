// Command mqgate-bench is the load generator.
//
//	mqgate-bench SCENARIO --url ws://127.0.0.1:8080/ws [flags]
//	mqgate-bench compare SCENARIO --peer NAME=COMMAND --peer NAME=COMMAND [flags]
//
// Exit status: 0 when every connection was opened, nothing was lost, duplicated or wrong, and every check of churn and
// every --expect holds; 1 otherwise; 2 for wrong flags.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mqgate/mqgate/bench"
)

// Exit status of the process.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // the next signal ends the process
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, bench.NewProgress(os.Stderr)))
}

// run is main without the process around it. It returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, progress *bench.Progress) int {
	fail := func(err error) int {
		fmt.Fprintln(stderr, "mqgate-bench:", err)
		return exitFailed
	}
	sys, err := bench.ThisSystem()
	if err != nil {
		return fail(err)
	}
	c, err := parse(args, sys)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	if c.help {
		if err := printHelp(stdout); err != nil {
			return fail(err)
		}
		return exitOK
	}
	jsonTo := io.Discard
	people := stdout
	switch c.json {
	case "":
	case "-":
		jsonTo, people = stdout, stderr
	default:
		file, err := os.Create(c.json) // before the run: a name that cannot be written is known at once
		if err != nil {
			fmt.Fprintf(stderr, "mqgate-bench: flag --json: %v\n", err)
			return exitUsage
		}
		defer file.Close() // an error of writing has been reported by Write
		jsonTo = file
	}
	var page io.Writer
	if c.html != "" {
		file, err := os.Create(c.html)
		if err != nil {
			fmt.Fprintf(stderr, "mqgate-bench: flag --html: %v\n", err)
			return exitUsage
		}
		defer file.Close() // likewise
		page = file
	}
	if c.compare.on {
		return runCompare(ctx, c, args, sys, jsonTo, people, stderr, progress)
	}
	report, err := bench.Run(ctx, c.options, sys, progress)
	if err != nil {
		return fail(err)
	}
	if err := report.WriteText(people); err != nil {
		return fail(err)
	}
	if c.json != "" {
		if err := report.WriteJSON(jsonTo); err != nil {
			return fail(err)
		}
	}
	if page != nil {
		if err := report.WriteHTML(page); err != nil {
			return fail(err)
		}
	}
	if !report.OK {
		return exitFailed
	}
	return exitOK
}
