package inspect

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/inspect/safename"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// A FindingKind is what is wrong with a layer.
type FindingKind string

const (
	// Unreadable: a mark that makes no sense, or could not be read.
	Unreadable FindingKind = "unreadable"
	// Meaningless: a mark that every reader ignores.
	Meaningless FindingKind = "meaningless"
	// MixedFormats: marks of several formats side by side, of which one program
	// or another will not read all.
	MixedFormats FindingKind = "mixed-formats"
	// Needless: a whiteout of a name that no lower layer shows.
	Needless FindingKind = "needless-whiteout"
	// Unannounced: an xattr whiteout in a directory that is not marked to hold
	// any, so that a listing shows it.
	Unannounced FindingKind = "unannounced-whiteout"
	// Dangling: a redirect, or a metacopy file, with nothing below it.
	Dangling FindingKind = "dangling"
	// WrongOrigin: the recorded origin is not what lies below.
	WrongOrigin FindingKind = "wrong-origin"
	// Leftover: something that an interrupted or unfinished mount left.
	Leftover FindingKind = "leftover"
)

// A Finding is one thing that is wrong.
type Finding struct {
	Kind FindingKind   `json:"kind"`
	Path safename.JSON `json:"path"` // in the layer
	Text safename.JSON `json:"text"`
	// Repair says what [Fix] would do; empty: nothing that is surely safe.
	Repair string `json:"repair,omitempty"`

	path  string
	name  string // entry of path's directory that Fix removes
	xattr string // or attribute of path that it removes
	work  bool   // in the work directory
}

// Check looks at the top layer of s, whose other layers tell what its marks are
// about; without them, what only they could tell is not checked. work is the
// work directory of the mount, nil for none.
func Check(ctx context.Context, s *Stack, work layer.Dir, failed func(error)) ([]Finding, error) {
	c := checker{lowers: len(s.Layers) > 1}
	root, err := s.root(0)
	if err != nil {
		return nil, err
	}
	if err := c.stored(root, ""); err != nil {
		failed(err)
	}
	c.formats()
	if err := s.Walk(ctx, "", failed, c.entry); err != nil {
		return nil, err
	}
	if work != nil {
		if err := c.leftovers(work); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(c.found, func(a, b Finding) int { return strings.Compare(a.path, b.path) })
	return c.found, nil
}

type checker struct {
	lowers bool
	found  []Finding
	first  map[string]string // format → where it was seen first
}

func (c *checker) add(kind FindingKind, path, text string, repair func(*Finding)) {
	f := Finding{Kind: kind, Path: safename.JSON("/" + path), Text: safename.JSON(text), path: path}
	if repair != nil {
		repair(&f)
	}
	c.found = append(c.found, f)
}

// remove makes a finding one that is repaired by removing an entry.
func remove(name string) func(*Finding) {
	return func(f *Finding) { f.name, f.Repair = name, "remove the mark "+safename.Text(name) }
}

// stored checks what can be told from the layer alone.
func (c *checker) stored(root layer.Dir, at string) error {
	c.first = map[string]string{}
	return eachRaw(root, at, func(r *rawDir) error {
		c.decode(r, "", r.self)
		there := map[string]bool{}
		for _, n := range r.nodes {
			there[n.Name] = true
		}
		for _, n := range r.nodes {
			at := join(r.path, n.Name)
			kind, target := whiteout.ParseAufsName(n.Name)
			form, name := r.form(n)
			switch {
			case kind == whiteout.Reserved:
				c.reserved(r, n, at)
				continue
			case kind == whiteout.OpaqueMarker:
				c.seen("aufs names", at)
				continue
			case kind == whiteout.Invalid:
				c.add(Unreadable, at, `it would delete ".", ".." or nothing`, remove(n.Name))
				continue
			case form != NoWhiteout:
				c.whiteout(r, n, at, form, name, there)
			case n.Type == unix.S_IFREG && n.Size == 0 && hasWhiteoutXattr(n):
				c.add(Unannounced, at, "a whiteout by xattr in a directory whose opaque mark is not x: a lookup finds it deleted, a listing shows it", nil)
			}
			if kind == whiteout.Whiteout && n.Type != unix.S_IFREG {
				c.add(Unreadable, at, "the whiteout of "+target+" is no regular file", nil)
			}
			if n.Type != unix.S_IFDIR && form == NoWhiteout {
				c.decode(r, n.Name, n)
			}
		}
		return nil
	})
}

func (c *checker) seen(format, at string) {
	if _, ok := c.first[format]; !ok {
		c.first[format] = at
	}
}

// whiteout notes its format, and finds those that hide nothing by themselves.
func (c *checker) whiteout(r *rawDir, n whiteout.Node, at string, form WhiteoutForm, name string, there map[string]bool) {
	switch form {
	case DeviceWhiteout:
		c.seen("device whiteouts", at)
	case XattrWhiteout:
		c.seen("xattr whiteouts", at)
	case NameWhiteout:
		c.seen("aufs names", at)
		if there[name] {
			c.add(Needless, at, "the name that it deletes is there beside it", nil)
			return
		}
	}
	if r.marks.Opaque || there[whiteout.AufsOpaque] {
		c.add(Needless, at, "its directory is opaque, so nothing from below is seen in it", remove(n.Name))
	}
}

// decode lets the codecs read all marks of an object.
func (c *checker) decode(r *rawDir, name string, n whiteout.Node) {
	at := join(r.path, name)
	n.Name = name
	for attr, v := range n.Xattrs {
		for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
			if !p.Private(attr) {
				continue
			}
			c.seen("marks in "+string(p)+"*", at)
			if attr == p.Opaque() {
				if _, err := whiteout.ParseOpaque(v); err != nil {
					c.add(Meaningless, at, err.Error(), func(f *Finding) {
						f.xattr, f.Repair = attr, "remove the xattr "+attr+", which nobody heeds"
					})
				}
			}
			if attr == p.Origin() && len(v) > 0 {
				if _, err := whiteout.ParseFileHandle(v); err != nil {
					c.add(Unreadable, at, "xattr "+attr+": "+err.Error(), nil)
				}
			}
		}
	}
	if _, err := whiteout.FuseOverlayfs.Decode(n); err != nil {
		c.add(Unreadable, at, err.Error(), nil)
	}
}

