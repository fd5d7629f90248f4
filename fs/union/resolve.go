package union

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// found says what a name of the union stands for.
type found struct {
	st    layer.Stat // of the topmost object
	m     marks      // of the topmost object
	top   lowerRef   // where the topmost object lies
	upper bool       // the topmost object is in the upper
	// Directory: its parts, those in lower layers topmost first.
	upperDir *realDir
	lowers   []*realDir
	lowerIno uint64 // number of the topmost lower part, as shown
	// Metacopy file: where its data is, and of what size.
	data lowerRef
}

func (f *found) isDir() bool { return f.st.IsDir() }

// hit is what one directory of one layer has under a name.
type hit struct {
	kind hitKind
	st   layer.Stat
	m    marks
	dir  *realDir // the child, if it is a directory
}

type hitKind int

const (
	hitNone     hitKind = iota // the layer says nothing of the name
	hitWhiteout                // the layer says that it is deleted
	hitObject
)

// resolve finds what name stands for in the parts of directory p, whose lock is
// held; nil if it does not exist. Parts before from are known not to have it.
func (fs *FS) resolve(p *Node, name string, from int) (*found, error) {
	d := p.dir
	w := walk{fs: fs, name: name}
	if up := d.upper.Load(); up != nil && from == 0 {
		if err := w.visit(up, name, !d.merged()); err != nil || w.done {
			return w.result(err)
		}
	}
	lowers := d.lowers()
	for i := max(from-1, 0); i < len(lowers) && w.absolute == nil; i++ {
		rd := lowers[i]
		w.below = rd.br.index
		if err := w.visit(rd, w.name, i == len(lowers)-1); err != nil || w.done {
			return w.result(err)
		}
	}
	if w.absolute != nil {
		return w.result(w.follow())
	}
	return w.result(nil)
}

// walk merges what the layers say of one name, from the top down. It decides;
// probe looks.
type walk struct {
	fs       *FS
	name     string   // the name in the parts still to come
	absolute []string // or the path from the layers' roots, after a redirect
	jumped   bool     // what was visited last led to such a path
	below    int      // layers with a larger index are still to come
	f        *found
	meta     bool // f is a metacopy file and its data is not found yet
	done     bool
}

// visit takes in what one directory has.
func (w *walk) visit(rd *realDir, name string, last bool) error {
	w.below = rd.br.index
	h, err := w.fs.probe(rd, name, last && len(w.fs.data) == 0)
	if err != nil {
		return fmt.Errorf("layer %s: %q: %w", rd.br.name, name, err)
	}
	return w.take(h, lowerRef{rd, name}, last)
}

func (w *walk) take(h hit, at lowerRef, last bool) error {
	switch {
	case h.kind == hitNone:
		return nil
	case h.kind == hitWhiteout:
		w.done = true
		return nil
	case w.f == nil:
		w.f = &found{st: h.st, m: h.m, top: at, upper: at.dir.br.upper}
		if !h.st.IsDir() {
			return w.takeFile(h)
		}
	case w.meta:
		if !h.st.IsRegular() {
			w.done = true
			return nil
		}
		if h.m.metacopy {
			return w.redirect(h.m.redirect)
		}
		w.f.data, w.meta, w.done = at, false, true
		return nil
	case !h.st.IsDir():
		w.done = true // what is no directory ends the merging
		return nil
	}
	if at.dir.br.upper {
		w.f.upperDir = h.dir
	} else {
		if len(w.f.lowers) == 0 {
			w.f.lowerIno = w.fs.inos.compose(h.st.Dev, h.st.Ino)
		}
		w.f.lowers = append(w.f.lowers, h.dir)
	}
	if h.m.opaque {
		w.done = true
		return nil
	}
	return w.redirect(h.m.redirect)
}

// takeFile takes in the topmost object when it is no directory.
func (w *walk) takeFile(h hit) error {
	if !h.m.metacopy || !h.st.IsRegular() {
		w.done = true
		return nil
	}
	w.meta = true
	return w.redirect(h.m.redirect)
}

