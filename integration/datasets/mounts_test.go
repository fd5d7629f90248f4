//go:build integration

package datasets

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/fusefs"
)

// eventually waits for something that the kernel does in its own time.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func write(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func names(t testing.TB, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func blocks(t testing.TB, dir string) (st unix.Statfs_t) {
	t.Helper()
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// both runs a test as root with and without write-back.
func both(t *testing.T, f func(t *testing.T, s *server, dir string)) {
	for _, options := range []string{"writeback=0", "writeback=1"} {
		t.Run(options, func(t *testing.T) {
			s, dir := mounted(t, 0, options)
			f(t, s, dir)
		})
	}
}

// Who made a mistake finds the file as it was in a snapshot, at once, also if somebody
// had looked for that snapshot before it was made.
func TestSnapshotsShowAsSoonAsTheyAreMade(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		snaps := filepath.Join(dir, ".lamina/snapshot")
		if _, err := os.Stat(filepath.Join(snaps, "one")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a snapshot that is not there: %v", err)
		}
		if list := names(t, snaps); len(list) != 0 {
			t.Fatalf("snapshots %q before there are any", list)
		}
		write(t, filepath.Join(dir, "f"), "before")
		s.ask("snapshot", "set", "one")
		write(t, filepath.Join(dir, "f"), "after!")
		if got := read(t, filepath.Join(snaps, "one/f")); got != "before" {
			t.Errorf("the snapshot has %q", got)
		}
		if list := names(t, snaps); !slices.Equal(list, []string{"one"}) {
			t.Errorf("listed: %q", list)
		}
		if list := names(t, dir); slices.Contains(list, ".lamina") {
			t.Errorf("the hidden directory is listed: %q", list)
		}
		if err := os.WriteFile(filepath.Join(snaps, "one/g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
			t.Errorf("a file was made in a snapshot: %v", err)
		}
		s.ask("destroy", "set@one")
		if _, err := os.Stat(filepath.Join(snaps, "one/f")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a snapshot that is gone: %v", err)
		}
		if list := names(t, snaps); len(list) != 0 {
			t.Errorf("listed after it has gone: %q", list)
		}
		s.ask("snapshot", "set", "one")
		if got := read(t, filepath.Join(snaps, "one/f")); got != "after!" {
			t.Errorf("the new snapshot of the same name has %q", got)
		}
	})
}

// A snapshot has what a program has written through a mapping, or what the kernel
// holds back.
func TestSnapshotsHaveWhatTheKernelHeldBack(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Write(make([]byte, 8192))
		m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(m)
		large, err := os.Create(filepath.Join(dir, "large"))
		if err != nil {
			t.Fatal(err)
		}
		defer large.Close()
		large.Truncate(48 << 20)
		l, err := unix.Mmap(int(large.Fd()), 0, 48<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(l)
		want := random(48<<20, 1)
		copy(l, want)
		copy(m[100:], "mapped")
		f.WriteAt([]byte("written"), 5000)
		s.ask("snapshot", "set", "s")
		if got := read(t, filepath.Join(dir, ".lamina/snapshot/s/large")); got != string(want) {
			t.Error("the snapshot of a large mapped file has other bytes")
		}
		if got := read(t, filepath.Join(dir, ".lamina/snapshot/s/f")); len(got) != 8192 || got[100:106] != "mapped" || got[5000:5007] != "written" {
			t.Errorf("the snapshot has %d bytes, or others", len(got))
		}
	})
}

