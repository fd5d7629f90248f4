package inspect

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
)

// Fix carries out the repairs of findings that have one, in a layer that nobody
// has mounted. Each is one system call, and removes what no reader heeds, so
// it can be cut short anywhere. Times of directories stay. It returns how many
// were done.
func Fix(root, work layer.Dir, findings []Finding) (done int, err error) {
	var failed []error
	for i := range findings {
		f := &findings[i]
		if f.Repair == "" {
			continue
		}
		from := root
		if f.work {
			from = work
		}
		if err := f.repair(from); err != nil {
			failed = append(failed, fmt.Errorf("%s /%s: %w", f.Repair, f.path, err))
			continue
		}
		done++
	}
	return done, errors.Join(failed...)
}

func (f *Finding) repair(root layer.Dir) error {
	if f.xattr != "" {
		return withObject(root, f.path, func(o layer.Object) error { return o.Removexattr(f.xattr) })
	}
	return withDir(root, parentOf(f.path), func(d layer.Dir) error {
		st, err := d.Stat()
		if err != nil {
			return err
		}
		if err := removeAll(d, f.name, f.work); err != nil {
			return err
		}
		// A wrong time would be no harm that is worth failing for.
		_ = d.SetTimes(st.Atime, st.Mtime)
		return nil
	})
}

// removeAll removes an entry, directories too if deep.
func removeAll(d layer.Dir, name string, deep bool) error {
	err := d.Unlink(name)
	if err != unix.EISDIR || !deep {
		return err
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	list, err := sub.ReadDir()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := removeAll(sub, e.Name, true); err != nil {
			return err
		}
	}
	return d.Rmdir(name)
}

// withDir opens a directory of a layer by its path.
func withDir(root layer.Dir, path string, use func(layer.Dir) error) error {
	d := root
	for _, name := range splitPath(path) {
		sub, err := d.OpenDir(name)
		if d != root {
			d.Close()
		}
		if err != nil {
			return err
		}
		d = sub
	}
	if d != root {
		defer d.Close()
	}
	return use(d)
}

func withObject(root layer.Dir, path string, use func(layer.Object) error) error {
	if path == "" {
		return use(root)
	}
	return withDir(root, parentOf(path), func(d layer.Dir) error {
		o, err := d.Lookup(path[len(parentOf(path)):][min(1, len(parentOf(path))):])
		if err != nil {
			return err
		}
		defer o.Close()
		return use(o)
	})
}
