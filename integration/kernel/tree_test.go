//go:build integration

package kernel

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A record is what a user can see of one name.
type record struct {
	fields map[string]string
	mtime  int64 // ns
	blocks int64
	ino    uint64
	isDir  bool
}

// A tree maps paths from the mountpoint, "" for itself, to their records.
type tree map[string]*record

// paths returns the names of a tree in order.
func (t tree) paths() []string {
	list := make([]string, 0, len(t))
	for p := range t {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

// inode tells which files are one; it is unique while a tree is looked at.
type inode struct{ dev, ino uint64 }

type treeReader struct {
	root   string
	tree   tree
	groups map[inode][]string
	probe  bool
}

// readTree looks at everything below root. With probe it also asks for names that
// are not listed.
func readTree(root string, probe bool) (tree, error) {
	t := &treeReader{root, tree{}, map[inode][]string{}, probe}
	if err := t.visit("", nil); err != nil {
		return nil, err
	}
	for _, group := range t.groups {
		slices.Sort(group)
		for _, p := range group {
			t.tree[p].fields["names"] = strings.Join(group, " = ")
		}
	}
	return t.tree, nil
}

// visit reads the object at rel, which entry, unless nil, has announced.
func (t *treeReader) visit(rel string, entry *dirEntry) error {
	name := filepath.Join(t.root, rel)
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return fmt.Errorf("lstat %q: %w", rel, err)
	}
	kind := st.Mode & unix.S_IFMT
	r := &record{fields: map[string]string{}, mtime: st.Mtim.Nano(), blocks: st.Blocks, ino: st.Ino, isDir: kind == unix.S_IFDIR}
	t.tree[rel] = r
	f := r.fields
	f["type"] = typeNames[kind]
	f["mode"] = fmt.Sprintf("%04o", st.Mode&0o7777)
	f["owner"] = fmt.Sprintf("%d:%d", st.Uid, st.Gid)
	f["xattrs"] = xattrs(name)
	if entry != nil && entry.ino != st.Ino {
		f["d_ino"] = "is not st_ino"
	}
	if entry != nil && uint32(entry.kind)<<12 != kind {
		f["d_type"] = fmt.Sprint(entry.kind)
	}
	if !r.isDir {
		f["nlink"] = fmt.Sprint(st.Nlink)
		key := inode{uint64(st.Dev), st.Ino}
		t.groups[key] = append(t.groups[key], rel)
	}
	switch kind {
	case unix.S_IFDIR:
		return t.visitAll(rel, f)
	case unix.S_IFREG:
		f["size"] = fmt.Sprint(st.Size)
		data, err := os.ReadFile(name)
		f["data"] = fmt.Sprintf("%.8x %v", md5.Sum(data), err)
	case unix.S_IFLNK:
		f["size"] = fmt.Sprint(st.Size)
		target, err := os.Readlink(name)
		f["target"] = fmt.Sprint(target, err)
	case unix.S_IFCHR, unix.S_IFBLK:
		f["rdev"] = fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	return nil
}

var typeNames = map[uint32]string{unix.S_IFDIR: "dir", unix.S_IFREG: "file", unix.S_IFLNK: "symlink", unix.S_IFIFO: "fifo",
	unix.S_IFSOCK: "socket", unix.S_IFCHR: "chr", unix.S_IFBLK: "blk"}

// visitAll reads the names of a directory.
func (t *treeReader) visitAll(rel string, f map[string]string) error {
	list, err := listDir(filepath.Join(t.root, rel))
	if err != nil {
		f["list"] = err.Error()
		return nil
	}
	seen := map[string]bool{}
	for _, e := range list {
		if seen[e.name] {
			f["twice"] += fmt.Sprintf("%q ", e.name)
			continue
		}
		seen[e.name] = true
		if err := t.visit(path.Join(rel, e.name), &e); err != nil {
			f["ghosts"] += fmt.Sprintln(err)
		}
	}
	for _, name := range allNames {
		if !t.probe || seen[name] {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(t.root, rel, name), &st); err != unix.ENOENT {
			f["unlisted"] += fmt.Sprintf("%q: %v ", name, err)
		}
	}
	return nil
}

// xattrs returns all extended attributes of an object as text.
func xattrs(name string) string {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(name, buf)
	if err != nil {
		return err.Error()
	}
	var list []string
	for key := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if key == "" {
			continue
		}
		value := make([]byte, 4096)
		m, err := unix.Lgetxattr(name, key, value)
		if err != nil {
			list = append(list, fmt.Sprintf("%s: %v", key, err))
			continue
		}
		list = append(list, fmt.Sprintf("%s=%q", key, value[:m]))
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

// A dirEntry is one entry as getdents64 returns it.
type dirEntry struct {
	name string
	ino  uint64
	kind byte
}

// listDir returns the entries of a directory without "." and "..".
func listDir(name string) ([]dirEntry, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return readEntries(fd, 32<<10)
}

// readEntries reads a directory from where it is to its end, with a buffer of
// that many bytes.
func readEntries(fd, size int) ([]dirEntry, error) {
	var all []dirEntry
	for {
		list, err := readSome(fd, size)
		if err != nil || list == nil {
			return all, err
		}
		for _, e := range list {
			if e.name != "." && e.name != ".." {
				all = append(all, e)
			}
		}
	}
}

// readSome returns what one getdents64 with a buffer of that size does, nil at
// the end.
func readSome(fd, size int) ([]dirEntry, error) {
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return nil, err
	}
	var list []dirEntry
	for b := buf[:n]; len(b) > 0; {
		length := binary.NativeEndian.Uint16(b[16:])
		name, _, _ := bytes.Cut(b[19:length], []byte{0})
		list = append(list, dirEntry{string(name), binary.NativeEndian.Uint64(b), b[18]})
		b = b[length:]
	}
	return list, nil
}
