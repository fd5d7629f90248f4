package fusefs

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/union"
)

// A database that writes asynchronously past the cache, and a backup that reads
// through it: with CAP_ASYNC_DIO the backup is shown old data until it leaves
// the cache (xfstests generic/451).
func TestDirectWritesLeaveNoOldDataInTheCache(t *testing.T) {
	for _, writeback := range []bool{false, true} {
		o := (&FilesystemConfig[*union.Node]{Writeback: writeback}).kernelOptions()
		if caps := o.ExtraCapabilities &^ o.DisabledCapabilities; caps&fuse.CAP_ASYNC_DIO != 0 {
			t.Errorf("writeback=%v asks for asynchronous direct I/O", writeback)
		}
		if cached := o.ExtraCapabilities&fuse.CAP_WRITEBACK_CACHE != 0; cached != writeback {
			t.Errorf("writeback=%v asks for write-back: %v", writeback, cached)
		}
	}
}

// A program that remembers files by handle (name_to_handle_at) must hear that it
// cannot, as from kernel overlayfs, and not get ESTALE or another file later.
func TestFilesHaveNoHandles(t *testing.T) {
	if o := (&FilesystemConfig[*union.Node]{}).kernelOptions(); o.ExtraCapabilities&fuse.CAP_NO_EXPORT_SUPPORT == 0 {
		t.Error("the kernel gives out file handles that nothing can be opened with")
	}
}

// restless is a union with directories in which names come and go by themselves.
type restless struct {
	*union.FS
	dirs map[*union.Node]bool
}

func (r *restless) Restless(p *union.Node) bool { return r.dirs[p] }

// Who has looked for a snapshot before it was made must see it afterwards.
func TestNamesThatComeByThemselvesAreNotCached(t *testing.T) {
	r, _ := rawFile(t)
	u := r.fs.(*union.FS)
	dir, _, err := u.Mkdir(u.Root(), "dir", 0o755, union.Caller{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Create(dir, "there", 0o644, union.Caller{}); err != nil {
		t.Fatal(err)
	}
	r = newRawFS(&FilesystemConfig[*union.Node]{FS: &restless{u, map[*union.Node]bool{dir: true}}})
	for _, c := range []struct {
		in     uint64
		name   string
		cached bool
	}{
		{dir.ID(), "there", false}, {dir.ID(), "absent", false},
		{fuse.FUSE_ROOT_ID, "dir", true}, {fuse.FUSE_ROOT_ID, "absent", true},
	} {
		var out fuse.EntryOut
		if st := r.Lookup(nil, &fuse.InHeader{NodeId: c.in}, c.name, &out); st != fuse.OK {
			t.Fatalf("look up %s: %v", c.name, st)
		}
		if got := out.EntryValid > 0; got != c.cached {
			t.Errorf("%s in node %d: the kernel may remember: %v, want %v", c.name, c.in, got, c.cached)
		}
	}
}

// Who changes a served filesystem by another way than through its mount tells the
// kernel, and the mount shows it.
func TestWhatChangesBehindTheKernelShowsWhenItIsTold(t *testing.T) {
	for _, writeback := range []bool{false, true} {
		r, n := rawFile(t)
		u, target := r.fs.(*union.FS), t.TempDir()
		m := mountTest(t, u, target, writeback)
		made, old := filepath.Join(target, "made"), filepath.Join(target, "f")
		if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("before it is made: %v", err)
		}
		if data, err := os.ReadFile(old); err != nil || string(data) != "data" {
			t.Fatalf("%q, %v", data, err)
		}
		if _, _, err := u.Create(u.Root(), "made", 0o644, union.Caller{UID: uint32(os.Geteuid())}); err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write(n, []byte("more than data"), 0, false); err != nil {
			t.Fatal(err)
		}
		// With write-back the kernel knows the size of a file best, while it knows
		// the file: it has to forget the name.
		if err := errors.Join(m.DropEntry(fuse.FUSE_ROOT_ID, "made"), m.DropInode(fuse.FUSE_ROOT_ID), m.DropEntry(fuse.FUSE_ROOT_ID, "f")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(made); err != nil {
			t.Errorf("write-back %v: a name that was made: %v", writeback, err)
		}
		if list, err := os.ReadDir(target); err != nil || len(list) != 2 {
			t.Errorf("write-back %v: listed %v, %v", writeback, list, err)
		}
		if data, err := os.ReadFile(old); err != nil || string(data) != "more than data" {
			t.Errorf("write-back %v: what was written reads as %q, %v", writeback, data, err)
		}
		if c := m.Counters(); c.Requests["LOOKUP"] == 0 || c.Nodes == 0 || m.Options()["writeback"] != onOff(writeback) {
			t.Errorf("counters %v, options %v", c, m.Options())
		}
	}
}

// A snapshot that somebody has looked through can be destroyed when the kernel has
// forgotten its files; those that are open it keeps.
func TestTheKernelForgetsWhatIsOnlyCached(t *testing.T) {
	r, n := rawFile(t)
	u, target := r.fs.(*union.FS), t.TempDir()
	m := mountTest(t, u, target, false)
	if _, _, err := u.Create(u.Root(), "cached", 0o644, union.Caller{UID: uint32(os.Geteuid())}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(target, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(target, "cached"), &st); err != nil {
		t.Fatal(err)
	}
	cached, _, err := u.Lookup(u.Root(), "cached")
	if err != nil {
		t.Fatal(err)
	}
	u.Forget(cached, 2) // this lookup's and Create's
	err = m.Prune([]uint64{cached.ID(), n.ID()})
	if errors.Is(err, unix.EINVAL) {
		t.Skip("this kernel forgets nothing on request")
	}
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); u.Node(cached.ID()) == cached; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the kernel has not forgotten a file that nobody uses")
		}
	}
	if data, err := io.ReadAll(f); err != nil || string(data) != "data" {
		t.Errorf("the open file reads as %q, %v", data, err)
	}
}

// mountTest mounts a union and unmounts it with the test.
func mountTest(t *testing.T, u *union.FS, target string, writeback bool) *FilesystemMount {
	t.Helper()
	m, err := MountFilesystem(FilesystemConfig[*union.Node]{
		FS: u, Target: target, Writeback: writeback,
		Flags: MountFlags{FSName: "test", Subtype: "lamina", DefaultPermissions: true},
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
		t.Skip("may not mount here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Start()
	t.Cleanup(func() {
		if err := m.Unmount(false); err != nil {
			t.Error(err)
			_ = m.Unmount(true)
		}
		m.Wait()
	})
	return m
}
