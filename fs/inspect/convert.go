package inspect

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// A Conversion is a plan for the marks of a layer in another format. Making it
// changes nothing; it says what the format has no words for.
type Conversion struct {
	To   whiteout.Format
	dirs []dirPlan
}

// dirPlan is what changes in one directory. Marks are made before others go, so
// that whatever a crash leaves deletes no less and no more than before, and
// the conversion can be run again.
type dirPlan struct {
	path   string
	make   []whiteout.Node // new marks
	remove []string
	attrs  []attrPlan
}

// attrPlan is what changes in the xattrs of one object.
type attrPlan struct {
	name   string // "" is the directory
	set    map[string][]byte
	remove []string
}

// Steps counts the marks that would be made, removed and changed.
func (c *Conversion) Steps() (n int) {
	for _, d := range c.dirs {
		n += len(d.make) + len(d.remove) + len(d.attrs)
	}
	return n
}

// PlanConversion reads a layer, whatever mixture of formats it has, and decides
// what its marks are in another one. It fails, as whiteout.ErrNotRepresentable,
// ErrNameTooLong or ErrMalformed and with the path, where something would be lost.
// With from == whiteout.OCI a whiteout beside a directory hides what lower layers
// have of it, as in unpacked image layers; else it means nothing, as in a mount.
func PlanConversion(root layer.Dir, from, to whiteout.Format) (*Conversion, error) {
	c := &Conversion{To: to}
	opaque := map[string]map[string][]byte{} // marks that a parent gives its directories
	err := eachRaw(root, "", func(r *rawDir) error {
		given, err := whiteout.ConvertDir(from, to, r.normal(from))
		if err != nil {
			return fmt.Errorf("/%s: %w", r.path, err)
		}
		want := map[string]whiteout.Node{}
		for _, n := range given {
			if n.Name != "" && n.Type == unix.S_IFDIR {
				if len(n.Xattrs) > 0 {
					opaque[join(r.path, n.Name)] = n.Xattrs
				}
				continue
			}
			want[n.Name] = n
		}
		if more := opaque[r.path]; more != nil {
			self := want[""]
			self.Xattrs = maps.Clone(self.Xattrs)
			if self.Xattrs == nil {
				self.Xattrs = map[string][]byte{}
			}
			maps.Copy(self.Xattrs, more)
			want[""] = self
			delete(opaque, r.path)
		}
		if plan := r.plan(want); plan != nil {
			c.dirs = append(c.dirs, *plan)
		}
		return nil
	})
	return c, err
}

