package explore

import (
	"fmt"
	"strings"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/uniseg"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// A painter draws a model on a screen.
type painter struct {
	tcell.Screen
	colour bool
	early  []tcell.Event // that came while a layer was read
	quit   bool          // was asked for while a layer was read
}

// leftWidth is how wide the layers are shown on a screen of a width.
func leftWidth(width int) int { return min(max(width/3, 20), 40) }

// fit cuts text to a number of cells, and fills it up to that.
func fit(text string, cells int) string {
	if cells <= 0 {
		return ""
	}
	if w := uniseg.StringWidth(text); w <= cells {
		return text + strings.Repeat(" ", cells-w)
	}
	var b strings.Builder
	used := 0
	g := uniseg.NewGraphemes(text)
	for g.Next() {
		if used+g.Width() > cells-1 {
			break
		}
		b.WriteString(g.Str())
		used += g.Width()
	}
	return b.String() + "…" + strings.Repeat(" ", cells-1-used)
}

func (p *painter) text(x, y, cells int, text string, style tcell.Style) {
	p.PutStrStyled(x, y, fit(text, cells), style)
}

var plain = tcell.StyleDefault

func (p *painter) styleOf(s status) tcell.Style {
	if !p.colour {
		if s == removed {
			return plain.Dim(true)
		}
		return plain
	}
	switch s {
	case added:
		return plain.Foreground(tcell.ColorGreen)
	case changed:
		return plain.Foreground(tcell.ColorYellow)
	case removed:
		return plain.Foreground(tcell.ColorRed)
	}
	return plain
}

// draw shows the model.
func (p *painter) draw(m *Model) {
	p.Clear()
	w, h := p.Size()
	m.Height = max(h-3, 1)
	m.move(0)
	head := plain.Reverse(true)
	l := &m.stack.Layers[m.layer]
	title := fmt.Sprintf(" layer %d of %d", m.stack.Number(m.layer), len(m.stack.Layers))
	for _, more := range []string{safename.Text(l.Note), safename.Text(m.stack.Name)} {
		if more != "" {
			title += "  " + more
		}
	}
	switch {
	case m.help:
		p.text(0, 0, w, " Keys", head)
		p.lines(helpText, 0, w)
	case m.view != nil:
		p.text(0, 0, w, " "+m.view.title, head)
		p.file(m.view, w)
	default:
		p.text(0, 0, w, title, head)
		p.layers(m, leftWidth(w))
		p.tree(m, leftWidth(w)+1, w)
	}
	p.text(0, h-2, w, p.status(m), plain)
	p.text(0, h-1, w, keysOf(m), head)
	p.Show()
}

func (p *painter) lines(lines []string, top, w int) {
	_, h := p.Size()
	for y := 1; y < h-2 && top+y-1 < len(lines); y++ {
		p.text(1, y, w-1, lines[top+y-1], plain)
	}
}

func (p *painter) file(v *viewer, w int) {
	_, h := p.Size()
	for y := 1; y < h-2 && v.top+y-1 < len(v.lines); y++ {
		line := v.lines[v.top+y-1]
		style := plain
		if v.diff && line != "" {
			switch line[0] {
			case '+':
				style = p.styleOf(added)
			case '-':
				style = p.styleOf(removed)
			}
		}
		p.text(1, y, w-1, line, style)
	}
}

func (p *painter) layers(m *Model, w int) {
	top := max(0, m.layer-m.Height+1)
	for y := 1; y <= m.Height && top+y-1 < len(m.stack.Layers); y++ {
		i := top + y - 1
		l := &m.stack.Layers[i]
		style := plain
		mark := "  "
		if i == m.layer {
			mark = "> "
			style = style.Bold(true)
			if !m.inTree {
				style = style.Reverse(true)
			}
		}
		name := strings.TrimPrefix(l.Name, "sha256:")
		if slash := strings.LastIndexByte(name, '/'); slash >= 0 && uniseg.StringWidth(name) > w-8 {
			name = "…" + name[slash:]
		}
		up := ""
		if l.Upper {
			up = " upper"
		}
		p.text(0, y, w, fmt.Sprintf("%s%3d %s%s", mark, m.stack.Number(i), safename.Text(name), up), style)
	}
	for y := 1; y <= m.Height; y++ {
		p.PutStrStyled(w, y, "│", plain.Dim(true))
	}
}

const barCells = 6

func (p *painter) tree(m *Model, x, w int) {
	biggest := int64(1)
	for _, r := range m.rows {
		biggest = max(biggest, r.size)
	}
	for y := 1; y <= m.Height && m.top+y-1 < len(m.rows); y++ {
		i := m.top + y - 1
		r := m.rows[i]
		style := p.styleOf(r.status)
		if i == m.at && m.inTree {
			style = style.Reverse(true)
		}
		fold := "  "
		if r.isDir() {
			fold = "+ "
			if r.open || m.filter != "" {
				fold = "- "
			}
		}
		name := strings.Repeat("  ", r.depth) + fold + safename.Text(r.name)
		letter := string(r.status)
		if r.isDir() {
			name += "/"
			if r.status == same && r.touched {
				letter = "·"
			}
		}
		bar := strings.Repeat("#", int((r.size*barCells+biggest-1)/biggest))
		tail := fmt.Sprintf(" %-*s %9s", barCells, bar, inspect.SizeText(r.size))
		p.text(x, y, w-x, letter+" "+fit(name, w-x-2-len(tail))+tail, style)
	}
	if len(m.rows) == 0 {
		p.text(x+2, 1, w-x-2, "nothing to show here", plain)
	}
}

func (p *painter) status(m *Model) string {
	switch {
	case m.typing:
		return "filter: " + safename.Text(m.filter) + "_"
	case m.message != "":
		return m.message
	case m.view != nil:
		return fmt.Sprintf("line %d of %d", min(m.view.top+1, len(m.view.lines)), len(m.view.lines))
	}
	n := m.current()
	words := []string{"/" + safename.Text(n.path()), inspect.ModeText(n.mode), inspect.SizeText(n.size), fmt.Sprintf("from layer %d", n.layer)}
	if m.filter != "" {
		words = append(words, "filter: "+safename.Text(m.filter))
	}
	if m.touched {
		words = append(words, "only changes")
	}
	if m.bySize {
		words = append(words, "by size")
	}
	return strings.Join(words, "  ")
}

func keysOf(m *Model) string {
	switch {
	case m.help:
		return " any key goes back"
	case m.typing:
		return " Enter keeps the filter  Esc drops it"
	case m.view != nil:
		return " Up Down PgUp PgDn  d diff/file  q back"
	case m.inTree:
		return " Tab layers  Enter open  / filter  s size  c changes  o origin  [] layer  ? help"
	}
	return " Tab tree  Up Down choose a layer  / filter  s size  c changes  ? help  q quit"
}

var helpText = []string{
	"",
	"The tree is what users see with the chosen layer on top.",
	"A the layer added it   M changed it   D removed it   · did so inside",
	"",
	"Tab            go from the layers to the tree and back",
	"Up Down j k    move;  PgUp PgDn Home End further",
	"[ ]            one layer down, one layer up",
	"Right Enter    open a directory;  Left closes it",
	"Enter          look into a file;  d shows what the layer changed in it",
	"/              show names that hold a text;  Esc shows all",
	"c              show only what the layer did",
	"s              sort by size or by name",
	"o              go to the layer that the file is from",
	"q              quit",
}
