package fusefs

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// clientScript uses a mount in every way that keeps something open in a server:
// listings, reads, copy-up, files that are open while they are removed, locks,
// attributes, failing requests.
const clientScript = `set -e
find . -ls >/dev/null
cat dir/* >/dev/null
echo more >>dir/file1
exec 3<>dir/file2; rm dir/file2; echo gone >&3; exec 3>&-
mv dir/file3 moved; mkdir new; ln moved new/link; ln -s x new/sym
rm -r dir; mkdir dir; cat absent 2>/dev/null || true
dd if=/dev/zero of=big bs=1M count=4 conv=fsync 2>/dev/null
truncate -s 10 big; rm big`

// A long-lived process that mounts and unmounts, such as a snapshotter, must
// not run out of descriptors or grow.
func TestUnmountLeavesNothing(t *testing.T) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE here: ", err)
	}
	for name, options := range map[string]string{
		"plain": "", "write-through": ",writeback=0", "metacopy": ",volatile,metacopy=on",
		"passthrough": ",passthrough=on", "xattr": ",xattr_permissions=2",
	} {
		t.Run(name, func(t *testing.T) {
			session(t, options) // what is set up once stays
			goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
			for range 3 {
				session(t, options)
			}
			for deadline := time.Now().Add(3 * time.Second); ; time.Sleep(10 * time.Millisecond) {
				runtime.GC()
				now, open := runtime.NumGoroutine(), openDescriptors(t)
				if now <= goroutines && len(open) <= len(descriptors) {
					return
				}
				if time.Now().After(deadline) {
					buf := make([]byte, 64<<10)
					t.Fatalf("%d goroutines, at first %d; open %q, at first %q\n%s", now, goroutines, open, descriptors, buf[:runtime.Stack(buf, true)])
				}
			}
		})
	}
}

// session mounts a union, has a client use it and unmounts it.
func session(t *testing.T, options string) {
	t.Helper()
	base := t.TempDir()
	for _, dir := range []string{"lower/dir", "upper", "work", "mnt"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file1", "file2", "file3", "file4"} {
		if err := os.WriteFile(filepath.Join(base, "lower/dir", name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o, err := mountopt.Parse("lowerdir=" + base + "/lower,upperdir=" + base + "/upper,workdir=" + base + "/work" + options)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := Mount(Config{Options: o, Target: filepath.Join(base, "mnt")})
	if errors.Is(err, unix.EPERM) {
		t.Skip("may not mount here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", clientScript)
	cmd.Dir = filepath.Join(base, "mnt")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("client: %v\n%s", err, out)
	}
	if err := srv.Unmount(false); err != nil {
		t.Errorf("unmount: %v", err)
		_ = srv.Unmount(true)
	}
	if err := srv.Wait(); err != nil {
		t.Errorf("end of the server: %v", err)
	}
}

// openDescriptors names what the process has open, but the listing itself.
func openDescriptors(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range list {
		if name, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, name)
		}
	}
	slices.Sort(open)
	return open
}
