package memlayer_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/memlayer"
	"golang.org/x/sys/unix"
)

// TestLikeExt4 makes random calls on the host and in memory, in lock-step. A
// difference here is one that every test of the union on memlayer would hide.
func TestLikeExt4(t *testing.T) {
	tmp := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(tmp, &st); err != nil || st.Type != unix.EXT4_SUPER_MAGIC {
		t.Skipf("%s is not on ext4", tmp)
	}
	seeds, calls := uint64(20), 1500
	if testing.Short() {
		seeds = 4
	}
	for seed := range seeds {
		if t.Failed() {
			return
		}
		t.Run(fmt.Sprint(seed), func(t *testing.T) { lockStep(t, seed, calls) })
	}
}

func lockStep(t *testing.T, seed uint64, calls int) {
	tmp := t.TempDir()
	t.Cleanup(func() { // directories without permissions stop RemoveAll
		filepath.WalkDir(tmp, func(path string, e os.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return nil
		})
	})
	host, err := layer.OpenHostShared(tmp)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Chmod(0o755); err != nil {
		t.Fatal(err)
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	fs := memlayer.New(memlayer.Options{UID: uid, GID: gid, Unprivileged: uid != 0})
	a, b := newDriver(host, seed), newDriver(fs.Root(), seed)
	defer a.close()
	defer b.close()
	for n := range calls {
		what, got := b.call()
		_, want := a.call()
		if got != want {
			t.Fatalf("seed %d, call %d, %s: memory says %s, the host %s", seed, n, what, got, want)
		}
		if n%50 == 0 || n == calls-1 {
			// The error, for an ordinary user, is where he may not look.
			got, gotErr := memlayer.Dump(b.dirs[0])
			want, wantErr := memlayer.Dump(a.dirs[0])
			if got != want || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
				t.Fatalf("seed %d, after call %d, %s:\nmemory: %v\n%s\nhost: %v\n%s", seed, n, what, gotErr, got, wantErr, want)
			}
		}
	}
}

// driver makes random calls on one layer; equal seeds make equal calls.
type driver struct {
	r *rand.Rand
	// seeks is whether to look for data and holes, instead of making extents
	// without data: of those ext4 turns small ones into zeros when it writes
	// next to them (EXT4_EXT_MAY_ZEROOUT), and memlayer does not.
	seeks bool
	dirs  []layer.Dir // the first is the root
	objs  []layer.Object
	fils  []layer.File
}

func newDriver(root layer.Dir, seed uint64) *driver {
	return &driver{r: rand.New(rand.NewPCG(seed, 1)), seeks: seed%2 == 1, dirs: []layer.Dir{root}}
}

func (d *driver) close() {
	for _, x := range d.dirs {
		x.Close()
	}
	for _, x := range d.objs {
		x.Close()
	}
	for _, x := range d.fils {
		x.Close()
	}
}

// keep adds to a bounded list of handles and closes what it displaces, but
// not the first.
func keep[T layer.Object](d *driver, list []T, x T) []T {
	if len(list) < 6 {
		return append(list, x)
	}
	k := 1 + d.r.IntN(len(list)-1)
	list[k].Close()
	list[k] = x
	return list
}

func pick[T any](d *driver, list []T) T { return list[d.r.IntN(len(list))] }

func (d *driver) name() string { return pick(d, []string{"a", "b", "c", "d"}) }

// object returns any handle.
func (d *driver) object() layer.Object {
	dir, k := pick(d, d.dirs), d.r.IntN(3)
	if k == 1 && len(d.objs) > 0 {
		return pick(d, d.objs)
	}
	if k == 2 && len(d.fils) > 0 {
		return pick(d, d.fils)
	}
	return dir
}

func result(err error, values ...any) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return fmt.Sprint(values, err)
}

func (d *driver) call() (what, answer string) {
	if n := d.r.IntN(100); n < 45 {
		return d.namespace()
	} else if n < 60 || len(d.fils) == 0 {
		return d.lookups()
	} else if n < 80 {
		return d.attributes()
	}
	return d.data()
}

func (d *driver) namespace() (string, string) {
	dir, name, mode := pick(d, d.dirs), d.name(), pick(d, []uint32{0o644, 0o755, 0o4755, 0o2775, 0o7777, 0})
	switch d.r.IntN(9) {
	case 0, 1:
		return "mkdir " + name, result(dir.Mkdir(name, mode|0o700))
	case 2:
		typ := pick(d, []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFDIR, unix.S_IFLNK, 0})
		return fmt.Sprintf("mknod %s %o", name, typ|mode), result(dir.Mknod(name, typ|mode, 0))
	case 3:
		target := pick(d, []string{"x", "../..", strings.Repeat("t", 200)})
		return "symlink " + name, result(dir.Symlink(target, name))
	case 4:
		o := d.object()
		return "link " + name, result(dir.Link(o, name))
	case 5:
		return "unlink " + name, result(dir.Unlink(name))
	case 6:
		return "rmdir " + name, result(dir.Rmdir(name))
	case 7:
		f, err := dir.TmpFile(mode)
		if err == nil {
			d.fils = keep(d, d.fils, f)
		}
		return "tmpfile", result(err)
	}
	to, newName := pick(d, d.dirs), d.name()
	flags := pick(d, []uint{0, 0, 0, unix.RENAME_NOREPLACE, unix.RENAME_EXCHANGE, unix.RENAME_WHITEOUT, 7})
	return fmt.Sprintf("rename %s %s %d", name, newName, flags), result(dir.Rename(name, to, newName, flags))
}

