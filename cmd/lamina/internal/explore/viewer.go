package explore

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// viewer shows a file, or what the layer changed in it.
type viewer struct {
	title string
	lines []string
	top   int
	path  string
	diff  bool
}

// viewMax is how much of a file is shown, in bytes.
const viewMax = 256 << 10

// look opens a file of the chosen layer's tree.
func (m *Model) look(n *node) error {
	m.view = &viewer{path: n.path(), diff: n.status == changed || n.status == removed}
	return m.fillView()
}

func (m *Model) fillView() error {
	v := m.view
	v.top = 0
	number := m.stack.Number(m.layer)
	show := m.content
	v.title = fmt.Sprintf("/%s in layer %d", safename.Text(v.path), number)
	if v.diff {
		show = m.difference
		v.title = fmt.Sprintf("/%s: layer %d and what is below", safename.Text(v.path), number)
	}
	text, err := show(v.path, number)
	if err != nil {
		m.view = nil
		m.message = safename.Text(err.Error())
		return nil
	}
	v.lines = nil
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		v.lines = append(v.lines, printable(line))
	}
	return nil
}

// printable makes a line of a file safe to be shown, with tabs as spaces.
func printable(line string) string {
	return strings.ReplaceAll(safename.Text(strings.ReplaceAll(line, "\t", "    ")), `\\`, `\`)
}

func (m *Model) content(path string, number int) (string, error) {
	p, done, err := m.lookup(path, number)
	if err != nil {
		return "", err
	}
	defer done()
	if p == nil {
		return "", fmt.Errorf("/%s is not there", path)
	}
	d := p.Data()
	if d == nil {
		if top := p.Top(); top != nil {
			if target, err := top.Readlink(); err == nil {
				return "-> " + target, nil
			}
			return inspect.TypeName(top.Stat.Mode), nil
		}
		return "", fmt.Errorf("/%s is not there", path)
	}
	f, err := d.OpenFile()
	if err != nil {
		return "", fmt.Errorf("/%s: %w", path, err)
	}
	defer f.Close()
	buf := make([]byte, min(d.Stat.Size, viewMax))
	n, err := f.ReadAt(buf, 0)
	if err != nil {
		return "", fmt.Errorf("/%s: %w", path, err)
	}
	buf = buf[:n]
	if bytes.IndexByte(buf, 0) >= 0 {
		return hexDump(buf[:min(n, 64<<10)]), nil
	}
	text := string(buf)
	if d.Stat.Size > viewMax {
		text += fmt.Sprintf("\n… and %d bytes more", d.Stat.Size-viewMax)
	}
	return text, nil
}

func hexDump(b []byte) string {
	var out strings.Builder
	for off := 0; off < len(b); off += 16 {
		line := b[off:min(off+16, len(b))]
		chars := bytes.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return '.'
			}
			return r
		}, line)
		fmt.Fprintf(&out, "%06x  %-47s  %s\n", off, fmt.Sprintf("% x", line), chars)
	}
	return out.String()
}

func (m *Model) difference(path string, number int) (string, error) {
	entry := func(number int) (*inspect.Entry, func(), error) {
		p, done, err := m.lookup(path, number)
		if err != nil || p == nil || p.Data() == nil {
			if done == nil {
				done = func() {}
			}
			return nil, done, err
		}
		return p.Entry, done, nil
	}
	old, oldDone, err := entry(number - 1)
	if err != nil {
		return "", err
	}
	defer oldDone()
	new, newDone, err := entry(number)
	if err != nil {
		return "", err
	}
	defer newDone()
	text, err := inspect.TextDiff(old, new)
	if err == nil && text == "" {
		text = "the data are the same"
	}
	return text, err
}

// lookup finds a path as it was with a layer on top, nil if no layer had it.
func (m *Model) lookup(path string, number int) (*inspect.Place, func(), error) {
	if number < 1 {
		return nil, func() {}, nil
	}
	part, err := m.stack.Part(1, number)
	if err != nil {
		return nil, nil, err
	}
	p, err := part.Lookup(path)
	if err != nil {
		part.Close()
		return nil, func() {}, nil // no layer has it
	}
	return p, func() { p.Close(); part.Close() }, nil
}

func (m *Model) pressView(k Key) error {
	v := m.view
	switch k {
	case "q", "esc", "left":
		m.view = nil
		return nil
	case "d":
		v.diff = !v.diff
		return m.fillView()
	case "up", "k":
		v.top--
	case "down", "j":
		v.top++
	case "pgup":
		v.top -= m.Height
	case "pgdn", " ":
		v.top += m.Height
	case "home", "g":
		v.top = 0
	case "end", "G":
		v.top = len(v.lines)
	case "?":
		m.help = true
	}
	v.top = max(0, min(v.top, len(v.lines)-m.Height))
	return nil
}
