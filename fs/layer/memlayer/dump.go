package memlayer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/laminafs/lamina/fs/layer"
	"golang.org/x/sys/unix"
)

// dumpLimit is the longest content that Dump shows; of longer ones it gives a
// hash, which Build does not take.
const dumpLimit = 4096

// Dump describes the tree below d: names, types, modes, owners, sizes,
// contents, targets, devices, xattrs and which names are one file. Times, inode
// numbers and holes are left out. Equal trees have equal texts, and Build
// makes the tree again.
func Dump(d layer.Dir) (string, error) {
	dump := dumper{seen: make(map[uint64]string)}
	if err := dump.object(d, "/", nil); err != nil {
		return "", err
	}
	if err := dump.children(d, ""); err != nil {
		return "", err
	}
	return dump.out.String(), nil
}

// Dump is [Dump] of the root, not seen by OnCall. It needs a caller who may
// read everything, and panics otherwise.
func (fs *FS) Dump() string {
	d := fs.quietRoot()
	defer d.Close()
	text, err := Dump(d)
	if err != nil {
		panic(err)
	}
	return text
}

type dumper struct {
	out  strings.Builder
	seen map[uint64]string // first name of files with several
}

func (d *dumper) children(dir layer.Dir, path string) error {
	entries, err := dir.ReadDir()
	if err != nil {
		return fmt.Errorf("read directory /%s: %w", path, err)
	}
	slices.SortFunc(entries, func(a, b layer.Dirent) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range entries {
		if err := d.child(dir, path+e.Name, e.Name); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) child(dir layer.Dir, path, name string) error {
	obj, err := dir.Lookup(name)
	if err != nil {
		return fmt.Errorf("open /%s: %w", path, err)
	}
	defer obj.Close()
	if err := d.object(obj, path, dir); err != nil {
		return fmt.Errorf("dump /%s: %w", path, err)
	}
	st, err := obj.Stat()
	if err != nil || !st.IsDir() {
		return err
	}
	sub, err := dir.OpenDir(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	return d.children(sub, path+"/")
}

func (d *dumper) object(obj layer.Object, path string, dir layer.Dir) error {
	st, err := obj.Stat()
	if err != nil {
		return err
	}
	fmt.Fprint(&d.out, word(path))
	if first, ok := d.seen[st.Ino]; ok {
		fmt.Fprintf(&d.out, " h %s\n", word(first))
		return nil
	}
	if !st.IsDir() && st.Nlink > 1 {
		d.seen[st.Ino] = path
	}
	letters := map[uint32]string{
		unix.S_IFDIR: "d", unix.S_IFREG: "f", unix.S_IFLNK: "l", unix.S_IFCHR: "c",
		unix.S_IFBLK: "b", unix.S_IFIFO: "p", unix.S_IFSOCK: "s",
	}
	fmt.Fprintf(&d.out, " %s", letters[st.Type()])
	if st.Type() == unix.S_IFLNK {
		target, err := obj.Readlink()
		if err != nil {
			return err
		}
		fmt.Fprintf(&d.out, " %s", word(target))
	} else {
		fmt.Fprintf(&d.out, " %04o", st.Mode&0o7777)
	}
	switch st.Type() {
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&d.out, " %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFREG:
		if err := d.content(obj, &st); err != nil {
			return err
		}
	}
	if st.UID != 0 || st.GID != 0 {
		fmt.Fprintf(&d.out, " uid=%d gid=%d", st.UID, st.GID)
	}
	if !st.IsDir() && st.Nlink != 1 {
		fmt.Fprintf(&d.out, " nlink=%d", st.Nlink)
	}
	if err := d.xattrs(obj); err != nil {
		return err
	}
	d.out.WriteByte('\n')
	return nil
}

func (d *dumper) content(obj layer.Object, st *layer.Stat) error {
	f, err := obj.Reopen(unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if st.Size == 0 {
		return nil
	}
	if st.Size <= dumpLimit {
		p := make([]byte, st.Size)
		n, err := f.ReadAt(p, 0)
		fmt.Fprintf(&d.out, " %s", strconv.Quote(string(p[:n])))
		return err
	}
	return d.hash(f, st.Size)
}

// hash describes a long file by the hash of its data and where it lies, zeros
// left out: a sparse file costs no more than its data.
func (d *dumper) hash(f layer.File, size int64) error {
	h := sha256.New()
	p := make([]byte, 64<<10)
	var zero [blockSize]byte
	for off := int64(0); off < size; {
		at, err := f.Seek(off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return err
		}
		off = at / blockSize * blockSize
		n, err := f.ReadAt(p, off)
		if err != nil {
			return err
		}
		for k := 0; k < n; k += blockSize {
			if b := p[k:min(n, k+blockSize)]; string(b) != string(zero[:len(b)]) {
				fmt.Fprintf(h, "%d:", off+int64(k))
				h.Write(b)
			}
		}
		off += int64(n)
	}
	fmt.Fprintf(&d.out, " size=%d hash=%x", size, h.Sum(nil)[:8])
	return nil
}

func (d *dumper) xattrs(obj layer.Object) error {
	names, err := getBytes(obj.Listxattr)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	list := strings.FieldsFunc(string(names), func(r rune) bool { return r == 0 })
	slices.Sort(list)
	for _, name := range list {
		v, err := getBytes(func(p []byte) (int, error) { return obj.Getxattr(name, p) })
		if err != nil {
			return fmt.Errorf("xattr %s: %w", name, err)
		}
		fmt.Fprintf(&d.out, " %s=%s", name, strconv.Quote(string(v)))
	}
	return nil
}

// getBytes calls what fills a buffer, with one that is long enough.
func getBytes(get func([]byte) (int, error)) ([]byte, error) {
	n, err := get(nil)
	if err != nil || n == 0 {
		return nil, err
	}
	p := make([]byte, n)
	n, err = get(p)
	return p[:max(n, 0)], err
}

// word writes what unquote reads; what could be taken for something else is quoted.
func word(s string) string {
	if q := strconv.Quote(s); s == "" || len(q) != len(s)+2 || strings.ContainsAny(s, " #=\"") {
		return q
	}
	return s
}
