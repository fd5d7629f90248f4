package fusefs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/fs/mountopt"
)

// Container runtimes give a container its ids by an idmapped copy of a mount
// (mount_setattr(2)). Through it the container's root owns what the layers store
// as root's, and what it makes is stored as root's.
func TestIDMappedMount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mapping a mount takes root")
	}
	const shift = 100000
	base := t.TempDir()
	for _, dir := range []string{"lower", "upper", "work", "mnt", "mapped"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, "lower/file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(base, "lower/file"), 5, 6); err != nil {
		t.Fatal(err)
	}
	o, err := mountopt.Parse("lowerdir=" + base + "/lower,upperdir=" + base + "/upper,workdir=" + base + "/work")
	if err != nil {
		t.Fatal(err)
	}
	o.AllowOther = true
	srv, err := Mount(Config{Options: o, Target: filepath.Join(base, "mnt")})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOENT) {
		t.Skip("may not mount here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Unmount(false); err != nil {
			t.Error(err)
			_ = srv.Unmount(true)
		}
		if err := srv.Wait(); err != nil {
			t.Error(err)
		}
	})
	mapMount(t, filepath.Join(base, "mnt"), filepath.Join(base, "mapped"), shift)

	// Files of this process's own mount are looked at by others.
	run := func(uid uint32, script string) string {
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = base
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(base), 0o755); err != nil {
		t.Fatal(err)
	}
	run(0, "chmod 755 mnt")
	if got, want := run(0, "stat -c %u:%g mapped/file mnt/file"), fmt.Sprintf("%d:%d\n5:6\n", shift+5, shift+6); got != want {
		t.Errorf("owners through the mapped mount and the plain one:\n%swant:\n%s", got, want)
	}
	run(shift, "echo x >mapped/made; mkdir mapped/dir; ln -s x mapped/link; chown 0:0 mapped/dir 2>/dev/null || true")
	if got, want := run(0, "stat -c %u:%g upper/made upper/dir upper/link mapped/made"), fmt.Sprintf("0:0\n0:0\n0:0\n%d:%[1]d\n", shift); got != want {
		t.Errorf("what the container's root made is stored and shown as of:\n%swant:\n%s", got, want)
	}
}

// mapMount puts a copy of a mount on target that adds shift to all ids.
func mapMount(t *testing.T, mount, target string, shift int) {
	t.Helper()
	holder := exec.Command("sleep", "60")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: shift, Size: 1000}}
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true}
	if err := holder.Start(); err != nil {
		t.Skip("no user namespaces here: ", err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, mount, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Skip("no copies of mounts here: ", err)
	}
	defer unix.Close(tree)
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns.Fd())}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
	if errors.Is(err, unix.EINVAL) && !kernelMapsFUSE() {
		t.Skip("FUSE mounts can be mapped from Linux 6.12 on")
	}
	if err != nil {
		t.Fatal("map the mount: ", err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, 0); err != nil {
			t.Error(err)
		}
	})
}

func kernelMapsFUSE() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major > 6 || major == 6 && minor >= 12
}