// reserved looks at what aufs keeps for itself.
func (c *checker) reserved(r *rawDir, n whiteout.Node, at string) {
	c.seen("aufs names", at)
	switch {
	case r.path == "" && (n.Name == whiteout.AufsBase || n.Name == whiteout.AufsPlinkDir):
	case r.path == "" && n.Name == whiteout.AufsOrphDir:
		if d, err := r.dir.OpenDir(n.Name); err == nil {
			if list, err := d.ReadDir(); err == nil && len(list) > 0 {
				c.add(Leftover, at, fmt.Sprintf("%d files that were open when aufs ended", len(list)), nil)
			}
			d.Close()
		}
	default:
		c.add(Leftover, at, "a name that aufs gives to what is not finished", nil)
	}
}

// formats tells of marks that not everybody reads together.
func (c *checker) formats() {
	mixed := func(names ...string) {
		var seen []string
		for _, n := range names {
			if at, ok := c.first[n]; ok {
				seen = append(seen, fmt.Sprintf("%s (as at /%s)", n, at))
			}
		}
		if len(seen) > 1 {
			c.add(MixedFormats, "", strings.Join(seen, " and ")+"; lamina reads all of them, kernel overlayfs does not: lamina inspect convert makes them one", nil)
		}
	}
	mixed("device whiteouts", "xattr whiteouts", "aufs names")
	mixed("marks in "+string(whiteout.Trusted)+"*", "marks in "+string(whiteout.User)+"*")
}

