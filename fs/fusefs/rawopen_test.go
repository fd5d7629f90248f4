package fusefs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/union"
)

// make(1) goes by the times of files that a linker has written through mappings:
// the server does not see such a write, and the kernel does not take note.
func TestTimesAreAskedForAfterAMappingWasWritten(t *testing.T) {
	r, n := passedThrough(t, nil)
	var told []uint64
	r.dropAttrs = func(node uint64) { told = append(told, node) }
	for _, c := range []struct {
		handle uint64
		flags  uint32
		want   bool
	}{
		{handleBacked, unix.O_RDWR, true},
		{handleBacked, unix.O_WRONLY, true},
		{handleBacked, unix.O_RDONLY, false},
		{handleCached, unix.O_RDWR, false}, // the kernel's own pages, written by WRITE
	} {
		told = nil
		in := fuse.ReleaseIn{Fh: c.handle, Flags: c.flags}
		in.NodeId = n.ID()
		r.Release(nil, &in)
		if got := len(told) == 1 && told[0] == n.ID(); got != c.want {
			t.Errorf("handle %d, flags %#x: the kernel was told of %v", c.handle, c.flags, told)
		}
	}
}

// fakeBackings takes every file.
type fakeBackings struct{ registered int32 }

func (b *fakeBackings) RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno) {
	b.registered++
	return b.registered, 0
}

func (b *fakeBackings) UnregisterBackingFd(int32) syscall.Errno { return 0 }

// A lower file must not become the backing file of an inode that someone may
// write to later: they could not be open at the same time.
func TestWhichFilesArePassedThrough(t *testing.T) {
	dir := t.TempDir()
	branch := func(name string) union.Branch {
		d, err := layer.OpenHost(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return union.Branch{Name: name, Root: d}
	}
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "in-"+name), []byte("data"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name     string
		writable bool
		through  bool
	}{
		{"in-upper", true, true},
		{"in-lower", true, false},
		{"in-lower", false, true},
	} {
		cfg := union.Config{Lowers: []union.Branch{branch("lower")}, Options: union.Options{NoXattrs: true}}
		if c.writable {
			up, work := branch("upper"), branch("work")
			cfg.Upper, cfg.Work = &up, &work
		}
		u, err := union.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		r := &passthroughFS{rawFS: newRawFS(&FilesystemConfig[*union.Node]{FS: u}), union: u, opens: newOpenTable(&fakeBackings{})}
		n, _, err := u.Lookup(u.Root(), c.name)
		if err != nil {
			t.Fatal(err)
		}
		in, out := fuse.OpenIn{}, fuse.OpenOut{}
		in.NodeId = n.ID()
		if st := r.Open(nil, &in, &out); st != fuse.OK || out.OpenFlags&fuse.FOPEN_PASSTHROUGH != 0 != c.through {
			t.Errorf("%+v: %v, flags %#x", c, st, out.OpenFlags)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
}
