//go:build integration

package kernel

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The vocabulary is small, so that layers and operations meet on the same names.
var (
	dirNames  = []string{"d0", "d1", "d2", "d3", "d4"}
	fileNames = []string{"f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"}
	oddNames  = []string{"s0", "x0", "a b", "u\u00e9", "c,d=e", `back\sl`, ".hid", "\xff\xfe"}
	longNames = []string{strings.Repeat("n", 200), strings.Repeat("L", 250), strings.Repeat("T", 256)} // the last one is too long
	allNames  = append(append(append([]string{}, dirNames...), fileNames...), oddNames...)
)

// A format is how a layer marks whiteouts and opaque directories.
type format string

const (
	formatOverlay format = "overlay" // char 0:0
	formatXattr   format = "xattr"   // empty files with an xattr, below directories marked "x"
	formatAufs    format = "aufs"    // .wh.NAME
)

// markPrefix is where overlayfs keeps its xattrs here.
func markPrefix() string {
	if rootless {
		return "user.overlay."
	}
	return "trusted.overlay."
}

// An object is one name of a generated layer. It can be made in each format.
type object struct {
	path     string
	mode     uint32 // with the type
	uid, gid int
	rdev     int
	size     int
	hole     int // bytes before the data
	data     string
	target   string // of a symbolic link
	linkTo   string // the path of another name of this file
	opaque   bool
	whiteout bool
	xattrs   map[string]string
	mtime    int64 // ns
}

// past is the time of everything in generated layers, so that what is newer was
// made by an operation.
var past = time.Date(2001, 9, 9, 1, 46, 40, 0, time.UTC).UnixNano()

func (o *object) is(kind uint32) bool { return o.mode&unix.S_IFMT == kind }

// generateLayer returns a random tree, parents first.
func generateLayer(r *rand.Rand, ids []int, bottom bool, id string) []*object {
	g := &layerMaker{r: r, ids: ids, bottom: bottom, id: id}
	g.fill("", 0)
	return g.objects
}

