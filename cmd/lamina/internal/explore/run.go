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
	p := &painter{Screen: screen, colour: screen.Colors() > 1 && os.Getenv("NO_COLOR") == ""}
	m, err := New(ctx, s, p.progress)
	if err == ErrStopped {
		return nil
	}
	if err != nil {
		return err
	}
	for !p.quit {
		p.draw(m)
		switch ev := p.next().(type) {
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
	return nil
}

// next returns the next event, those first that came while a layer was read.
func (p *painter) next() tcell.Event {
	if len(p.early) == 0 {
		return p.PollEvent()
	}
	ev := p.early[0]
	p.early = p.early[1:]
	return ev
}

// progress tells that a layer is being read, and whether the user has had enough of
// it: esc stops, q quits. Other keys are for what comes then.
func (p *painter) progress(entries int) (stop bool) {
	w, h := p.Size()
	p.text(0, h-2, w, fmt.Sprintf("reading … %d entries  (Esc stops, q quits)", entries), plain)
	p.Show()
	for p.HasPendingEvent() {
		ev := p.PollEvent()
		if ev == nil {
			return true
		}
		k, ok := ev.(*tcell.EventKey)
		switch {
		case !ok:
			p.early = append(p.early, ev)
		case keyOf(k) == "q", keyOf(k) == "ctrl-c":
			p.quit = true
			return true
		case keyOf(k) == "esc":
			return true
		default:
			p.early = append(p.early, ev)
		}
	}
	return false
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
