//go:build integration

package kernel

import (
	"testing"

	"golang.org/x/sys/unix"
)

func dir(path string) *object { return &object{path: path, mode: unix.S_IFDIR | 0o755, mtime: past} }

func file(path string, perm uint32) *object {
	return &object{path: path, mode: unix.S_IFREG | perm, size: 100, data: path, mtime: past}
}

func whiteout(path string) *object {
	return &object{path: path, mode: unix.S_IFCHR, whiteout: true, mtime: past}
}

// sequences are what random operations have found, for good.
var sequences = []struct {
	name        string
	root        bool // needs what user namespaces do not have
	interchange bool
	change      func(c *config)
	layers      [][]*object
	ops         []op
}{
	{name: "a layer that is added live hides names by xattr whiteouts",
		change: func(c *config) { c.live, c.lowerFormat = true, formatXattr },
		layers: [][]*object{{file("top", 0o644)}, {file("hidden", 0o644), file("seen", 0o644)}, {whiteout("hidden"), file("new", 0o644)}, {}},
		ops:    []op{{Do: doAdd, N: 1}, {Do: doDel, N: 1}}},
	{name: "a removal before the first listing",
		layers: [][]*object{{dir("d")}, {dir("d"), file("d/a", 0o644), file("d/b", 0o644), file("d/c", 0o644), file("d/e", 0o644)}},
		ops:    []op{{Do: doKill}, {Do: "lstat", A: "d/b"}, {Do: "lstat", A: "d/e"}, {Do: "unlink", A: "d/e"}, {Do: "list", A: "d"}}},
	{name: "root writes to a setuid file with capabilities", root: true,
		layers: [][]*object{{&object{path: "f", mode: unix.S_IFREG | 0o6755, size: 10, data: "f", mtime: past, xattrs: map[string]string{"security.capability": fileCapability}}}, {}},
		ops:    []op{{Do: "write", A: "f", Flags: unix.O_APPEND, N: 10}}},
	{name: "who may clear setuid", root: true,
		layers: [][]*object{{file("a", 0o6755), file("b", 0o6777), file("c", 0o6777), file("d", 0o6755), {path: "dir", mode: unix.S_IFDIR | 0o2755, mtime: past}}, {}},
		ops: []op{{Do: "chown", A: "a", UID: -1, GID: -1, As: 1}, {Do: "fallocate", A: "b", N: 1000}, {Do: "fallocate", A: "b", N: 1000, As: 1},
			{Do: "write", A: "c", N: 10, As: 1}, {Do: "chown", A: "dir", UID: -1, GID: -1, As: 1}, {Do: "chown", A: "d", UID: -1, GID: -1}}},
	{name: "marks of a nested union", layers: [][]*object{{file("f", 0o644), dir("d")}, {}},
		ops: []op{{Do: "private xattr", A: "f", Name: "opaque", Value: []byte("y")}, {Do: "private xattr", A: "d", Name: "redirect", Value: []byte("y")}}},
	{name: "moving a directory leaves its mtime",
		change: func(c *config) { c.upperFormat = formatAufs },
		layers: [][]*object{{dir("d"), dir("e"), file("e/over", 0o644)}},
		ops: []op{{Do: "mkdir", A: "d/new", Mode: 0o755}, {Do: "utimens", A: "d/new", Off: 1}, {Do: "unlink", A: "e/over"},
			{Do: "rename", A: "d/new", B: "e/over"}}},
	{name: "a renamed file is renamed again from a lower", root: true, interchange: true,
		change: func(c *config) { c.redirect, c.metacopy = true, true },
		layers: [][]*object{{file("f", 0o644), dir("d"), dir("e")}},
		ops: []op{{Do: "rename", A: "f", B: "d/f"}, {Do: "rename", A: "d", B: "dd"}, {Do: doPush}, {Do: "rename", A: "dd/f", B: "e/f"},
			{Do: doTurn}, {Do: "link", A: "e/f", B: "linked"}, {Do: doTurn}}},
}

func TestSequences(t *testing.T) {
	need(t)
	for i, s := range sequences {
		if s.root && rootless {
			continue // the marks and ids are root's
		}
		t.Run(s.name, func(t *testing.T) {
			lockThread(t)                          // each test has a goroutine of its own
			for _, first := range []uint64{0, 1} { // with interchange, either begins
				c := config{seed: 1<<20 + uint64(2*i) + first, place: "memory", lowerFormat: formatOverlay, upperFormat: formatOverlay, ids: []int{0}, users: 1, layers: s.layers, lowers: len(s.layers)}
				if s.change != nil {
					s.change(&c)
				}
				if c.live {
					c.lowers -= spare
				}
				for _, o := range s.ops {
					if o.Do == "private xattr" {
						o.Name = markPrefix() + o.Name
					}
					c.list = append(c.list, o)
				}
				testWorld(t, c, map[string]int{}, func(w *scratch) world {
					if s.interchange {
						return newInterchange(w)
					}
					return newLockStep(w)
				})
			}
		})
	}
}
