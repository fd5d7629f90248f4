package layer_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/laminafs/lamina/fs/layer"
	"github.com/laminafs/lamina/fs/layer/layertest"
	"golang.org/x/sys/unix"
)

// hostDirs are where the tests make their directories: on the filesystem of
// $TMPDIR, in the tmpfs that Linux systems have, and in what
// LAMINA_TEST_DIRS lists, separated by colons.
func hostDirs() []string {
	dirs := []string{os.TempDir(), "/dev/shm"}
	return append(dirs, filepath.SplitList(os.Getenv("LAMINA_TEST_DIRS"))...)
}

// capsOf declares what the filesystem of a directory can do for this process.
func capsOf(t *testing.T, dir string) layertest.Caps {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Skipf("no such filesystem here: statfs %s: %v", dir, err)
	}
	caps := layertest.Ext4
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
	case unix.TMPFS_MAGIC:
		caps = layertest.Tmpfs
	case unix.BTRFS_SUPER_MAGIC:
		caps = layertest.Btrfs
	case unix.XFS_SUPER_MAGIC:
		caps = layertest.XFS
	default:
		t.Skipf("nobody has declared what the filesystem of %s, type %#x, can do", dir, st.Type)
	}
	if os.Geteuid() != 0 {
		return caps.Ordinary()
	}
	if ids, err := os.ReadFile("/proc/self/uid_map"); err != nil || !strings.Contains(string(ids), "4294967295") {
		t.Skip("root of a user namespace has some capabilities over its files and lacks others")
	}
	return caps
}

func TestHost(t *testing.T) {
	t.Run("Shared", func(t *testing.T) { testHost(t, layer.OpenHostShared) })
	// For who may clone mounts, the layer is one of its own.
	t.Run("Own", func(t *testing.T) { testHost(t, layer.OpenHost) })
}

func testHost(t *testing.T, open func(path string) (layer.Dir, error)) {
	for _, dir := range hostDirs() {
		t.Run(strings.ReplaceAll(strings.Trim(dir, "/"), "/", "-"), func(t *testing.T) {
			caps := capsOf(t, dir)
			layertest.Run(t, caps, func(t testing.TB) layer.Dir {
				tmp, err := os.MkdirTemp(dir, "lamina-layer-")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := os.RemoveAll(tmp); err != nil {
						t.Error(err)
					}
				})
				d, err := open(tmp)
				if err != nil {
					t.Fatal(err)
				}
				return d
			})
		})
	}
}

// TestHostOrdinaryUser runs TestHost in a process without capabilities. Who is
// root in the tests would otherwise never see the EPERMs that most users get.
func TestHostOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("TestHost runs as an ordinary user already")
	}
	const nobody = 65534
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHost$", "-test.v="+map[bool]string{true: "true", false: "false"}[testing.Verbose()])
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || testing.Verbose() {
		t.Logf("as user %d:\n%s", nobody, out)
	}
	if err != nil {
		t.Errorf("TestHost as user %d: %v", nobody, err)
	}
}

// A backup that goes by access times, or a tool that finds what nobody uses,
// would be misled by a server that reads.
func TestReadingChangesNoAccessTime(t *testing.T) {
	for how, open := range map[string]func(string) (layer.Dir, error){"shared": layer.OpenHostShared, "own": layer.OpenHost} {
		root := t.TempDir()
		path := filepath.Join(root, "file")
		long := []unix.Timespec{{Sec: 1}, {Sec: 2}} // read before it was written: due with relatime
		age := func() {
			t.Helper()
			for _, p := range []string{path, root} {
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, long, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		age()
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		if atime(t, path) == 1 {
			t.Skipf("%s is mounted noatime: reading changes nothing here anyway", root)
		}
		age()
		d, err := open(root)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if _, err := d.ReadDir(); err != nil {
			t.Fatal(err)
		}
		f, err := d.OpenFile("file", unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		again, err := f.Reopen(unix.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		for _, f := range []layer.File{f, again} {
			if n, err := f.ReadAt(make([]byte, 9), 0); n != 4 || err != nil {
				t.Fatalf("read %d bytes: %v", n, err)
			}
		}
		for _, p := range []string{path, root} {
			if got := atime(t, p); got != 1 {
				t.Errorf("%s: access time of %s is now %d", how, p, got)
			}
		}
	}
}

func atime(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Atim.Sec)
}

// What a file has gained since it was opened is read, too.
func TestReadPastTheEndOfThen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("then"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := layer.OpenHost(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.OpenFile("f", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 100)
	if n, err := f.ReadAt(buf, 0); err != nil || string(buf[:n]) != "then" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	if _, err := f.WriteAt([]byte(" and now"), 4); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(buf, 0); err != nil || string(buf[:n]) != "then and now" {
		t.Errorf("read %q, %v, once it had grown", buf[:n], err)
	}
	if err := f.Truncate(2); err != nil {
		t.Fatal(err)
	}
	if n, err := f.ReadAt(buf, 0); err != nil || string(buf[:n]) != "th" {
		t.Errorf("read %q, %v, once it was cut", buf[:n], err)
	}
}

// Who keeps read-only directories, as the module cache of Go does, can have them
// copied up and marked without being root.
func TestOwnReadOnlyDirectoriesCanBeMovedAndMarked(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere: run as an ordinary user")
	}
	root := t.TempDir()
	for _, name := range []string{"work", "work/d", "work/x", "work/x/y", "upper", "upper/old"} {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", root).Run() })
	top, err := layer.OpenHostShared(root)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	dir := func(name string) layer.Dir {
		t.Helper()
		d, err := top.OpenDir(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	work, upper := dir("work"), dir("upper")
	file, err := work.TmpFile(0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, name := range []string{"work/d", "work/x", "upper/old", "upper"} {
		if err := os.Chmod(filepath.Join(root, name), 0o555); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{
		"mark":     upper.Setxattr("user.mark", []byte("y"), 0),
		"move":     work.Rename("d", upper, "new", 0),
		"exchange": work.Rename("x", upper, "old", unix.RENAME_EXCHANGE),
		"link":     upper.Link(file, "file"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"upper", "upper/new", "upper/old", "work/x"} {
		if st, err := os.Stat(filepath.Join(root, name)); err != nil || st.Mode().Perm() != 0o555 {
			t.Errorf("%s: %v (%v), want mode 0555 again", name, st.Mode(), err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "upper/old/y")); err != nil {
		t.Errorf("exchanged: %v", err)
	}
}