func TestASnapshotInUseIsNotDestroyed(t *testing.T) {
	s, dir := mounted(t, 0, "")
	write(t, filepath.Join(dir, "f"), "x")
	s.ask("snapshot", "set", "s")
	f, err := os.Open(filepath.Join(dir, ".lamina/snapshot/s/f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.try("destroy", "set@s"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("destroying what is open: %v", err)
	}
	if b := make([]byte, 1); func() bool { _, err := f.ReadAt(b, 0); return err != nil || b[0] != 'x' }() {
		t.Error("the open file cannot be read any more")
	}
	f.Close()
	s.ask("destroy", "set@s")
}

// A mounted snapshot is what it was, whatever happens to the dataset, and nobody can
// change it.
func TestAMountedSnapshotIsReadOnly(t *testing.T) {
	s, dir := mounted(t, 0, "")
	write(t, filepath.Join(dir, "f"), "then")
	s.ask("snapshot", "set", "s")
	old := s.mount("set@s", "")
	write(t, filepath.Join(dir, "f"), "now")
	if got := read(t, filepath.Join(old, "f")); got != "then" {
		t.Errorf("the snapshot has %q", got)
	}
	if err := os.WriteFile(filepath.Join(old, "g"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("making a file in it: %v", err)
	}
	if err := os.Chmod(filepath.Join(old, "f"), 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("chmod in it: %v", err)
	}
	if err := s.try("destroy", "set@s"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("destroying it: %v", err)
	}
	s.ask("umount", old)
	s.ask("destroy", "set@s")
}

// What is mounted belongs to the mount: not to another one, and not to commands that
// need it unused. What is open keeps it from being unmounted.
func TestWhatIsInUseStays(t *testing.T) {
	s, dir := mounted(t, 0, "")
	other := filepath.Join(s.base, "other")
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.try("mount", "set", other, ""); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), dir) {
		t.Errorf("mounting it twice: %v", err)
	}
	if err := s.try("plain-destroy", "set"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("destroying it: %v", err)
	}
	f, err := os.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("text")
	if err := s.try("umount", dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("unmounting it: %v", err)
	}
	if err := s.try("umount", dir, "lazy"); err != nil {
		t.Errorf("unmounting it lazily: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still in sight: %v", err)
	}
	if _, err := f.WriteAt([]byte("T"), 0); err != nil {
		t.Errorf("the open file cannot be written: %v", err)
	}
	if err := s.try("plain-destroy", "set"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("destroying what is still open: %v", err)
	}
	f.Close()
	eventually(t, "the mount to end", func() bool { return s.try("mount", "set", other, "") == nil })
	if got := read(t, filepath.Join(other, "f")); got != "Text" {
		t.Errorf("mounted again it has %q", got)
	}
	s.ask("umount", other)
	s.ask("plain-destroy", "set")
}

func TestManyDatasetsAreMountedAtOnce(t *testing.T) {
	s, first := mounted(t, 0, "")
	dirs := map[string]string{"set": first}
	for _, name := range []string{"a", "b", "c", "set/below"} {
		s.ask("create", name)
		dirs[name] = s.mount(name, "")
	}
	for name, dir := range dirs {
		write(t, filepath.Join(dir, "name"), name)
	}
	for name, dir := range dirs {
		if got := read(t, filepath.Join(dir, "name")); got != name {
			t.Errorf("%s has the file of %s", name, got)
		}
	}
	s.ask("umount", dirs["b"])
	if got := names(t, dirs["b"]); len(got) != 0 {
		t.Errorf("unmounted, it has %q", got)
	}
	if got := read(t, filepath.Join(dirs["c"], "name")); got != "c" {
		t.Errorf("c has %q", got)
	}
}

// A rollback happens below the mount, and everything shows what the snapshot had. What
// is open is in the way, and stays as it is.
func TestRollbackOfAMountedDataset(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		file := filepath.Join(dir, "f")
		write(t, file, "good")
		s.ask("snapshot", "set", "s")
		write(t, file, "this was a mistake")
		write(t, filepath.Join(dir, "more"), "")
		open, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.try("rollback", "set", "s"); !errors.Is(err, unix.EBUSY) {
			t.Errorf("with open files: %v", err)
		}
		if got := read(t, file); got != "this was a mistake" {
			t.Errorf("after it was refused: %q", got)
		}
		open.Close()
		s.ask("rollback", "set", "s")
		if got, list := read(t, file), names(t, dir); got != "good" || !slices.Equal(list, []string{"f"}) {
			t.Errorf("%q, listed %q", got, list)
		}
		write(t, file, "goes on")
		if err := s.try("rollback", "set", "none"); !errors.Is(err, unix.ENOENT) {
			t.Errorf("to a snapshot that is not there: %v", err)
		}
		if got := read(t, file); got != "goes on" {
			t.Errorf("after a rollback that failed: %q", got)
		}
	})
}

