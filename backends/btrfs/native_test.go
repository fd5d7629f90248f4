package btrfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/laminafs/lamina/backends/driver"
	"github.com/laminafs/lamina/backends/drivertest"
)

// onBtrfs has the temporary directories of a test lie on a btrfs of its own.
func onBtrfs(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a btrfs is for root")
	}
	mkfs, err := exec.LookPath("mkfs.btrfs")
	if err != nil {
		t.Skip("there is no mkfs.btrfs")
	}
	dir := t.TempDir()
	img, mnt := filepath.Join(dir, "img"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, 2<<30), os.Mkdir(mnt, 0o755), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{mkfs, "-q", img}, {"mount", "-t", "btrfs", "-o", "loop", img, mnt}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%q: %v: %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TMPDIR", mnt)
	t.Setenv("GOTMPDIR", "")
	return mnt
}

// The engine is the native one where it can be, so the whole suite passes with it.
func TestConformanceOnBtrfs(t *testing.T) {
	onBtrfs(t)
	drivertest.RunEngine(t, subject, driver.Native)
}

// What is committed cannot be written to by anybody, a layer with a limit is full when
// it is reached, and subvolumes that a container has made go with their layer.
func TestNativeSubvolumes(t *testing.T) {
	root := filepath.Join(onBtrfs(t), "root")
	d, err := Open(driver.Config{Root: root, Options: []string{"btrfs.min_space=1m"}})
	if err != nil {
		t.Fatal(err)
	}
	if c := d.Engine(); c.Engine != driver.Native {
		t.Fatalf("on btrfs the engine is %+v", c)
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	if err := d.Create(ctx, "small", "", driver.CreateOptions{Size: 4096}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("a size below min_space: %v", err)
	}
	ok(d.Create(ctx, "bounded", "", driver.CreateOptions{Size: 8 << 20}))
	at, err := d.Mount(ctx, "bounded", driver.MountOptions{})
	ok(err)
	big := make([]byte, 16<<20)
	rand.NewChaCha8([32]byte{}).Read(big)
	f, err := os.Create(at + "/big")
	ok(err)
	_, err = f.Write(big)
	if err == nil { // the kernel may notice only when it writes out
		err = f.Sync()
	}
	f.Close()
	if !errors.Is(err, unix.EDQUOT) {
		t.Errorf("writing twice the limit: %v, want EDQUOT", err)
	}
	ok(d.Unmount(ctx, "bounded", "", false))
	ok(d.Remove(ctx, "bounded"))

	ok(d.Create(ctx, "base", "", driver.CreateOptions{}))
	at, err = d.Mount(ctx, "base", driver.MountOptions{})
	ok(err)
	if want := filepath.Join(root, "subvolumes/base"); at != want {
		t.Errorf("shown in %s, want in place, %s", at, want)
	}
	ok(createSubvolume(at + "/nested"))
	ok(createSubvolume(at + "/nested/deeper"))
	ok(os.WriteFile(at+"/nested/deeper/f", nil, 0o600))
	ok(d.Commit(ctx, "base"))
	if err := os.WriteFile(at+"/late", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to a committed layer: %v, want EROFS", err)
	}
	ok(d.Remove(ctx, "base"))
	if left, err := os.ReadDir(root + "/subvolumes"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := Open(driver.Config{Root: root, Engine: driver.Userspace}); !errors.Is(err, driver.ErrUnsupported) {
		t.Errorf("subvolumes of the kernel opened by the userspace engine: %v", err)
	}
}

// What bounded a layer goes with it: a host that makes and removes thousands of layers
// does not gather thousands of quota groups.
func TestQuotaGroupsGoWithTheirLayers(t *testing.T) {
	mnt := onBtrfs(t)
	if err := unix.Mount("", mnt, "", unix.MS_REMOUNT, "commit=1"); err != nil { // seconds between its transactions
		t.Fatal(err)
	}
	d, err := Open(driver.Config{Root: filepath.Join(mnt, "root"), Engine: driver.Native})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	groups := func() []string {
		t.Helper()
		info := make([]byte, 1024) // btrfs_ioctl_fs_info_args
		if err := ioctl(mnt, 0x8400941f, info); err != nil {
			t.Fatal(err)
		}
		u := info[16:32]
		list, err := filepath.Glob(fmt.Sprintf("/sys/fs/btrfs/%x-%x-%x-%x-%x/qgroups/0_*", u[:4], u[4:6], u[6:8], u[8:10], u[10:]))
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	for i := range 5 {
		id := fmt.Sprint("l", i)
		if err := d.Create(ctx, id, "", driver.CreateOptions{Size: 8 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(groups()); got < 5 {
		t.Fatalf("five bounded layers have %d quota groups", got)
	}
	for i := range 5 {
		if err := d.Remove(ctx, fmt.Sprint("l", i)); err != nil {
			t.Fatal(err)
		}
	}
	// Of what is not a layer's there is one, the filesystem's own.
	for end := time.Now().Add(time.Minute); len(groups()) > 1; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left behind: %q", groups())
		}
		// The kernel's cleaner works between its transactions.
	}
}

// Who may not have the kernel destroy a subvolume gets rid of it all the same.
func TestAnOrdinaryUserDestroysSubvolumes(t *testing.T) {
	dir := filepath.Join(onBtrfs(t), "d")
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(os.Mkdir(dir, 0o777))
	ok(os.Chmod(dir, 0o777))
	ok(os.Chmod(filepath.Dir(dir), 0o755))
	done := make(chan error)
	go func() {
		// This thread alone becomes another user, and ends with the goroutine.
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			done <- errno
			return
		}
		path := dir + "/s"
		err := createSubvolume(path)
		if err == nil {
			err = createSubvolume(path + "/nested")
		}
		if err == nil {
			err = errors.Join(os.WriteFile(path+"/nested/f", []byte("x"), 0o600), setReadOnly(path, true))
		}
		if err == nil {
			err = destroySubvolume(path)
		}
		done <- err
	}()
	ok(<-done)
	if _, err := os.Lstat(dir + "/s"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
