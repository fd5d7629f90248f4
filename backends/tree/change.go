package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/whiteout"
)

// A Kind says what became of a name.
type Kind string

// The kinds, by the letters that docker diff prints.
const (
	Added    Kind = "A"
	Modified Kind = "C"
	Deleted  Kind = "D"
)

// A Change is a name that two trees differ in.
type Change struct {
	Path string `json:"path"` // without a leading slash; "." is the root
	Kind Kind   `json:"kind"`
	// Node is what is there now, until the callback returns; nil when deleted, and
	// where the trees were compared in another process.
	Node *Node `json:"-"`
	// Link is another name of the same file which has not changed; see
	// [CompareOptions].SharedInodes.
	Link string `json:"link,omitempty"`
}

// CompareOptions say what may be taken for granted.
type CompareOptions struct {
	// Upper is the topmost directory of the new view, when the rest of that
	// view is the old one: only names that it holds can differ.
	Upper layer.Dir
	// Names, when it is not nil, are the paths that alone can differ, "" or "." being
	// the root; besides what lies below a directory that is another inode than the one
	// that had its name before. Both views must be of trees in which an object keeps
	// its inode number.
	Names []string
	// Since tells when the new tree was made as a copy of the old one. A file
	// whose attributes are equal and whose inode did not change after that has
	// the same content. Zero: the content of files with equal attributes is
	// compared.
	Since time.Time
	// SharedInodes tells that both views are trees of one directory each that may
	// have files in common: the same inode is the same file.
	SharedInodes bool
}

// Compare calls f for each name that differs, sorted, directories before what
// they hold. With old being nil all is added. A whole directory that is gone is
// one change; one that is new is one for each file.
//
// A directory is modified when its attributes are, the time of its last change
// among them, which has it before each name that was added to it or removed. A
// file is modified too when it was given another name, so that an archive can say
// that both are one.
func Compare(ctx context.Context, old, new *View, o CompareOptions, f func(Change) error) error {
	n, err := new.Root()
	if err != nil {
		return err
	}
	c := comparer{ctx: ctx, since: o.Since, shared: o.SharedInodes, emit: f, old: old, new: new}
	if old == nil {
		return c.added(".", n)
	}
	before, err := old.Root()
	if err != nil {
		return err
	}
	// The time alone would have the root in every layer.
	shown := n.Stat
	shown.Mtime = before.Stat.Mtime
	same, err := c.sameAttrs(before, &Node{fs: n.fs, n: n.n, Stat: shown})
	if err != nil {
		return err
	}
	if !same {
		if err := f(Change{Path: ".", Kind: Modified, Node: n}); err != nil {
			return err
		}
	}
	if o.Names != nil {
		return c.some(".", before, n, nameTree(o.Names))
	}
	return c.children(".", before, n, o.Upper)
}

type comparer struct {
	ctx    context.Context
	since  time.Time
	shared bool
	emit   func(Change) error

	old, new *View
	names    map[inode]string // of the old tree's files, once somebody asked
}

