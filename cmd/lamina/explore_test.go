package main

import (
	"bytes"
	"strings"
	"testing"
)

const (
	keyDown = "\x1bOB"
	keyTab  = "\t"
	keyEsc  = "\x1b"
)

// What users would lose: the browser at 80 by 24, with colours and without.
func TestExploreIsDrivenByKeys(t *testing.T) {
	for _, env := range [][]string{{"TERM=xterm-256color"}, {"TERM=xterm-256color", "NO_COLOR=1"}, {"TERM=vt100"}} {
		t.Run(strings.Join(env, " "), func(t *testing.T) {
			_, stack := layersOf(t)
			cmd := command(t, "lamina", "explore", stack)
			cmd.Env = append(cmd.Env, append(env, "LC_ALL=C.UTF-8", "COLORTERM=")...)
			term := startTerminal(t, cmd)
			term.see("layer 2 of 2", "upper", "etc/", "usr/", "Tab layers", "> ")
			if n := strings.Count(term.screen(), "\n") + 1; n != terminalRows {
				t.Errorf("%d lines", n)
			}
			// Into etc: one file changed, one removed.
			term.press("\r")
			term.see("motd", "passwd")
			screen := term.screen()
			for _, want := range []string{"M     motd", "D     passwd"} {
				if !strings.Contains(screen, want) {
					t.Errorf("%q is missing on\n%s", want, screen)
				}
			}
			// The viewer begins with what changed.
			term.press(keyDown)
			term.see("/etc/motd  ")
			term.press("\r")
			term.see("-one", "+two")
			term.press("d")
			term.see("!-one", "two", "line 1 of 1")
			term.press("q")
			term.see("passwd")
			// The layer below has what was removed, and nothing is changed there.
			term.press("[")
			term.see("layer 1 of 2", "A     passwd")
			term.press("]")
			term.see("layer 2 of 2", "D     passwd")
			// Filter, hostile names, only changes, sizes.
			term.press("/2j\r")
			term.see(`\x1b[2J\x0a\xff`, "filter: 2j", "!motd")
			term.press("o")
			term.see("is from layer 1", "layer 1 of 2")
			term.press("]")
			term.see("layer 2 of 2")
			term.press("/" + keyEsc)
			term.see("motd")
			term.press("c")
			term.see("only changes", "!hostile", "motd")
			term.press("cs")
			term.see("by size", "hostile")
			term.press("?")
			term.see("go from the layers to the tree")
			term.press("x" + keyTab)
			term.see("Tab tree")
			term.press("q")
			if err := term.wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
			term.mu.Lock()
			defer term.mu.Unlock()
			if colours := env[0] != "TERM=vt100" && len(env) == 1; term.colours != colours {
				t.Errorf("colours: %v", term.colours)
			}
			if bytes.Contains(term.raw, []byte("\x1b[2J\n\xff")) || bytes.Contains(term.raw, []byte{0xff}) {
				t.Error("a file's name has reached the terminal")
			}
		})
	}
}

func TestExploreWithoutATerminalSaysWhatElseThereIs(t *testing.T) {
	_, stack := layersOf(t)
	if r := lamina(t, "explore", stack); r.status != exitUsage || !strings.Contains(r.stderr, "inspect tree") {
		t.Errorf("%+v", r)
	}
}