// redirect changes the name under which the layers below are searched.
func (w *walk) redirect(r *whiteout.Redirect) error {
	if r == nil {
		return nil
	}
	if r.Absolute {
		w.absolute, w.jumped = r.Path, true
	} else if len(r.Path) == 1 {
		w.name = r.Path[0]
		if w.absolute != nil {
			w.absolute = append(append([]string(nil), w.absolute[:len(w.absolute)-1]...), w.name)
		}
	}
	return nil
}

// follow goes through the layers that are still to come by path.
func (w *walk) follow() error {
	for _, b := range w.fs.lowers {
		if w.done {
			return nil
		}
		if b.index <= w.below {
			continue
		}
		if err := w.visitPath(b, b.index == len(w.fs.lowers)); err != nil {
			return err
		}
	}
	return nil
}

// visitPath walks the absolute path in one layer. Directories on the way count
// as in a lookup: a whiteout or an opaque mark hides what is below, and a
// redirect changes the way in the layers below. One to an absolute path leads out
// of what was opaque on the way (ovl_check_redirect).
func (w *walk) visitPath(b *branch, last bool) error {
	rd := b.root
	path := w.absolute
	stop := false
	for i, name := range path[:len(path)-1] {
		h, err := w.fs.probe(rd, name, last)
		if err != nil {
			return fmt.Errorf("layer %s: redirect to %q: %w", b.name, path, err)
		}
		switch {
		case h.kind == hitNone:
			w.done = w.done || stop
			return nil
		case h.kind == hitWhiteout || !h.st.IsDir():
			w.done = true
			return nil
		case h.m.opaque:
			stop = true
		case h.m.redirect != nil:
			stop = stop && !h.m.redirect.Absolute
			w.absolute = joinRedirect(w.absolute[:len(w.absolute)-len(path)+i], h.m.redirect, path[i+1:])
		}
		rd = h.dir
	}
	w.jumped = false
	if err := w.visit(rd, path[len(path)-1], last); err != nil {
		return err
	}
	w.done = w.done || stop && !w.jumped
	return nil
}

// joinRedirect returns the path below which the layers further down are
// searched: the directory in the middle of the path was redirected.
func joinRedirect(before []string, r *whiteout.Redirect, rest []string) []string {
	var p []string
	if !r.Absolute {
		p = append(p, before...)
	}
	p = append(p, r.Path...)
	return append(p, rest...)
}

func (w *walk) result(err error) (*found, error) {
	if err != nil {
		return nil, err
	}
	if w.f == nil {
		return nil, nil
	}
	if w.meta {
		if err := w.findDataOnly(); err != nil {
			return nil, err
		}
	}
	return w.f, nil
}

// findDataOnly looks for the data of a metacopy file in the data-only layers,
// which are reached by absolute redirects only.
func (w *walk) findDataOnly() error {
	if w.absolute != nil {
		for _, b := range w.fs.data {
			rd := b.root
			ok := true
			for _, name := range w.absolute[:len(w.absolute)-1] {
				h, err := w.fs.probe(rd, name, true)
				if err != nil {
					return err
				}
				if h.kind != hitObject || !h.st.IsDir() {
					ok = false
					break
				}
				rd = h.dir
			}
			if !ok {
				continue
			}
			name := w.absolute[len(w.absolute)-1]
			h, err := w.fs.probe(rd, name, true)
			if err != nil {
				return err
			}
			if h.kind == hitObject && h.st.IsRegular() {
				w.f.data = lowerRef{rd, name}
				return nil
			}
		}
	}
	return fmt.Errorf("layer %s: %q is a metacopy file and no layer below has its data (is a lower layer missing from the stack?): %w",
		w.f.top.dir.br.name, w.f.top.name, unix.EIO)
}