// entry checks what the layers below have to say.
func (c *checker) entry(e *Entry) error {
	if len(e.Sightings) == 0 || e.Sightings[0].Layer != 0 {
		return SkipDir // an error, which the walk has told, or not of this layer
	}
	top := &e.Sightings[0]
	if !c.lowers {
		return nil
	}
	if e.Err != nil && errnoOf(e.Err) == unix.EIO && top.Marks.Metacopy {
		c.add(Dangling, e.Path, "a metacopy file, and no layer below has its data", nil)
	}
	below := e.Sightings[1:]
	switch {
	case top.State == Deletes:
		if !hidesSomething(below) {
			name := e.Name
			if top.Whiteout == NameWhiteout {
				name = whiteout.AufsPrefix + name
			}
			c.addOnce(Needless, join(parentOf(e.Path), name), "no layer below shows the name", remove(name))
		}
	case top.IsDir() && top.Marks.Redirect != nil && !slices.ContainsFunc(below, func(g Sighting) bool { return g.State == Merges }):
		c.add(Dangling, e.Path, "redirect to "+top.Marks.Redirect.String()+", which no layer below has", nil)
	case top.Marks.Origin, top.IsFile():
		c.origin(e, top, below)
	}
	return nil
}

func parentOf(p string) string {
	if i := strings.LastIndexByte(p, '/'); i >= 0 {
		return p[:i]
	}
	return ""
}

// addOnce leaves out what was found already by other means.
func (c *checker) addOnce(kind FindingKind, path, text string, repair func(*Finding)) {
	if !slices.ContainsFunc(c.found, func(f Finding) bool { return f.path == path && f.Kind == kind }) {
		c.add(kind, path, text, repair)
	}
}

// hidesSomething tells whether users would see one of the sightings if it were
// not for the whiteout above.
func hidesSomething(below []Sighting) bool {
	for i := range below {
		g := &below[i]
		if g.State != Hidden || g.By != 0 || g.Why != ByWhiteout {
			continue
		}
		return g.Whiteout == NoWhiteout
	}
	return false
}

// origin compares what a copy was made of with what lies below.
func (c *checker) origin(e *Entry, top *Sighting, below []Sighting) {
	var recorded whiteout.FileHandle
	found := false
	for _, p := range []whiteout.Prefix{whiteout.Trusted, whiteout.User} {
		v, err := sized(func(b []byte) (int, error) { return childXattrs{top.in.dir, top.name}.get(p.Origin(), b) })
		if err != nil || len(v) == 0 {
			continue
		}
		if recorded, err = whiteout.ParseFileHandle(v); err == nil {
			found = true
		}
	}
	if !found {
		return
	}
	for i := range below {
		g := &below[i]
		if g.Whiteout != NoWhiteout || g.Stat.Type() != top.Stat.Type() {
			continue
		}
		o, err := g.in.dir.Lookup(g.name)
		if err != nil {
			return
		}
		h, err := o.Handle()
		o.Close()
		if err != nil || int32(recorded.Type) != h.Type {
			return // nothing that could be compared
		}
		if string(recorded.FID) == string(h.Bytes) {
			return
		}
	}
	if len(below) > 0 {
		c.add(WrongOrigin, e.Path, "the file that it was copied from is not the one in any layer below: the lower layers have changed, or were copied", nil)
	}
}

// leftovers looks into a work directory: what is in its directories "work" and
// not in use was never visible.
func (c *checker) leftovers(work layer.Dir) error {
	d, err := work.OpenDir("work")
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the work directory: %w", err)
	}
	defer d.Close()
	list, err := d.ReadDir()
	if err != nil {
		return fmt.Errorf("the work directory: %w", err)
	}
	for _, e := range list {
		if e.Name == "incompat" {
			c.add(Leftover, "work/incompat", "a mount with volatile: the upper may be damaged if the machine went down; who knows that it did not can remove it", nil)
			c.found[len(c.found)-1].work = true
			continue
		}
		c.add(Leftover, "work/"+e.Name, "staged by a mount that ended in the middle; it was never visible", func(f *Finding) {
			f.name, f.work, f.Repair = e.Name, true, "remove it"
		})
	}
	return nil
}