func (d *driver) lookups() (string, string) {
	dir, name := pick(d, d.dirs), d.name()
	switch d.r.IntN(5) {
	case 0:
		x, err := dir.OpenDir(name)
		if err == nil {
			d.dirs = keep(d, d.dirs, x)
		}
		return "opendir " + name, result(err)
	case 1:
		x, err := dir.Lookup(name)
		if err == nil {
			if len(d.objs) == 0 { // the first is never displaced
				y, _ := dir.Lookup(name)
				d.objs = append(d.objs, y)
			}
			d.objs = keep(d, d.objs, x)
		}
		return "lookup " + name, result(err)
	case 2, 3:
		flags := pick(d, []int{unix.O_RDONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_APPEND, unix.O_RDWR | unix.O_TRUNC, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL})
		x, err := dir.OpenFile(name, flags, 0o600)
		if err == nil {
			d.fils = keep(d, d.fils, x)
		}
		return fmt.Sprintf("open %s %#x", name, flags), result(err)
	}
	list, err := dir.ReadDir()
	return "readdir", result(err, len(list))
}

func (d *driver) attributes() (string, string) {
	o := d.object()
	mode := pick(d, []uint32{0o644, 0o755, 0o4755, 0o6775, 0o2777, 0o700})
	switch d.r.IntN(7) {
	case 0:
		return fmt.Sprintf("chmod %o", mode), result(o.Chmod(mode))
	case 1:
		uid, gid := pick(d, []int{-1, 0, 7}), pick(d, []int{-1, 0, 7})
		return fmt.Sprintf("chown %d %d", uid, gid), result(o.Chown(uid, gid))
	case 2:
		attr := pick(d, []string{"user.a", "user.b", "trusted.a", "security.x", "system.x", "user."})
		flags := pick(d, []int{0, unix.XATTR_CREATE, unix.XATTR_REPLACE})
		return "setxattr " + attr, result(o.Setxattr(attr, []byte(attr), flags))
	case 3:
		attr := pick(d, []string{"user.a", "trusted.a", "security.x", "system.posix_acl_access", "system.posix_acl_default"})
		return "removexattr " + attr, result(o.Removexattr(attr))
	case 4:
		acl := []byte("\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x05\x00\x4d\x00\x00\x00" +
			"\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x01\x00\xff\xff\xff\xff")
		attr := pick(d, []string{"system.posix_acl_access", "system.posix_acl_default"})
		return "set " + attr, result(o.Setxattr(attr, acl, 0))
	case 5:
		target, err := o.Readlink()
		return "readlink", result(err, target)
	}
	st, err := o.Stat()
	if st.IsDir() {
		st.Blocks, st.Size = 0, 0 // of directories these differ
	}
	return "stat", result(err, fmt.Sprintf("%o", st.Mode), st.Nlink, st.UID, st.GID, st.Size)
}

func (d *driver) data() (string, string) {
	f := pick(d, d.fils)
	at := func() int64 { return pick(d, []int64{0, 1, 4095, 4096, 5000, 8192, 20000, 65536}) }
	off, length := at(), at()
	switch d.r.IntN(8) {
	case 0, 1:
		n, err := f.WriteAt([]byte(strings.Repeat("w", int(length))), off)
		return fmt.Sprintf("write %d+%d", off, length), result(err, n)
	case 2:
		p := make([]byte, length)
		n, err := f.ReadAt(p, off)
		return fmt.Sprintf("read %d+%d", off, length), result(err, n, strings.TrimRight(string(p[:n]), "\x00"))
	case 3:
		return fmt.Sprintf("truncate %d", length), result(f.Truncate(length))
	case 4:
		mode := pick(d, []uint32{0, 1, 2, 3, 8, 16, 17, 32, 64})
		if d.seeks {
			mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		}
		return fmt.Sprintf("allocate %d %d+%d", mode, off, length), result(f.Allocate(mode, off, length))
	case 5:
		// Written extents and the cache of what is not yet written out differ
		// in nothing but what is data.
		if err := f.Sync(true); err != nil || !d.seeks {
			return "sync", result(err)
		}
		whence := pick(d, []int{unix.SEEK_DATA, unix.SEEK_HOLE})
		pos, err := f.Seek(off, whence)
		return fmt.Sprintf("seek %d %d", whence, off), result(err, pos)
	case 6:
		src := pick(d, d.fils)
		n, err := f.CopyRangeFrom(src, at(), off, int(length))
		return fmt.Sprintf("copy range %d+%d", off, length), result(err, n)
	}
	flags := pick(d, []int{unix.O_RDONLY, unix.O_RDWR, unix.O_RDWR | unix.O_TRUNC})
	x, err := f.Reopen(flags)
	if err == nil {
		d.fils = keep(d, d.fils, x)
	}
	return "reopen", result(err)
}
