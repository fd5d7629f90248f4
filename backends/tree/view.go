package tree

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// A View is what a stack of directories shows.
type View struct {
	fs *union.FS
}

// A Branch is one directory of a stack.
type Branch struct {
	Name string // for messages
	Root layer.Dir
}

// NewView merges directories, the top first, and owns them from then on, also
// when it fails.
func NewView(branches []Branch) (*View, error) {
	cfg := union.Config{Options: union.Options{MaxHandles: 512}}
	for _, b := range branches {
		cfg.Lowers = append(cfg.Lowers, union.Branch{Name: b.Name, Root: b.Root})
	}
	fs, err := union.New(cfg)
	if err != nil {
		return nil, err
	}
	return &View{fs}, nil
}

// Close gives all descriptors back. No node may be in use.
func (v *View) Close() error { return v.fs.Close() }

// Root returns the directory of all.
func (v *View) Root() (*Node, error) {
	st, err := v.fs.GetAttr(v.fs.Root())
	if err != nil {
		return nil, err
	}
	return &Node{fs: v.fs, n: v.fs.Root(), Stat: st}, nil
}

// Find returns what is at a path without following links; "." is the root.
// ENOENT tells that there is nothing, ENOTDIR that something on the way is no
// directory.
func (v *View) Find(path string) (*Node, error) {
	n, err := v.Root()
	if err != nil || path == "." || path == "" {
		return n, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := n.Child(name)
		n.Close()
		if err != nil {
			return nil, err
		}
		n = next
	}
	return n, nil
}

// A Node is one file of a view, whatever its type.
type Node struct {
	Stat layer.Stat // when it was found

	fs *union.FS
	n  *union.Node
}

// Close gives the node back.
func (n *Node) Close() {
	if n != nil {
		n.fs.Forget(n.n, 1)
	}
}

// Child returns an entry of a directory.
func (n *Node) Child(name string) (*Node, error) {
	c, st, err := n.fs.Lookup(n.n, name)
	if err != nil {
		return nil, err
	}
	return &Node{fs: n.fs, n: c, Stat: st}, nil
}

// childIf is Child, nil when there is none. Nothing is in what is no directory.
func (n *Node) childIf(name string) (*Node, error) {
	if n == nil || !n.Stat.IsDir() {
		return nil, nil
	}
	c, err := n.Child(name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return c, err
}

// Names returns what a directory holds, sorted.
func (n *Node) Names() ([]string, error) {
	if n == nil || !n.Stat.IsDir() {
		return nil, nil
	}
	var names []string
	err := n.fs.ReadDir(n.n, 0, func(e union.Listed) bool {
		names = append(names, e.Name)
		return true
	})
	slices.Sort(names)
	return names, err
}

// Readlink returns the target of a symbolic link.
func (n *Node) Readlink() (string, error) { return n.fs.Readlink(n.n) }

// ReadAt reads a regular file like pread(2): less than asked for is the end.
func (n *Node) ReadAt(p []byte, off int64) (int, error) { return n.fs.Read(n.n, p, off) }

// xattrMax is the longest value, and the longest list (linux/limits.h).
const xattrMax = 65536

// Xattrs returns the extended attributes by name, those of SELinux left out: a
// label belongs to the machine. Nil when there are none.
func (n *Node) Xattrs() (map[string]string, error) {
	size, err := n.fs.Listxattr(n.n, nil)
	if err == unix.EOPNOTSUPP || err == nil && size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list xattrs: %w", err)
	}
	buf := make([]byte, xattrMax)
	if size, err = n.fs.Listxattr(n.n, buf); err != nil {
		return nil, fmt.Errorf("list xattrs: %w", err)
	}
	var attrs map[string]string
	for attr := range strings.SplitSeq(strings.TrimSuffix(string(buf[:size]), "\x00"), "\x00") {
		if attr == "" || attr == "security.selinux" {
			continue
		}
		k, err := n.fs.Getxattr(n.n, attr, buf)
		if err == unix.ENODATA {
			continue // gone in between
		}
		if err != nil {
			return nil, fmt.Errorf("xattr %s: %w", attr, err)
		}
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs[attr] = string(buf[:k])
	}
	return attrs, nil
}
