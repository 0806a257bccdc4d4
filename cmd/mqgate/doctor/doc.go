// Package doctor says how many connections this machine will hold and what stops it: it reads the limits of the kernel and
// of the process, says what the connections need of each, and gives the command that changes it.
//
// It reads files below a root that the caller gives, and changes nothing.
package doctor
