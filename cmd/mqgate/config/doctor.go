package config

import "sort"

// Doctor is what CommandDoctor shall examine.
type Doctor struct {
	Connections int // that the machine shall hold
	Loops       int
	FDTables    FDTables
	JSON        bool
	System      System
}

// doctorConnections is the default of --connections: what this gateway is made for.
const doctorConnections = "1000000"

// doctorSettings are the flags of mqgate doctor. Their values go into a Serve that is otherwise empty.
var doctorSettings = []setting{
	number(setting{
		name: "connections", group: groupGeneral, def: doctorConnections,
		doc: "Open connections that the machine shall hold.",
	}, 1, maxMaxConnections, func(s *Serve) *int { return &s.MaxConnections }),
	*findSetting("loops"),
	*findSetting("fd-tables"),
	{
		name: "json", group: groupGeneral, flagOnly: true, notInFile: true,
		doc: "Print one JSON object instead of a table.",
	},
}

// settingsOf returns the settings that the command has flags for.
func settingsOf(command CommandName) []setting {
	switch command {
	case CommandServe:
		return settings
	case CommandWorker:
		return workerSettings
	case CommandDoctor:
		return doctorSettings
	case CommandVersion, CommandHelp:
	}
	return nil
}

// parseDoctor puts the flags of mqgate doctor in place. It reads neither the environment nor a file.
func parseDoctor(line *commandLine, system System, faults *Faults) *Doctor {
	serve := &Serve{}
	for i := range doctorSettings {
		s := &doctorSettings[i]
		if s.flagOnly {
			continue
		}
		texts := s.defaults()
		where := origin{}
		for _, g := range line.given {
			if g.setting == s {
				texts, where = g.texts, g.origin
			}
		}
		if err := s.store(serve, texts); err != nil {
			faults.add(s.fault(where, err))
		}
	}
	if serve.Loops == 0 {
		serve.Loops = system.CPUs
	}
	return &Doctor{Connections: serve.MaxConnections, Loops: serve.Loops, FDTables: serve.FDTables, JSON: line.json, System: system}
}

// ConnectionsFor is the --max-connections that mqgate serve comes to by default with this limit of open files.
func (d *Doctor) ConnectionsFor(openFiles uint64) int {
	s := &Serve{OpenFiles: openFiles, Loops: d.Loops, FDTables: d.FDTables, Listen: make([]Address, 1), Admin: &Address{},
		MaxConnectionsSlack: doctorSlack}
	return s.connectionsFor(s.reservedFiles())
}

// doctorSlack is the default of --max-connections-slack [percent].
const doctorSlack = 10

// FilesFor is the least limit of open files [descriptors] with which ConnectionsFor gives connections.
func (d *Doctor) FilesFor(connections int) uint64 {
	// The reserves are a part of the limit, so the sum cannot be solved for it: but more files never hold less.
	return uint64(sort.Search(maxTable, func(n int) bool { return d.ConnectionsFor(uint64(n)) >= connections }))
}