// tell tells of what is there, and in trees that have files in common whether it
// is only another name.
func (c *comparer) tell(p string, kind Kind, n *Node) error {
	link := ""
	if c.shared && c.old != nil && n.Stat.Nlink > 1 && !n.Stat.IsDir() {
		var err error
		if link, err = c.unchanged(n); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return c.emit(Change{Path: p, Kind: kind, Node: n, Link: link})
}

// unchanged returns a name that a file has in both trees, "" for none.
func (c *comparer) unchanged(n *Node) (string, error) {
	if c.names == nil {
		c.names = map[inode]string{}
		root, err := c.old.Root()
		if err != nil {
			return "", err
		}
		if err := c.collect(".", root); err != nil {
			return "", err
		}
	}
	name, ok := c.names[inode{n.Stat.Dev, n.Stat.Ino}]
	if !ok {
		return "", nil
	}
	now, err := c.new.Find(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer now.Close()
	if now.Stat.Ino != n.Stat.Ino || now.Stat.Dev != n.Stat.Dev {
		return "", nil
	}
	return name, nil
}

func (c *comparer) collect(p string, dir *Node) error {
	names, err := dir.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := dir.Child(name)
		if err != nil {
			return err
		}
		if n.Stat.IsDir() {
			err = c.collect(join(p, name), n)
		} else {
			c.names[inode{n.Stat.Dev, n.Stat.Ino}] = join(p, name)
		}
		n.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// children compares the entries of two directories; raw, when it is not nil,
// holds all that can differ.
func (c *comparer) children(dir string, old, new *Node, raw layer.Dir) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	names, err := candidates(old, new, raw)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, name := range names {
		within := func(p string, old, new *Node) error { return c.within(p, name, old, new, raw) }
		if err := c.entry(join(dir, name), name, old, new, raw != nil, within); err != nil {
			return err
		}
	}
	return nil
}

// candidates lists the names that may differ, sorted.
func candidates(old, new *Node, raw layer.Dir) ([]string, error) {
	var names []string
	if raw != nil {
		list, err := raw.ReadDir()
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			name := e.Name
			switch mark, target := whiteout.ParseAufsName(name); mark {
			case whiteout.NotMark:
			case whiteout.Whiteout:
				name = target
			default:
				continue
			}
			names = append(names, name)
		}
	} else {
		for _, n := range []*Node{old, new} {
			list, err := n.Names()
			if err != nil {
				return nil, err
			}
			names = append(names, list...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// entry compares what two directories have under a name; upper tells that all of it
// which differs is in one directory, and within compares two directories further.
func (c *comparer) entry(p, name string, oldDir, newDir *Node, upper bool, within func(p string, old, new *Node) error) error {
	old, err := oldDir.childIf(name)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	defer old.Close()
	new, err := newDir.childIf(name)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	defer new.Close()
	switch {
	case new == nil && old == nil:
		return nil
	case new == nil:
		return c.emit(Change{Path: p, Kind: Deleted})
	case old == nil:
		return c.added(p, new)
	case new.Stat.IsDir() && !old.Stat.IsDir():
		return c.replaced(p, new)
	}
	same, err := c.same(old, new)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	if upper && !new.Stat.IsDir() && new.Stat.Nlink > 1 {
		same = false // its other names are the upper's too, and an archive must say so
	}
	if !same {
		if err := c.tell(p, Modified, new); err != nil {
			return err
		}
	}
	if !new.Stat.IsDir() {
		return nil
	}
	return within(p, old, new)
}

// within compares two directories of one name. The upper one holds all that
// differs unless it hides the lower ones or came from another place.
func (c *comparer) within(p, name string, old, new *Node, raw layer.Dir) error {
	if raw == nil {
		return c.children(p, old, new, nil)
	}
	sub, err := raw.OpenDir(name)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return nil // a mark of this name, which does not count here
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	defer sub.Close()
	apart, err := standsApart(sub)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", p, err)
	case apart:
		return c.children(p, old, new, nil)
	}
	return c.children(p, old, new, sub)
}

// standsApart reports whether a directory of an upper may show something else
// than what lies in it and what the lowers have at its path.
func standsApart(d layer.Dir) (bool, error) {
	for _, attr := range []string{
		whiteout.Trusted.Opaque(), whiteout.User.Opaque(),
		whiteout.Trusted.Redirect(), whiteout.User.Redirect(), whiteout.FuseOverlayfsOpaqueXattrs[0],
	} {
		_, err := d.Getxattr(attr, nil)
		if err == nil {
			return true, nil
		}
		if err != unix.ENODATA && err != unix.EOPNOTSUPP && err != unix.EPERM {
			return false, err
		}
	}
	_, err := d.StatAt(whiteout.AufsOpaque)
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// added tells of a file and all that is in it.
func (c *comparer) added(p string, n *Node) error { return c.whole(p, n, Added) }

// replaced tells of a directory where there was something else.
func (c *comparer) replaced(p string, n *Node) error { return c.whole(p, n, Modified) }

func (c *comparer) whole(p string, n *Node, kind Kind) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if err := c.tell(p, kind, n); err != nil {
		return err
	}
	names, err := n.Names()
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	for _, name := range names {
		child, err := n.Child(name)
		if err != nil {
			return fmt.Errorf("%s: %w", path.Join(p, name), err)
		}
		err = c.whole(join(p, name), child, Added)
		child.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// same reports whether two files are equal in all that an archive would carry.
func (c *comparer) same(old, new *Node) (bool, error) {
	if c.shared && !new.Stat.IsDir() && old.Stat.Ino == new.Stat.Ino && old.Stat.Dev == new.Stat.Dev {
		return true, nil
	}
	same, err := c.sameAttrs(old, new)
	if err != nil || !same {
		return false, err
	}
	switch new.Stat.Type() {
	case unix.S_IFLNK:
		a, err := old.Readlink()
		if err != nil {
			return false, err
		}
		b, err := new.Readlink()
		return a == b, err
	case unix.S_IFREG:
		if !c.since.IsZero() && time.Unix(new.Stat.Ctime.Sec, int64(new.Stat.Ctime.Nsec)).Before(c.since) {
			return true, nil
		}
		return sameData(old, new)
	}
	return true, nil
}

func (c *comparer) sameAttrs(old, new *Node) (bool, error) {
	a, b := &old.Stat, &new.Stat
	if a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Mtime != b.Mtime {
		return false, nil
	}
	if !a.IsDir() && (a.Size != b.Size || a.Rdev != b.Rdev || a.Nlink != b.Nlink) {
		return false, nil
	}
	x, err := old.Xattrs()
	if err != nil {
		return false, err
	}
	y, err := new.Xattrs()
	return maps.Equal(x, y), err
}

func sameData(old, new *Node) (bool, error) {
	a, b := make([]byte, 128<<10), make([]byte, 128<<10)
	for off := int64(0); ; {
		n, err := old.ReadAt(a, off)
		if err != nil {
			return false, err
		}
		m, err := new.ReadAt(b, off)
		if err != nil || !bytes.Equal(a[:n], b[:m]) {
			return false, err
		}
		if n < len(a) {
			return true, nil
		}
		off += int64(n)
	}
}
