package union_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// tree is a union that is used by paths, as a program does.
type tree struct {
	*union.FS
	held []*union.Node // nodes that the kernel would remember
	self uint32        // who uses it when nobody else is named
}

// walk calls use with the node of a path.
func (u *tree) walk(path string, use func(*union.Node) error) error {
	n := u.Root()
	var refs []*union.Node
	defer func() {
		for i := len(refs) - 1; i >= 0; i-- {
			u.Forget(refs[i], 1)
		}
	}()
	for _, name := range strings.FieldsFunc(path, func(r rune) bool { return r == '/' }) {
		var err error
		if n, _, err = u.Lookup(n, name); err != nil {
			return err
		}
		refs = append(refs, n)
	}
	return use(n)
}

// in calls use with the directory of a path and the last name.
func (u *tree) in(path string, use func(dir *union.Node, name string) error) error {
	dir, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	return u.walk(dir, func(n *union.Node) error { return use(n, name) })
}

// hold looks up everything and remembers it, as a kernel with a large cache
// does: what follows finds its nodes in memory.
func (u *tree) hold(t *testing.T) {
	t.Helper()
	if err := u.remember(); err != nil {
		t.Fatal(err)
	}
}

// remember is hold; what cannot be looked up is left out and told.
func (u *tree) remember() error {
	var errs []error
	var down func(*union.Node)
	down = func(dir *union.Node) {
		var names []string
		err := u.ReadDir(dir, 0, func(l union.Listed) bool { names = append(names, l.Name); return true })
		errs = append(errs, err)
		for _, name := range names {
			n, _, err := u.Lookup(dir, name)
			if err != nil {
				errs = append(errs, fmt.Errorf("look up %q: %w", name, err))
				continue
			}
			u.held = append(u.held, n)
			if n.IsDir() {
				down(n)
			}
		}
	}
	down(u.Root())
	return errors.Join(errs...)
}

// unmount forgets what is remembered and closes the union; it fails if nodes or
// handles are left.
func (u *tree) unmount(t *testing.T, d disks) {
	t.Helper()
	for i := len(u.held) - 1; i >= 0; i-- {
		u.Forget(u.held[i], 1)
	}
	if n := u.Nodes(); n != 1 {
		t.Errorf("%d nodes are left when all are forgotten, want the root only", n)
	}
	if err := u.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	d.each(func(fs *memlayer.FS) {
		if open := fs.Open(); len(open) > 0 {
			t.Errorf("handles are left open: %q", open)
		}
	})
}

// The changes that scenarios are made of.

func seq(ops ...op) op {
	return func(u *tree) error {
		for _, o := range ops {
			if err := o(u); err != nil {
				return err
			}
		}
		return nil
	}
}

func at(path string, use func(*tree, *union.Node) error) op {
	return func(u *tree) error {
		return u.walk(path, func(n *union.Node) error { return use(u, n) })
	}
}

func setattr(path string, c union.Change) op {
	return at(path, func(u *tree, n *union.Node) error { _, err := u.SetAttr(n, c); return err })
}

func chmod(path string, mode uint32) op { return setattr(path, union.Change{Mode: &mode}) }

func chown(path string, uid uint32) op { return setattr(path, union.Change{UID: &uid}) }

func truncate(path string, size int64) op { return setattr(path, union.Change{Size: &size}) }

func touch(path string, sec int64) op {
	return setattr(path, union.Change{Atime: &layer.Time{Sec: sec}, Mtime: &layer.Time{Sec: sec}})
}

func write(path, text string, off int64) op {
	return at(path, func(u *tree, n *union.Node) error {
		k, err := u.Write(n, []byte(text), off, true)
		if err == nil && k != len(text) {
			return fmt.Errorf("%d bytes written of %d: %w", k, len(text), unix.ENOSPC)
		}
		return err
	})
}

func fsync(path string) op {
	return at(path, func(u *tree, n *union.Node) error { return u.Fsync(n, false) })
}

func setxattr(path, attr, value string) op {
	return at(path, func(u *tree, n *union.Node) error { return u.Setxattr(n, attr, []byte(value), 0, false) })
}

func removexattr(path, attr string) op {
	return at(path, func(u *tree, n *union.Node) error { return u.Removexattr(n, attr) })
}

func link(from, to string) op {
	return at(from, func(u *tree, n *union.Node) error {
		return u.in(to, func(dir *union.Node, name string) error { return u.link(n, dir, name) })
	})
}

func (u *tree) link(n, dir *union.Node, name string) error {
	_, err := u.Link(n, dir, name)
	if err == nil {
		u.Forget(n, 1)
	}
	return err
}

func rename(from, to string, flags uint) op {
	return func(u *tree) error {
		return u.in(from, func(od *union.Node, oname string) error {
			return u.in(to, func(nd *union.Node, nname string) error { return u.Rename(od, oname, nd, nname, flags) })
		})
	}
}

func unlink(path string) op {
	return func(u *tree) error { return u.in(path, u.Unlink) }
}

func rmdir(path string) op {
	return func(u *tree) error { return u.in(path, u.Rmdir) }
}

// made gives back the reference that comes with a new object.
func made(u *tree, n *union.Node, err error) error {
	if err == nil {
		u.Forget(n, 1)
	}
	return err
}

// caller is who makes something, 0 being whoever mounted.
func (u *tree) caller(by uint32) union.Caller {
	if by == 0 {
		by = u.self
	}
	return union.Caller{UID: by, GID: by, Umask: 0o022}
}

func create(path string, mode uint32, by uint32) op {
	return func(u *tree) error {
		return u.in(path, func(dir *union.Node, name string) error {
			n, _, err := u.Create(dir, name, mode, u.caller(by))
			return made(u, n, err)
		})
	}
}

func mkdir(path string, mode uint32, by uint32) op {
	return func(u *tree) error {
		return u.in(path, func(dir *union.Node, name string) error {
			n, _, err := u.Mkdir(dir, name, mode, u.caller(by))
			return made(u, n, err)
		})
	}
}

func mknod(path string, mode uint32, rdev uint64, by uint32) op {
	return func(u *tree) error {
		return u.in(path, func(dir *union.Node, name string) error {
			n, _, err := u.Mknod(dir, name, mode, rdev, u.caller(by))
			return made(u, n, err)
		})
	}
}

func symlink(target, path string, by uint32) op {
	return func(u *tree) error {
		return u.in(path, func(dir *union.Node, name string) error {
			n, _, err := u.Symlink(dir, name, target, u.caller(by))
			return made(u, n, err)
		})
	}
}

func tmpfile(to, text string) op {
	return func(u *tree) error {
		return u.in(to, func(dir *union.Node, name string) error {
			n, _, err := u.Tmpfile(dir, 0o644, union.Caller{UID: 1000, GID: 1000})
			if err != nil {
				return err
			}
			defer u.Forget(n, 1)
			if _, err := u.Write(n, []byte(text), 0, false); err != nil {
				return err
			}
			if err := u.Fsync(n, false); err != nil {
				return err
			}
			return u.link(n, dir, name)
		})
	}
}

// errnoOf returns the errno inside of err, 0 where there is none.
func errnoOf(err error) unix.Errno {
	var e unix.Errno
	errors.As(err, &e)
	return e
}
