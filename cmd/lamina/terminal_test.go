package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A terminal runs a command on a pseudo-terminal and keeps what a person would
// see: as much of a VT100 as full-screen programs use.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	ended  chan error

	mu      sync.Mutex
	cells   [][]rune
	styles  [][]cellStyle
	style   cellStyle // of what comes next
	x, y    int
	pending []byte
	colours bool // a colour was set
	raw     []byte
}

const terminalRows, terminalColumns = 24, 80

// cellStyle is how a cell looks: a colour of the 16, -1 for the terminal's own, and
// what else a terminal has.
type cellStyle struct {
	colour             int
	bold, dim, reverse bool
}

var plainCell = cellStyle{colour: -1}

func startTerminal(t *testing.T, cmd *exec.Cmd) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: terminalRows, Col: terminalColumns})
	}
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	term := &terminal{t: t, master: master, cmd: cmd, ended: make(chan error, 1), style: plainCell}
	term.clear()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go term.read()
	go func() { term.ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); master.Close() })
	return term
}

func (t *terminal) clear() {
	t.cells = make([][]rune, terminalRows)
	t.styles = make([][]cellStyle, terminalRows)
	for y := range t.cells {
		t.cells[y] = []rune(strings.Repeat(" ", terminalColumns))
		t.styles[y] = slices.Repeat([]cellStyle{plainCell}, terminalColumns)
	}
}

func (t *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := t.master.Read(buf)
		if err != nil {
			return
		}
		t.mu.Lock()
		t.raw = append(t.raw, buf[:n]...)
		t.pending = append(t.pending, buf[:n]...)
		for {
			used := t.take(t.pending)
			if used == 0 {
				break
			}
			t.pending = t.pending[used:]
		}
		t.mu.Unlock()
	}
}

// take carries out what the bytes begin with, and returns how many those were; 0
// when more are needed.
func (t *terminal) take(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch c := b[0]; {
	case c == '\r':
		t.x = 0
	case c == '\n':
		t.y = min(t.y+1, terminalRows-1)
	case c == '\b':
		t.x = max(t.x-1, 0)
	case c == 0x1b:
		return t.escape(b)
	case c < ' ':
	default:
		if !utf8.FullRune(b) {
			return 0
		}
		r, n := utf8.DecodeRune(b)
		if t.x < terminalColumns && t.y < terminalRows {
			t.cells[t.y][t.x], t.styles[t.y][t.x] = r, t.style
			t.x++
		}
		return n
	}
	return 1
}

func (t *terminal) escape(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '[':
		for i := 2; i < len(b); i++ {
			if b[i] >= 0x40 && b[i] <= 0x7e {
				t.csi(string(b[2:i]), b[i])
				return i + 1
			}
		}
		return 0
	case ']': // a title
		for i := 2; i < len(b); i++ {
			if b[i] == 7 {
				return i + 1
			}
			if b[i] == '\\' && b[i-1] == 0x1b {
				return i + 1
			}
		}
		return 0
	case '(', ')':
		if len(b) < 3 {
			return 0
		}
		return 3
	}
	return 2
}

func (t *terminal) csi(params string, final byte) {
	var n []int
	for _, p := range strings.Split(params, ";") {
		v, _ := strconv.Atoi(p)
		n = append(n, v)
	}
	switch final {
	case 'H', 'f':
		t.y, t.x = max(n[0], 1)-1, 0
		if len(n) > 1 {
			t.x = max(n[1], 1) - 1
		}
	case 'J':
		t.clear()
	case 'K':
		for x := t.x; x < terminalColumns; x++ {
			t.cells[t.y][x], t.styles[t.y][x] = ' ', t.style
		}
	case 'C':
		t.x = min(t.x+max(n[0], 1), terminalColumns-1)
	case 'm':
		for _, v := range n {
			t.colours = t.colours || v >= 30 && v < 39 || v >= 90
		}
		t.style = t.style.with(n)
	}
}

// with returns the style after an SGR sequence.
func (c cellStyle) with(n []int) cellStyle {
	for len(n) > 0 {
		v := n[0]
		n = n[1:]
		switch {
		case v == 0:
			c = plainCell
		case v == 1:
			c.bold = true
		case v == 2:
			c.dim = true
		case v == 7:
			c.reverse = true
		case v == 22:
			c.bold, c.dim = false, false
		case v == 27:
			c.reverse = false
		case v >= 30 && v < 38:
			c.colour = v - 30
		case v >= 90 && v < 98:
			c.colour = v - 90 + 8
		case v == 39:
			c.colour = -1
		case v == 38 && len(n) >= 2 && n[0] == 5:
			c.colour, n = n[1], n[2:]
		}
	}
	return c
}

// screen returns the lines without what is empty at their ends.
func (t *terminal) screen() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for _, l := range t.cells {
		lines = append(lines, strings.TrimRight(string(l), " "))
	}
	return strings.Join(lines, "\n")
}

func (t *terminal) press(keys string) {
	t.t.Helper()
	if _, err := t.master.WriteString(keys); err != nil {
		t.t.Fatal(err)
	}
}

// see waits until all texts are on the screen.
func (t *terminal) see(texts ...string) {
	t.t.Helper()
	var missing string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		screen := t.screen()
		missing = ""
		for _, text := range texts {
			if gone, ok := strings.CutPrefix(text, "!"); ok == strings.Contains(screen, gone) {
				missing = text
			}
		}
		if missing == "" {
			return
		}
	}
	t.t.Fatalf("%q is not as it should be on\n%s", missing, t.screen())
}

func (t *terminal) wait() error {
	select {
	case err := <-t.ended:
		return err
	case <-time.After(20 * time.Second):
		t.t.Fatalf("it does not end:\n%s", t.screen())
		return nil
	}
}
