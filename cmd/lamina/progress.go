package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/laminafs/lamina/backends/poolserver"
)

// A progressBar shows on a terminal how far long work has come. It appears after
// half a second, so that quick work leaves no trace.
type progressBar struct {
	out     io.Writer
	what    string
	started time.Time
	width   int // of what stands on the line
}

// newProgressBar returns what to give progress to, and what to call at the end;
// nothing is shown when stderr is no terminal.
func newProgressBar(what string) (tell func(poolserver.Progress), end func()) {
	if !isTerminal(os.Stderr) {
		return nil, func() {}
	}
	b := &progressBar{out: os.Stderr, what: what, started: time.Now()}
	return b.tell, b.clear
}

func (b *progressBar) tell(p poolserver.Progress) {
	if elapsed := time.Since(b.started); elapsed > 500*time.Millisecond {
		b.show(b.line(p, elapsed))
	}
}

// line is what the bar shows.
func (b *progressBar) line(p poolserver.Progress, elapsed time.Duration) string {
	what := b.what
	if p.Text != "" {
		what += ": " + p.Text
	}
	rate := bytesText(uint64(float64(max(p.Done, 0))/elapsed.Seconds())) + "/s"
	if p.Total <= 0 {
		return fmt.Sprintf("%s  %s  %s", what, bytesText(uint64(max(p.Done, 0))), rate)
	}
	const cells = 30
	part := min(max(float64(p.Done)/float64(p.Total), 0), 1)
	full := int(part * cells)
	left := ""
	if part > 0.01 {
		left = "  " + age(time.Duration(float64(elapsed)*(1-part)/part)) + " left"
	}
	return fmt.Sprintf("%s  [%s%s] %3d%%  %s of %s  %s%s", what, strings.Repeat("=", full), strings.Repeat(" ", cells-full),
		int(part*100), bytesText(uint64(p.Done)), bytesText(uint64(p.Total)), rate, left)
}

func (b *progressBar) show(line string) {
	fmt.Fprintf(b.out, "\r%-*s", b.width, line)
	b.width = len(line)
}

// clear takes the bar off the screen.
func (b *progressBar) clear() {
	if b.width > 0 {
		fmt.Fprintf(b.out, "\r%s\r", strings.Repeat(" ", b.width))
	}
}
