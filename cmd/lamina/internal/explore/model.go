package explore

import (
	"context"
	"fmt"
	"strings"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// A Model is what the browser shows and how keys change it.
type Model struct {
	stack   *inspect.Stack
	ctx     context.Context
	loading func(entries int) (stop bool) // draws the progress of a walk

	inTree  bool // the right side has the keys
	layer   int  // index in the stack's Layers of the chosen one
	root    *node
	rows    []row
	at, top int // row that is chosen, and the first that is shown
	bySize  bool
	touched bool // only what the layer did
	filter  string
	typing  bool // the filter is being typed
	help    bool
	message string
	view    *viewer
	Height  int // lines of the lists
}

// New returns a model that shows the top layer. loading is told how many entries of a
// layer were read, now and then; what it then returns can end the reading: ErrStopped.
func New(ctx context.Context, s *inspect.Stack, loading func(entries int) (stop bool)) (*Model, error) {
	m := &Model{stack: s, ctx: ctx, loading: loading, Height: 20, inTree: true}
	return m, m.choose(0)
}

// choose shows the tree of a layer, and keeps the place in it.
func (m *Model) choose(i int) error {
	i = min(max(i, 0), len(m.stack.Layers)-1)
	if m.root != nil && i == m.layer {
		return nil
	}
	var path string
	var opened []string
	if m.root != nil {
		path = m.current().path()
		m.root.each(func(n *node) {
			if n.open {
				opened = append(opened, n.path())
			}
		})
	}
	root, failed, err := load(m.ctx, m.stack, m.stack.Number(i), m.loading)
	if err == ErrStopped && m.root != nil {
		m.message = fmt.Sprintf("reading layer %d was stopped", m.stack.Number(i))
		return nil
	}
	if err != nil {
		return err
	}
	m.layer, m.root, m.message = i, root, ""
	if failed > 0 {
		m.message = fmt.Sprintf("%d things could not be read", failed)
	}
	for _, p := range opened {
		if n := root.find(p); n != nil {
			n.open = true
		}
	}
	root.order(m.bySize)
	m.refresh()
	m.goTo(path)
	return nil
}

func (n *node) each(f func(*node)) {
	f(n)
	for _, c := range n.children {
		c.each(f)
	}
}

func (n *node) find(path string) *node {
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		var next *node
		for _, c := range n.children {
			if c.name == name {
				next = c
			}
		}
		if n = next; n == nil {
			return nil
		}
	}
	return n
}

// refresh computes the rows anew.
func (m *Model) refresh() {
	m.root.filter(m.filter, m.touched)
	m.rows = m.root.rows(m.filter != "")
	m.move(0)
}

// current returns the chosen node, the root where there are no rows.
func (m *Model) current() *node {
	if m.at < len(m.rows) {
		return m.rows[m.at].node
	}
	return m.root
}

// goTo chooses the row of a path, or the nearest directory that is shown.
func (m *Model) goTo(path string) {
	for ; path != ""; path = path[:max(strings.LastIndexByte(path, '/'), 0)] {
		for i, r := range m.rows {
			if r.path() == path {
				m.at = i
				m.move(0)
				return
			}
		}
	}
	m.move(0)
}

// move chooses a row some lines away and keeps it in sight.
func (m *Model) move(by int) {
	m.at = max(0, min(m.at+by, len(m.rows)-1))
	m.top = max(0, min(m.top, m.at))
	if m.at >= m.top+m.Height {
		m.top = m.at - m.Height + 1
	}
}

// A Key is what was pressed: a name such as "up" or "enter", or a character.
type Key string

// Press carries out a key; quit tells that it ends the browser.
func (m *Model) Press(k Key) (quit bool, err error) {
	m.message = ""
	switch {
	case k == "ctrl-c":
		return true, nil
	case m.help:
		m.help = false
	case m.typing:
		m.typeFilter(k)
	case m.view != nil:
		return false, m.pressView(k)
	default:
		return m.pressList(k)
	}
	return false, nil
}

func (m *Model) typeFilter(k Key) {
	switch {
	case k == "enter":
		m.typing = false
	case k == "esc":
		m.typing, m.filter = false, ""
	case k == "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	case len([]rune(k)) == 1:
		m.filter += string(k)
	}
	m.refresh()
}

func (m *Model) pressList(k Key) (quit bool, err error) {
	switch k {
	case "q":
		return true, nil
	case "?", "h":
		m.help = true
	case "tab":
		m.inTree = !m.inTree
	case "/":
		m.typing, m.inTree = true, true
	case "esc":
		m.filter = ""
		m.refreshAt()
	case "s":
		m.bySize = !m.bySize
		m.root.order(m.bySize)
		m.refreshAt()
	case "c":
		m.touched = !m.touched
		m.refreshAt()
	case "[":
		return false, m.choose(m.layer + 1)
	case "]":
		return false, m.choose(m.layer - 1)
	case "o":
		return false, m.origin()
	default:
		if !m.inTree {
			return false, m.pressLayers(k)
		}
		return false, m.pressTree(k)
	}
	return false, nil
}

func (m *Model) refreshAt() {
	path := m.current().path()
	m.refresh()
	m.goTo(path)
}

// origin goes to the layer that has the chosen object.
func (m *Model) origin() error {
	n := m.current()
	if n.parent == nil {
		return nil
	}
	m.message = fmt.Sprintf("%s is from layer %d", safename.Text(n.name), n.layer)
	said := m.message
	err := m.choose(len(m.stack.Layers) - n.layer)
	m.message = said
	return err
}

func (m *Model) pressLayers(k Key) error {
	switch k {
	case "up", "k":
		return m.choose(m.layer - 1)
	case "down", "j":
		return m.choose(m.layer + 1)
	case "home":
		return m.choose(0)
	case "end":
		return m.choose(len(m.stack.Layers) - 1)
	case "pgup":
		return m.choose(m.layer - m.Height)
	case "pgdn":
		return m.choose(m.layer + m.Height)
	case "enter", "right":
		m.inTree = true
	}
	return nil
}

func (m *Model) pressTree(k Key) error {
	n := m.current()
	switch k {
	case "up", "k":
		m.move(-1)
	case "down", "j":
		m.move(1)
	case "pgup":
		m.move(-m.Height)
	case "pgdn", " ":
		m.move(m.Height)
	case "home", "g":
		m.move(-len(m.rows))
	case "end", "G":
		m.move(len(m.rows))
	case "right", "l", "enter":
		if n.isDir() {
			n.open = !n.open || k != "enter"
			m.refreshAt()
			return nil
		}
		if k == "enter" && n.parent != nil {
			return m.look(n)
		}
	case "left":
		switch {
		case n.open && n.isDir() && n.parent != nil:
			n.open = false
			m.refreshAt()
		case n.parent != nil && n.parent.parent != nil:
			m.goTo(n.parent.path())
		default:
			m.inTree = false
		}
	}
	return nil
}
