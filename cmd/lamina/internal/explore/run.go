package explore

import (
	"context"
	"fmt"
	"os"

	"github.com/gdamore/tcell/v2"

	"github.com/laminafs/lamina/fs/inspect"
)

// Run lets the user browse a stack on the terminal until they quit. Without
// colours where NO_COLOR is set or the terminal has none.
func Run(ctx context.Context, s *inspect.Stack) error {
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("explore needs a terminal (TERM=%q): %w", os.Getenv("TERM"), err)
	}
	// Fini also runs when something panics, so that the terminal stays usable.
	defer screen.Fini()
	p := &painter{screen, screen.Colors() > 1 && os.Getenv("NO_COLOR") == ""}
	m, err := New(ctx, s, p.progress)
	if err != nil {
		return err
	}
	for {
		p.draw(m)
		switch ev := screen.PollEvent().(type) {
		case nil:
			return nil // the terminal went away
		case *tcell.EventResize:
			screen.Sync()
		case *tcell.EventKey:
			quit, err := m.Press(keyOf(ev))
			if quit || err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// progress tells that a layer is being read.
func (p *painter) progress(entries int) {
	w, h := p.Size()
	p.text(0, h-2, w, fmt.Sprintf("reading … %d entries", entries), plain)
	p.Show()
}

var keyNames = map[tcell.Key]Key{
	tcell.KeyUp: "up", tcell.KeyDown: "down", tcell.KeyLeft: "left", tcell.KeyRight: "right", tcell.KeyPgUp: "pgup", tcell.KeyPgDn: "pgdn",
	tcell.KeyHome: "home", tcell.KeyEnd: "end", tcell.KeyEnter: "enter", tcell.KeyEscape: "esc", tcell.KeyTab: "tab", tcell.KeyBacktab: "tab",
	tcell.KeyBackspace: "backspace", tcell.KeyBackspace2: "backspace", tcell.KeyCtrlC: "ctrl-c",
}

func keyOf(ev *tcell.EventKey) Key {
	if ev.Key() == tcell.KeyRune {
		return Key(ev.Rune())
	}
	return keyNames[ev.Key()]
}
