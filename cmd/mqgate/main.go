// Command mqgate is a WebSocket gateway: it holds the sockets of a very large number of clients and carries requests,
// responses and events between them and the workers behind it.
//
// Exit status: 0 when a drain has ended, or a worker has ended after a signal, or for --check, --help and version; 1 when the server failed to start or while
// it ran, or when doctor finds that the connections do not fit; 2 for wrong flags or a wrong configuration.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/mqgate/mqgate/cmd/mqgate/config"
	"github.com/mqgate/mqgate/cmd/mqgate/doctor"
)

// Exit status of the process.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run is main without the process around it. It returns the exit status.
func run(args, env []string, stdout, stderr io.Writer) int {
	system, err := config.ThisSystem()
	if err != nil {
		fmt.Fprintln(stderr, "mqgate:", err)
		return exitFailed
	}
	command, err := config.Parse(args, env, system, stdout)
	if err != nil {
		fmt.Fprintln(stderr, err)
		if _, wrong := errors.AsType[*config.Faults](err); wrong {
			return exitUsage
		}
		return exitFailed
	}
	switch command.Name {
	case config.CommandHelp:
	case config.CommandVersion:
		err = printVersion(stdout)
	case config.CommandDoctor:
		report := doctor.Examine(os.DirFS("/"), command.Doctor)
		write := report.WriteTable
		if command.Doctor.JSON {
			write = report.WriteJSON
		}
		if err = write(stdout); err == nil && !report.Fits {
			return exitFailed
		}
	case config.CommandServe:
		return runProcess(command.Serve, command.Check, stdout, stderr, func(log *slog.Logger) error {
			return serve(context.Background(), *command.Serve, log)
		})
	case config.CommandWorker:
		return runProcess(command.Worker, command.Check, stdout, stderr, func(log *slog.Logger) error {
			return work(context.Background(), command.Worker, log)
		})
	}
	if err != nil {
		fmt.Fprintln(stderr, "mqgate:", err)
		return exitFailed
	}
	return exitDone
}

// runProcess runs what has a log, or only reports its configuration.
func runProcess(cfg *config.Serve, check bool, stdout, stderr io.Writer, process func(*slog.Logger) error) int {
	if check {
		if err := cfg.WriteReport(stdout); err != nil {
			fmt.Fprintln(stderr, "mqgate:", err)
			return exitFailed
		}
		return exitDone
	}
	log := cfg.Logger(stderr)
	for _, warning := range cfg.Warnings {
		log.Warn(warning)
	}
	if err := process(log); err != nil {
		log.Error("failed", "error", err)
		return exitFailed
	}
	return exitDone
}
