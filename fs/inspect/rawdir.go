package inspect

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// rawDir is one directory of one layer as it is stored, marks and all.
type rawDir struct {
	dir   layer.Dir
	path  string
	self  whiteout.Node // Name ""
	nodes []whiteout.Node
	stats map[string]layer.Stat
	marks Marks // of the directory
}

// readRaw reads a directory with the xattrs of everything in it.
func readRaw(dir layer.Dir, at string) (*rawDir, error) {
	fail := func(name string, err error) (*rawDir, error) {
		return nil, fmt.Errorf("/%s: %w", join(at, name), err)
	}
	r := &rawDir{dir: dir, path: at, stats: map[string]layer.Stat{}}
	attrs, err := allXattrs(objectXattrs{dir})
	if err != nil {
		return fail("", err)
	}
	r.self = whiteout.Node{Type: unix.S_IFDIR, Xattrs: attrs}
	for name, v := range attrs {
		if mark, ok := markName(name); ok && (mark == "opaque" || mark == "whiteout") {
			if err := r.marks.take(mark, v); err != nil {
				return fail("", err)
			}
		}
	}
	list, err := dir.ReadDir()
	if err != nil {
		return fail("", err)
	}
	for _, e := range list {
		st, err := dir.StatAt(e.Name)
		if err != nil {
			return fail(e.Name, err)
		}
		n := whiteout.Node{Name: e.Name, Type: st.Type(), Rdev: st.Rdev, Size: st.Size}
		if st.Type() != unix.S_IFDIR {
			if n.Xattrs, err = allXattrs(childXattrs{dir, e.Name}); err != nil {
				return fail(e.Name, err)
			}
		}
		if n.Type != unix.S_IFREG {
			n.Size = 0
		}
		r.stats[e.Name] = st
		r.nodes = append(r.nodes, n)
	}
	return r, nil
}

// form tells whether a node deletes a name, as the union reads it.
func (r *rawDir) form(n whiteout.Node) (WhiteoutForm, string) {
	if kind, target := whiteout.ParseAufsName(n.Name); kind == whiteout.Whiteout {
		return NameWhiteout, target
	}
	switch {
	case n.Type == unix.S_IFCHR && n.Rdev == 0:
		return DeviceWhiteout, n.Name
	case n.Type == unix.S_IFREG && n.Size == 0 && r.marks.xattrWhiteouts && hasWhiteoutXattr(n):
		return XattrWhiteout, n.Name
	}
	return NoWhiteout, n.Name
}

func hasWhiteoutXattr(n whiteout.Node) bool {
	for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
		if _, ok := n.Xattrs[p.Whiteout()]; ok {
			return true
		}
	}
	return false
}

// eachRaw calls f for a directory and all below it, parents first.
func eachRaw(dir layer.Dir, at string, f func(*rawDir) error) error {
	r, err := readRaw(dir, at)
	if err != nil {
		return err
	}
	if err := f(r); err != nil {
		return err
	}
	for _, n := range r.nodes {
		if n.Type != unix.S_IFDIR {
			continue
		}
		if kind, _ := whiteout.ParseAufsName(n.Name); kind == whiteout.Reserved {
			continue
		}
		sub, err := dir.OpenDir(n.Name)
		if err != nil {
			return fmt.Errorf("/%s: %w", path.Join(at, n.Name), err)
		}
		err = eachRaw(sub, join(at, n.Name), f)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