// normal returns the directory in words that every decoder has: whiteouts by
// xattr as devices, one opaque mark, and no whiteouts of what is there beside
// them, which the union does not heed.
func (r *rawDir) normal(from whiteout.Format) []whiteout.Node {
	there := map[string]bool{}
	for _, n := range r.nodes {
		there[n.Name] = true
	}
	self := r.self
	self.Xattrs = maps.Clone(self.Xattrs)
	for _, attr := range whiteout.FuseOverlayfsOpaqueXattrs {
		delete(self.Xattrs, attr)
	}
	if r.marks.Opaque {
		if self.Xattrs == nil {
			self.Xattrs = map[string][]byte{}
		}
		self.Xattrs[whiteout.Trusted.Opaque()] = whiteout.OpaqueYes.Encode()
		if from == whiteout.OCI || from == whiteout.Aufs {
			there[whiteout.AufsOpaque] = true
		}
	}
	nodes := []whiteout.Node{self}
	for _, n := range r.nodes {
		form, name := r.form(n)
		if form == NameWhiteout && there[name] && from != whiteout.OCI {
			continue
		}
		if form == XattrWhiteout {
			n = whiteout.Node{Name: n.Name, Type: unix.S_IFCHR}
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// plan compares what a directory has with what it is to have.
func (r *rawDir) plan(want map[string]whiteout.Node) *dirPlan {
	p := dirPlan{path: r.path}
	if a := attrChanges("", r.self.Xattrs, want[""].Xattrs); a != nil {
		p.attrs = append(p.attrs, *a)
	}
	for _, n := range r.nodes {
		if n.Type == unix.S_IFDIR {
			continue
		}
		if kind, _ := whiteout.ParseAufsName(n.Name); kind == whiteout.Reserved {
			continue // aufs's own, which nobody shows
		}
		w, ok := want[n.Name]
		delete(want, n.Name)
		switch {
		case !ok:
			p.remove = append(p.remove, n.Name)
		case w.Type != n.Type || w.Rdev != n.Rdev:
			p.make = append(p.make, w)
		default:
			if a := attrChanges(n.Name, n.Xattrs, w.Xattrs); a != nil {
				p.attrs = append(p.attrs, *a)
			}
		}
	}
	delete(want, "")
	for _, name := range slices.Sorted(maps.Keys(want)) {
		p.make = append(p.make, want[name])
	}
	if len(p.make)+len(p.remove)+len(p.attrs) == 0 {
		return nil
	}
	return &p
}

func attrChanges(name string, have, want map[string][]byte) *attrPlan {
	a := attrPlan{name: name}
	for attr, v := range want {
		if old, ok := have[attr]; !ok || !bytes.Equal(old, v) {
			if a.set == nil {
				a.set = map[string][]byte{}
			}
			a.set[attr] = v
		}
	}
	for attr := range have {
		if _, ok := want[attr]; !ok {
			a.remove = append(a.remove, attr)
		}
	}
	if a.set == nil && a.remove == nil {
		return nil
	}
	return &a
}

// Apply carries the plan out in a layer that nobody has mounted, the one that
// it was made for or a copy of it. Times of directories stay.
//
// Crash at any time: marks of both formats, which say the same; the next run
// goes on.
func (c *Conversion) Apply(root layer.Dir) error {
	for i := range c.dirs {
		p := &c.dirs[i]
		err := withDir(root, p.path, func(d layer.Dir) error {
			st, err := d.Stat()
			if err != nil {
				return err
			}
			if err := p.apply(d); err != nil {
				return err
			}
			// A wrong time would be no harm that is worth failing for.
			_ = d.SetTimes(st.Atime, st.Mtime)
			return nil
		})
		if err != nil {
			return fmt.Errorf("/%s: write marks as %v: %w", p.path, c.To, err)
		}
	}
	return nil
}

func (p *dirPlan) apply(d layer.Dir) error {
	for _, a := range p.attrs {
		if err := a.add(d); err != nil {
			return err
		}
	}
	for _, n := range p.make {
		if err := makeMark(d, n); err != nil {
			return fmt.Errorf("%q: %w", n.Name, err)
		}
	}
	for _, name := range p.remove {
		if err := d.Unlink(name); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	// Only now may go what says that empty files are whiteouts.
	for _, a := range p.attrs {
		if err := a.drop(d); err != nil {
			return err
		}
	}
	return nil
}

func (a *attrPlan) add(d layer.Dir) error {
	return withObject(d, a.name, func(o layer.Object) error {
		for _, attr := range slices.Sorted(maps.Keys(a.set)) {
			if err := o.Setxattr(attr, a.set[attr], 0); err != nil {
				return fmt.Errorf("%q: xattr %s: %w", a.name, attr, err)
			}
		}
		return nil
	})
}

func (a *attrPlan) drop(d layer.Dir) error {
	return withObject(d, a.name, func(o layer.Object) error {
		for _, attr := range a.remove {
			if err := o.Removexattr(attr); err != nil && err != unix.ENODATA {
				return fmt.Errorf("%q: xattr %s: %w", a.name, attr, err)
			}
		}
		return nil
	})
}

// staging is the name under which a mark is made that replaces another. One that
// a crash has left is replaced the next time.
const staging = ".lamina-convert"

// makeMark makes a mark, in one step in place of what has its name.
func makeMark(d layer.Dir, n whiteout.Node) error {
	if err := d.Unlink(staging); err != nil && err != unix.ENOENT {
		return err
	}
	if n.Type == unix.S_IFCHR {
		if err := d.Mknod(staging, unix.S_IFCHR, 0); err != nil {
			return err
		}
	} else {
		f, err := d.OpenFile(staging, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o444)
		if err != nil {
			return err
		}
		for attr, v := range n.Xattrs {
			if err == nil {
				err = f.Setxattr(attr, v, 0)
			}
		}
		f.Close()
		if err != nil {
			d.Unlink(staging)
			return err
		}
	}
	return d.Rename(staging, d, n.Name, 0)
}