// probe looks for a name in one directory of one layer. last tells that no
// layer below can have anything to do with it, so marks that hide do not
// matter.
func (fs *FS) probe(rd *realDir, name string, last bool) (hit, error) {
	if rd.br.aufs {
		if kind, _ := whiteout.ParseAufsName(name); kind != whiteout.NotMark {
			return hit{}, nil // a mark is no entry, as in a listing
		}
	}
	h, err := rd.open(fs)
	if err != nil {
		return hit{}, err
	}
	defer h.release()
	st, err := h.obj.StatAt(name)
	switch {
	case err == unix.ENOENT || err == unix.ENAMETOOLONG && !rd.br.upper:
		return fs.probeAufs(rd, h.obj, name, last)
	case err != nil:
		return hit{}, err
	case st.IsWhiteoutDevice():
		return hit{kind: hitWhiteout}, nil
	}
	t := hit{kind: hitObject, st: st}
	// A redirect leads to any layer below, whichever have the directory.
	last = last && (fs.opt.NoFollow || rd.br.index < 0 || rd.br.index == len(fs.lowers))
	if fs.needMarks(rd, &st, last) {
		if t.m, err = fs.readMarks(childXattrs{h.obj, name}); err != nil {
			return hit{}, err
		}
		if t.m.whiteout && rd.xattrWhiteouts && st.IsRegular() && st.Size == 0 {
			return hit{kind: hitWhiteout}, nil
		}
	}
	if st.IsDir() {
		t.dir = &realDir{br: rd.br, parent: rd, name: name, xattrWhiteouts: t.m.xattrWhiteouts, opaque: t.m.opaque}
		if !last && !t.m.opaque {
			t.m.opaque, err = fs.aufsOpaque(t.dir)
		}
	}
	return t, err
}

// needMarks tells whether the xattrs of an object can say anything.
func (fs *FS) needMarks(rd *realDir, st *layer.Stat, last bool) bool {
	switch st.Type() {
	case unix.S_IFDIR:
		return true
	case unix.S_IFREG:
		return rd.br.upper || !last && st.Size > 0 || rd.xattrWhiteouts
	default: // user xattrs exist on files and directories only
		return rd.br.upper && fs.opt.Prefix == whiteout.Trusted
	}
}

// probeAufs looks for the whiteout of a name that the directory does not have.
func (fs *FS) probeAufs(rd *realDir, dir layer.Dir, name string, last bool) (hit, error) {
	if last || !rd.br.aufs || !fs.mayHaveAufs(rd, dir) {
		return hit{}, nil
	}
	wh, err := whiteout.AufsWhiteoutName(name)
	if err != nil {
		return hit{}, nil // a name too long for a whiteout has none
	}
	switch _, err := dir.StatAt(wh); err {
	case nil:
		return hit{kind: hitWhiteout}, nil
	case unix.ENOENT:
		return hit{}, nil
	default:
		return hit{}, err
	}
}

// mayHaveAufs tells whether a directory can hold .wh. names. In the upper,
// where they are old and seldom, one look at the whole directory spares one at
// every name.
func (fs *FS) mayHaveAufs(rd *realDir, dir layer.Dir) bool {
	if !rd.br.upper || fs.opt.Whiteouts == WhiteoutAufs {
		return true
	}
	if rd.noAufs.Load() {
		return false
	}
	entries, err := dir.ReadDir()
	if err != nil {
		return true
	}
	for _, e := range entries {
		if kind, _ := whiteout.ParseAufsName(e.Name); kind != whiteout.NotMark {
			return true
		}
	}
	rd.noAufs.Store(true)
	return false
}

// aufsOpaque reports whether a directory holds .wh..wh..opq.
func (fs *FS) aufsOpaque(rd *realDir) (bool, error) {
	if !rd.br.aufs {
		return false, nil
	}
	h, err := rd.open(fs)
	if err != nil {
		return false, err
	}
	defer h.release()
	if !fs.mayHaveAufs(rd, h.obj) {
		return false, nil
	}
	switch _, err := h.obj.StatAt(whiteout.AufsOpaque); err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	default:
		return false, err
	}
}

// lowerHas reports whether a lower part of p shows the name, so that removing
// it from the upper takes a whiteout. The lock of p is held.
func (fs *FS) lowerHas(p *Node, name string) (bool, error) {
	d := p.dir
	lowers := d.lowers()
	for i, rd := range lowers {
		h, err := fs.probe(rd, name, i == len(lowers)-1)
		if err != nil {
			return false, err
		}
		switch h.kind {
		case hitObject:
			return true, nil
		case hitWhiteout:
			return false, nil
		}
	}
	return false, nil
}
