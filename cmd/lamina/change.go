package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/laminafs/lamina/fs/inspect"
	"github.com/laminafs/lamina/fs/inspect/safename"
)

// jsonLine writes one value on one line.
func jsonLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// changeJSON is a change for programs.
type changeJSON struct {
	Path   safename.JSON       `json:"path"`
	Change string              `json:"change"`
	What   []string            `json:"what,omitempty"`
	From   safename.JSON       `json:"from,omitempty"`
	Old    *inspect.ObjectJSON `json:"old,omitempty"`
	New    *inspect.ObjectJSON `json:"new,omitempty"`
}

func jsonOf(c *inspect.Change) changeJSON {
	j := changeJSON{Path: safename.JSON("/" + c.Path), Change: c.Kind.String(), What: c.What.Names()}
	if c.From != "" {
		j.Change, j.From = "renamed", safename.JSON("/"+c.From)
	}
	if c.Old != nil {
		j.Old = c.Old.Top().Object()
	}
	if c.New != nil {
		j.New = c.New.Top().Object()
	}
	return j
}

// changeText is a change for people: a letter, the path, and what it was about.
func changeText(c *inspect.Change) string {
	switch {
	case c.From != "":
		return fmt.Sprintf("R  %s -> %s", shownPath(c.From), shownPath(c.Path))
	case c.Kind == inspect.Added:
		return fmt.Sprintf("A  %s  %s", shownPath(c.Path), objectText(c.New.Top()))
	case c.Kind == inspect.Removed:
		return fmt.Sprintf("D  %s  %s", shownPath(c.Path), objectText(c.Old.Top()))
	}
	return fmt.Sprintf("M  %s  %s", shownPath(c.Path), aspectText(c))
}

// aspectText says what changed, from what to what where that is short.
func aspectText(c *inspect.Change) string {
	o, n := c.Old.Top(), c.New.Top()
	var words []string
	for _, name := range c.What.Names() {
		switch name {
		case "mode":
			name = fmt.Sprintf("mode %04o -> %04o", o.Stat.Mode&0o7777, n.Stat.Mode&0o7777)
		case "owner":
			name = fmt.Sprintf("owner %d:%d -> %d:%d", o.Stat.UID, o.Stat.GID, n.Stat.UID, n.Stat.GID)
		case "type":
			name = inspect.TypeName(o.Stat.Mode) + " -> " + inspect.TypeName(n.Stat.Mode)
		case "content":
			if n.IsFile() && o.Stat.Size != n.Stat.Size {
				name = fmt.Sprintf("content %s -> %s", bytesText(uint64(o.Stat.Size)), bytesText(uint64(n.Stat.Size)))
			}
		}
		words = append(words, name)
	}
	return strings.Join(words, ", ")
}
