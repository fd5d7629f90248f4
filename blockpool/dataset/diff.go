package dataset

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
)

// A Differ is a tree that can tell in what it differs from another one.
type Differ interface {
	Tree
	// DiffFrom calls f, in the order of keys, with each key whose value is not that
	// in old, and both values, nil where there is none. All are valid during the
	// call only.
	DiffFrom(old Tree, f func(key, old, new []byte) error) error
}

// DiffKind says what has become of a name.
type DiffKind int

const (
	Changed DiffKind = iota // the name is in both, and something about the object is another
	Added
	Removed
	Renamed // the object had another name
)

func (k DiffKind) String() string { return [...]string{"changed", "added", "removed", "renamed"}[k] }

// A Difference is what has become of one name.
type Difference struct {
	Kind    DiffKind
	Path    string // from the root, without a slash at the beginning; of what was removed as it was
	OldPath string // where it was renamed
	Type    uint32 // S_IFMT bits
	// What of the object is another, where it is in both. Of a directory Content is
	// the names in it. A file with several names tells it with one of them.
	Content, Mode, Owner, Times, Xattrs, Links bool
}

// Diff tells in what a tree differs from an older one, by path. It reads what
// differs and the way from there to the root, nothing else; access times do not
// count. What a mount has in use without a name is not there. Of a tree that
// changes the result may fit no moment: take a snapshot.
func Diff(old Tree, now Differ) ([]Difference, error) {
	d := differ{touched: map[uint64]*touched{}, subvols: map[uint64]*moved{}}
	d.old.init(old)
	d.now.init(now)
	if err := now.DiffFrom(old, d.note); err != nil {
		return nil, failed("compare", 0, err)
	}
	for object, t := range d.touched {
		if err := d.object(object, t); err != nil {
			return nil, err
		}
	}
	for _, m := range d.subvols {
		if err := d.names(Difference{Type: unix.S_IFDIR}, m.old, m.now); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(d.list, func(a, b Difference) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.OldPath, b.OldPath))
	})
	return d.list, nil
}

type differ struct {
	old, now pathFinder
	touched  map[uint64]*touched
	subvols  map[uint64]*moved // by the number of the tree
	list     []Difference
}

// touched says which items of an object differ.
type touched struct{ records, entries, xattrs bool }

// A moved subvolume has its names in both trees here.
type moved struct{ old, now []place }

// A place is a name: the directory, and the position there.
type place struct{ dir, pos uint64 }

// note takes one key that differs.
func (d *differ) note(key, old, now []byte) error {
	if len(key) < 8 {
		return damagedf("key %x", key)
	}
	if key[0] < blockpool.ItemCounted {
		d.touch(binary.BigEndian.Uint64(key) >> 32).records = true
		return nil
	}
	if len(key) < 9 {
		return nil
	}
	object := binary.BigEndian.Uint64(key[1:])
	switch key[0] {
	case keyInode, keyLink:
		d.touch(object)
	case keyXattr:
		d.touch(object).xattrs = true
	case keyEntry:
		d.touch(object).entries = true
		var at place
		if !keyNumbers(key, &at.dir, &at.pos) {
			return damagedf("key %x of a directory entry", key)
		}
		return d.noteSubvolume(at, old, now)
	}
	return nil
}

func (d *differ) touch(object uint64) *touched {
	t := d.touched[object]
	if t == nil {
		t = &touched{}
		d.touched[object] = t
	}
	return t
}

// noteSubvolume remembers where a nested subvolume was, and is.
func (d *differ) noteSubvolume(at place, old, now []byte) error {
	for i, value := range [][]byte{old, now} {
		if value == nil {
			continue
		}
		e, err := unpackEntry(value)
		if err != nil {
			return err
		}
		if !e.subvol {
			continue
		}
		m := d.subvols[e.object]
		if m == nil {
			m = &moved{}
			d.subvols[e.object] = m
		}
		if i == 0 {
			m.old = append(m.old, at)
		} else {
			m.now = append(m.now, at)
		}
	}
	return nil
}

// object compares what an object was with what it is.
func (d *differ) object(object uint64, t *touched) error {
	was, oldNames, err := d.old.linked(object)
	if err != nil {
		return err
	}
	is, newNames, err := d.now.linked(object)
	if err != nil {
		return err
	}
	if was != nil && is != nil && (was.gen != is.gen || was.typ() != is.typ()) {
		// Another object has the number now.
		if err := d.names(Difference{Type: was.typ()}, oldNames, nil); err != nil {
			return err
		}
		return d.names(Difference{Type: is.typ()}, nil, newNames)
	}
	switch {
	case was == nil && is == nil:
		return nil
	case is == nil:
		return d.names(Difference{Type: was.typ()}, oldNames, nil)
	case was == nil:
		return d.names(Difference{Type: is.typ()}, nil, newNames)
	}
	c := Difference{
		Type: is.typ(), Content: t.records || t.entries || !is.isDir() && was.size != is.size,
		Mode: was.mode != is.mode || was.flags != is.flags, Owner: was.uid != is.uid || was.gid != is.gid,
		Times: was.mtime != is.mtime, Xattrs: t.xattrs, Links: !is.isDir() && was.nlink != is.nlink,
	}
	return d.names(c, oldNames, newNames)
}

