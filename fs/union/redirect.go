package union

import (
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// upperRef is a name in an open directory of the upper.
type upperRef struct {
	dir  layer.Dir
	name string
}

// mark prepares an object, which lies at a place in the upper, for its new one
// in directory p.
func (r *renaming) mark(n *Node, at upperRef, p *Node, up layer.Dir) error {
	fs := r.fs
	if n.has(stateOrigin) || n.dir != nil && n.dir.merged() {
		if err := fs.setImpure(p.dir, up); err != nil {
			return err
		}
	}
	if n.has(stateMetacopy) {
		return fs.redirectDataAt(n, at)
	}
	if n.dir == nil {
		return nil
	}
	if n.dir.merged() {
		return fs.setRedirect(n, r.op == r.np)
	}
	if p.dir.merged() {
		return fs.setOpaque(n)
	}
	return nil
}

func (fs *FS) redirectDataAt(n *Node, at upperRef) error {
	o, err := at.dir.Lookup(at.name)
	if err != nil {
		return err
	}
	defer o.Close()
	return fs.redirectData(n, o)
}

// setOpaque keeps a directory without lower parts from being merged with what
// lower layers have at its new place.
func (fs *FS) setOpaque(n *Node) error {
	rd := n.dir.upper.Load()
	if rd.opaque {
		return nil
	}
	h, err := rd.open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if rd.xattrWhiteouts && fs.opt.Whiteouts != WhiteoutAufs {
		// One mark cannot say both.
		n.dir.mu.Lock()
		defer n.dir.mu.Unlock()
		if err := fs.dropXattrWhiteouts(h.obj); err != nil {
			return err
		}
		rd.xattrWhiteouts = false
	}
	if err := fs.markOpaque(h.obj); err != nil {
		return err
	}
	rd.opaque = true
	return nil
}

// setRedirect notes in the upper part of a directory where its lower parts are.
// As in the kernel the note is the name alone while the parent stays the same,
// else the path from the root.
func (fs *FS) setRedirect(n *Node, sameDir bool) error {
	d := n.dir
	if old := d.redirect.Load(); old != nil && (old.Absolute || sameDir) {
		return nil
	}
	red := whiteout.Redirect{}
	if sameDir {
		_, name := n.where()
		red.Path = []string{name}
	} else {
		red.Absolute, red.Path = true, originPath(n)
	}
	value := red.Encode()
	if len(value) > redirectMax {
		return unix.EXDEV
	}
	h, err := d.upper.Load().open(fs)
	if err != nil {
		return err
	}
	defer h.release()
	if err := h.obj.Setxattr(fs.opt.Prefix.Redirect(), []byte(value), 0); err != nil {
		return err
	}
	fs.stats.Redirects.Add(1)
	d.redirect.Store(&red)
	return nil
}

// redirectMax bounds the value of a redirect, which many filesystems keep in
// one block together with all other xattrs.
const redirectMax = 2048

// originPath returns the path at which the lower layers have a directory, from
// the names and redirects of its ancestors.
func originPath(n *Node) []string {
	var rev []string
	for {
		p, name := n.where()
		if p == nil {
			break
		}
		if r := n.dir.redirect.Load(); r != nil {
			if r.Absolute {
				for i := len(r.Path) - 1; i >= 0; i-- {
					rev = append(rev, r.Path[i])
				}
				break
			}
			name = r.Path[0]
		}
		rev = append(rev, name)
		n = p
	}
	for i, j := 0, len(rev)-1; i < j; i, j = i+1, j-1 {
		rev[i], rev[j] = rev[j], rev[i]
	}
	return rev
}
