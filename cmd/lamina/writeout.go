package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/laminafs/lamina/backends/poolserver"
)

// writeOutLook is how often it is looked how far writing out has come.
const writeOutLook = 200 * time.Millisecond

// watchWriteOut shows a bar while the kernel writes out what it holds back, until end
// is called. What it is the kernel tells for the machine as a whole only, so others who
// write make the bar slower, and it never goes back.
func watchWriteOut(what string) (end func()) {
	bar, clear := newProgressBar(what)
	if bar == nil {
		return clear
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(writeOutLook)
		defer tick.Stop()
		var w writeOut
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				text, err := os.ReadFile("/proc/meminfo")
				if err != nil {
					return // the work goes on without a bar
				}
				bar(w.next(heldBack(string(text))))
			}
		}
	})
	return func() {
		close(stop)
		wg.Wait()
		clear()
	}
}

// A writeOut is how far writing out has come.
type writeOut struct{ most, done int64 }

// next is told how many bytes are held back now.
func (w *writeOut) next(held int64) poolserver.Progress {
	w.most = max(w.most, held)
	w.done = max(w.done, w.most-held)
	return poolserver.Progress{Text: "writing out", Done: w.done, Total: w.most}
}

// heldBack returns the bytes that /proc/meminfo counts as dirty or being written.
func heldBack(meminfo string) (sum int64) {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "Dirty:" && f[0] != "Writeback:" {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err == nil {
			sum += kb << 10
		}
	}
	return sum
}
