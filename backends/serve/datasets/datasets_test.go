package datasets

import (
	"context"
	"errors"
	"log"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/blockpool"
	"github.com/laminafs/lamina/blockpool/dataset"
	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/vfs"
)

var ctx = context.Background()

// newMounts returns the mounts of a pool that has some datasets.
func newMounts(t *testing.T, names ...string) *Mounts {
	t.Helper()
	dir := t.TempDir()
	err := blockpool.Create(blockpool.CreateOptions{
		Config:   blockpool.Config{Name: "tank"},
		Devices:  []blockpool.DeviceSpec{{Path: dir + "/disk", Size: 64 << 20}},
		Metadata: []string{blockpool.ReplicaName(dir, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := blockpool.Open(dir, blockpool.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range names {
		if err := p.CreateDataset(ctx, name, blockpool.DatasetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return New(p, log.Default())
}

// opened is what Mount makes of a dataset before it mounts it.
func opened(t *testing.T, s *Mounts, name string) (*Mount, filesystem) {
	t.Helper()
	m := &Mount{mounts: s, target: "/mnt/" + name}
	var err error
	if m.tree, err = s.open(name, m); err != nil {
		t.Fatal(err)
	}
	fs, err := dataset.New(m.tree, dataset.Options{Views: &views{mounts: s, mount: m, name: m.tree.Name}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	m.fs = filesystem{FS: fs}
	if err := m.fs.findSnapshots(); err != nil {
		t.Fatal(err)
	}
	return m, m.fs
}

// Two mounts of one dataset would not see each other's changes and write over them.
func TestADatasetBelongsToOneMount(t *testing.T) {
	s := newMounts(t, "a", "b")
	m, fs := opened(t, s, "a")
	if _, err := s.open("a", &Mount{}); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), m.target) {
		t.Errorf("the second one: %v", err)
	}
	opened(t, s, "b")
	if err := errors.Join(s.pool.Snapshot(ctx, "a", "a@s"), fs.Close()); err != nil {
		t.Fatal(err)
	}
	again, err := s.open("a", &Mount{})
	if err != nil {
		t.Fatalf("after the first one has ended: %v", err)
	}
	again.Close()
	for range 2 { // nobody changes a snapshot
		snap, err := s.open("a@s", &Mount{})
		if err != nil {
			t.Fatal(err)
		}
		defer snap.Close()
	}
}

// An ordinary user must be able to make something in the dataset that he has mounted.
func TestTheRootBelongsToWhoServes(t *testing.T) {
	_, fs := opened(t, newMounts(t, "a"), "a")
	a, err := fs.GetAttr(fs.Root())
	if err != nil || a.UID != uint32(os.Geteuid()) || a.Mode != unix.S_IFDIR|0o755 {
		t.Errorf("%d, mode %o (%v)", a.UID, a.Mode, err)
	}
}

// Attributes, times and owners come through unchanged, in both directions.
func TestTheAdapterKeepsWhatIsSaid(t *testing.T) {
	_, fs := opened(t, newMounts(t, "a"), "a")
	n, a, err := fs.Create(fs.Root(), "f", 0o666, vfs.Caller{UID: 3, GID: 4, Umask: 0o022})
	if err != nil || a.UID != 3 || a.GID != 4 || a.Mode != unix.S_IFREG|0o644 || a.Ino != n.Ino() || a.Btime == (layer.Time{}) {
		t.Fatalf("%+v (%v)", a, err)
	}
	mode, uid, gid, size := uint32(0o4711), uint32(7), uint32(8), int64(100)
	at, mt := layer.Time{Sec: 5, Nsec: 6}, layer.Time{Sec: -7, Nsec: 8}
	a, err = fs.SetAttr(n, vfs.Change{Mode: &mode, UID: &uid, GID: &gid, Size: &size, Atime: &at, Mtime: &mt})
	if err != nil || a.Mode != unix.S_IFREG|0o4711 || a.UID != 7 || a.GID != 8 || a.Size != 100 || a.Atime != at || a.Mtime != mt {
		t.Errorf("%+v (%v)", a, err)
	}
	if a, err = fs.SetAttr(n, vfs.Change{KillPriv: true}); err != nil || a.Mode != unix.S_IFREG|0o711 {
		t.Errorf("after suid was taken: mode %o (%v)", a.Mode, err)
	}
	dev, a, err := fs.Mknod(fs.Root(), "dev", unix.S_IFCHR|0o600, unix.Mkdev(1, 3), vfs.Caller{})
	if err != nil || a.Rdev != unix.Mkdev(1, 3) || dev.Type() != unix.S_IFCHR {
		t.Errorf("%+v (%v)", a, err)
	}
	var listed []string
	err = fs.ReadDir(fs.Root(), 0, func(e vfs.Listed) bool { listed = append(listed, e.Name); return true })
	if slices.Sort(listed); err != nil || !slices.Equal(listed, []string{"dev", "f"}) {
		t.Errorf("%q (%v)", listed, err)
	}
}

// Names of snapshots must not be cached; all others must.
func TestOnlySnapshotsComeAndGoByThemselves(t *testing.T) {
	_, fs := opened(t, newMounts(t, "a"), "a")
	for name, want := range map[string]bool{"": false, ".lamina": false, ".lamina/snapshot": true} {
		n, forget, err := fs.walk(name)
		if err != nil {
			t.Fatal(err)
		}
		if fs.Restless(n) != want {
			t.Errorf("%q: restless %v", name, !want)
		}
		forget()
	}
	if n := fs.Nodes(); n != 1 {
		t.Errorf("%d nodes are left, want that of the root", n)
	}
}

// A clone of a dataset with subvolumes names trees that are not its own: their owner
// goes on using them.
func TestSubvolumesOfOthersAreNotEntered(t *testing.T) {
	s := newMounts(t, "a", "a/sub", "b")
	_, a := opened(t, s, "a")
	_, b := opened(t, s, "b")
	sub, err := s.pool.Volume("a/sub")
	if err != nil {
		t.Fatal(err)
	}
	for _, fs := range []filesystem{a, b} {
		if err := fs.AddSubvolume(fs.Root(), "sub", sub.ID); err != nil {
			t.Fatal(err)
		}
	}
	in, _, err := a.walk("sub")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Create(in, "f", 0o644, vfs.Caller{}); err != nil {
		t.Fatal(err)
	}
	other, _, err := b.walk("sub")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Create(other, "f", 0o644, vfs.Caller{}); !errors.Is(err, unix.EROFS) {
		t.Errorf("a file was made by way of another dataset: %v", err)
	}
	if _, _, err := b.FS.Lookup(other, "f"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("another dataset's file was found: %v", err)
	}
}