// A nested subvolume shows by the name that it is given, and goes with it.
func TestNestedSubvolumesComeAndGo(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		s.ask("create", "set/sub")
		if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		sub := filepath.Join(dir, "d/sub")
		if _, err := os.Stat(sub); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if list := names(t, filepath.Join(dir, "d")); len(list) != 0 {
			t.Fatal(list)
		}
		s.ask("add-subvolume", dir, "d", "sub", "set/sub")
		write(t, filepath.Join(sub, "f"), "in the subvolume")
		if list := names(t, filepath.Join(dir, "d")); !slices.Equal(list, []string{"sub"}) {
			t.Errorf("listed %q", list)
		}
		write(t, filepath.Join(dir, "outside"), "x")
		if err := os.Link(filepath.Join(dir, "outside"), filepath.Join(sub, "inside")); !errors.Is(err, unix.EXDEV) {
			t.Errorf("a link into another tree: %v", err)
		}
		if err := os.Rename(filepath.Join(dir, "outside"), filepath.Join(sub, "inside")); !errors.Is(err, unix.EXDEV) {
			t.Errorf("a rename into another tree: %v", err)
		}

		// What cannot be: the same tree twice, snapshots that lead into live trees.
		if err := s.try("mount", "set/sub", s.base, ""); !errors.Is(err, unix.EBUSY) {
			t.Errorf("mounting what is entered: %v", err)
		}
		for _, snap := range []string{"one", "two"} {
			s.ask("snapshot", "set", snap)
		}
		for _, snap := range []string{"one", "two", "one"} {
			if list := names(t, filepath.Join(dir, ".lamina/snapshot", snap, "d/sub")); len(list) != 0 {
				t.Errorf("a snapshot of the parent leads into the subvolume: %q", list)
			}
		}
		if got := read(t, filepath.Join(sub, "f")); got != "in the subvolume" {
			t.Errorf("the subvolume has %q", got)
		}

		f, err := os.Open(filepath.Join(sub, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.try("remove-subvolume", dir, "d", "sub"); !errors.Is(err, unix.EBUSY) {
			t.Errorf("removing what is open: %v", err)
		}
		f.Close()
		s.ask("remove-subvolume", dir, "d", "sub")
		if _, err := os.Stat(sub); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a subvolume that was removed: %v", err)
		}
		if list := names(t, filepath.Join(dir, "d")); len(list) != 0 {
			t.Errorf("listed after it was removed: %q", list)
		}
		s.ask("plain-destroy", "set/sub")
	})
}

