package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// picture is what the README shows of lamina explore.
const picture = "../../docs/explore.svg"

// What users would lose: a README that shows another program. With
// LAMINA_UPDATE_PICTURE=1 the picture is made anew, from what the program draws on a
// terminal of 80 by 24.
func TestThePictureInTheREADMEIsWhatATerminalShows(t *testing.T) {
	dir := t.TempDir()
	for path, size := range map[string]int64{
		"base/etc/hosts": 58, "base/etc/motd": 286, "base/etc/passwd": 1843, "base/etc/app.conf": 12, "base/etc/issue": 27,
		"base/usr/bin/tool": 812_000, "base/usr/lib/libc.so": 1_900_000, "base/var/cache/index": 2_400_000,
		"app/etc/app.conf": 410, "app/usr/bin/app": 3_100_000, "app/usr/share/app/data": 740_000,
		"changes/etc/hosts": 97, "changes/etc/.wh.motd": 0, "changes/srv/upload.tar": 500_000, "changes/var/.wh.cache": 0, "changes/etc/app.d/local": 63,
	} {
		p := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(p, size); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(t, "lamina", "explore", "lowerdir=app:base,upperdir=changes")
	cmd.Dir = dir
	cmd.Env = append(cmd.Env, "TERM=xterm-256color", "LC_ALL=C.UTF-8", "COLORTERM=")
	term := startTerminal(t, cmd)
	term.see("Tab layers", "etc/")
	term.press("\r")
	term.see("hosts", "motd")
	term.press(keyDown)
	term.see("/etc/app.conf  ", "Tab layers")
	if os.Getenv("LAMINA_UPDATE_PICTURE") != "" {
		time.Sleep(time.Second) // until all is drawn
		if err := os.WriteFile(picture, []byte(term.svg()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(picture)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); term.svg() != string(want); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s is not this screen; LAMINA_UPDATE_PICTURE=1 makes it anew:\n%s", picture, term.screen())
		}
	}
}

// svg draws the screen: a text for each part of a line that looks the same.
func (t *terminal) svg() string {
	const w, h = 8.4, 18.0 // a cell
	const paper, ink = "#16181d", "#d4d7dd"
	palette := []string{"#3b3f46", "#f07178", "#9ccc65", "#ffcb6b", "#82aaff", "#c792ea", "#6fd3e0", "#d4d7dd",
		"#6b7078", "#ff8b92", "#b9e58a", "#ffe08a", "#9cc4ff", "#e0b0ff", "#94e8f2", "#ffffff"}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"lamina explore in a terminal\">\n",
		terminalColumns*w+16, terminalRows*h+16)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" rx=\"6\" fill=\"%s\"/>\n<g font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\" fill=\"%s\">\n", paper, ink)
	for y, line := range t.cells {
		for x := 0; x < terminalColumns; {
			style, from := t.styles[y][x], x
			for x < terminalColumns && t.styles[y][x] == style {
				x++
			}
			text := string(line[from:x])
			left, top, width := 8+float64(from)*w, 8+float64(y)*h, float64(x-from)*w
			fill := ""
			if style.colour >= 0 && style.colour < len(palette) {
				fill = palette[style.colour]
			}
			if style.reverse {
				fmt.Fprintf(&b, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\" fill=\"%s\"/>", left, top, width, h, cmp.Or(fill, ink))
				fill = paper
			}
			for _, part := range words(text) {
				fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" textLength=\"%.1f\"", left+float64(part.at)*w, top+13.5, float64(utf8.RuneCountInString(part.text))*w)
				if fill != "" {
					fmt.Fprintf(&b, " fill=\"%s\"", fill)
				}
				if style.bold {
					b.WriteString(" font-weight=\"bold\"")
				}
				if style.dim {
					b.WriteString(" opacity=\"0.6\"")
				}
				b.WriteString(">")
				xml.EscapeText(&b, []byte(part.text))
				b.WriteString("</text>\n")
			}
		}
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

type word struct {
	at   int // cell
	text string
}

// words returns what stands between two and more spaces, which a browser would draw as
// one.
func words(text string) (list []word) {
	at := 0
	for _, part := range strings.Split(text, "  ") {
		if trimmed := strings.TrimSpace(part); trimmed != "" {
			lead := utf8.RuneCountInString(part) - utf8.RuneCountInString(strings.TrimLeft(part, " "))
			list = append(list, word{at + lead, trimmed})
		}
		at += utf8.RuneCountInString(part) + 2
	}
	return list
}