// names lists what became of the names of an object.
func (d *differ) names(c Difference, old, now []place) error {
	var both, gone, fresh []string
	for _, at := range old {
		path, err := d.old.path(at)
		if err != nil {
			return err
		}
		if slices.Contains(now, at) {
			// The same entry, whatever the directories above it are called now.
			if path, err = d.now.path(at); err != nil {
				return err
			}
			both = append(both, path)
			continue
		}
		gone = append(gone, path)
	}
	for _, at := range now {
		if slices.Contains(old, at) {
			continue
		}
		path, err := d.now.path(at)
		if err != nil {
			return err
		}
		fresh = append(fresh, path)
	}
	slices.Sort(both)
	slices.Sort(gone)
	slices.Sort(fresh)
	changed := c.Content || c.Mode || c.Owner || c.Times || c.Xattrs || c.Links
	add := func(k DiffKind, path, oldPath string) {
		one := Difference{Kind: k, Path: path, OldPath: oldPath, Type: c.Type}
		if changed && k != Removed {
			one = c
			one.Kind, one.Path, one.OldPath = k, path, oldPath
			changed = false
		}
		d.list = append(d.list, one)
	}
	if len(both) > 0 && changed {
		add(Changed, both[0], "")
	}
	for len(gone) > 0 && len(fresh) > 0 {
		add(Renamed, fresh[0], gone[0])
		gone, fresh = gone[1:], fresh[1:]
	}
	for _, path := range fresh {
		add(Added, path, "")
	}
	for _, path := range gone {
		add(Removed, path, "")
	}
	return nil
}

// A pathFinder finds the paths of objects of one tree.
type pathFinder struct {
	v    *view
	dirs map[uint64]string // directories whose path is known
}

func (f *pathFinder) init(t Tree) {
	f.v = &view{tree: t, size: int64(t.RecordSize())}
	f.dirs = map[uint64]string{rootObject: ""}
}

// linked returns the inode of an object and its names, nil if it has none there.
func (f *pathFinder) linked(object uint64) (*inode, []place, error) {
	b, err := f.v.tree.Item(inodeKey(object))
	if err != nil {
		return nil, nil, failed("compare", object, err)
	}
	if b == nil {
		return nil, nil, nil
	}
	in, err := unpackInode(b)
	if err != nil {
		return nil, nil, failed("compare", object, err)
	}
	if in.nlink == 0 {
		return nil, nil, nil
	}
	names := []place{{in.parent, in.pos}}
	if object == rootObject {
		names[0] = place{}
	}
	if in.isDir() || in.nlink == 1 {
		return &in, names, nil
	}
	err = f.v.items(linkKey(object, 0, 0), linkKey(object+1, 0, 0), func(key, _ []byte) (bool, error) {
		var o uint64
		var at place
		if !keyNumbers(key, &o, &at.dir, &at.pos) {
			return false, damagedf("key %x of a link", key)
		}
		names = append(names, at)
		return true, nil
	})
	if err != nil {
		return nil, nil, failed("compare", object, err)
	}
	return &in, names, nil
}

// path returns the path of a name. The zero place is that of the root.
func (f *pathFinder) path(at place) (string, error) {
	if at == (place{}) {
		return "", nil
	}
	// The way up to a directory whose path is known, and down again.
	var way []place
	var names []string
	for at, c := at, (cycle{}); ; {
		if c.closed(at.dir) {
			return "", failed("find the path", at.dir, damagedf("there is none"))
		}
		way = append(way, at)
		b, err := f.v.tree.Item(entryKey(at.dir, at.pos))
		if err == nil && b == nil {
			err = damagedf("no entry at position %d", at.pos)
		}
		var e entry
		if err == nil {
			e, err = unpackEntry(b)
		}
		if err != nil {
			return "", failed("find the path", at.dir, err)
		}
		names = append(names, e.name)
		if _, ok := f.dirs[at.dir]; ok {
			break
		}
		in, err := f.v.readInode(at.dir)
		if err != nil {
			return "", err
		}
		at = place{in.parent, in.pos}
	}
	path := ""
	for i := len(way) - 1; i >= 0; i-- {
		if i < len(way)-1 {
			f.dirs[way[i].dir] = path
		}
		path = join(f.dirs[way[i].dir], names[i])
	}
	return path, nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
