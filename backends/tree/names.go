package tree

import (
	"maps"
	"slices"
	"strings"
)

// names are those that may differ, by directory.
type names map[string]names

// nameTree arranges paths by directory.
func nameTree(paths []string) names {
	root := names{}
	for _, p := range paths {
		at := root
		for part := range strings.SplitSeq(p, "/") {
			if part == "" || part == "." {
				continue
			}
			if at[part] == nil {
				at[part] = names{}
			}
			at = at[part]
		}
	}
	return root
}

// some compares the entries of two directories that may differ.
func (c *comparer) some(dir string, old, new *Node, at names) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if dir != "." && old.Stat.Ino != new.Stat.Ino {
		// Another directory took the name: what it holds may be anything.
		return c.children(dir, old, new, nil)
	}
	for _, name := range slices.Sorted(maps.Keys(at)) {
		within := func(p string, old, new *Node) error { return c.some(p, old, new, at[name]) }
		if err := c.entry(join(dir, name), name, old, new, false, within); err != nil {
			return err
		}
	}
	return nil
}
