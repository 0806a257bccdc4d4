package bench

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Progress shows how a run goes: on a terminal one line that is written over, several times a second; else a line a
// second. The zero value shows nothing. It belongs to the goroutine that calls Run.
type Progress struct {
	w        io.Writer
	terminal bool
	began    time.Time
	shown    time.Time
	open     bool // a line on the terminal has not been ended
}

// NewProgress returns a Progress that writes to f; nil: nowhere.
func NewProgress(f *os.File) *Progress {
	if f == nil {
		return &Progress{}
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &Progress{w: f, terminal: err == nil}
}

// due reports whether it is time for another line.
func (p *Progress) due(now time.Time) bool {
	every := time.Second
	if p.terminal {
		every = time.Second / 5
	}
	return p.w != nil && now.Sub(p.shown) >= every
}

// show shows a line.
func (p *Progress) show(now time.Time, text string) {
	if p.w == nil {
		return
	}
	if p.began.IsZero() {
		p.began = now
	}
	p.shown = now
	text = fmt.Sprintf("%5.0fs  %s", now.Sub(p.began).Seconds(), text)
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		p.open = true
	} else {
		fmt.Fprintln(p.w, text)
	}
}

// end leaves the terminal's line.
func (p *Progress) end() {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.open = false
	}
}
