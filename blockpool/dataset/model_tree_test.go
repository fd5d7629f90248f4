package dataset_test

import (
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A thing is an object of the model: what a file, directory or other object must be.
type thing struct {
	typ, perm uint32
	uid, gid  uint32
	links     int
	rdev      uint64
	data      []byte // never changed in place, so copies of the model share it
	target    string
	xattrs    map[string]string
	names     map[string]*thing
	parent    *thing
}

func (t *thing) isDir() bool { return t.typ == unix.S_IFDIR }

func newThing(typ, perm uint32) *thing {
	t := &thing{typ: typ, perm: perm, uid: me.UID, gid: me.GID, links: 1, xattrs: map[string]string{}}
	if typ == unix.S_IFDIR {
		t.links, t.names = 2, map[string]*thing{}
	}
	return t
}

// within tells whether t is d, or somewhere below it.
func (t *thing) within(d *thing) bool {
	for ; t != nil; t = t.parent {
		if t == d {
			return true
		}
	}
	return false
}

func (t *thing) enter(name string, c *thing) {
	t.names[name] = c
	if c.isDir() {
		c.parent = t
		t.links++
	}
}

func (t *thing) leave(name string) {
	if t.names[name].isDir() {
		t.links--
	}
	delete(t.names, name)
}

// unname counts a name that is gone.
func (t *thing) unname() {
	if t.isDir() {
		t.links, t.parent = 0, nil
	} else {
		t.links--
	}
}

// withoutPriv takes suid and sgid away as chown(2) does.
func (t *thing) withoutPriv() {
	if !t.isDir() {
		t.perm &^= unix.S_ISUID
		if t.perm&unix.S_IXGRP != 0 {
			t.perm &^= unix.S_ISGID
		}
	}
}

// write puts p into the data at off.
func (t *thing) write(p string, off int) {
	b := make([]byte, max(len(t.data), off+len(p)))
	copy(b, t.data)
	copy(b[off:], p)
	t.data = b
}

func (t *thing) truncate(size int) {
	b := make([]byte, size)
	copy(b, t.data)
	t.data = b
}

// copyTree returns a copy of a tree of things. Hard links stay together.
func copyTree(t *thing) *thing {
	seen := map[*thing]*thing{}
	var visit func(t, parent *thing) *thing
	visit = func(t, parent *thing) *thing {
		if c := seen[t]; c != nil {
			return c
		}
		c := *t
		seen[t] = &c
		c.xattrs = maps.Clone(t.xattrs)
		if t.isDir() {
			c.parent, c.names = parent, map[string]*thing{}
			for name, child := range t.names {
				c.names[name] = visit(child, &c)
			}
		}
		return &c
	}
	return visit(t, nil)
}

// dumpTree describes a tree of things as [mount.dump] does.
func dumpTree(root *thing) string {
	var lines []string
	seen := map[*thing]string{}
	var walk func(t *thing, path string)
	walk = func(t *thing, path string) {
		size := len(t.data)
		if t.isDir() {
			size = len(t.names)
		} else if t.typ == unix.S_IFLNK {
			size = len(t.target)
		}
		line := fmt.Sprintf("%s %o %d:%d links %d size %d", path, t.typ|t.perm, t.uid, t.gid, t.links, size)
		if first, ok := seen[t]; ok {
			lines = append(lines, line+" is "+first)
			return
		}
		seen[t] = path
		switch t.typ {
		case unix.S_IFREG:
			line += fmt.Sprintf(" data %08x", crc32.ChecksumIEEE(t.data))
		case unix.S_IFLNK:
			line += " to " + t.target
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" dev %d", t.rdev)
		}
		for _, x := range slices.Sorted(maps.Keys(t.xattrs)) {
			line += fmt.Sprintf(" %s=%d:%08x", x, len(t.xattrs[x]), crc32.ChecksumIEEE([]byte(t.xattrs[x])))
		}
		lines = append(lines, line)
		for _, name := range slices.Sorted(maps.Keys(t.names)) {
			walk(t.names[name], path+"/"+name)
		}
	}
	walk(root, "")
	return strings.Join(lines, "\n")
}

// firstDifference returns the lines in which two texts differ first.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		var a, b string
		if i < len(g) {
			a = g[i]
		}
		if i < len(w) {
			b = w[i]
		}
		if a != b {
			return fmt.Sprintf("got  %q\nwant %q", a, b)
		}
	}
	return "none"
}