// df shows what the dataset may have, not what the pool has, and a full one says so.
func TestTheLimitsOfADatasetShow(t *testing.T) {
	both(t, func(t *testing.T, s *server, dir string) {
		const limit = 64 << 20
		s.ask("limit", "set", "67108864")
		st := blocks(t, dir)
		if size := st.Blocks * uint64(st.Frsize); size > limit || size < limit*9/10 {
			t.Errorf("size %d, want about %d", size, limit)
		}
		f, err := os.Create(filepath.Join(dir, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		chunk := random(1<<20, 1)
		var full error
		for i := 0; i < 100 && full == nil; i++ {
			_, full = f.Write(chunk)
		}
		if full == nil { // held back
			full = f.Sync()
		}
		if !errors.Is(full, unix.EDQUOT) && !errors.Is(full, unix.ENOSPC) {
			t.Errorf("past the limit: %v", full)
		}
		f.Close()
		if err := os.Remove(f.Name()); err != nil {
			t.Errorf("removing a file of a full dataset: %v", err)
		}
		eventually(t, "the space to come back", func() bool {
			err := os.WriteFile(f.Name(), chunk, 0o644)
			return err == nil
		})
	})
}

func TestMountOptions(t *testing.T) {
	s, dir := mounted(t, 0, "ro,noexec,nosuid,nodev")
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("ro: %v", err)
	}
	table := read(t, "/proc/self/mountinfo")
	i := strings.Index(table, dir)
	line, _, _ := strings.Cut(table[max(0, i):], "\n")
	for _, want := range []string{"ro,", "nosuid", "nodev", "noexec", "fuse.lamina-dataset set "} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in %q", want, line)
		}
	}
	s.ask("umount", dir)

	dir = s.mount("set", "uidmapping=1000:2000:10,gidmapping=1000:2000:10")
	file := filepath.Join(dir, "f")
	write(t, file, "x")
	if err := os.Chown(file, 2003, 2004); err != nil {
		t.Fatal(err)
	}
	s.ask("umount", dir)
	dir = s.mount("set", "")
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "f"), &st); err != nil || st.Uid != 1003 || st.Gid != 1004 {
		t.Errorf("stored as %d:%d (%v)", st.Uid, st.Gid, err)
	}
	for _, bad := range []string{"lowerdir=/", "size=1g", "nonsense", "passthrough=on"} {
		if err := s.try("mount", "set", s.base, bad); err == nil || !strings.Contains(err.Error(), strings.Split(bad, "=")[0]) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// The owner of a new mount may change its root before anybody has looked at it.
func TestTheRootOfANewMountIsItsOwners(t *testing.T) {
	for _, uid := range []uint32{0, nobody} {
		s, dir := mounted(t, uid, "")
		s.run("chmod", "700", dir) // looks at it, by what the kernel has cached
		s.ask("umount", dir)
		s.ask("mount", "set", dir, "")
		if err := s.client("chmod", dir); err != nil {
			t.Errorf("uid %d: %v", uid, err)
		}
	}
}

// With strictatime each read that the kernel does not answer itself shows, unless the
// file was opened with O_NOATIME, as backups do.
func TestStrictAccessTimes(t *testing.T) {
	_, dir := mounted(t, 0, "strictatime")
	file := filepath.Join(dir, "f")
	write(t, file, "x")
	for _, c := range []struct {
		flags int
		moves bool
	}{{unix.O_DIRECT, true}, {unix.O_DIRECT, true}, {unix.O_DIRECT | unix.O_NOATIME, false}, {unix.O_NOATIME, false}, {0, true}} {
		var before, after unix.Stat_t
		fd, err := unix.Open(file, unix.O_RDONLY|c.flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
		time.Sleep(2 * time.Millisecond)
		err = errors.Join(unix.Fstat(fd, &before), func() error { _, err := unix.Read(fd, aligned(pageSize)); return err }(), unix.Stat(file, &after), unix.Close(fd))
		if err != nil || (before.Atim != after.Atim) != c.moves {
			t.Errorf("flags %#x: access time %v, then %v (%v)", c.flags, before.Atim, after.Atim, err)
		}
	}
}

// With relatime a file that was read shows when, without it nothing is written.
func TestAccessTimes(t *testing.T) {
	for options, moves := range map[string]bool{"relatime": true, "noatime": false, "": false} {
		s, dir := mounted(t, 0, options)
		file := filepath.Join(dir, "f")
		write(t, file, "x")
		long := unix.NsecToTimespec(1e18)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, file, []unix.Timespec{long, long}, 0); err != nil {
			t.Fatal(err)
		}
		s.ask("umount", dir) // so that nothing is cached
		s.ask("mount", "set", dir, options)
		read(t, file)
		var st unix.Stat_t
		if err := unix.Stat(file, &st); err != nil || (st.Atim != long) != moves {
			t.Errorf("%q: access time %v (%v)", options, st.Atim, err)
		}
	}
}

// What was looked at once costs no message, and a synchronous write reaches the disk.
func TestMessages(t *testing.T) {
	s, dir := mounted(t, 0, "")
	file := filepath.Join(dir, "f")
	write(t, file, "data")
	counters := func() (c fusefs.Counters) {
		var raw json.RawMessage
		if err := errors.Join(s.socket.Call("counters", request{"counters", []string{dir}}, &raw), json.Unmarshal(raw, &c)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	read(t, file)
	names(t, dir)
	before := counters()
	for range 10 {
		read(t, file)
		names(t, dir)
		os.Stat(file)
		os.Stat(filepath.Join(dir, "absent"))
	}
	after := counters()
	if n := after.Total() - before.Total(); n > 2 { // the absent name once
		t.Errorf("%d messages for what is cached: %v, before %v", n, after.Requests, before.Requests)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|unix.O_DSYNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteString("sync")
	if n := counters().Requests["FSYNC"] - after.Requests["FSYNC"]; n != 1 {
		t.Errorf("%d FSYNC for one synchronous write", n)
	}
}
