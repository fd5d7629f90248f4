package inspect

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// A ChangeKind tells what became of a path.
type ChangeKind int

const (
	Added ChangeKind = iota
	Removed
	Changed
)

func (k ChangeKind) String() string { return [...]string{"added", "removed", "changed"}[k] }

// Aspects are what of a file has changed, as bits.
type Aspects int

const (
	Content Aspects = 1 << iota // data, target of a link, number of a device
	Type
	Mode
	Owner
	Xattr
	Times // the time of the last change of the data
)

var aspectNames = []string{"content", "type", "mode", "owner", "xattr", "times"}

// Names returns the words for the bits that are set.
func (a Aspects) Names() (names []string) {
	for i, n := range aspectNames {
		if a&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return names
}

// A Change is one difference. What it points to is valid during the call only.
type Change struct {
	Path string
	Kind ChangeKind
	What Aspects // of Changed
	// From is where an added directory or file came from, if the layers say so.
	From string
	// Within tells that the directory around it was added or removed too.
	Within   bool
	Old, New *Entry // as users see them; nil where there is none
}

// DiffOptions say what counts.
type DiffOptions struct {
	// Quick takes files of the same size and time for equal, without reading
	// them.
	Quick bool
	// Times reports what has changed in its times alone.
	Times bool
	// Path is the subtree that is compared.
	Path string
}

// Diff tells what has changed from a to b, as users see them, in the order of
// paths. a may be nil: then everything is added. What lies in lower layers that
// both have is not looked at where it must be the same.
func Diff(ctx context.Context, a, b *Stack, o DiffOptions, failed func(error), visit func(*Change) error) error {
	d := differ{o: o, failed: failed, visit: visit}
	if d.failed == nil {
		d.failed = func(error) {}
	}
	var old, new *Place
	var err error
	if a != nil {
		if old, err = a.Lookup(o.Path); err == nil {
			defer old.Close()
		} else if !isAbsent(err) {
			return err
		}
	}
	if new, err = b.Lookup(o.Path); err == nil {
		defer new.Close()
	} else if !isAbsent(err) || old == nil {
		return err
	}
	var oe, ne *Entry
	if old != nil {
		oe = old.Entry
	}
	if new != nil {
		ne = new.Entry
	}
	layers := len(b.Layers)
	if a != nil {
		layers += len(a.Layers)
	}
	d.r = newReader(ctx, layers)
	d.r.compare = d.compare
	if a != nil {
		if d.r.common, err = commonOf(a, b); err != nil {
			return err
		}
	}
	p := pair{}
	if oe != nil {
		p.old = *oe
	}
	if ne != nil {
		p.new = *ne
	}
	if p.old.Top() != nil && p.new.Top() != nil {
		p.what, p.errs = d.compare(&p.old, &p.new)
	}
	return d.pair(&p, false, func() *reading {
		var od, nd *Dir
		if d.r.below(&p.old) {
			od = old.Dir()
		}
		if d.r.below(&p.new) {
			nd = new.Dir()
		}
		if od == nil && nd == nil {
			return nil
		}
		g := d.r.open(od, nd)
		g.borrowed = true // by the places
		return g
	})
}

func isAbsent(err error) bool {
	e := errnoOf(err)
	return e == unix.ENOENT || e == unix.ENOTDIR
}

type differ struct {
	r      *reader
	o      DiffOptions
	failed func(error)
	visit  func(*Change) error
}

// visible returns the entry if users see it.
func visible(e *Entry) *Entry {
	if e.Top() == nil {
		return nil
	}
	return e
}

// pair tells of two entries of one path, and of what is below them.
func (d *differ) pair(p *pair, within bool, open func() *reading) error {
	for _, err := range []error{p.old.Err, p.new.Err} {
		if err != nil {
			d.failed(err)
		}
	}
	for _, err := range p.errs {
		d.failed(err)
	}
	c := &Change{Old: visible(&p.old), New: visible(&p.new), Within: within}
	report := true
	switch {
	case c.Old == nil && c.New == nil:
		return nil
	case c.Old == nil:
		c.Kind, c.Path, c.From = Added, p.new.Path, from(&p.new)
		within = true
	case c.New == nil:
		c.Kind, c.Path = Removed, p.old.Path
		within = true
	default:
		c.Kind, c.Path, c.What = Changed, p.new.Path, p.what
		report = c.What&^Times != 0 || c.What != 0 && d.o.Times
		within = p.old.Top().IsDir() != p.new.Top().IsDir()
	}
	if report {
		if err := d.visit(c); err != nil {
			return err
		}
	}
	if g := open(); g != nil {
		defer g.close()
		return d.children(g, within)
	}
	return nil
}

// children compares two directories, of which one may be nil.
func (d *differ) children(g *reading, within bool) error {
	if err := cmp.Or(tooDeep(g.old), tooDeep(g.new)); err != nil {
		return err
	}
	for c := g.next(); c != nil; c = g.next() {
		if err := d.r.ctx.Err(); err != nil {
			return err
		}
		g.tell(d.failed)
		for i := range c.used {
			c.ahead(i)
			p := &c.pairs[i]
			if err := d.pair(p, within, func() *reading { return c.below(p) }); err != nil {
				return err
			}
		}
	}
	g.tell(d.failed)
	return nil
}

// from returns the path that a redirect tells an entry to have had.
func from(e *Entry) string {
	r := e.Top().Marks.Redirect
	switch {
	case r == nil:
		return ""
	case r.Absolute:
		return strings.Join(r.Path, "/")
	}
	return path.Join(path.Dir(e.Path), r.Path[0])
}

// compare tells what differs between two entries that users see. It is called by
// several goroutines at once.
func (d *differ) compare(old, new *Entry) (what Aspects, errs []error) {
	o, n := old.Top(), new.Top()
	if o.Stat.Dev == n.Stat.Dev && o.Stat.Ino == n.Stat.Ino && o.Marks.Metacopy == n.Marks.Metacopy && o.Stat.Ctime == n.Stat.Ctime {
		if !o.Marks.Metacopy {
			return 0, nil // the same object
		}
	}
	a, b := &o.Stat, &n.Stat
	if a.Mode&unix.S_IFMT != b.Mode&unix.S_IFMT {
		return Type, nil
	}
	if a.Mode != b.Mode {
		what |= Mode
	}
	if a.UID != b.UID || a.GID != b.GID {
		what |= Owner
	}
	if a.Mtime != b.Mtime {
		what |= Times
	}
	if same, err := sameXattrs(o, n); err != nil {
		errs = append(errs, fmt.Errorf("/%s: %w", new.Path, err))
	} else if !same {
		what |= Xattr
	}
	same, err := d.sameContent(old, new)
	if err != nil {
		errs = append(errs, fmt.Errorf("/%s: compare: %w", new.Path, err))
	}
	if !same {
		what |= Content
	}
	return what, errs
}

func (d *differ) sameContent(old, new *Entry) (bool, error) {
	o, n := old.Top(), new.Top()
	switch o.Stat.Type() {
	case unix.S_IFLNK:
		a, err := o.Readlink()
		if err != nil {
			return true, err
		}
		b, err := n.Readlink()
		return a == b || err != nil, err
	case unix.S_IFCHR, unix.S_IFBLK:
		return o.Stat.Rdev == n.Stat.Rdev, nil
	case unix.S_IFREG:
	default:
		return true, nil
	}
	a, b := old.Data(), new.Data()
	switch {
	case o.Stat.Size != n.Stat.Size:
		return false, nil
	case a == nil || b == nil: // that was told as the entry's error
		return a == b, nil
	case a.Stat.Dev == b.Stat.Dev && a.Stat.Ino == b.Stat.Ino, o.Stat.Size == 0:
		return true, nil
	case d.o.Quick && o.Stat.Mtime == n.Stat.Mtime:
		return true, nil
	}
	return sameData(d.r.ctx, a, b)
}

// sameData compares two files byte by byte.
func sameData(ctx context.Context, a, b *Sighting) (bool, error) {
	f, err := a.OpenFile()
	if err != nil {
		return true, err
	}
	defer f.Close()
	g, err := b.OpenFile()
	if err != nil {
		return true, err
	}
	defer g.Close()
	size := int64(64 << 10)
	size = min(size, max(a.Stat.Size, 1))
	x, y := make([]byte, size), make([]byte, size)
	for off := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return true, err
		}
		n, err := readFull(f, x, off)
		if err != nil {
			return true, err
		}
		m, err := readFull(g, y, off)
		if err != nil {
			return true, err
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < len(x) {
			return true, nil
		}
		off += int64(n)
	}
}

// readFull reads until p is full or the file ends.
func readFull(f layer.File, p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := f.ReadAt(p[n:], off+int64(n))
		n += m
		if err != nil || m == 0 {
			return n, err
		}
	}
	return n, nil
}

// UserXattrs returns the attributes that users of the stack see: those of an
// overlay itself are left out.
func (s *Sighting) UserXattrs() (map[string][]byte, error) {
	all, err := s.Xattrs()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	out := map[string][]byte{}
	for name, v := range all {
		if whiteout.FuseOverlayfsOpaque == name || whiteout.FuseOverlayfsOrigin == name {
			continue
		}
		name, shown := whiteout.Trusted.Unescape(name)
		if shown {
			name, shown = whiteout.User.Unescape(name)
		}
		if shown {
			out[name] = v
		}
	}
	return out, nil
}

func sameXattrs(a, b *Sighting) (bool, error) {
	x, err := a.UserXattrs()
	if err != nil {
		return true, err
	}
	y, err := b.UserXattrs()
	return err != nil || maps.EqualFunc(x, y, slices.Equal[[]byte]), err
}
