package tree

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// madeAs says what a path of the target is by now.
type madeAs uint8

const (
	isThrough   madeAs = iota + 1 // a directory that entries lie below, and that had none itself yet
	isDirectory                   // one that had
	isFile
)

// An applier is an archive being applied.
type applier struct {
	root   layer.Dir
	format Format
	marks  marks
	below  func() (*View, error)
	view   *View // what below gave
	done   Applied

	made  map[string]madeAs
	gone  map[string]bool       // names that the archive deletes
	times map[string]layer.Time // of directories, set when all else is done
	way   []step                // from the root to the directory of the last entry
	buf   []byte
}

// A step is one directory of the way.
type step struct {
	name string
	dir  layer.Dir
}

func newApplier(t Target) (*applier, error) {
	a := &applier{
		root: t.Root, format: t.Format, below: t.Below, made: map[string]madeAs{".": isThrough},
		gone: map[string]bool{}, times: map[string]layer.Time{}, buf: make([]byte, 1<<20),
	}
	a.marks = a.format.marks(a)
	return a, a.keepTime(".", t.Root)
}

func (a *applier) close() {
	a.leave(0)
	if a.view != nil {
		a.view.Close()
	}
}

// leave goes back to the first n directories of the way.
func (a *applier) leave(n int) {
	for _, s := range a.way[n:] {
		s.dir.Close()
	}
	a.way = a.way[:n]
}

// parent opens the directory that a path lies in, and makes those on the way
// that are missing. The directory is the applier's.
func (a *applier) parent(p string) (layer.Dir, string, error) {
	dir, name := path.Split(p)
	if err := layer.CheckName(name); err != nil {
		return nil, "", refuse("%v", err)
	}
	d, err := a.enter(strings.TrimSuffix(dir, "/"))
	return d, name, err
}

// enter opens a directory by its path, "" and "." being the root. Archives list
// one directory after the other, so most of the way is still open.
func (a *applier) enter(dir string) (layer.Dir, error) {
	if dir == "" || dir == "." {
		a.leave(0)
		return a.root, nil
	}
	names := strings.Split(dir, "/")
	same := 0
	for same < len(a.way) && same < len(names) && a.way[same].name == names[same] {
		same++
	}
	a.leave(same)
	for i := same; i < len(names); i++ {
		at := a.root
		if i > 0 {
			at = a.way[i-1].dir
		}
		d, err := a.through(at, strings.Join(names[:i+1], "/"), names[i])
		if err != nil {
			return nil, err
		}
		a.way = append(a.way, step{names[i], d})
	}
	return a.way[len(a.way)-1].dir, nil
}

// through opens one directory on the way to an entry. One that is missing gets
// the attributes that it has in the layers below.
func (a *applier) through(at layer.Dir, p, name string) (layer.Dir, error) {
	if err := layer.CheckName(name); err != nil {
		return nil, refuse("%v", err)
	}
	d, err := at.OpenDir(name)
	switch {
	case err == unix.ENOTDIR || err == unix.ELOOP:
		if !a.gone[p] {
			return nil, refuse("%s is no directory", p)
		}
		fallthrough
	case err == unix.ENOENT:
		if d, err = a.implied(at, p, name); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	if a.made[p] == 0 {
		a.made[p] = isThrough
	}
	if _, known := a.times[p]; !known {
		err = a.keepTime(p, d)
	}
	if err != nil {
		d.Close()
	}
	return d, err
}

// implied makes a directory that the archive does not list.
func (a *applier) implied(at layer.Dir, p, name string) (layer.Dir, error) {
	lower, err := a.find(p)
	if err != nil {
		return nil, err
	}
	defer lower.Close()
	if lower != nil && !lower.Stat.IsDir() && !a.gone[p] {
		return nil, refuse("%s is no directory in the layers below", p)
	}
	d, err := a.makeDir(at, p, name)
	if err != nil || lower == nil || !lower.Stat.IsDir() || a.gone[p] {
		return d, err
	}
	if err := copyAttributes(lower, d); err != nil {
		d.Close()
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	return d, nil
}

// find returns what the layers below have at a path, nil for nothing.
func (a *applier) find(p string) (*Node, error) {
	if a.below == nil {
		return nil, nil
	}
	if a.view == nil {
		v, err := a.below()
		if err != nil {
			return nil, err
		}
		a.view = v
	}
	n, err := a.view.Find(p)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	return n, err
}

// makeDir makes a directory, or opens the one that is there. What it replaces
// by the archive's own word is hidden.
func (a *applier) makeDir(at layer.Dir, p, name string) (layer.Dir, error) {
	if st, err := at.StatAt(name); err == nil && st.IsDir() {
		return at.OpenDir(name)
	}
	if err := a.clear(at, p, name, func() error { return at.Mkdir(name, 0o755) }); err != nil {
		return nil, err
	}
	d, err := at.OpenDir(name)
	if err != nil || !a.gone[p] {
		return d, err
	}
	if err := a.marks.opaque(d, p); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// clear makes something under a name that may be taken by what the archive
// replaces: a whiteout of its own, or a file of the parent's tree.
func (a *applier) clear(dir layer.Dir, p, name string, make func() error) error {
	if a.gone[p] {
		if err := a.marks.restore(dir, name); err != nil {
			return err
		}
	}
	err := make()
	if err != unix.EEXIST {
		return err
	}
	if a.format != Full {
		return refuse("the name comes twice")
	}
	if err := removeAll(dir, name); err != nil {
		return err
	}
	return make()
}

// delete deletes a name of the layers below.
func (a *applier) delete(p string) error {
	if p == "." {
		return refuse("a whiteout of the root")
	}
	dir, name, err := a.parent(p)
	if err != nil {
		return err
	}
	if a.gone[p] {
		return nil
	}
	a.gone[p] = true
	switch a.made[p] {
	case 0:
		return a.marks.delete(dir, name)
	case isFile:
		return nil // the archive's own has taken its place
	}
	d, err := dir.OpenDir(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return a.marks.opaque(d, p)
}

// opaque hides what the layers below have in a directory.
func (a *applier) opaque(p string) error {
	d, err := a.enter(p)
	if err != nil {
		return err
	}
	return a.marks.opaque(d, p)
}

// keepTime remembers when a directory changed last, as making entries in it
// changes that.
func (a *applier) keepTime(p string, d layer.Dir) error {
	st, err := d.Stat()
	a.times[p] = st.Mtime
	return err
}

// settleTimes sets the times of directories, the inner ones first.
func (a *applier) settleTimes() error {
	dirs := make([]string, 0, len(a.times))
	for p := range a.times {
		dirs = append(dirs, p)
	}
	slices.Sort(dirs)
	slices.Reverse(dirs)
	for _, p := range dirs {
		d, err := a.enter(p)
		if err == nil {
			err = d.SetTimes(a.times[p], a.times[p])
		}
		if err != nil {
			return fmt.Errorf("time of %s: %w", p, err)
		}
	}
	return nil
}
