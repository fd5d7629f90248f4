package fusefs

import (
	"encoding/binary"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer/memlayer"
	"github.com/laminafs/lamina/fs/union"
)

// What cannot be kept is refused: a project id that was taken and forgotten
// would be a quota that holds nobody.
func TestSettingWhatIsNotKeptIsRefused(t *testing.T) {
	const immutable, appendOnly = 0x10, 0x20 // FS_IMMUTABLE_FL, FS_APPEND_FL
	for what, c := range map[string]struct {
		fsx  []uint32 // xflags, extsize, nextents, projid, cowextsize
		want uint32
		err  error
	}{
		"append-only":        {[]uint32{0x10}, appendOnly, nil},
		"what was read":      {[]uint32{0x80000008, 0, 7}, immutable, nil},
		"nothing":            {nil, 0, nil},
		"a project":          {[]uint32{0, 0, 0, 16}, 0, unix.EOPNOTSUPP},
		"an extent size":     {[]uint32{0, 4096}, 0, unix.EOPNOTSUPP},
		"a CoW extent size":  {[]uint32{0, 0, 0, 0, 4096}, 0, unix.EOPNOTSUPP},
		"inherit a project":  {[]uint32{0x200}, 0, unix.EOPNOTSUPP},
		"a flag of tomorrow": {[]uint32{0x40000000}, 0, unix.EOPNOTSUPP},
	} {
		fsx := make([]byte, fsxattrSize)
		for i, v := range c.fsx {
			binary.LittleEndian.PutUint32(fsx[4*i:], v)
		}
		if got, err := setXFlags(immutable, fsx); got != c.want || err != c.err {
			t.Errorf("%s: flags %#x, %v; want %#x, %v", what, got, err, c.want, c.err)
		}
	}
	if _, err := setXFlags(0, make([]byte, fsxattrSize-1)); err != unix.EINVAL {
		t.Errorf("half a structure: %v", err)
	}
}

// A backup that goes by the time of the last change would miss what chattr(1)
// changed, for the kernel keeps what it was told of a file for good.
func TestChangedFlagsShowInTheTimeOfTheLastChange(t *testing.T) {
	r, n := rawFile(t)
	u := r.fs
	before, err := u.GetAttr(n)
	if err != nil {
		t.Fatal(err)
	}
	var told []uint64
	r.dropAttrs = func(node uint64) { told = append(told, node) }

	nodump := binary.LittleEndian.AppendUint32(nil, unix.STATX_ATTR_NODUMP)
	fsx := make([]byte, fsxattrSize)
	for cmd, arg := range map[uint32][]byte{fsIOCSetFlags: nodump, fsIOCSetXAttr: fsx} {
		in := fuse.IoctlIn{Cmd: cmd}
		in.NodeId = n.ID()
		if st := r.Ioctl(nil, &in, arg, &fuse.IoctlOut{}, nil); st != fuse.OK {
			t.Fatalf("ioctl %#x: %v", cmd, st)
		}
	}
	if len(told) != 2 || told[0] != n.ID() || told[1] != n.ID() {
		t.Errorf("the kernel was told of %v, want %d twice", told, n.ID())
	}
	if after, err := u.GetAttr(n); err != nil || after.Ctime == before.Ctime {
		t.Errorf("last change %v, before %v (%v)", after.Ctime, before.Ctime, err)
	}
}

// touch(1) of a log that may only grow works, and setting it back does not.
func TestAppendOnlyFilesCanBeTouched(t *testing.T) {
	r, n := rawFile(t)
	if err := r.fs.SetFlags(n, unix.STATX_ATTR_APPEND); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		how   string
		valid uint32
		want  fuse.Status
	}{
		{"touch with write-back", fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME | fattrCtime, fuse.OK},
		{"touch", fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW, fuse.OK},
		{"touch -d", fuse.FATTR_ATIME | fuse.FATTR_MTIME | fattrCtime, fuse.EPERM},
		{"touch -m -d", fuse.FATTR_MTIME | fattrCtime, fuse.EPERM},
	} {
		in := fuse.SetAttrIn{}
		in.NodeId, in.Valid, in.Mtime, in.Ctime = n.ID(), c.valid, 1e9, 1e9
		if st := r.SetAttr(nil, &in, &fuse.AttrOut{}); st != c.want {
			t.Errorf("%s: %v, want %v", c.how, st, c.want)
		}
	}
}

// With passthrough the kernel asks who may open, so that an editor hears that a
// file is immutable before it has its text written.
func TestProtectedFilesAreNotOpenedForWriting(t *testing.T) {
	r, n := passedThrough(t, nil)
	open := func(flags uint32) fuse.Status {
		in := fuse.OpenIn{Flags: flags}
		in.NodeId = n.ID()
		return r.Open(nil, &in, &fuse.OpenOut{})
	}
	for _, c := range []struct {
		chattr              uint32
		read, write, append fuse.Status
	}{
		{0, fuse.OK, fuse.OK, fuse.OK},
		{unix.STATX_ATTR_APPEND, fuse.OK, fuse.EPERM, fuse.OK},
		{unix.STATX_ATTR_IMMUTABLE, fuse.OK, fuse.EPERM, fuse.EPERM},
	} {
		if err := r.fs.SetFlags(n, c.chattr); err != nil {
			t.Fatal(err)
		}
		for flags, want := range map[uint32]fuse.Status{
			unix.O_RDONLY:                c.read,
			unix.O_RDWR:                  c.write,
			unix.O_RDONLY | unix.O_TRUNC: c.write,
			unix.O_RDWR | unix.O_APPEND:  c.append,
		} {
			if got := open(flags); got != want {
				t.Errorf("flags %#x, open(%#x): %v, want %v", c.chattr, flags, got, want)
			}
		}
	}
	if err := r.fs.SetFlags(n, 0); err != nil {
		t.Fatal(err)
	}
}

// rawFile serves a union that has a file in its upper.
func rawFile(t *testing.T) (*rawFS[*union.Node], *union.Node) {
	t.Helper()
	fs := memlayer.New(memlayer.Options{})
	fs.MustBuild(`
		upper/f f 0644 "data"
		work    d
	`)
	u, err := union.New(union.Config{
		Upper: &union.Branch{Name: "upper", Root: fs.Dir("upper")},
		Work:  &union.Branch{Name: "work", Root: fs.Dir("work")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	n, _, err := u.Lookup(u.Root(), "f")
	if err != nil {
		t.Fatal(err)
	}
	return newRawFS(&FilesystemConfig[*union.Node]{FS: u}), n
}

// passedThrough serves the same in the passthrough profile.
func passedThrough(t *testing.T, s backings) (*passthroughFS, *union.Node) {
	t.Helper()
	r, n := rawFile(t)
	return &passthroughFS{rawFS: r, union: r.fs.(*union.FS), opens: newOpenTable(s)}, n
}