type layerMaker struct {
	r       *rand.Rand
	ids     []int
	bottom  bool
	id      string
	objects []*object
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func (g *layerMaker) fill(dir string, depth int) {
	r := g.r
	count := 2 + r.IntN(8)
	if depth >= 3 {
		count = 1 + r.IntN(3)
	}
	var files []string // that can have another name in this directory
	for _, i := range r.Perm(len(allNames))[:count] {
		name := allNames[i]
		if r.IntN(100) == 0 {
			name = longNames[r.IntN(2)] + string(rune('a'+i))
		}
		o := &object{path: path.Join(dir, name), mtime: past + r.Int64N(1e16), uid: pick(r, g.ids...), gid: pick(r, g.ids...)}
		if r.IntN(4) > 0 {
			o.uid, o.gid = 0, 0
		}
		g.objects = append(g.objects, o)
		roll := r.IntN(100)
		switch isDir := i < len(dirNames); {
		case roll < 14 && !g.bottom:
			o.whiteout, o.mode = true, unix.S_IFCHR
			continue
		case isDir && roll < 75 && depth < 4 || roll < 19 && depth < 4:
			o.mode = unix.S_IFDIR | pick[uint32](r, 0o755, 0o755, 0o777, 0o1777, 0o2775, 0o700, 0o2750)
			o.opaque = !g.bottom && r.IntN(4) == 0
			g.fill(o.path, depth+1)
		case roll < 30:
			o.mode, o.target = unix.S_IFLNK|0o777, pick(r, "f0", "d0", "d0/f1", "../f0", "d1/d2/f0", "nowhere", ".")
		case roll < 34:
			o.mode = unix.S_IFIFO | pick[uint32](r, 0o644, 0o600)
		case roll < 36:
			o.mode = unix.S_IFSOCK | 0o755
		case roll < 39 && !rootless:
			o.mode, o.rdev = pick[uint32](r, unix.S_IFCHR|0o666, unix.S_IFBLK|0o600), pick(r, int(unix.Mkdev(1, 3)), int(unix.Mkdev(240, 7)))
		case roll < 47 && len(files) > 0:
			o.linkTo = pick(r, files...)
			continue
		default:
			o.mode = unix.S_IFREG | pick[uint32](r, 0o644, 0o644, 0o600, 0o755, 0o4755, 0o2755, 0o666, 0o444, 0o6711)
			o.size, o.data = pick(r, 0, 1, 10, 100, 4096, 5000, 70000), g.id+o.path
			if r.IntN(12) == 0 {
				o.hole = pick(r, 100000, 262144)
			}
			files = append(files, o.path)
		}
		g.decorate(o)
	}
}

// decorate gives some objects extended attributes and ACLs.
func (g *layerMaker) decorate(o *object) {
	r := g.r
	o.xattrs = map[string]string{}
	if regularOrDir := o.is(unix.S_IFREG) || o.is(unix.S_IFDIR); regularOrDir && r.IntN(5) == 0 {
		o.xattrs["user.low"] = g.id
		if r.IntN(3) == 0 {
			o.xattrs["user.big"] = strings.Repeat(g.id, 100)
		}
		if r.IntN(4) == 0 {
			o.xattrs[aclAccess] = acl(r, g.ids)
		}
		if r.IntN(2) == 0 && o.is(unix.S_IFDIR) {
			o.xattrs[aclDefault] = acl(r, g.ids)
		}
	}
	if !rootless && r.IntN(10) == 0 {
		o.xattrs["trusted.low"] = g.id
	}
	if !rootless && o.is(unix.S_IFREG) && r.IntN(12) == 0 {
		o.xattrs["security.capability"] = fileCapability
	}
}

// fileCapability is an xattr that gives a program cap_net_bind_service
// (linux/capability.h, VFS_CAP_REVISION_2).
const fileCapability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// content is size bytes that are different for each id.
func content(id string, size int) []byte {
	unit := []byte(fmt.Sprintf("<%s %d>", id, len(id)*7919%1009))
	return bytes.Repeat(unit, size/len(unit)+1)[:size]
}

// buildLayer makes a layer below dir, in a format.
func buildLayer(dir string, objects []*object, f format) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	marked := map[string]bool{} // directories with xattr whiteouts
	opaque := map[string]bool{}
	for _, o := range objects {
		if o.opaque {
			opaque[o.path] = true
		}
		var err error
		switch parent := path.Dir(o.path); {
		case o.whiteout && f == formatAufs:
			err = os.WriteFile(filepath.Join(dir, parent, ".wh."+path.Base(o.path)), nil, 0o644)
		case o.whiteout && f == formatXattr && !opaque[parent]: // opaque "y" and "x" exclude each other
			if err = os.WriteFile(filepath.Join(dir, o.path), nil, 0o644); err == nil {
				err = unix.Lsetxattr(filepath.Join(dir, o.path), markPrefix()+"whiteout", []byte("y"), 0)
			}
			marked[parent] = true
		default:
			err = o.build(dir, f)
		}
		if err != nil {
			return fmt.Errorf("make %s in layer %s: %w", o.path, dir, err)
		}
	}
	for parent := range marked {
		if err := unix.Lsetxattr(filepath.Join(dir, parent), markPrefix()+"opaque", []byte("x"), 0); err != nil {
			return err
		}
	}
	for i := len(objects) - 1; i >= 0; i-- {
		if o := objects[i]; o.linkTo == "" && !o.whiteout {
			if err := setTime(filepath.Join(dir, o.path), o.mtime); err != nil {
				return err
			}
		}
	}
	return setTime(dir, past)
}

func setTime(name string, ns int64) error {
	ts := unix.NsecToTimespec(ns)
	return unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func (o *object) build(dir string, f format) error {
	name := filepath.Join(dir, o.path)
	if o.linkTo != "" {
		return os.Link(filepath.Join(dir, o.linkTo), name)
	}
	var err error
	switch o.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		err = os.Mkdir(name, 0o700)
		if err == nil && o.opaque && f == formatAufs {
			err = os.WriteFile(filepath.Join(name, ".wh..wh..opq"), nil, 0o644)
		} else if err == nil && o.opaque {
			err = unix.Lsetxattr(name, markPrefix()+"opaque", []byte("y"), 0)
		}
	case unix.S_IFREG:
		err = o.write(name)
	case unix.S_IFLNK:
		err = os.Symlink(o.target, name)
	default:
		err = unix.Mknod(name, o.mode, o.rdev)
	}
	if err != nil || o.whiteout {
		return err
	}
	if err := os.Lchown(name, o.uid, o.gid); err != nil {
		return err
	}
	if !o.is(unix.S_IFLNK) {
		if err := unix.Chmod(name, o.mode&0o7777); err != nil {
			return err
		}
	}
	for key, value := range o.xattrs {
		if err := unix.Lsetxattr(name, key, []byte(value), 0); err != nil && err != unix.EOPNOTSUPP {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

func (o *object) write(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(content(o.data, o.size), int64(o.hole)); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
