//go:build integration

package kernel

import (
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
)

// A chooser makes up operations that have a good chance to do something: it knows
// what the tree held when it was last looked at, and what was made since.
type chooser struct {
	r     *rand.Rand
	ids   []int // that files are given to
	users int   // how many of people act
	paths []string
	dirs  []string
	deck  []string // names of verbs, each as often as its weight says
}

func newChooser(c config) *chooser {
	ch := &chooser{r: c.random(streamOps), ids: c.ids, users: c.users, dirs: []string{""}}
	for _, name := range slices.Sorted(maps.Keys(verbs)) {
		for range verbs[name].weight {
			ch.deck = append(ch.deck, name)
		}
	}
	return ch
}

// look takes over what a tree holds.
func (c *chooser) look(t tree) {
	c.paths, c.dirs = nil, nil
	for _, p := range t.paths() {
		if p != "" {
			c.paths = append(c.paths, p)
		}
		if t[p].isDir {
			c.dirs = append(c.dirs, p)
		}
	}
}

// next returns an operation.
func (c *chooser) next() op {
	name := pick(c.r, c.deck...)
	o := verbs[name].choose(c)
	o.Do = name
	o.As = pick(c.r, 0, c.r.IntN(c.users))
	o.Umask = pick(c.r, 0o022, 0o022, 0, 0o077)
	switch name {
	case "mkdir":
		c.dirs = append(c.dirs, o.A)
		c.paths = append(c.paths, o.A)
	case "create", "mknod", "symlink":
		c.paths = append(c.paths, o.A)
	case "rename", "rename dir", "link":
		c.paths = append(c.paths, o.B)
	}
	return o
}

// fresh returns a name that may or may not exist, in a directory that may.
func (c *chooser) fresh() string {
	dir := pick(c.r, c.dirs...)
	if strings.Count(dir, "/") > 5 {
		dir = ""
	}
	name := pick(c.r, allNames...)
	if c.r.IntN(200) == 0 {
		name = pick(c.r, longNames...)
	}
	return path.Join(dir, name)
}

// old returns a name that has probably existed.
func (c *chooser) old() string {
	switch {
	case len(c.paths) == 0 || c.r.IntN(12) == 0:
		return c.fresh()
	case c.r.IntN(60) == 0:
		return ""
	}
	return pick(c.r, c.paths...)
}

func (c *chooser) any() string {
	if c.r.IntN(2) == 0 {
		return c.old()
	}
	return c.fresh()
}

// dirOr returns a directory, now and then something else.
func (c *chooser) dirOr(other func() string) string {
	if c.r.IntN(6) == 0 {
		return other()
	}
	return pick(c.r, c.dirs...)
}

func (c *chooser) id() int { return pick(c.r, append([]int{-1}, c.ids...)...) }

func (c *chooser) size() int64 { return pick[int64](c.r, 0, 1, 13, 100, 4096, 5000, 40000) }

func (c *chooser) offset() int64 {
	return pick[int64](c.r, 0, 0, 1, 10, 4095, 4096, 10000, 65536, 200000)
}

// time returns nanoseconds since 1970 for utimens.
func (c *chooser) time() int64 {
	return pick[int64](c.r, now, 0, 1, 999_999_999, 1_234_567_890_123_456_789, -999_999_995, (1<<32)*1_000_000_000+7)
}
